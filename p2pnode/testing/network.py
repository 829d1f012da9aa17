"""A datagram network in memory: delay, loss, rates and hostile hands, all from one seed.

::

    async with Network(seed=7) as network:
        network.set_profile("10.0.0.1", "10.0.0.2", LinkProfile(delay_s=0.05, loss=0.1))
        alice = network.socket(("10.0.0.1", 4433))
        bob = network.socket(("10.0.0.2", 0))
        await bob.send_batch([([b"hello"], alice.local_address)])
        [(datagrams, sender)] = await alice.receive_batch()

The sockets are what `p2pnode.quic` takes for UDP sockets. A host is a name (any text); a *link* is the way
from one host to another, one direction of it. Time is trio's: under `trio.testing.MockClock` with an
autojump threshold of 0, hours of traffic pass as fast as the program can think.

One task delivers everything, from a heap of arrivals: no task for each datagram and none for each link.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Final, NamedTuple, Self

import trio

from p2pnode.errors import AddressInUse
from p2pnode.quic import Address, Burst
from p2pnode.quic.datagrams import bursts_of

ETHERNET_MTU: Final = 1472  # what Ethernet's 1500 bytes leave for UDP over IPv4
BATCH_MAX: Final = 256  # datagrams one receive_batch() gives, so that a receiver lives under a flood
RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024  # a socket drops what comes when so much is unread
EPHEMERAL_PORT_FIRST: Final = 49_152  # RFC 6335 §6: where ports that nobody asked for begin


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """How one direction between two hosts treats datagrams. Probabilities are 0 … 1, for each datagram.

    Jitter alone never reorders: a datagram arrives no earlier than the one before it. A reordered one is
    held back up to `reorder_delay_s` more while later ones overtake it.
    """

    delay_s: float = 0.01
    jitter_s: float = 0.0  # up to so much is added to the delay
    loss: float = 0.0
    loss_run_max: int | None = None  # at most so many lost by chance in a row
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_delay_s: float = 0.02
    corrupt: float = 0.0  # one bit is flipped
    rate_bytes_per_s: float | None = None  # None: unlimited
    queue_bytes: int = 256 * 1024  # waiting for the rate; what comes above it is lost
    mtu: int = ETHERNET_MTU  # bytes of UDP payload; larger datagrams vanish


@dataclass(slots=True)
class LinkCounters:
    """What a link did so far. `sent + duplicated = delivered + lost +` what is on its way."""

    sent: int = 0
    duplicated: int = 0
    delivered: int = 0
    lost: int = 0
    bytes_sent: int = 0
    bytes_delivered: int = 0


class Datagram(NamedTuple):
    """One datagram as a tap sees it."""

    source: Address
    destination: Address
    data: bytes


Tap = Callable[[Datagram], bytes | None]
"""Sees a datagram when it is sent; returns the bytes to carry on with, or None to drop it."""


class _Arrival(NamedTuple):
    time: float
    sequence: int  # first sent, first delivered at equal times; also keeps the heap from comparing further
    datagram: Datagram
    counters: LinkCounters


@dataclass(slots=True)
class _Link:
    """The way from one host to another."""

    profile: LinkProfile
    counters: LinkCounters = field(default_factory=LinkCounters)
    idle_at: float = 0.0  # when the last byte of its queue has left
    last_arrival: float = 0.0
    lost_in_a_row: int = 0

    def carry(self, data: bytes, now: float, rng: Random) -> Iterable[tuple[float, bytes]]:
        """When and in what shape the datagram arrives: nowhere, once or twice."""
        profile = self.profile
        if len(data) > profile.mtu or self._overflows(len(data), now) or self._loses(rng):
            self.counters.lost += 1
            return ()
        if profile.rate_bytes_per_s is not None:
            self.idle_at = max(now, self.idle_at) + len(data) / profile.rate_bytes_per_s
        copies = 1
        if rng.random() < profile.duplicate:
            self.counters.duplicated += 1
            copies = 2
        return [
            (self._arrival_time(now, rng), _flip_bit(data, rng) if rng.random() < profile.corrupt else data)
            for _ in range(copies)
        ]

    def _overflows(self, size: int, now: float) -> bool:
        rate = self.profile.rate_bytes_per_s
        return rate is not None and max(0.0, self.idle_at - now) * rate + size > self.profile.queue_bytes

    def _loses(self, rng: Random) -> bool:
        run_max = self.profile.loss_run_max
        lost = rng.random() < self.profile.loss and (run_max is None or self.lost_in_a_row < run_max)
        self.lost_in_a_row = self.lost_in_a_row + 1 if lost else 0
        return lost

    def _arrival_time(self, now: float, rng: Random) -> float:
        profile = self.profile
        time = max(now, self.idle_at) + profile.delay_s + rng.uniform(0.0, profile.jitter_s)
        time = max(time, self.last_arrival)
        if rng.random() < profile.reorder:
            return time + rng.uniform(0.0, profile.reorder_delay_s)
        self.last_arrival = time
        return time


def _flip_bit(data: bytes, rng: Random) -> bytes:
    if not data:
        return data
    flipped = bytearray(data)
    flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


class NetworkSocket:
    """One end on the network: a `DatagramSocket` as `p2pnode.quic` wants it. Made by `Network.socket`."""

    def __init__(self, network: Network, address: Address) -> None:
        self._network = network
        self._local_address = address
        self._received: deque[tuple[bytes, Address]] = deque()
        self._received_bytes = 0
        self._arrived = trio.lowlevel.ParkingLot()
        self._closed = False

    @property
    def local_address(self) -> Address:
        """What it was bound to. Behind a NAT others see another one: `Network.seen_address`."""
        return self._local_address

    @property
    def hint(self) -> None:
        """Nothing would make it faster."""

    async def receive_batch(self) -> list[Burst]:
        """Wait for a datagram, then give all that are there, up to `BATCH_MAX`.

        Neighbours from one address come as one burst. `trio.ClosedResourceError` once this socket is closed.
        """
        await trio.lowlevel.checkpoint()
        while not self._received and not self._closed:
            await self._arrived.park()
        self._check_open()
        batch = [self._received.popleft() for _ in range(min(BATCH_MAX, len(self._received)))]
        self._received_bytes -= sum(len(data) for data, _ in batch)
        return bursts_of(batch)

    async def send_batch(self, bursts: Sequence[Burst]) -> None:
        """Send all; whether they arrive is the network's affair. `trio.ClosedResourceError` once closed."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        source = self._network.seen_address(self)
        for datagrams, destination in bursts:
            for data in datagrams:
                self._network.send(source, destination, data)

    def close(self) -> None:
        """Free the address. What is unread is dropped; whoever waits gets `trio.ClosedResourceError`."""
        if self._closed:
            return
        self._closed = True
        self._received.clear()
        self._network._forget(self)
        self._arrived.unpark_all()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this socket was closed")

    def _accept(self, data: bytes, source: Address) -> bool:
        """Take a datagram that arrived; False when there is no room for it."""
        if self._received_bytes + len(data) > RECEIVE_BUFFER_BYTES:
            return False
        self._received.append((data, source))
        self._received_bytes += len(data)
        self._arrived.unpark()
        return True


class Network:
    """Hosts, and the links between them. An async context manager: inside it, datagrams are delivered.

    `profile` is what links do for which nothing else was set; everything random comes from `seed`.
    """

    def __init__(self, seed: int = 0, profile: LinkProfile | None = None) -> None:
        self._rng = Random(seed)
        self._default_profile = profile or LinkProfile()
        self._links: dict[tuple[str, str], _Link] = {}
        self._blocked: set[frozenset[str]] = set()
        self._taps: list[Tap] = []
        self._sockets: dict[Address, NetworkSocket] = {}
        self._seen_addresses: dict[NetworkSocket, Address] = {}
        self._arrivals: list[_Arrival] = []
        self._sequence = 0
        self._courier = trio.lowlevel.ParkingLot()
        self._exit_stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        nursery = await self._exit_stack.enter_async_context(trio.open_nursery())
        self._exit_stack.callback(nursery.cancel_scope.cancel)
        nursery.start_soon(self._deliver)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._exit_stack.__aexit__(kind, error, traceback)

    # -- sockets -------------------------------------------------------------------------------------------

    def socket(self, address: Address) -> NetworkSocket:
        """A socket bound to `(host, port)`; port 0 is the host's next free one. `AddressInUse`."""
        host, port = address
        if port == 0:
            port = EPHEMERAL_PORT_FIRST
            while (host, port) in self._sockets:
                port += 1
        socket = NetworkSocket(self, (host, port))
        self._bind(socket, (host, port))
        return socket

    def rebind(self, socket: NetworkSocket, address: Address) -> None:
        """From now on others see `socket` at `address` alone, as after a NAT forgot it or a host moved.

        `local_address` stays. What is on its way to the old address is lost. `AddressInUse`.
        """
        old = self._seen_addresses[socket]
        self._bind(socket, address)
        del self._sockets[old]

    def seen_address(self, socket: NetworkSocket) -> Address:
        """The address that others see `socket` at."""
        return self._seen_addresses[socket]

    def _bind(self, socket: NetworkSocket, address: Address) -> None:
        if address in self._sockets:
            raise AddressInUse(f"{address[0]} port {address[1]} is in use")
        self._sockets[address] = socket
        self._seen_addresses[socket] = address

    def _forget(self, socket: NetworkSocket) -> None:
        del self._sockets[self._seen_addresses.pop(socket)]

    # -- links ---------------------------------------------------------------------------------------------

    def set_profile(self, source_host: str, destination_host: str, profile: LinkProfile) -> None:
        """Let datagrams from one host to another (this direction only) be treated so from now on."""
        self._link(source_host, destination_host).profile = profile

    def block(self, host: str, other: str) -> None:
        """Let everything vanish that the two hosts send each other from now on."""
        self._blocked.add(frozenset((host, other)))

    def unblock(self, host: str, other: str) -> None:
        """End a `block`."""
        self._blocked.discard(frozenset((host, other)))

    def counters(self, source_host: str, destination_host: str) -> LinkCounters:
        """The counters of one direction between two hosts; they go on counting."""
        return self._link(source_host, destination_host).counters

    def tap(self, tap: Tap) -> None:
        """Show every datagram to `tap` before its link gets it, after the taps that were set earlier."""
        self._taps.append(tap)

    def _link(self, source_host: str, destination_host: str) -> _Link:
        key = (source_host, destination_host)
        link = self._links.get(key)
        if link is None:
            link = self._links[key] = _Link(self._default_profile)
        return link

    # -- datagrams -----------------------------------------------------------------------------------------

    def send(self, source: Address, destination: Address, data: bytes) -> None:
        """Send one datagram in the name of `source`, which need not exist: so are addresses forged."""
        link = self._link(source[0], destination[0])
        link.counters.sent += 1
        link.counters.bytes_sent += len(data)
        tapped = self._through_taps(Datagram(source, destination, bytes(data)))
        if tapped is None or frozenset((source[0], destination[0])) in self._blocked:
            link.counters.lost += 1
            return
        for time, carried in link.carry(tapped, trio.current_time(), self._rng):
            self._schedule(time, Datagram(source, destination, carried), link.counters)

    def _through_taps(self, datagram: Datagram) -> bytes | None:
        for tap in self._taps:
            data = tap(datagram)
            if data is None:
                return None
            datagram = datagram._replace(data=data)
        return datagram.data

    def _schedule(self, time: float, datagram: Datagram, counters: LinkCounters) -> None:
        self._sequence += 1
        arrival = _Arrival(time, self._sequence, datagram, counters)
        heapq.heappush(self._arrivals, arrival)
        if self._arrivals[0] is arrival:
            self._courier.unpark()

    async def _deliver(self) -> None:
        """Wait for the earliest arrival, or for an earlier one to be sent; hand over all that are due."""
        while True:
            deadline = self._arrivals[0].time if self._arrivals else float("inf")
            with trio.CancelScope(deadline=deadline):
                await self._courier.park()
            now = trio.current_time()
            while self._arrivals and self._arrivals[0].time <= now:
                self._hand_over(heapq.heappop(self._arrivals))

    def _hand_over(self, arrival: _Arrival) -> None:
        datagram, counters = arrival.datagram, arrival.counters
        socket = self._sockets.get(datagram.destination)
        if socket is not None and socket._accept(datagram.data, datagram.source):
            counters.delivered += 1
            counters.bytes_delivered += len(datagram.data)
        else:
            counters.lost += 1
