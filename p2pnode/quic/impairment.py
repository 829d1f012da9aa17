"""A worse network than there is: what a socket sends is delayed, or lost, before it leaves.

For trying programs out on one machine, where nothing is far away and nothing is lost. Delay and loss are those of
the way out alone: two nodes with 20 ms each see a round trip of 40 ms.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Final, Self

import trio

from p2pnode.quic.datagrams import Address, Burst, DatagramSocket

QUEUE_BYTES_MAX: Final = 64 * 1024 * 1024  # under way at once: what comes above it is lost


@dataclass(frozen=True, slots=True)
class Impairment:
    """What becomes of each datagram that is sent: it waits so long, or is lost with a probability of 0 … 1."""

    delay_s: float = 0.0
    loss: float = 0.0


class ImpairedSocket:
    """A `DatagramSocket` on top of `socket`, as an async context manager; leaving it drops what is under way."""

    def __init__(self, socket: DatagramSocket, impairment: Impairment, rng: Random) -> None:
        self._socket = socket
        self._impairment = impairment
        self._rng = rng
        self._under_way: deque[tuple[float, list[Burst]]] = deque()  # when each is due
        self._bytes_under_way = 0
        self._arrived = trio.lowlevel.ParkingLot()
        self._exit_stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        nursery = await self._exit_stack.enter_async_context(trio.open_nursery())
        self._exit_stack.callback(nursery.cancel_scope.cancel)
        nursery.start_soon(self._send_what_is_due)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._exit_stack.__aexit__(kind, error, trace)

    @property
    def local_address(self) -> Address:
        """That of the socket below."""
        return self._socket.local_address

    @property
    def hint(self) -> str | None:
        """That of the socket below."""
        return self._socket.hint

    async def receive_batch(self) -> list[Burst]:
        """What the socket below receives: only the way out is impaired."""
        return await self._socket.receive_batch()

    async def send_batch(self, bursts: Sequence[Burst]) -> None:
        """Let each datagram wait, or lose it."""
        await trio.lowlevel.checkpoint()
        kept = [burst for burst in map(self._thinned, bursts) if burst[0]]
        size = sum(len(data) for datagrams, _ in kept for data in datagrams)
        if kept and self._bytes_under_way + size <= QUEUE_BYTES_MAX:
            self._bytes_under_way += size
            self._under_way.append((trio.current_time() + self._impairment.delay_s, kept))
            self._arrived.unpark()

    def close(self) -> None:
        """Close the socket below."""
        self._socket.close()

    def _thinned(self, burst: Burst) -> Burst:
        datagrams, address = burst
        if not self._impairment.loss:
            return burst
        return [data for data in datagrams if self._rng.random() >= self._impairment.loss], address

    async def _send_what_is_due(self) -> None:
        while True:
            while not self._under_way:
                await self._arrived.park()
            due, bursts = self._under_way.popleft()
            await trio.sleep_until(due)
            self._bytes_under_way -= sum(len(data) for datagrams, _ in bursts for data in datagrams)
            try:
                await self._socket.send_batch(bursts)
            except trio.ClosedResourceError:
                return  # whoever closed it knows
