"""HTTP/0.9 over QUIC (`hq-interop`): a line with `GET` on a stream, the bytes of the file, and FIN.

There are neither headers nor statuses: what cannot be given resets its stream. Others carry another language under
this ALPN; whatever is not a GET is logged as that, and ends its stream as well.
"""

from __future__ import annotations

import logging
import time
from typing import Final
from urllib.parse import unquote

import trio

from p2pnode import config
from p2pnode.errors import StorageError, StreamReset
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.quic import Connection, Stream
from p2pnode.services.request_log import RequestLog
from p2pnode.services.seed_files import OpenedFile, SeedFiles
from p2pnode.services.sending import send_all

LANGUAGE: Final = "http/0.9"
REFUSED: Final = 1  # the code of a stream that is reset; the language has none of its own

log = logging.getLogger(__name__)


class Http09:
    """A `ConnectionService` that gives the files of a share."""

    alpns: Final = ("hq-interop",)
    unidirectional_streams_max: Final = 0

    def __init__(self, seed_files: SeedFiles, request_log: RequestLog) -> None:
        self._seed_files = seed_files
        self._request_log = request_log

    async def serve(self, connection: Connection) -> None:
        """Answer all requests of a connection, until it ends."""
        turns = trio.Semaphore(config.HTTP09_FILES_AT_ONCE)
        async with open_flat_nursery() as nursery:
            while True:
                with trio.move_on_after(config.DOOR_IDLE_TIMEOUT_S) as patience:
                    nursery.start_soon(self._answer, await connection.accept_stream(), turns)
                if patience.cancelled_caught and not nursery.child_tasks:
                    connection.close(
                        reason="nothing was asked for a while"
                    )  # our own PINGs would keep it for ever

    async def _answer(self, stream: Stream, turns: trio.Semaphore) -> None:
        began = time.perf_counter()
        outcome = "broken off"
        try:
            name = await _requested_name(stream)
            if name is None:
                outcome = "not a GET"
                stream.reset(REFUSED)
            else:
                async with turns:
                    outcome = await self._give(name, stream)
        except (StreamReset, StorageError) as error:
            log.debug("stream %d: %s", stream.stream_id, error)
            stream.reset(REFUSED)
        finally:
            took_s = time.perf_counter() - began
            address = stream.connection.remote_address
            self._request_log.note(LANGUAGE, "file", address, took_s, outcome)

    async def _give(self, name: str, stream: Stream) -> str:
        """Send a file; the outcome in a word."""
        opened = await self._seed_files.open(name)
        if opened is None:
            stream.reset(REFUSED)
            return "not found"
        with opened:
            await _send_file(opened, stream)
        await stream.send_eof()
        return "ok"


async def _requested_name(stream: Stream) -> str | None:
    """The name in `GET /name`, which FIN or the end of a line ends; None when the bytes are no such thing."""
    line = b""
    with trio.move_on_after(config.REQUEST_HEADER_TIMEOUT_S):
        while b"\n" not in line and len(line) <= config.URL_LENGTH_MAX:
            data = await stream.receive_some(config.URL_LENGTH_MAX)
            if not data:
                break
            line += data
        method, _, target = line.partition(b"\n")[0].rstrip(b"\r").partition(b" ")
        if method != b"GET" or not target.startswith(b"/") or len(line) > config.URL_LENGTH_MAX:
            return None
        return unquote(target.partition(b"?")[0].decode("utf-8", "replace"))
    raise StreamReset("the request was not finished in time")


async def _send_file(opened: OpenedFile, stream: Stream) -> None:
    for offset in range(0, opened.size, config.HTTP09_STEP):
        data = await opened.read(offset, min(config.HTTP09_STEP, opened.size - offset))
        await send_all(stream, data)
