"""A stand-in for an AI service: a real HTTP server that speaks enough of OpenAI's chat completions.

It answers a question with the question, in capitals, and counts words as tokens. A question that begins with a
slash asks it to misbehave (`MISBEHAVIOUR`). `with ai_stub() as stub:` runs it in threads of this process;
`python -m tests.interop.ai_stub [PORT]` runs it alone until it is stopped.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATH = "/v1/chat/completions"


def completion(question: dict[str, Any]) -> dict[str, Any]:
    """The answer to a well-formed question."""
    asked = [message["content"] for message in question["messages"]]
    answer = asked[-1].upper()
    used = {"prompt_tokens": len(" ".join(asked).split()), "completion_tokens": len(answer.split())}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": question.get("model", "stub"),
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
        ],
        "usage": used | {"total_tokens": sum(used.values())},
    }


MISBEHAVIOUR: dict[str, tuple[int, bytes]] = {
    "/refuse": (401, b'{"error":{"message":"sk-secret is no key"}}'),
    "/fail": (500, b"out of memory at 10.0.0.1"),
    "/redirect": (307, b""),
    "/garbage": (200, b"<html>"),
    "/nothing": (200, b""),
    "/no_choices": (200, b'{"choices":[]}'),
    "/no_text": (200, b'{"choices":[{"message":{"role":"assistant","content":null}}]}'),
    "/deep": (200, b"[" * 100_000),
    "/no_usage": (200, b'{"choices":[{"message":{"role":"assistant","content":"free"}}],"usage":null}'),
    "/surrogate": (200, rb'{"choices":[{"message":{"role":"assistant","content":"\ud800"}}]}'),
}


class Stub:
    """What was asked of a running stub, and how to hold it up."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.questions: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.held = threading.Semaphore(0)  # released once for each question `/hold` that has come
        self.let_go = threading.Event()  # those are answered when this is set
        self.at_once = self.at_once_max = 0
        self.lock = threading.Lock()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    stub: Stub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        stub = self.server.stub
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path != PATH:
            return self._answer(404, b"")
        question = json.loads(body)
        stub.headers.append({name.lower(): value for name, value in self.headers.items()})
        stub.questions.append(question)
        text = question["messages"][-1]["content"]
        if text == "/hold":
            self._hold(stub)
        if text in ("/hang_up", "/endless"):
            self.close_connection = True
            return self._talk_on() if text == "/endless" else None
        status, answer = MISBEHAVIOUR.get(text, (200, json.dumps(completion(question)).encode()))
        return self._answer(status, answer)

    def _hold(self, stub: Stub) -> None:
        with stub.lock:
            stub.at_once += 1
            stub.at_once_max = max(stub.at_once_max, stub.at_once)
        stub.held.release()
        stub.let_go.wait()
        with stub.lock:
            stub.at_once -= 1

    def _talk_on(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            self.wfile.write(b'{"choices":[{"message":{"content":"')
            while True:
                self.wfile.write(b"blah " * 10_000)
        except OSError:
            pass  # who asked has heard enough

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        if status == 307:
            self.send_header("location", "http://169.254.169.254/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def ai_stub(port: int = 0) -> Iterator[Stub]:
    """Run it on 127.0.0.1 until the block ends."""
    with _Server(("127.0.0.1", port), _Handler) as server:
        server.stub = Stub(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.stub
        finally:
            server.stub.let_go.set()
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    with ai_stub(int(sys.argv[1]) if len(sys.argv) > 1 else 0) as running:
        print(running.url, flush=True)  # noqa: T201
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            sys.exit(130)
