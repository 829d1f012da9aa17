"""The small requests, asked of anyone over anything: a link's stream or a server's Unix socket."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

import trio

from p2pnode import config
from p2pnode.errors import Refused, TimedOut
from p2pnode.node.message_stream import Expected, MessageStream, error_from
from p2pnode.wire.communication import (
    Error,
    FileItem,
    FileList,
    FindSources,
    Message,
    NodeItem,
    PeerList,
    PeerReport,
    PushOrder,
    PushReport,
    Sources,
    UnknownMessage,
)

OpenStream = Callable[[], Awaitable[MessageStream]]


async def ask(open_stream: OpenStream, request: Message, expected: type[Expected]) -> Expected:
    """One request, one answer. Raises `TimedOut`, `Refused`, `NotFound`, `RemoteProtocolError`, `ConnectionClosed`."""
    with trio.move_on_after(config.REQUEST_TIMEOUT_S):
        stream = await open_stream()
        try:
            await stream.send(request)
            await stream.send_eof()
            return await stream.receive_as(expected)
        finally:
            await stream.aclose()
    raise TimedOut(f"no answer within {config.REQUEST_TIMEOUT_S:g} s")


async def ask_files(open_stream: OpenStream, prefix: str = "", peer: str = "") -> list[FileItem]:
    """Everything whose name begins with `prefix`, page by page, sorted by name; with `peer`, only what it offers."""
    files: list[FileItem] = []
    after = b""
    while True:
        page = await ask(open_stream, FileList(prefix, after, peer=peer), FileList)
        files.extend(page.files)
        if not page.next or not page.files:
            return files
        if len(files) > config.ITEMS_LISTED_MAX:
            raise Refused(f"more than {config.ITEMS_LISTED_MAX} files: give a longer prefix")
        after = page.next


async def ask_sources(
    open_stream: OpenStream, *, file_id: bytes | None, pieces_root: bytes | None = None
) -> list[NodeItem]:
    """Who has this torrent, or a file with this pieces root."""
    answer = await ask(open_stream, FindSources(file_id, pieces_root), Sources)
    return list(answer.sources)


async def ask_peers(open_stream: OpenStream) -> list[PeerReport]:
    """Whom a server knows. Operators only: `Refused` otherwise."""
    stream = await open_stream()
    try:
        await stream.send(PeerList())
        await stream.send_eof()
        peers: list[PeerReport] = []
        while (message := await _receive_in_time(stream)) is not None:
            if isinstance(message, Error):
                raise error_from(message)
            if isinstance(message, PeerList):
                peers.extend(message.peers)
            if len(peers) > config.ITEMS_LISTED_MAX:
                raise Refused(f"more than {config.ITEMS_LISTED_MAX} peers")
        return peers
    finally:
        await stream.aclose()


async def _receive_in_time(stream: MessageStream) -> Message | UnknownMessage | None:
    with trio.move_on_after(config.REQUEST_TIMEOUT_S):
        return await stream.receive()
    raise TimedOut(f"no answer within {config.REQUEST_TIMEOUT_S:g} s")


async def order_push(
    open_stream: OpenStream, reference: str, target: str
) -> AsyncGenerator[PushReport, None]:
    """Tell a server to push; yields what each peer does, until all have ended. Operators only."""
    stream = await open_stream()
    try:
        await stream.send(PushOrder(reference, target))
        await stream.send_eof()
        while (message := await stream.receive()) is not None:
            if isinstance(message, Error):
                raise error_from(message)
            if isinstance(message, PushReport):
                yield message
    finally:
        await stream.aclose()
