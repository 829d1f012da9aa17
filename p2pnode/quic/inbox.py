"""What a connection has received and not taken in yet: bursts in their order, bounded in bytes.

The reader of the socket puts bursts in, whole where it can; the connection's driver takes so many datagrams
that the others get their turn as well. Nothing here is done for each datagram unless something must be cut.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from p2pnode import config
from p2pnode.quic.configuration import CONNECTION_ID_LENGTH
from p2pnode.quic.datagrams import Address, Burst

OVERHEAD: Final = 64  # bytes of memory that a received datagram takes besides its own

_HEAD: Final = slice(1, 1 + CONNECTION_ID_LENGTH)  # a short header's connection id


class Inbox:
    """Bursts that wait. True while there are any; `size` is the memory they take, in bytes."""

    def __init__(self) -> None:
        self.size = 0
        self._bursts: deque[Burst] = deque()

    def __bool__(self) -> bool:
        return bool(self._bursts)

    def __len__(self) -> int:
        """How many datagrams wait."""
        return sum(len(datagrams) for datagrams, _ in self._bursts)

    def put(self, datagrams: list[bytes], address: Address) -> int:
        """Keep a burst, which is the inbox's from now on. How many at its end found no room and are dropped."""
        size = _memory(datagrams)
        dropped = 0
        while self.size + size > config.INBOX_SIZE_MAX:
            size -= OVERHEAD + len(datagrams.pop())
            dropped += 1
        if datagrams:
            self._bursts.append((datagrams, address))
            self.size += size
        return dropped

    def take(self) -> list[Burst]:
        """The oldest, at most `TAKE_IN_MAX` datagrams; bursts that follow each other on one path are one."""
        taken: list[Burst] = []
        room = config.TAKE_IN_MAX
        while self._bursts and room:
            datagrams, address = self._bursts.popleft()
            if len(datagrams) > room:
                self._bursts.appendleft((datagrams[room:], address))
                del datagrams[room:]
            room -= len(datagrams)
            self.size -= _memory(datagrams)
            if taken and taken[-1][1] == address and taken[-1][0][0][_HEAD] == datagrams[0][_HEAD]:
                taken[-1][0].extend(datagrams)
            else:
                taken.append((datagrams, address))
        return taken


def _memory(datagrams: list[bytes]) -> int:
    return sum(map(len, datagrams)) + OVERHEAD * len(datagrams)
