"""One `FileRequest` from the requester's side: verify each block, write it, say how far we are.

Before a piece's first chunk come its block hashes; they must fold to the piece's root in the metainfo, and each
block must fit its hash before it is written. A lie is `HashMismatch`, and blames the one source that told it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import trio

from p2pnode import config
from p2pnode.errors import HashMismatch, InvalidData, NotFound, RemoteProtocolError, TimedOut
from p2pnode.node.blocking import RunBlocking
from p2pnode.node.diagnosis import Activity, RequestTask
from p2pnode.node.message_stream import Expected, MessageStream
from p2pnode.node.rate_limits import Throttle
from p2pnode.node.requests import OpenStream
from p2pnode.storage import FileStore
from p2pnode.torrent import Bitfield, Metainfo
from p2pnode.wire.communication import (
    FileChunk,
    FileChunkAck,
    FileRequest,
    FileResponse,
    FileTransferComplete,
    PieceRanges,
)

Stored = Callable[[int, int, bool], Awaitable[None]]  # (piece, bytes stored, is the piece complete now)


class PieceMismatch(HashMismatch):
    """A source sent a wrong piece; `piece` says which."""

    def __init__(self, piece: int, text: str) -> None:
        super().__init__(text)
        self.piece = piece


def pieces_in(ranges: PieceRanges) -> Iterator[int]:
    """The pieces of ranges, in the order in which they are asked for."""
    for first, count in ranges:
        yield from range(first, first + count)


async def open_in_time(open_stream: OpenStream) -> MessageStream:
    """A stream for a request, or `TimedOut` when the source lets us open none for too long."""
    with trio.move_on_after(config.STALL_TIMEOUT_S):
        return await open_stream()
    raise TimedOut(f"the source allowed no request for {config.STALL_TIMEOUT_S:g} s")


async def receive_in_time(stream: MessageStream, expected: type[Expected]) -> Expected:
    """The next message, or `TimedOut` when the source says nothing for too long."""
    with trio.move_on_after(config.STALL_TIMEOUT_S):
        return await stream.receive_as(expected)
    raise TimedOut(f"the source sent nothing for {config.STALL_TIMEOUT_S:g} s")


class Transfer:
    """The state of one request on one stream."""

    def __init__(
        self,
        stream: MessageStream,
        store: FileStore,
        run_blocking: RunBlocking,
        stored: Stored,
        throttle: Throttle,
        task: RequestTask,
    ) -> None:
        self._stream = stream
        self._stream.read_size_max = throttle.step  # what we have not taken, the source cannot send anew
        self._throttle = throttle
        self._store = store
        self._run_blocking = run_blocking
        self._stored = stored
        self._part_of_block = b""  # received after the blocks that were stored last
        self._task = task
        self._bytes_written = 0
        self._bytes_acknowledged = 0
        self._acknowledged_at = trio.current_time()

    async def fetch(self, request: FileRequest) -> None:
        """Send the request and store everything that it asks for.

        Raises `PieceMismatch`, `NotFound`, `Refused`, `Busy`, `TimedOut`, `RemoteProtocolError`,
        `ConnectionClosed`, and what the store raises.
        """
        await self._stream.send(request)
        response = await receive_in_time(self._stream, FileResponse)
        if not response.available:
            raise NotFound(response.reason or "the source no longer has it")
        offset = request.first_block * config.BLOCK_SIZE
        for piece in pieces_in(request.ranges):
            length = self._store.metainfo.piece(piece).length
            first_chunk = True
            while offset < length:
                offset = await self._take_chunk(piece, offset, length, first_chunk)
                first_chunk = False
            offset = 0
        complete = await receive_in_time(self._stream, FileTransferComplete)
        if complete.bytes_sent != self._bytes_written:
            raise RemoteProtocolError(
                f"the source says {complete.bytes_sent} bytes, {self._bytes_written} arrived"
            )
        await self._stream.send(FileChunkAck(self._bytes_written))
        await self._stream.send_eof()

    async def _take_chunk(self, piece: int, offset: int, piece_length: int, first: bool) -> int:
        """Take in one chunk that must continue at `offset`; return where the next one must begin.

        What comes slowly is stored by and by, so that a cut costs little.
        """
        chunk = await receive_in_time(self._stream, FileChunk)
        self._check_chunk(chunk, piece, offset, piece_length, first)
        hashes = await self._stream.receive_raw(32 * chunk.hashes)
        self._stream.expect_raw(chunk.length)
        end = offset + chunk.length
        while offset < end:
            data = await self._receive_blocks(end - offset)
            with self._task.doing(Activity.STORING):
                complete = await self._run_blocking(_store, self._store, piece, offset, hashes, data)
                hashes = b""
                offset += len(data)
                self._bytes_written += len(data)
                await self._stored(piece, len(data), complete)
            await self._acknowledge()
        return end

    async def _receive_blocks(self, size: int) -> bytes:
        """The next blocks of a chunk that lacks `size` bytes: all, or those that came within a while."""
        parts, got = [self._part_of_block], len(self._part_of_block)
        began_at = trio.current_time()
        while got < size:
            part = await self._stream.receive_raw_some(self._throttle.step)
            if self._throttle.step is not None:
                with self._task.doing(Activity.RATE_CAPPED):
                    await self._throttle.take(len(part))
            parts.append(part)
            got += len(part)
            is_late = trio.current_time() - began_at >= config.STORE_INTERVAL_S
            if is_late and got >= config.BLOCK_SIZE:
                break
        data = b"".join(parts)
        end = size if got == size else got - got % config.BLOCK_SIZE
        self._part_of_block = data[end:]
        return data[:end]

    def _check_chunk(self, chunk: FileChunk, piece: int, offset: int, piece_length: int, first: bool) -> None:
        if (chunk.piece, chunk.offset) != (piece, offset):
            raise RemoteProtocolError(
                f"expected piece {piece} at {offset}, got piece {chunk.piece} at {chunk.offset}"
            )
        end = offset + chunk.length
        if end > piece_length or (end < piece_length and chunk.length % config.BLOCK_SIZE):
            raise RemoteProtocolError(f"a chunk of {chunk.length} bytes is no run of whole blocks")
        block_count = self._store.metainfo.piece(piece).block_count
        if chunk.hashes != (block_count if first else 0):
            raise RemoteProtocolError(f"{chunk.hashes} block hashes where {block_count} or none belong")

    async def _acknowledge(self) -> None:
        now = trio.current_time()
        due = self._bytes_written - self._bytes_acknowledged >= config.ACK_BYTES
        if due or now - self._acknowledged_at >= config.ACK_INTERVAL_S:
            await self._stream.send(FileChunkAck(self._bytes_written))
            self._bytes_acknowledged = self._bytes_written
            self._acknowledged_at = now


def _store(store: FileStore, piece: int, offset: int, hashes: bytes, data: bytes) -> bool:
    """In a thread: verify, write and journal a chunk; tell whether the piece is complete now."""
    if hashes and not store.begin_piece(piece, hashes):
        raise PieceMismatch(piece, f"the block hashes of piece {piece} do not fold to its root")
    try:
        return store.write_blocks(piece, offset // config.BLOCK_SIZE, data)
    except HashMismatch as error:
        raise PieceMismatch(piece, str(error)) from None


async def fetch_metainfo(stream: MessageStream, file_id: bytes, run_blocking: RunBlocking) -> Metainfo:
    """Ask one source for the metainfo of a file id, and check that it is that one's.

    It is read in a thread: that of 100,000 files takes seconds, and links die of less.
    """
    await stream.send(FileRequest(file_id, metainfo=True))
    await stream.send_eof()
    response = await receive_in_time(stream, FileResponse)
    if not response.available or not response.metainfo_length:
        raise NotFound(response.reason or "the source no longer has it")
    raw = await stream.receive_raw(response.metainfo_length)
    metainfo = await run_blocking(Metainfo.decode_canonical, raw)
    if metainfo.file_id != file_id:
        raise InvalidData("the source sent the metainfo of another file")
    return metainfo


def requests_for(store: FileStore, ranges: PieceRanges) -> Iterator[FileRequest]:
    """Turn piece ranges into requests, so that nothing that is stored is asked for again.

    A partly written piece leads a request of its own, since only a request's first piece may skip blocks.
    """
    nothing = Bitfield(store.metainfo.piece_count)
    wanted, skipped = nothing, 0
    for piece in Bitfield.from_ranges(ranges, store.metainfo.piece_count) - store.have():
        stored = store.blocks_stored(piece)
        if stored and wanted.bits:
            yield FileRequest(store.metainfo.file_id, wanted.ranges(), first_block=skipped)
            wanted = nothing
        if not wanted.bits:
            skipped = stored
        wanted = wanted.adding(piece)
    if wanted.bits:
        yield FileRequest(store.metainfo.file_id, wanted.ranges(), first_block=skipped)
