"""A web server on loopback that says, byte for byte, what a test wants, and remembers what it was asked."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

Answer = Callable[[bytes], bytes]  # the head of a request → everything that is sent


def ok(body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers, b"", body])


def redirect(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


@dataclass
class WebServer:
    answer: Answer
    port: int = 0
    requests: list[bytes] = field(default_factory=list)

    @property
    def targets(self) -> list[str]:
        return [request.split(b" ")[1].decode("ascii") for request in self.requests]

    def header(self, name: str) -> str:
        """Of the last request."""
        lines = self.requests[-1].decode("ascii").split("\r\n")[1:]
        return next(line.partition(": ")[2] for line in lines if line.lower().startswith(f"{name.lower()}:"))

    async def serve(self, tls: ssl.SSLContext | None, stream: trio.abc.Stream) -> None:
        if tls is not None:
            stream = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        async with stream:
            try:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    part = await stream.receive_some()
                    if not part:
                        return
                    head += part
                self.requests.append(head)
                await stream.send_all(self.answer(head))
            except trio.BrokenResourceError:
                pass  # the client wants no more of it, or trusts no such certificate


@asynccontextmanager
async def web_server(
    answer: Answer | bytes, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[WebServer]:
    server = WebServer((lambda _head: answer) if isinstance(answer, bytes) else answer)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=host)
        server.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(partial(trio.serve_listeners, partial(server.serve, tls), listeners))
        yield server
        nursery.cancel_scope.cancel()
