"""Messages and raw bytes over any byte stream: a QUIC stream, or a Unix socket.

One reader and one writer task at a time. Malformed bytes are the remote's fault: `RemoteProtocolError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, Protocol, TypeVar

import trio

from p2pnode import config
from p2pnode.errors import (
    Busy,
    ConnectionClosed,
    NotFound,
    P2PNodeError,
    Refused,
    RemoteProtocolError,
    TimedOut,
)
from p2pnode.quic import Stream
from p2pnode.wire.communication import Error, ErrorCode, Message, UnknownMessage
from p2pnode.wire.framing import FrameDecoder, frame

Expected = TypeVar("Expected")


def text_of(error: P2PNodeError) -> str:
    """What is said of an error on the wire: its line, cut to what a message takes."""
    return str(error)[: config.ERROR_TEXT_LENGTH_MAX]


def error_from(message: Error) -> P2PNodeError:
    """The exception that an `Error` of the other side means here."""
    text = message.text or message.code
    if message.code == ErrorCode.BUSY or message.retryable:
        return Busy(text, retry_after_s=message.retry_after_s)
    if message.code in (ErrorCode.NOT_FOUND, ErrorCode.SOURCE_CHANGED):
        return NotFound(text)
    return Refused(text)


class ByteStream(Protocol):
    """What both `quic.Stream` and `trio.SocketStream` are."""

    async def send_all(self, data: bytes | memoryview) -> None: ...  # noqa: D102

    async def send_eof(self) -> None: ...  # noqa: D102

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray: ...  # noqa: D102

    async def aclose(self) -> None: ...  # noqa: D102


class MessageStream:
    """Frames of `p2pnode/1` over a byte stream, with the raw bytes that follow some of them."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.read_size_max: int | None = None  # bytes taken from below at once; None: whatever is there
        self._decoder = FrameDecoder()

    async def send(self, message: Message, raw: bytes = b"") -> None:
        """Send one frame and the raw bytes that belong to it."""
        await self.send_bytes(frame(message) + raw)

    async def send_bytes(self, data: bytes | memoryview) -> None:
        """Send bytes that already are frames and raw runs."""
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError:  # a Unix socket's word for it
            raise ConnectionClosed("the other side closed the socket", by_remote=True) from None

    async def send_eof(self) -> None:
        """Say that nothing more comes from us."""
        await self.stream.send_eof()

    async def receive(self) -> Message | UnknownMessage | None:
        """Return the next message, or None at the end of the stream."""
        while (message := self._decoder.next_message()) is None:
            data = await self._receive_some()
            if not data:
                self._decoder.end()
                return None
            self._decoder.feed(data)
        return message

    async def _receive_some(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(self.read_size_max))
        except trio.BrokenResourceError:
            raise ConnectionClosed("the other side closed the socket", by_remote=True) from None

    async def receive_as(self, expected: type[Expected]) -> Expected:
        """Return the next message, which must be of this type; an `Error` is raised as what it means."""
        return _required(await self.receive(), expected)

    def received_as(self, expected: type[Expected]) -> Expected | None:
        """Return the same if it is here already; None when more bytes are needed."""
        message = self._decoder.next_message()
        return None if message is None else _required(message, expected)

    async def receive_raw(self, size: int) -> bytes:
        """Return exactly `size` raw bytes.

        A source must give at least `STALL_BYTES_MIN` in each `STALL_TIMEOUT_S`, or `TimedOut` is raised: a
        trickle is as bad as silence. Time that we ourselves spend elsewhere is not counted against it.
        """
        self.expect_raw(size)
        parts: list[bytes] = []
        while self._decoder.raw_remaining:
            parts.append(await self.receive_raw_some())
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def expect_raw(self, size: int) -> None:
        """Say that the next `size` bytes are raw, to be taken with `receive_raw_some`."""
        self._decoder.expect_raw(size)

    async def receive_raw_some(self, size_max: int | None = None) -> bytes:
        """Return raw bytes as they come, at least one and at most `size_max`; `TimedOut` as `receive_raw`."""
        while not (part := self._decoder.read_raw(size_max)):
            await self._fill()
        return part

    async def _fill(self) -> None:
        """Feed the decoder some bytes, at no less than the slowest rate that counts as alive."""
        wanted = min(config.STALL_BYTES_MIN, self._decoder.raw_remaining)
        got = 0
        with trio.move_on_after(config.STALL_TIMEOUT_S):
            while got < wanted:
                data = await self._receive_some()
                if not data:
                    self._decoder.end()
                got += len(data)
                self._decoder.feed(data)
            return
        raise TimedOut(f"the source sent {got} bytes in {config.STALL_TIMEOUT_S:g} s")

    async def wait_sent(self, unsent_max: int) -> None:
        """Wait until all that was handed over, but for so many bytes, was sent at least once."""
        if isinstance(self.stream, Stream):  # a Unix socket has sent what it took
            await self.stream.wait_sent(unsent_max)

    async def wait_refused(self) -> NoReturn:
        """Wait until the other side takes no more, and raise that."""
        if isinstance(self.stream, Stream):
            await self.stream.wait_refused()
        await trio.sleep_forever()

    @property
    def buffered(self) -> int:
        """Bytes that came from below and were not taken yet."""
        return self._decoder.buffered

    def stop_receiving(self) -> None:
        """Let the other side send no more; ours stays open."""
        if isinstance(self.stream, Stream):  # a Unix socket knows no such thing
            self.stream.stop_receiving()

    def on_unwanted(self, count: Callable[[int], None]) -> None:
        """Let `count` know of bytes that still come when nobody takes them any more."""
        if isinstance(self.stream, Stream):
            self.stream.on_unwanted = count

    def reset(self, code: int) -> None:
        """Give up both directions and say why; what was not delivered yet is not held for the other side."""
        if isinstance(self.stream, Stream):  # a Unix socket knows no such thing
            self.stream.reset(code)

    async def aclose(self) -> None:
        """Close both directions at once; what is unfinished is reset."""
        await self.stream.aclose()


def _required(message: Message | UnknownMessage | None, expected: type[Expected]) -> Expected:
    if isinstance(message, expected):
        return message
    if isinstance(message, Error):
        raise error_from(message)
    got = "the end of the stream" if message is None else type(message).__name__
    raise RemoteProtocolError(f"expected {expected.__name__}, got {got}")
