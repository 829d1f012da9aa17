"""A QUIC stream as trio knows streams: two independent sides, back-pressure both ways.

Sending waits while too much is held that the remote has not acknowledged; receiving gives the remote credit
for exactly what was taken. A side ends with FIN, or is given up: by us (`reset`), or by the remote, which
raises `StreamReset` here.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn

import trio

from p2pnode import config
from p2pnode.errors import StreamReset
from p2pnode.quic.aioquic_internals import HardenedConnection

if TYPE_CHECKING:
    from p2pnode.quic.connection import Connection

RECEIVE_SIZE_MAX: Final = 256 * config.KIB  # what one receive_some puts together when it is not told
CHUNK_SIZE_LARGE: Final = 64 * config.KIB  # received bytes that are handed on as they came, without a copy
CHUNK_SIZE_MIN: Final = 512  # received bytes that are kept as an object of their own
SEND_STEP: Final = 64 * config.KIB  # a sender that waits is not woken for less room than this


def send_room(buffered: int, stream_max: int, connection_room: int) -> int:
    """Bytes that a stream may hand over, which holds so many of so many, in a connection with room for so many.

    A few it always may: what others hold for a remote that does not read them must not silence this one.
    """
    room = max(connection_room, config.SEND_BUFFER_MIN - buffered)
    return max(0, min(room, stream_max - buffered))


class _Side(enum.Enum):
    """The life of one side: OPEN, then one of the others for good; or ABSENT from the beginning."""

    OPEN = "open"
    ABSENT = "absent"  # a unidirectional stream has one side
    FINISHED = "finished"  # FIN: sent by us, or received with all before it
    GIVEN_UP = "given up"  # by us: RESET_STREAM or STOP_SENDING
    REFUSED = "refused"  # by the remote: STOP_SENDING or RESET_STREAM


class Stream(trio.abc.HalfCloseableStream):
    """One stream; a unidirectional one only `sends` or only `receives`, its other side is as if closed here.

    One task may send and one may receive at a time (`trio.BusyResourceError`). Every method raises `StreamReset`
    when the remote gave up that side, `ConnectionClosed` when the connection ended, `trio.ClosedResourceError`
    after a local end. Bytes that arrived before the connection ended can still be received.
    """

    def __init__(
        self,
        connection: Connection,
        engine: HardenedConnection,
        stream_id: int,
        *,
        sends: bool = True,
        receives: bool = True,
    ) -> None:
        self.connection = connection
        self.stream_id = stream_id
        self._engine = engine
        self._sending = _Side.OPEN if sends else _Side.ABSENT
        self._receiving = _Side.OPEN if receives else _Side.ABSENT
        self._refusal_code = 0
        self._chunks: deque[bytes | bytearray | memoryview] = deque()
        self._unread = 0
        self._read_offset = 0
        self._send_wanted = 0  # bytes of room that the waiting sender needs
        self._unsent_max: int | None = None  # or it waits until no more than these were never sent
        self._room = trio.lowlevel.ParkingLot()
        self._refused = trio.lowlevel.ParkingLot()
        self._readable = trio.lowlevel.ParkingLot()
        self._one_sender = _OneTask("another task is sending on this stream")
        self._one_receiver = _OneTask("another task is receiving from this stream")
        self.on_unwanted: Callable[[int], None] | None = None  # told of bytes that nobody takes any more

    def __repr__(self) -> str:
        return f"<Stream {self.stream_id} of {self.connection!r}>"

    # -- sending -------------------------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Hand over all of `data`; waits while the buffers are full. Cancelled, an unknown part was sent."""
        with self._one_sender:
            await trio.lowlevel.checkpoint()
            unsent = memoryview(data)
            self._check_sending()
            while unsent:
                room = await self._wait_for_room(len(unsent))
                self._write(unsent[:room])
                unsent = unsent[room:]

    def send_nowait(self, data: bytes, *, end: bool = False) -> None:
        """Hand over all of `data`, and with `end` FIN, whatever room there is: the caller bounds how much that is."""
        with self._one_sender:
            self._check_sending()
            self._write(data, end=end)
            if end:
                self._sending = _Side.FINISHED

    @property
    def unacknowledged(self) -> int:
        """Bytes that were handed over and that the remote has not acknowledged."""
        return self._engine.send_buffered(self.stream_id)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room for something."""
        with self._one_sender:
            await trio.lowlevel.checkpoint()
            self._check_sending()
            await self._wait_for_room(SEND_STEP)

    async def wait_sent(self, unsent_max: int = 0) -> None:
        """Wait until all that was handed over, but for `unsent_max` bytes, has been sent at least once."""
        with self._one_sender:
            await trio.lowlevel.checkpoint()
            self._check_taken()
            while self._engine.never_sent(self.stream_id) > unsent_max:
                self._unsent_max = unsent_max
                self.connection.waiting_senders.add(self)
                try:
                    await self._room.park()
                finally:
                    self._unsent_max = None
                    self.connection.waiting_senders.discard(self)
                self._check_taken()

    async def wait_refused(self) -> NoReturn:
        """Wait until the remote takes no more, which is raised as `send_all` would."""
        while True:
            self._check_taken()
            await self._refused.park()

    async def send_eof(self) -> None:
        """FIN: nothing more comes from here. What was handed over is still delivered."""
        with self._one_sender:
            await trio.lowlevel.checkpoint()
            if self._sending is _Side.FINISHED:
                return
            self._check_sending()
            self._finish_sending()

    async def _wait_for_room(self, wanted: int) -> int:
        self._send_wanted = min(wanted, SEND_STEP)
        while (room := self.connection.send_room(self.stream_id)) < self._send_wanted:
            self.connection.waiting_senders.add(self)
            try:
                await self._room.park()
            finally:
                self.connection.waiting_senders.discard(self)
            self._check_sending()
        return room

    def _write(self, data: memoryview | bytes, *, end: bool = False) -> None:
        try:
            self._engine.send_stream_data(self.stream_id, data, end_stream=end)  # type: ignore[arg-type]
        except (RuntimeError, ValueError) as error:  # finished or reset, and we were not told
            raise StreamReset(f"stream {self.stream_id} takes no more: {error}") from error
        self.connection.wake_for_data()

    def _finish_sending(self) -> None:
        self._write(b"", end=True)
        self._sending = _Side.FINISHED

    def _check_taken(self) -> None:
        """Like `_check_sending`, but after FIN as well."""
        if self._sending is _Side.FINISHED:
            self.connection.check_open()
        else:
            self._check_sending()

    def _check_sending(self) -> None:
        if self._sending is _Side.REFUSED:
            raise StreamReset(
                "the other side stopped reading the stream", code=self._refusal_code, by_remote=True
            )
        if self._sending is not _Side.OPEN:
            raise trio.ClosedResourceError("the sending side was closed here")
        self.connection.check_open()

    # -- receiving -----------------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes; what is there, at most `max_bytes`. Empty means that the remote sent FIN."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._one_receiver:
            if self._chunks or self._receiving is not _Side.OPEN:
                await trio.lowlevel.checkpoint()
            while not self._chunks:
                if self._receiving is _Side.FINISHED:
                    return b""
                self._check_receiving()
                await self._readable.park()
            first = self._chunks[0]
            if type(first) is bytes and CHUNK_SIZE_LARGE <= len(first) <= (max_bytes or len(first)):
                data = first
                self._chunks.popleft()
                self._unread -= len(data)
            else:
                data = self._take(max_bytes or RECEIVE_SIZE_MAX)
            self._return_credit(len(data))
            return data

    @property
    def is_whole(self) -> bool:
        """Whether all that the remote sends is here, unread or read: FIN came."""
        return self._receiving is _Side.FINISHED

    @property
    def unread(self) -> int:
        """Bytes that came and that nobody took yet."""
        return self._unread

    async def wait_whole(self, size_max: int) -> bool:
        """Wait until all that the remote sends is here, unread; False as soon as that is more than `size_max` bytes."""
        with self._one_receiver:
            await trio.lowlevel.checkpoint()
            while self._unread <= size_max:
                if self._receiving is _Side.FINISHED:
                    return True
                self._check_receiving()
                await self._readable.park()
            return False

    def receive_nowait(self, max_bytes: int) -> bytes:
        """What is there, at most `max_bytes`, without waiting for more."""
        with self._one_receiver:
            data = self._take(max_bytes)
            self._return_credit(len(data))
            return data

    def peek(self, size: int) -> bytes:
        """The first unread bytes, which stay so: at most `size`."""
        return bytes(self._chunks[0][:size]) if self._chunks else b""

    def _take(self, size_max: int) -> bytes:
        if self._unread <= size_max:
            data = b"".join(self._chunks)
            self._chunks.clear()
        else:
            parts: list[bytes | bytearray | memoryview] = []
            missing = size_max
            while missing:
                chunk = self._chunks.popleft()
                if len(chunk) > missing:
                    view = memoryview(chunk)
                    self._chunks.appendleft(view[missing:])
                    chunk = view[:missing]
                parts.append(chunk)
                missing -= len(chunk)
            data = b"".join(parts)
        self._unread -= len(data)
        return data

    def _return_credit(self, size: int) -> None:
        self._read_offset += size
        if self._engine.consumed(self.stream_id, size, self._read_offset):
            self.connection.wake()

    def _discard_unread(self) -> None:
        size, self._unread = self._unread, 0
        self._chunks.clear()
        self._discard(size)

    def _discard(self, size: int) -> None:
        self._return_credit(size)
        if size and self.on_unwanted is not None:
            self.on_unwanted(size)

    def _check_receiving(self) -> None:
        if self._receiving is _Side.REFUSED:
            raise StreamReset("the other side reset the stream", code=self._refusal_code, by_remote=True)
        if self._receiving is not _Side.OPEN:
            raise trio.ClosedResourceError("the receiving side was closed here")
        self.connection.check_open()

    # -- ends ----------------------------------------------------------------------------------------------

    def reset(self, code: int = 0) -> None:
        """Give up what is not finished: RESET_STREAM for our side, STOP_SENDING for theirs (RFC 9000 §3)."""
        if self._sending in (_Side.OPEN, _Side.FINISHED):
            self._sending = _Side.GIVEN_UP
            if self.connection.is_open:
                self._engine.reset_stream(self.stream_id, code)
        self._stop_receiving(code)
        self.connection.wake()
        self._wake_senders()

    def _wake_senders(self) -> None:
        self._room.unpark_all()
        self._refused.unpark_all()

    def stop_receiving(self, code: int = 0) -> None:
        """Give up their side alone: STOP_SENDING, unless they have ended it; what was not taken is dropped.

        No task may be receiving.
        """
        self._stop_receiving(code)
        self.connection.wake()

    def _stop_receiving(self, code: int) -> None:
        if self._receiving is _Side.ABSENT:
            return
        self._discard_unread()
        if self._receiving is _Side.OPEN:
            self._receiving = _Side.GIVEN_UP
            if self.connection.is_open:
                self._engine.stop_stream(self.stream_id, code)
        elif self._receiving is _Side.FINISHED:
            self._receiving = _Side.GIVEN_UP
        self._readable.unpark_all()

    async def aclose(self) -> None:
        """End both sides: FIN for ours unless it has ended, STOP_SENDING for theirs unless FIN came.

        What was handed over is still delivered. To show the remote that something went wrong, use `reset`.
        """
        if self._sending is _Side.OPEN and self.connection.is_open:
            self._finish_sending()
        if self._sending in (_Side.OPEN, _Side.FINISHED):
            self._sending = _Side.FINISHED
        self._stop_receiving(0)
        self.connection.wake()
        self._wake_senders()
        await trio.lowlevel.checkpoint()

    # -- what the connection's driver tells ----------------------------------------------------------------

    def on_data(self, data: bytes, end: bool) -> None:
        """Bytes came in order; with `end`, the last ones."""
        if self._receiving is not _Side.OPEN:
            self._discard(len(data))
            return
        if data:
            self._hold(data)
        if end:
            self._receiving = _Side.FINISHED
        if self._readable:
            self._readable.unpark_all()

    def _hold(self, data: bytes) -> None:
        """Keep bytes until they are asked for: small ones joined, or objects would outweigh them by far."""
        self._unread += len(data)
        if len(data) >= CHUNK_SIZE_MIN:
            self._chunks.append(data)
            return
        last = self._chunks[-1] if self._chunks else None
        if isinstance(last, bytearray) and len(last) < RECEIVE_SIZE_MAX:
            last += data
        else:
            self._chunks.append(bytearray(data))

    def on_reset(self, code: int) -> bool:
        """The remote gave up sending: what is unread is worth nothing. False when we had asked for it."""
        self._discard_unread()
        if self._receiving is not _Side.OPEN:
            return False
        self._receiving = _Side.REFUSED
        self._refusal_code = code
        self._readable.unpark_all()
        return True

    def on_stop_sending(self, code: int) -> bool:
        """The remote does not want what we send. False when we had given up ourselves."""
        if self._sending not in (_Side.OPEN, _Side.FINISHED):
            return False
        self._sending = _Side.REFUSED
        self._refusal_code = code
        self._wake_senders()
        return True

    def on_room(self, stream_max: int, connection_room: int) -> None:
        """Something was sent or acknowledged; see `send_room`."""
        if self._unsent_max is not None:
            if self._engine.never_sent(self.stream_id) <= self._unsent_max:
                self._room.unpark_all()
            return
        buffered = self._engine.send_buffered(self.stream_id)
        if send_room(buffered, stream_max, connection_room) >= self._send_wanted:
            self._room.unpark_all()

    def on_connection_closed(self) -> None:
        """The connection ended: whoever waits shall see it."""
        self._wake_senders()
        self._readable.unpark_all()


class _OneTask:
    """Lets one task at a time through a block of code; a second gets `trio.BusyResourceError`."""

    def __init__(self, message: str) -> None:
        self._message = message
        self._is_busy = False

    def __enter__(self) -> None:
        if self._is_busy:
            raise trio.BusyResourceError(self._message)
        self._is_busy = True

    def __exit__(self, *_: object) -> None:
        self._is_busy = False
