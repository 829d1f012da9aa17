"""HTTP/0.9 over QUIC: a file for a line with GET, and a reset for anything else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import StreamReset
from p2pnode.quic import Connection
from p2pnode.services.http09 import LANGUAGE, REFUSED, Http09
from p2pnode.services.request_log import RequestLog
from p2pnode.services.seed_files import HELLO_CONTENT, SeedFiles
from p2pnode.testing.network import Network
from p2pnode.testing.nodes import inline_blocking
from tests.quic.endpoints import receive_all
from tests.services.conftest import ask, dialed, served

pytestmark = pytest.mark.usefixtures("both_ways")

LARGE = bytes(range(256)) * 10_000


class Share:
    """A client of a share, and what was noted of its requests."""

    def __init__(self, connection: Connection, log: RequestLog) -> None:
        self.connection = connection
        self._log = log

    @property
    def outcomes(self) -> dict[str, int]:
        assert {(key.language, key.kind) for key in self._log.tallies} <= {(LANGUAGE, "file")}
        return {key.outcome: tally.count for key, tally in self._log.tallies.items()}

    async def ask(self, line: bytes) -> bytes:
        with trio.fail_after(120):
            return await ask(self.connection, line)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    share = tmp_path / "share"
    share.mkdir()
    (share / "large.bin").write_bytes(LARGE)
    (share / "with space").write_bytes(b"spaced")
    (share / "empty").write_bytes(b"")
    (tmp_path / "secret").write_bytes(b"not shared")
    return share


@asynccontextmanager
async def share_of(directory: Path) -> AsyncIterator[Share]:
    seed_files = SeedFiles(directory, "http://10.0.0.2/announce", run_blocking=inline_blocking())
    await seed_files.prepare()
    log = RequestLog()
    async with (
        Network() as network,
        served(network, [Http09(seed_files, log)]),
        dialed(network, "hq-interop") as connection,
    ):
        yield Share(connection, log)


@pytest.mark.parametrize(
    ("line", "content"),
    [
        (b"GET /hello_world.txt\r\n", HELLO_CONTENT),
        (b"GET /hello_world.txt\n", HELLO_CONTENT),
        (b"GET /hello_world.txt", HELLO_CONTENT),
        (b"GET /\r\n", HELLO_CONTENT),
        (b"GET /with%20space\r\n", b"spaced"),
        (b"GET /large.bin?x=1\r\n", LARGE),
        (b"GET /empty\r\n", b""),
    ],
)
async def test_a_get_is_answered_with_the_file(
    autojump_clock: MockClock, directory: Path, line: bytes, content: bytes
) -> None:
    async with share_of(directory) as share:
        assert await share.ask(line) == content
        assert share.outcomes == {"ok": 1}


async def test_the_end_of_the_line_is_enough(autojump_clock: MockClock, directory: Path) -> None:
    async with share_of(directory) as share:
        stream = await share.connection.open_stream()
        for part in (b"GET ", b"/hello_world.txt", b"\r\n"):
            await stream.send_all(part)
            await trio.sleep(1)
        assert await receive_all(stream) == HELLO_CONTENT


@pytest.mark.parametrize("name", [b"nothing", b"../secret", b"..%2fsecret", b"%00", b".hidden"])
async def test_C2_what_is_not_there_resets_the_stream(
    autojump_clock: MockClock, directory: Path, name: bytes
) -> None:
    async with share_of(directory) as share:
        with pytest.raises(StreamReset) as reset:
            await share.ask(b"GET /" + name + b"\r\n")
        assert reset.value.code == REFUSED
        assert share.outcomes == {"not found": 1}
        assert await share.ask(b"GET /\r\n") == HELLO_CONTENT


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\r\n",
        b"POST /hello_world.txt\r\n",
        b"GET hello_world.txt\r\n",
        b"get /hello_world.txt\r\n",
        b"\x00\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00127.0.0.1",  # another program's language
        b"GET /" + b"x" * config.URL_LENGTH_MAX,
        bytes(100_000),
    ],
)
async def test_what_is_no_get_ends_its_stream_and_is_logged_as_that(
    autojump_clock: MockClock, directory: Path, line: bytes
) -> None:
    async with share_of(directory) as share:
        with pytest.raises(StreamReset):
            await share.ask(line)
        assert share.outcomes == {"not a GET": 1}
        assert await share.ask(b"GET /\r\n") == HELLO_CONTENT


async def test_Q11_a_line_that_does_not_end_loses_its_stream(
    autojump_clock: MockClock, directory: Path
) -> None:
    async with share_of(directory) as share:
        stream = await share.connection.open_stream()
        await stream.send_all(b"GET /hello")
        with trio.fail_after(config.REQUEST_HEADER_TIMEOUT_S + 1), pytest.raises(StreamReset):
            await receive_all(stream)
        assert share.outcomes == {"broken off": 1}


async def test_many_requests_take_turns(autojump_clock: MockClock, directory: Path) -> None:
    async with share_of(directory) as share:
        got: list[bytes] = []

        async def fetch() -> None:
            got.append(await share.ask(b"GET /large.bin\r\n"))

        async with trio.open_nursery() as nursery:
            for _ in range(3 * config.HTTP09_FILES_AT_ONCE):
                nursery.start_soon(fetch)
        assert got == [LARGE] * 3 * config.HTTP09_FILES_AT_ONCE


async def test_a_connection_without_use_is_ended(autojump_clock: MockClock, directory: Path) -> None:
    async with share_of(directory) as share:
        await trio.sleep(config.DOOR_IDLE_TIMEOUT_S / 2)
        assert await share.ask(b"GET /\r\n") == HELLO_CONTENT
        await trio.sleep(config.DOOR_IDLE_TIMEOUT_S - 1)
        assert share.connection.is_open
        with trio.fail_after(config.DOOR_IDLE_TIMEOUT_S):
            closed = await share.connection.wait_closed()
    assert closed.reason == "nothing was asked for a while"
