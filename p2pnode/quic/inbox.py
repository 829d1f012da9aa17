"""What a connection has received and not taken in yet: bursts in their order, bounded in bytes.

The reader of the socket puts bursts in, whole where it can; the connection's driver takes so many datagrams
that the others get their turn as well. Nothing here is done for each datagram unless something must be cut.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from p2pnode import config
from p2pnode.quic.configuration import CONNECTION_ID_LENGTH
from p2pnode.quic.datagrams import Address

OVERHEAD: Final = 64  # bytes of memory that a received datagram takes besides its own

_HEAD: Final = slice(1, 1 + CONNECTION_ID_LENGTH)  # a short header's connection id


class Received(NamedTuple):
    """A burst, and the bytes of its datagrams together."""

    datagrams: list[bytes]
    address: Address
    size: int


class Inbox:
    """Bursts that wait. True while there are any; `size` is the memory they take, in bytes."""

    def __init__(self) -> None:
        self.size = 0
        self._bursts: deque[Received] = deque()

    def __bool__(self) -> bool:
        return bool(self._bursts)

    def __len__(self) -> int:
        """How many datagrams wait."""
        return sum(len(burst.datagrams) for burst in self._bursts)

    def put(self, datagrams: list[bytes], address: Address) -> int:
        """Keep a burst, which is the inbox's from now on. How many are dropped: those at its end that find no
        room, and those that are larger than any of ours, which hold frames for half a second of work."""
        received = len(datagrams)
        if max(map(len, datagrams)) > config.DATAGRAM_SIZE_MAX:
            datagrams = [data for data in datagrams if len(data) <= config.DATAGRAM_SIZE_MAX]
        size = sum(map(len, datagrams))
        dropped = received - len(datagrams)
        while self.size + size + OVERHEAD * len(datagrams) > config.INBOX_SIZE_MAX:
            size -= len(datagrams.pop())
            dropped += 1
        if datagrams:
            self._bursts.append(Received(datagrams, address, size))
            self.size += size + OVERHEAD * len(datagrams)
        return dropped

    def take(self) -> list[Received]:
        """The oldest, at most `TAKE_IN_MAX` datagrams; bursts that follow each other on one path are one."""
        taken: list[Received] = []
        room = config.TAKE_IN_MAX
        while self._bursts and room:
            burst = self._bursts.popleft()
            if len(burst.datagrams) > room:
                burst, rest = _split(burst, room)
                self._bursts.appendleft(rest)
            room -= len(burst.datagrams)
            self.size -= burst.size + OVERHEAD * len(burst.datagrams)
            if taken and _is_one_path(taken[-1], burst):
                before = taken.pop()
                before.datagrams.extend(burst.datagrams)
                burst = Received(before.datagrams, before.address, before.size + burst.size)
            taken.append(burst)
        return taken


def _split(burst: Received, count: int) -> tuple[Received, Received]:
    first, rest = burst.datagrams[:count], burst.datagrams[count:]
    size = sum(map(len, first))
    return Received(first, burst.address, size), Received(rest, burst.address, burst.size - size)


def _is_one_path(one: Received, other: Received) -> bool:
    return one.address == other.address and one.datagrams[0][_HEAD] == other.datagrams[0][_HEAD]
