"""The bytes of a stream that wait to be sent or acknowledged, kept as they were handed over.

aioquic keeps them in one `bytearray`, which is copied whole again and again as it grows at one end and shrinks
at the other. Here large pieces are kept as they came: nothing is copied but what goes into a packet.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, Self

COPIED_MAX: Final = 4096  # bytes; smaller pieces are joined, or objects would outweigh them


class SendBuffer:
    """Bytes that are added at the end, taken away at the beginning and read anywhere; what aioquic's sender needs."""

    def __init__(self) -> None:
        self._pieces: list[memoryview] = []
        self._ends: list[int] = []  # where each piece ends, counted from the first byte ever added
        self._start = 0  # … to the first byte that is still here
        self._stop = 0

    def __len__(self) -> int:
        return self._stop - self._start

    def __iadd__(self, data: bytes | bytearray | memoryview) -> Self:
        view = memoryview(data)
        if (
            not view.readonly or len(view) < COPIED_MAX
        ):  # the caller may change it, or it is hardly more than an object
            joinable = self._pieces and len(self._pieces[-1]) < COPIED_MAX
            before = bytes(self._pieces.pop()) if joinable else b""
            if joinable:
                self._ends.pop()
            view = memoryview(before + bytes(view))
        self._stop += len(data)
        self._pieces.append(view)
        self._ends.append(self._stop)
        return self

    def __delitem__(self, where: slice) -> None:
        """Take away the first bytes: `del buffer[:size]`."""
        assert where.start is None
        self._start += where.stop
        gone = bisect_right(self._ends, self._start)
        del self._pieces[:gone], self._ends[:gone]

    def __getitem__(self, where: slice) -> bytes:
        return bytes(self.view(where.start, where.stop))

    def view(self, start: int, stop: int) -> memoryview:
        """Bytes `start` … `stop`, counted from the first one that is here; copied only where pieces meet."""
        first, last = self._start + start, self._start + stop
        index = bisect_right(self._ends, first)
        parts: list[memoryview] = []
        while first < last:
            end = self._ends[index]
            piece = self._pieces[index]
            offset = first - (end - len(piece))
            parts.append(piece[offset : offset + last - first])
            first, index = end, index + 1
        return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
