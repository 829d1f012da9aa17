"""One request for pieces: it waits for its turns, is read a batch ahead of the network, and sent.

Back-pressure is QUIC's: `send_all` waits while the other side has not consumed. A requester that neither takes what
is sent nor acknowledges a block for `SEND_STALL_TIMEOUT_S` loses the stream; one that stops it frees all at once.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from p2pnode import config
from p2pnode.errors import P2PNodeError, RemoteProtocolError, TimedOut
from p2pnode.node.blocking import RunBlocking
from p2pnode.node.diagnosis import Activity
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.node.rate_limits import Throttle
from p2pnode.node.sharing import Shared
from p2pnode.node.upload_memory import Reservation
from p2pnode.node.upload_parts import Batch, batch_parts, batches, joined
from p2pnode.node.upload_turns import Place
from p2pnode.node.uploads import UploadTask
from p2pnode.wire.communication import FileChunkAck, FileRequest, FileResponse, FileTransferComplete
from p2pnode.wire.framing import frame


class Sending:
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

    async def wait_sent(self, size: int) -> None:
        """Wait until a batch of so many bytes has left, all but what keeps the connection busy meanwhile."""
        with self._patience():
            unsent = min(config.UPLOAD_UNSENT_MAX, max(config.UPLOAD_UNSENT_MIN, size // 4))
            await self._stream.wait_sent(unsent)
        if self._scope.cancelled_caught:
            raise TimedOut("the requester reads nothing")

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


class UploadRequest:
    """The answer to one `FileRequest`, whose pieces are here."""

    def __init__(
        self,
        request: FileRequest,
        shared: Shared,
        stream: MessageStream,
        throttle: Throttle,
        run_blocking: RunBlocking,
        count: Callable[[int], None],
    ) -> None:
        self._request = request
        self._shared = shared
        self._stream = stream
        self._sending = Sending(stream)
        self._throttle = throttle
        self._run_blocking = run_blocking
        self._count = count  # is told of file bytes as they are handed over
        self._ended = trio.Event()  # the requester's side
        self._sent = 0

    async def respond(self) -> None:
        """Send the response, and the metainfo if it was asked for."""
        metainfo = self._shared.metainfo.encode() if self._request.metainfo else b""
        response = FileResponse(self._request.file_id, True, self._shared.metainfo.size, len(metainfo))
        await self._sending.send(frame(response) + metainfo)

    async def watch(self) -> None:
        """Take in the requester's progress until he finishes the stream; then raise it if he gives up."""
        while (message := await self._stream.receive()) is not None:
            if not isinstance(message, FileChunkAck):
                raise RemoteProtocolError(f"{type(message).__name__} in the middle of a transfer")
            self._sending.acknowledged(message.bytes_written)
        self._ended.set()
        await self._stream.wait_refused()

    async def send(self, place: Place, task: UploadTask, reservation: Reservation) -> int:
        """Send pieces and the end, and wait until the requester has ended his side; return the file bytes.

        It has its first turn. The memory is given back as soon as no piece is held, for his next request may come
        together with his end.
        """
        await self._send_pieces(place, task)
        reservation.keep(config.CHUNK_SIZE)  # the last part, until he has acknowledged all of it
        with task.doing(Activity.FINISHING):
            await self._sending.wait_for_end(self._ended)
        return self._sent

    async def _send_pieces(self, place: Place, task: UploadTask) -> None:
        remaining = batches(self._request.ranges, self._shared.metainfo.piece_length)
        batch = await self._read(next(remaining))
        with task.doing(Activity.FINISHING):
            await place.wait_in_line()
        for pieces in remaining:
            following = await self._send_and_read(batch, pieces, place, task)
            if isinstance(following, P2PNodeError):
                raise following  # between two chunks, after all that was read before
            batch = following
        await self._hand_over(batch, task)
        with task.doing(Activity.FINISHING):
            await self._sending.send(frame(FileTransferComplete(self._sent)))
            await self._stream.send_eof()
            place.handed_over()
            await self._sending.wait_sent(place.size)
        place.end_turn()

    async def _send_and_read(
        self, batch: Batch, pieces: list[int], place: Place, task: UploadTask
    ) -> Batch | P2PNodeError:
        """Send a batch while the next is read, and wait for a turn for that: return it, or why it cannot be."""
        following: list[Batch | P2PNodeError] = []

        async def read() -> None:
            try:
                following.append(await self._read(pieces))
            except P2PNodeError as error:
                following.append(error)

        async with open_flat_nursery() as nursery:
            nursery.start_soon(read)
            await self._hand_over(batch, task)
            if place.is_awaited:
                with task.doing(Activity.FINISHING):
                    await self._sending.wait_sent(place.size)
            place.end_turn()
        with task.doing(Activity.FINISHING):
            await place.begin_turn(sum(self._shared.metainfo.piece(piece).length for piece in pieces))
        return following[0]

    async def _read(self, pieces: list[int]) -> Batch:
        return await self._run_blocking(self._shared.read_pieces, pieces)

    async def _hand_over(self, batch: Batch, task: UploadTask) -> None:
        """Hand a batch to QUIC, the very first piece from the block on that was asked for."""
        first_block = 0 if self._sent else self._request.first_block
        for part, size in joined(batch_parts(batch, first_block)):
            await self._sending.send_part(part, size, self._throttle, task)
            self._sent += size
            self._count(size)
            task.count(size)
