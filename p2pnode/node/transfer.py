"""One `FileRequest` from the requester's side: verify each block, write it, say how far we are.

Before a piece's first chunk come its block hashes; they must fold to the piece's root in the metainfo, and each
block must fit its hash before it is written. A lie is `HashMismatch`, and blames the one source that told it.

While it runs it may be shortened, or cancelled: the source is asked to stop at once (STOP_SENDING), and what is on
its way by then was sent for nothing. Every such byte is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import trio

from p2pnode import config
from p2pnode.errors import InvalidData, NotFound, P2PNodeError, RemoteProtocolError, TimedOut
from p2pnode.node.blocking import RunBlocking
from p2pnode.node.diagnosis import Activity, RequestTask
from p2pnode.node.message_stream import Expected, MessageStream
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.node.rate_limits import Throttle
from p2pnode.node.requests import OpenStream
from p2pnode.node.storing import Run, RunQueue, Stored, Storing
from p2pnode.storage import FileStore
from p2pnode.torrent import Bitfield, Metainfo, Piece
from p2pnode.wire.communication import (
    FileChunk,
    FileChunkAck,
    FileRequest,
    FileResponse,
    FileTransferComplete,
    PieceRanges,
)

OnStored = Callable[[list[Stored]], None]
"""Told of all that one hop stored."""

OnWasted = Callable[[int], None]
"""Told of bytes that came for nothing, also of those that come when the transfer is over."""


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
    if (message := stream.received_as(expected)) is not None:
        return message  # of small files many come together: a timer for each would cost more than to read it
    with trio.move_on_after(config.STALL_TIMEOUT_S):
        return await stream.receive_as(expected)
    raise TimedOut(f"the source sent nothing for {config.STALL_TIMEOUT_S:g} s")


class Transfer:
    """The state of one request on one stream: one task reads it, one stores what came and acknowledges it."""

    def __init__(
        self,
        stream: MessageStream,
        storing: Storing,
        on_stored: OnStored,
        on_wasted: OnWasted,
        throttle: Throttle,
        task: RequestTask,
    ) -> None:
        self._stream = stream
        self._stream.read_size_max = throttle.step  # what we have not taken, the source cannot send anew
        self._stream.on_unwanted(on_wasted)
        self._throttle = throttle
        self._storing = storing
        self._metainfo = storing.store.metainfo
        self._on_stored = on_stored
        self._on_wasted = on_wasted
        self._runs = RunQueue()
        self._part_of_block = b""  # received after the blocks that were put into the queue last
        self._task = task
        self._wanted = Bitfield.full(self._metainfo.piece_count)
        self._piece: int | None = None  # that is being received
        self._receiving = trio.CancelScope()
        self._is_stopped = False  # before the source has sent all
        self._bytes_received = 0
        self._bytes_written = 0
        self._bytes_new = 0  # of those written
        self._bytes_acknowledged = 0
        self._acknowledged_at = trio.current_time()

    async def fetch(self, request: FileRequest) -> None:
        """Send the request and store everything that it asks for, or what is still wanted of that.

        Raises `PieceMismatch`, `NotFound`, `Refused`, `Busy`, `TimedOut`, `RemoteProtocolError`,
        `ConnectionClosed`, and what the store raises. What came before that is stored first.
        """
        try:
            await self._fetch(request)
        finally:
            if wasted := self._bytes_received + self._stream.buffered - self._bytes_new:
                self._on_wasted(wasted)

    def shorten(self, wanted: Bitfield) -> None:
        """Only these of its pieces are wanted from now on, its first ones: stop the source behind them."""
        self._wanted = wanted
        if self._piece is not None and self._piece not in wanted:
            self._receiving.cancel()

    async def _fetch(self, request: FileRequest) -> None:
        await self._stream.send(request)
        response = await receive_in_time(self._stream, FileResponse)
        if not response.available:
            raise NotFound(response.reason or "the source no longer has it")
        stored_all = trio.Event()
        async with open_flat_nursery() as nursery:
            nursery.start_soon(self._store_runs, stored_all)
            try:
                bytes_sent = await self._receive_pieces(request)
            except trio.Cancelled:
                self._stream.stop_receiving()  # at once: a thread may be storing for long
                raise
            with self._task.doing(Activity.STORING):
                await stored_all.wait()
        if bytes_sent is None:
            return
        if bytes_sent != self._bytes_written:
            raise RemoteProtocolError(f"the source says {bytes_sent} bytes, {self._bytes_written} arrived")
        await self._stream.send(FileChunkAck(self._bytes_written))
        await self._stream.send_eof()

    # -- reading -------------------------------------------------------------------------------------------

    async def _receive_pieces(self, request: FileRequest) -> int | None:
        """Put all chunks into the queue, or what ended them; return how many bytes the source says it sent.

        None: it was stopped before, since nothing more of it is wanted.
        """
        bytes_sent = None
        try:
            with self._receiving:
                bytes_sent = await self._receive_wanted(request)
            if bytes_sent is None:
                self._is_stopped = True
                self._stream.stop_receiving()
        except P2PNodeError as error:  # its turn comes after all that was received before
            await self._runs.end(error)
        else:
            await self._runs.end()
        return bytes_sent

    async def _receive_wanted(self, request: FileRequest) -> int | None:
        offset = request.first_block * config.BLOCK_SIZE
        for piece in pieces_in(request.ranges):
            if piece not in self._wanted:
                return None
            self._piece = piece
            await self._receive_piece(self._metainfo.piece(piece), offset)
            offset = 0
        self._piece = None
        return (await receive_in_time(self._stream, FileTransferComplete)).bytes_sent

    async def _receive_piece(self, piece: Piece, offset: int) -> None:
        """Take in a piece from `offset` on, in chunks of any number of blocks."""
        first_chunk = True
        while offset < piece.length:
            chunk = await receive_in_time(self._stream, FileChunk)
            _check_chunk(chunk, piece, offset, first_chunk)
            hashes = await self._stream.receive_raw(32 * chunk.hashes)
            self._stream.expect_raw(chunk.length)
            end = offset + chunk.length
            while offset < end:
                data, error = await self._receive_blocks(end - offset)
                if data:
                    run = Run(piece.index, offset, data, hashes)
                    with self._task.doing(Activity.STORING):  # while the queue is full: the next bytes wait
                        await self._runs.put(run)
                if error is not None:
                    raise error
                offset += len(data)
                hashes = b""
            first_chunk = False

    async def _receive_blocks(self, missing: int) -> tuple[bytes, P2PNodeError | None]:
        """The next blocks of a chunk that lacks `missing` bytes, and the error after them, if there was one.

        They are `RUN_SIZE`, or what came within a while, or before the error: perhaps none.
        What comes slowly is stored by and by, so that a cut costs little.
        """
        size = min(missing, config.RUN_SIZE)
        parts, got = [self._part_of_block], len(self._part_of_block)
        began_at = trio.current_time()
        error: P2PNodeError | None = None
        while got < size:
            try:
                part = await self._stream.receive_raw_some(self._part_size_max(size - got))
            except P2PNodeError as fault:
                error = fault
                break
            self._bytes_received += len(part)
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
        return data[:end], error

    def _part_size_max(self, missing: int) -> int:
        step = self._throttle.step
        return missing if step is None else min(missing, step)

    # -- storing -------------------------------------------------------------------------------------------

    async def _store_runs(self, stored_all: trio.Event) -> None:
        while runs := await self._runs.take():
            stored, error = await self._storing.write(runs)
            self._bytes_written += sum(run.size for run in stored)
            self._bytes_new += sum(run.new for run in stored)
            self._on_stored(stored)
            if error is not None:
                raise error
            if not self._is_stopped:
                await self._acknowledge()
        stored_all.set()

    async def _acknowledge(self) -> None:
        now = trio.current_time()
        due = self._bytes_written - self._bytes_acknowledged >= config.ACK_BYTES
        if due or now - self._acknowledged_at >= config.ACK_INTERVAL_S:
            await self._stream.send(FileChunkAck(self._bytes_written))
            self._bytes_acknowledged = self._bytes_written
            self._acknowledged_at = now


def _check_chunk(chunk: FileChunk, piece: Piece, offset: int, first: bool) -> None:
    """Raise `RemoteProtocolError` unless the chunk is whole blocks that continue the piece at `offset`."""
    if (chunk.piece, chunk.offset) != (piece.index, offset):
        raise RemoteProtocolError(
            f"expected piece {piece.index} at {offset}, got piece {chunk.piece} at {chunk.offset}"
        )
    end = offset + chunk.length
    if end > piece.length or (end < piece.length and chunk.length % config.BLOCK_SIZE):
        raise RemoteProtocolError(f"a chunk of {chunk.length} bytes is no run of whole blocks")
    if chunk.hashes != (piece.block_count if first else 0):
        raise RemoteProtocolError(f"{chunk.hashes} block hashes where {piece.block_count} or none belong")


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
    count = store.metainfo.piece_count
    wanted = Bitfield.from_ranges(ranges, count) - store.have()
    skipped = {piece: stored for piece in store.begun() & wanted if (stored := store.blocks_stored(piece))}
    starts = sorted({0, *skipped})
    for start, end in zip(starts, [*starts[1:], count], strict=True):
        part = wanted & Bitfield(count).adding(start, end - start)
        if part.bits:
            yield FileRequest(store.metainfo.file_id, part.ranges(), first_block=skipped.get(start, 0))
