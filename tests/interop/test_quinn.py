"""A client with quinn and rustls, made as the known ones are (`quinn_client/`), meets a real tracker."""

from __future__ import annotations

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import HELLO, SEEDED, RunningTracker
from tests.interop.programs import PATIENCE_S, quinn_client

OFFERED = "h3,h2,http/1.1,doq"
IDLE_TIMEOUT_S = 10  # of that client


@dataclass(frozen=True)
class Quinn:
    """The built client, and whom it asks."""

    path: Path
    address: str

    def run(
        self, *words: str, alpns: str = OFFERED, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        command = [str(self.path), self.address, alpns, *words]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=PATIENCE_S)

    def ask(self, request: bytes | dict[str, Any], alpns: str = OFFERED) -> dict[str, Any]:
        """The answer to one request."""
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        done = self.run("ask", alpns=alpns, stdin=body)
        assert done.returncode == 0, done.stderr.decode()
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def download(self, name: str, info_hash: str, length: int) -> bytes:
        """Announce, then fetch a file."""
        done = self.run("download", name, info_hash, str(length))
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


@pytest.fixture(scope="module")
def quinn(tracker: RunningTracker) -> Quinn:
    return Quinn(quinn_client(), f"{tracker.host}:{tracker.quic}")


def announce(info_hash: str, peer_id: str, **more: Any) -> dict[str, Any]:
    return {"info_hash": info_hash, "peer_id": peer_id, "port": 6881, "ip": None, **more}


@pytest.mark.parametrize(
    "name", ["hello_world.txt", "data.json", "medium.bin", "largest.bin", "empty.txt", "Größe €.txt"]
)
def test_it_announces_and_downloads(quinn: Quinn, name: str) -> None:
    expected = {"hello_world.txt": HELLO, **SEEDED}[name]
    assert quinn.download(name, "1f" * 20, len(expected)) == expected


def test_many_download_at_once(quinn: Quinn) -> None:
    data = SEEDED["medium.bin"]
    with ThreadPoolExecutor(8) as threads:
        downloads = [threads.submit(quinn.download, "medium.bin", "2f" * 20, len(data)) for _ in range(24)]
    assert [download.result() == data for download in downloads] == [True] * 24


def test_peers_find_each_other(quinn: Quinn) -> None:
    info_hash = "3F" * 20
    first = quinn.ask(announce(info_hash, "-QC0001-first", left=0, event="started"))
    assert first == {"interval": 60, "peers": [], "complete": 1, "incomplete": 0}
    second = quinn.ask(announce(info_hash.lower(), "-QC0001-second", left=7, event="started"))
    assert second["peers"] == [{"ip": "127.0.0.1", "port": 6881}]
    assert (second["complete"], second["incomplete"]) == (1, 1)
    gone = quinn.ask(announce(info_hash, "-QC0001-first", left=0, event="stopped"))
    assert (gone["complete"], gone["incomplete"]) == (0, 1)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"file": "no such file.txt"}, "FILE_NOT_FOUND"),
        ({"file": "../../etc/passwd"}, "FILE_NOT_FOUND"),
        ({"file": "too_large.bin"}, "FILE_TOO_LARGE"),
        (b"", "INVALID_JSON"),
        (b"{", "INVALID_JSON"),
        (b"GET / HTTP/1.1\r\n\r\n", "INVALID_JSON"),
        (b"\xff\xfe", "INVALID_ENCODING"),
        ({"type": "ping", "timestamp": 1}, "UNKNOWN_REQUEST"),
        ({"info_hash": "1f" * 20, "peer_id": "-QC0001-", "port": "6881"}, "UNKNOWN_REQUEST"),
        (b"x" * 70_000, "INVALID_JSON"),
        (b'{"query":"' + b"x" * 5_000_000 + b'"}', "INVALID_JSON"),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value)[:40],
)
def test_every_error_is_answered_and_the_stream_finished(
    quinn: Quinn, request_: bytes | dict[str, Any], code: str
) -> None:
    """Also one that is far too large: told to stop, quinn's `finish()` would fail before it read the answer."""
    answer = quinn.ask(request_)
    assert answer["code"] == code
    assert answer["error"]


def test_an_answer_may_take_longer_than_its_idle_timeout(quinn: Quinn, tracker: RunningTracker) -> None:
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(quinn.ask, {"query": "/hold", "context": [], "parameters": None})
        assert tracker.ai.held.acquire(timeout=PATIENCE_S)
        time.sleep(IDLE_TIMEOUT_S + 2)  # its clock cannot be set
        assert not asked.done()
        tracker.ai.let_go.set()
        assert asked.result()["answer"] == "/HOLD"


@pytest.mark.parametrize("alpns", ["h3", OFFERED, "doq,http/1.1,h2,h3"])
def test_whoever_offers_h3_among_others_is_served(quinn: Quinn, alpns: str) -> None:
    assert quinn.ask({"capabilities": ["files"]}, alpns) == {"capabilities": ["files"]}


@pytest.mark.parametrize("alpns", ["h2,http/1.1,doq", "H3", "h3-29"])
def test_without_a_language_in_common_the_handshake_ends(quinn: Quinn, alpns: str) -> None:
    done = quinn.run("ask", alpns=alpns, stdin=b'{"capabilities":[]}')
    assert done.returncode == 1
    assert "connect: aborted by peer: the cryptographic handshake failed: error 120" in done.stderr.decode()
