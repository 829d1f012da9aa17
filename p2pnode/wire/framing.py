"""Frames of `p2pnode/1`: a 4-byte big-endian length, then that many bytes of one message.

Some messages are followed by raw bytes (metainfo, block hashes, file data), whose number the message says.
`FrameDecoder` takes bytes cut in any way and gives messages and raw bytes; it never waits and never reads.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from p2pnode import config
from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire import codec
from p2pnode.wire.communication import Message, UnknownMessage

__all__ = ["FrameDecoder", "frame"]

_LENGTH_SIZE: Final = 4


def frame(message: Message) -> bytes:
    """Return the whole frame that says `message`; raises `LocalProtocolError` as `codec.encode` does."""
    body = codec.encode(message)
    return len(body).to_bytes(_LENGTH_SIZE, "big") + body


class _Next(Enum):
    """What the next buffered byte belongs to."""

    LENGTH = "the length of a frame"
    BODY = "the body of a frame"
    RAW = "raw bytes"
    REFUSED = "a malformed frame"


class FrameDecoder:
    """Bytes in, messages and raw bytes out.

    ::

        LENGTH → BODY → LENGTH          next_message
        LENGTH → RAW → LENGTH           expect_raw, until read_raw has given all
        LENGTH, BODY → REFUSED          an error in a frame; it stays

    The bytes fed last are kept as they are, so that raw bytes are handed on without a copy; only what
    arrives while some are still unread is gathered in a second buffer. `feed`, then drain, and nothing is
    copied twice.
    """

    def __init__(self) -> None:
        self._next = _Next.LENGTH
        self._body_size = 0
        self._raw_remaining = 0
        self._head = b""
        self._head_start = 0
        self._tail = bytearray()

    @property
    def raw_remaining(self) -> int:
        """How many raw bytes have not been read yet, whether they are buffered or not."""
        return self._raw_remaining

    @property
    def buffered(self) -> int:
        """How many bytes were fed and neither read nor made into messages."""
        return len(self._head) - self._head_start + len(self._tail)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        if self.buffered:
            self._tail += data
        else:
            self._head = data
            self._head_start = 0

    def next_message(self) -> Message | UnknownMessage | None:
        """Return the next message, or None when it is not all here yet.

        Raises `RemoteProtocolError` for a frame that is too long or malformed, now and at every later call,
        and `LocalProtocolError` when raw bytes are to be read first.
        """
        if self._next is _Next.RAW:
            raise LocalProtocolError("a message was asked for while raw bytes are unread")
        if self._next is _Next.REFUSED:
            raise RemoteProtocolError("nothing can be read after a malformed frame")
        if self._next is _Next.LENGTH and self.buffered >= _LENGTH_SIZE:
            self._take_length()
        if self._next is _Next.LENGTH or self.buffered < self._body_size:
            return None
        self._next = _Next.REFUSED  # unless the body is well-formed
        message = codec.decode(self._take(self._body_size))
        self._next = _Next.LENGTH
        return message

    def expect_raw(self, size: int) -> None:
        """Declare that the next `size` bytes are raw; to be called at the end of the frame that says so."""
        if self._next is not _Next.LENGTH or size < 0:
            raise LocalProtocolError(f"{size} raw bytes cannot come before {self._next.value}")
        self._raw_remaining = size
        if size:
            self._next = _Next.RAW

    def read_raw(self, size_max: int | None = None) -> bytes:
        """Return the raw bytes that are buffered, at most `size_max`; b"" when more must be fed first."""
        size = min(self._raw_remaining, self.buffered)
        if size_max is not None:
            size = min(size, size_max)
        self._raw_remaining -= size
        if self._next is _Next.RAW and not self._raw_remaining:
            self._next = _Next.LENGTH
        return self._take(size)

    def end(self) -> None:
        """Take the end of the stream; to be called when no message is left in the buffer.

        Raises `RemoteProtocolError` unless the stream ends where a frame may begin.
        """
        if self._next is not _Next.LENGTH or self.buffered:
            raise RemoteProtocolError(f"the stream ended within {self._next.value}")

    def _take_length(self) -> None:
        """Take the length of a frame, and refuse one that is too long before anything is kept for it."""
        self._body_size = int.from_bytes(self._take(_LENGTH_SIZE), "big")
        if self._body_size > config.FRAME_SIZE_MAX:
            self._next = _Next.REFUSED
            raise RemoteProtocolError(
                f"a frame of {self._body_size} bytes; at most {config.FRAME_SIZE_MAX} are allowed"
            )
        self._next = _Next.BODY

    def _take(self, size: int) -> bytes:
        """Remove `size` bytes, which are buffered, and return them; a whole head is not copied."""
        end = self._head_start + size
        taken = self._head[self._head_start : end]
        self._head_start = end
        if end >= len(self._head):
            self._head, self._head_start = b"", 0  # an idle stream holds on to nothing
        missing = size - len(taken)
        if missing:
            taken += self._tail[:missing]
            del self._tail[:missing]
        return taken
