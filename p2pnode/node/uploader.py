"""Sends pieces: reads and hashes ahead in threads, one hop ahead of the network, never bytes that fail their hash.

Back-pressure is QUIC's: `send_all` waits while the other side has not consumed. A requester that neither takes
what is sent nor acknowledges a block for `SEND_STALL_TIMEOUT_S` loses the stream. What all requests together may
hold in memory is bounded, and what one node's may; a request beyond that is answered BUSY.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

from p2pnode import config
from p2pnode.errors import (
    Busy,
    NotFound,
    P2PNodeError,
    RemoteProtocolError,
    SourceChanged,
    StreamReset,
    TimedOut,
)
from p2pnode.node.blocking import RunBlocking
from p2pnode.node.diagnosis import Activity
from p2pnode.node.events import NodeEvent, UploadFinished
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.node.peer_link import CloseCode, PeerLink
from p2pnode.node.rate_limits import Throttle, Throttles
from p2pnode.node.sharing import Shares
from p2pnode.node.transfer import pieces_in
from p2pnode.node.uploads import Uploads, UploadTask
from p2pnode.storage import PieceData
from p2pnode.torrent import Metainfo
from p2pnode.wire.communication import (
    FileChunk,
    FileChunkAck,
    FileRequest,
    FileResponse,
    FileTransferComplete,
    PieceRanges,
)
from p2pnode.wire.framing import frame

SMALL_PART: Final = 128 * config.KIB  # parts up to this size are joined before they are sent

Batch = list[tuple[int, PieceData]]
"""Pieces that were read in one hop to a thread."""


def check_request(request: FileRequest, metainfo: Metainfo) -> None:
    """Raise `RemoteProtocolError` for pieces or blocks that the torrent does not have."""
    if not request.ranges:
        return
    end = request.ranges[-1][0] + request.ranges[-1][1]
    if end > metainfo.piece_count:
        raise RemoteProtocolError(f"the torrent has {metainfo.piece_count} pieces, asked for {end}")
    if request.first_block and request.first_block >= metainfo.piece(request.ranges[0][0]).block_count:
        raise RemoteProtocolError("the first piece has no such block")


def batches(ranges: PieceRanges, piece_length: int) -> Iterator[list[int]]:
    """Group the pieces so that one hop to a thread reads about `UPLOAD_READ_AHEAD` bytes."""
    count = max(1, config.UPLOAD_READ_AHEAD // piece_length)
    batch: list[int] = []
    for piece in pieces_in(ranges):
        batch.append(piece)
        if len(batch) == count:
            yield batch
            batch = []
    if batch:
        yield batch


def memory_of(ranges: PieceRanges, metainfo: Metainfo) -> int:
    """Bytes that a request holds at most, if it asks for so much.

    A batch that is being sent, the next, and a part of the one before, of which a byte is not acknowledged.
    """
    enough = 2 * max(config.UPLOAD_READ_AHEAD, metainfo.piece_length) + config.CHUNK_SIZE
    size = 0
    for piece in pieces_in(ranges):
        size += max(config.BLOCK_SIZE, metainfo.piece(piece).length)  # a tiny one is not for nothing either
        if size >= enough:
            return enough
    return size


Part = tuple[bytes | memoryview, int]
"""What is sent in one go, and how many of the bytes are the file's."""


def chunk_parts(piece: int, data: PieceData, first_block: int) -> Iterator[Part]:
    """What a piece is sent as, from a block on: for each chunk its frame and the piece's hashes, then its bytes."""
    hashes = data.block_hashes
    skipped, start = first_block * config.BLOCK_SIZE, 0
    for part in data.parts:
        end = start + len(part)
        if rest := memoryview(part)[max(0, skipped - start) :]:
            yield frame(FileChunk(piece, end - len(rest), len(rest), len(hashes) // 32)) + hashes, 0
            yield rest, len(rest)
            hashes = b""
        start = end


def batch_parts(batch: Batch, first_block: int) -> Iterator[Part]:
    """The same of several pieces, the first of them from a block on."""
    for piece, data in batch:
        yield from chunk_parts(piece, data, first_block)
        first_block = 0


def joined(parts: Iterable[Part]) -> Iterator[Part]:
    """The same bytes, with small parts joined: to send a part costs more than to copy a small one."""
    small: list[bytes | memoryview] = []
    size = file_size = 0
    for data, of_file in parts:
        if small and size + len(data) > SMALL_PART:
            yield b"".join(small), file_size
            small, size, file_size = [], 0, 0
        if len(data) > SMALL_PART:
            yield data, of_file
        else:
            small.append(data)
            size += len(data)
            file_size += of_file
    if small:
        yield b"".join(small), file_size


class _Sending:
    """What is sent to one requester, who must take it, or acknowledge another block, within a time."""

    def __init__(self, stream: MessageStream) -> None:
        self._stream = stream
        self._handed_over = 0  # file bytes, those of the part under way included
        self._acknowledged = 0  # of them, by his last word
        self._renewed_at = 0  # as many were acknowledged when his time began anew
        self._scope = trio.CancelScope()  # of the last wait

    async def send(self, data: bytes | memoryview) -> None:
        """Send; `TimedOut` when the requester takes less than `CHUNK_SIZE_MAX` of it for too long."""
        for start in range(0, len(data), config.CHUNK_SIZE_MAX):
            with self._patience():
                await self._stream.send_bytes(data[start : start + config.CHUNK_SIZE_MAX])
            if self._scope.cancelled_caught:
                raise TimedOut("the requester reads nothing")

    async def send_part(
        self, part: bytes | memoryview, size: int, throttle: Throttle, task: UploadTask
    ) -> None:
        """Send a part, the `size` file bytes in it no faster than `throttle` allows."""
        self._handed_over += size  # at once: where in a joined part they lie is not known
        start, position = 0, len(part) - size
        while start < len(part):
            end = min(len(part), position + (throttle.step or size))
            if throttle.step is not None:
                with task.doing(Activity.RATE_CAPPED):
                    await throttle.take(end - position)
            with task.doing(Activity.SENDING):
                await self.send(part[start:end])
            start = position = end

    async def wait_for_end(self, ended: trio.Event) -> None:
        """Wait until the requester has ended his side, or does nothing any more."""
        with self._patience():
            await ended.wait()

    def acknowledged(self, bytes_written: int) -> None:
        """The requester has stored so much: it lives, however long its link takes for what we handed over.

        `RemoteProtocolError` when it cannot have stored so much, or has said more before: nobody invents progress.
        """
        if not self._acknowledged <= bytes_written <= self._handed_over:
            raise RemoteProtocolError(
                f"{bytes_written} bytes acknowledged after {self._acknowledged}, of {self._handed_over} sent"
            )
        self._acknowledged = bytes_written
        if bytes_written - self._renewed_at >= config.BLOCK_SIZE:
            self._renewed_at = bytes_written
            self._scope.deadline = trio.current_time() + config.SEND_STALL_TIMEOUT_S

    def _patience(self) -> trio.CancelScope:
        self._scope = trio.move_on_after(config.SEND_STALL_TIMEOUT_S)
        return self._scope


class _Memory:
    """What is set aside for one request, in the books of all."""

    def __init__(self, held_by: Counter[bytes], node_id: bytes, size: int) -> None:
        self._held_by = held_by
        self._node_id = node_id
        self._size = size
        held_by[node_id] += size

    def keep(self, size: int) -> None:
        """Give back all that is beyond `size`."""
        size = min(size, self._size)
        self._held_by[self._node_id] -= self._size - size
        self._size = size
        if not self._held_by[self._node_id]:
            del self._held_by[self._node_id]


class Uploader:
    """Serves `FileRequest`s out of what is shared here."""

    def __init__(
        self,
        shares: Shares,
        run_blocking: RunBlocking,
        publish: Callable[[NodeEvent], None],
        throttles: Throttles,
        uploads: Uploads,
    ) -> None:
        self._shares = shares
        self._run_blocking = run_blocking
        self._publish = publish
        self._throttles = throttles
        self._uploads = uploads
        self._held_by: Counter[bytes] = Counter()  # bytes of memory set aside, by node id
        self.bytes_sent = 0
        self.requests_served = 0

    async def serve(self, stream: MessageStream, link: PeerLink, request: FileRequest) -> None:
        """Answer one request: the response, the metainfo if asked for, the chunks, the end."""
        shared = self._shares.readable(request.file_id)
        if shared is None:
            raise NotFound("not shared here")
        check_request(request, shared.metainfo)
        if not shared.has(request.ranges):
            raise NotFound("not all of these pieces are here")
        started = trio.current_time()
        throttle = self._throttles.upload(link.node_id)
        with self._memory_for(link.node_id, request, shared.metainfo) as memory:
            metainfo = shared.metainfo.encode() if request.metainfo else b""
            response = FileResponse(request.file_id, True, shared.metainfo.size, len(metainfo))
            sending = _Sending(stream)
            await sending.send(frame(response))
            await sending.send(metainfo)
            if not request.ranges:
                return
            try:
                with self._uploads.request(link, shared) as task:
                    sent = await self._transfer(stream, sending, request, throttle, task, memory)
            except (
                RemoteProtocolError
            ) as error:  # there is no room for an `Error` between chunks, or after the end
                stream.reset(CloseCode.PROTOCOL_ERROR)
                raise StreamReset(f"reset here: {error}", code=CloseCode.PROTOCOL_ERROR) from None
            except SourceChanged:
                self._shares.withdraw(shared, "it changed")
                raise
        self.requests_served += 1
        seconds = trio.current_time() - started
        self._publish(
            UploadFinished(
                file_id=shared.file_id,
                name=shared.name,
                node_id=link.node_id,
                bytes_sent=sent,
                seconds=seconds,
                limit_waited_s=throttle.waited_s,
            )
        )

    @contextmanager
    def _memory_for(self, node_id: bytes, request: FileRequest, metainfo: Metainfo) -> Iterator[_Memory]:
        """Set aside what a request may hold. `Busy` where there is no room."""
        size = memory_of(request.ranges, metainfo)
        if size and not self._has_room(node_id, size):
            raise Busy("too many transfers at once", retry_after_s=1.0)
        memory = _Memory(self._held_by, node_id, size)
        try:
            yield memory
        finally:
            memory.keep(0)

    def _has_room(self, node_id: bytes, size: int) -> bool:
        """Whoever has nothing yet may use what is kept back from those who do."""
        held = self._held_by.total() + size
        if not self._held_by[node_id]:
            return held <= 2 * config.UPLOAD_MEMORY_MAX
        its = self._held_by[node_id] + size
        return held <= config.UPLOAD_MEMORY_MAX and its <= config.UPLOAD_MEMORY_PER_NODE_MAX

    async def _transfer(
        self,
        stream: MessageStream,
        sending: _Sending,
        request: FileRequest,
        throttle: Throttle,
        task: UploadTask,
        memory: _Memory,
    ) -> int:
        """Send the chunks and the end, and wait until the requester has ended his side; return the bytes sent.

        The memory is given back as soon as no piece is held, for his next request may come together with his end.
        """
        async with open_flat_nursery() as nursery:
            acknowledged = trio.Event()

            async def read_acks() -> None:
                await self._read_acks(stream, sending)
                acknowledged.set()

            nursery.start_soon(read_acks)
            sent = await self._send_pieces(sending, request, throttle, task)
            memory.keep(config.CHUNK_SIZE)  # the last part, until he has acknowledged all of it
            with task.doing(Activity.FINISHING):
                await sending.send(frame(FileTransferComplete(sent)))
                await stream.send_eof()
                await sending.wait_for_end(acknowledged)
            nursery.cancel_scope.cancel()
        return sent

    async def _read_acks(self, stream: MessageStream, sending: _Sending) -> None:
        """Take in the requester's progress until he finishes the stream."""
        while (message := await stream.receive()) is not None:
            if not isinstance(message, FileChunkAck):
                raise RemoteProtocolError(f"{type(message).__name__} in the middle of a transfer")
            sending.acknowledged(message.bytes_written)

    async def _send_pieces(
        self, sending: _Sending, request: FileRequest, throttle: Throttle, task: UploadTask
    ) -> int:
        """Send all that was asked for; return how many file bytes."""
        shared = task.shared
        sent = 0
        first_block = request.first_block
        send_batch, receive_batch = trio.open_memory_channel[Batch | P2PNodeError](0)

        async def read_ahead() -> None:
            async with send_batch:
                try:
                    for pieces in batches(request.ranges, shared.metainfo.piece_length):
                        await send_batch.send(await self._run_blocking(shared.read_pieces, pieces))
                except P2PNodeError as error:  # its turn comes after all that was read before, between chunks
                    await send_batch.send(error)

        async with open_flat_nursery() as nursery, receive_batch:
            nursery.start_soon(read_ahead)
            async for batch in receive_batch:
                if isinstance(batch, P2PNodeError):
                    raise batch
                for part, size in joined(batch_parts(batch, first_block)):
                    await sending.send_part(part, size, throttle, task)
                    sent += size
                    self.bytes_sent += size
                    task.count(size)
                first_block = 0
        return sent
