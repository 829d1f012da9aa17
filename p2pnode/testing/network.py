"""A datagram network in memory: hosts and the links between them, all chance from one seed.

::

    async with Network(seed=7) as network:
        network.set_profile("10.0.0.1", "10.0.0.2", LinkProfile(delay_s=0.05, loss=0.1))
        network.set_host("10.0.0.2", HostProfile(up_bytes_per_s=1.25e6, down_bytes_per_s=12.5e6))
        alice = network.socket(("10.0.0.1", 4433))
        bob = network.socket(("10.0.0.2", 0))
        await bob.send_batch([([b"hello"], alice.local_address)])
        [(datagrams, sender)] = await alice.receive_batch()

The sockets are what `p2pnode.quic` takes for UDP sockets. A host is a name (any text). What it sends passes

    its uplink → its zone's gateway → the link → the other zone's gateway → the receiver's downlink

The *link* is the way from one host to another, one direction of it: delay, loss, hostile hands, and perhaps a
rate of its own. Up- and downlinks are queues that all traffic of a host shares, gateways those that all traffic
of a *zone* with other zones shares. Each is first in, first out and drops what finds no room. Those of which
nothing was set have no rate; they count nevertheless. Rates are bytes of UDP payload a second.

Time is trio's: under `trio.testing.MockClock` with an autojump threshold of 0, hours of traffic pass as fast as
the program can think. Datagrams of one burst travel together, see `network_queues`. One task delivers
everything: no task for each datagram and none for each link.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from math import ceil, inf
from random import Random
from types import TracebackType
from typing import Final, NamedTuple, Self

import trio

from p2pnode.errors import AddressInUse
from p2pnode.quic import Address, Burst
from p2pnode.testing.network_links import ETHERNET_MTU, Link, LinkProfile
from p2pnode.testing.network_queues import (
    TRAIN_DATAGRAMS_MAX,
    TRAIN_S,
    Agenda,
    LinkCounters,
    Queue,
    QueueCounters,
    Stage,
    Train,
)

__all__ = [
    "ETHERNET_MTU",
    "Datagram",
    "DuplexCounters",
    "HostProfile",
    "LinkCounters",
    "LinkProfile",
    "Network",
    "NetworkSocket",
    "QueueCounters",
    "Tap",
]

BATCH_MAX: Final = 256  # datagrams one receive_batch() gives, so that a receiver lives under a flood
RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024  # a socket drops what comes when so much is unread
EPHEMERAL_PORT_FIRST: Final = 49_152  # RFC 6335 §6: where ports that nobody asked for begin


@dataclass(frozen=True, slots=True)
class HostProfile:
    """What a host is connected with, and where it stands."""

    up_bytes_per_s: float = inf
    down_bytes_per_s: float = inf
    queue_bytes: int | None = None  # of each queue; None: 100 ms of the rate, at least 256 KiB
    zone: str = ""  # hosts of one zone reach each other without its gateway


class DuplexCounters(NamedTuple):
    """What went out of a host or a zone, and what came in. They go on counting."""

    up: QueueCounters
    down: QueueCounters


class Datagram(NamedTuple):
    """One datagram as a tap sees it."""

    source: Address
    destination: Address
    data: bytes


Tap = Callable[[Datagram], bytes | None]
"""Sees a datagram when it is sent; returns the bytes to carry on with, or None to drop it."""


class _Duplex:
    """A way out and a way in."""

    def __init__(self, agenda: Agenda) -> None:
        self.up = Queue(agenda)
        self.down = Queue(agenda)

    def change(self, up: float, down: float, queue_bytes: int | None) -> None:
        self.up.change(up, queue_bytes)
        self.down.change(down, queue_bytes)

    @property
    def counters(self) -> DuplexCounters:
        return DuplexCounters(self.up.counters, self.down.counters)


class _Host(_Duplex):
    zone = ""


class _Route(NamedTuple):
    """The way from one host to another, and how many bytes may travel it as one train."""

    stages: tuple[Stage, ...]
    link: Link
    train_bytes: float


class NetworkSocket:
    """One end on the network: a `DatagramSocket` as `p2pnode.quic` wants it. Made by `Network.socket`."""

    def __init__(self, network: Network, address: Address) -> None:
        self._network = network
        self._local_address = address
        self._received: deque[Burst] = deque()
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
        batch: list[Burst] = []
        room = BATCH_MAX
        while self._received and room:
            datagrams, source = self._received.popleft()
            if len(datagrams) > room:
                self._received.appendleft((datagrams[room:], source))
                del datagrams[room:]
            room -= len(datagrams)
            self._received_bytes -= sum(map(len, datagrams))
            batch.append((datagrams, source))
        return batch

    async def send_batch(self, bursts: Sequence[Burst]) -> None:
        """Send all; whether they arrive is the network's affair. `trio.ClosedResourceError` once closed."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        self._network._send_from(self, bursts)

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

    def _accept(self, train: Train) -> None:
        """Take datagrams that arrived; those that find no room are lost."""
        train.cut(RECEIVE_BUFFER_BYTES - self._received_bytes)
        if not train.datagrams:
            return
        train.counters.delivered += len(train.datagrams)
        train.counters.bytes_delivered += train.size
        self._received_bytes += train.size
        if self._received and self._received[-1][1] == train.source:
            self._received[-1][0].extend(train.datagrams)
        else:
            self._received.append((train.datagrams, train.source))
        self._arrived.unpark()


class Network:
    """Hosts, and the links between them. An async context manager: inside it, datagrams are delivered.

    `profile` is what links do for which nothing else was set; everything random comes from `seed`, for each
    link apart. With a `tick_s` datagrams are handed to sockets only at multiples of it, never too early:
    a large simulation wakes up less often. Queues and links are as exact as without.
    """

    def __init__(self, seed: int = 0, profile: LinkProfile | None = None, *, tick_s: float = 0.0) -> None:
        self._seed = seed
        self._default_profile = profile or LinkProfile()
        self._tick_s = tick_s
        self._agenda = Agenda()
        self._links: dict[tuple[str, str], Link] = {}
        self._hosts: dict[str, _Host] = {}
        self._gateways: dict[str, _Duplex] = {}
        self._routes: dict[tuple[str, str], _Route] = {}  # of what is set above, as it was used last
        self._blocked: set[frozenset[str]] = set()
        self._taps: list[Tap] = []
        self._sockets: dict[Address, NetworkSocket] = {}
        self._seen_addresses: dict[NetworkSocket, Address] = {}
        self._sleep = trio.CancelScope()  # of the courier; its deadline is when he wakes up
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
        address = self._seen_addresses.pop(socket, None)  # None: its host was killed
        if address is not None:
            del self._sockets[address]

    # -- hosts and zones -----------------------------------------------------------------------------------

    def set_host(self, host: str, profile: HostProfile) -> None:
        """Connect a host so from now on; what waits in its queues goes on at the new rate. `ValueError`."""
        its = self._host(host)
        its.change(profile.up_bytes_per_s, profile.down_bytes_per_s, profile.queue_bytes)
        its.zone = profile.zone
        self._routes.clear()

    def set_zone_gateway(
        self,
        zone: str,
        up_bytes_per_s: float = inf,
        down_bytes_per_s: float = inf,
        queue_bytes: int | None = None,
    ) -> None:
        """Let all that leaves the zone, and all that comes into it, pass queues of these rates. `ValueError`."""
        self._gateway(zone).change(up_bytes_per_s, down_bytes_per_s, queue_bytes)
        self._routes.clear()

    def host_counters(self, host: str) -> DuplexCounters:
        """What a host sent and received."""
        return self._host(host).counters

    def zone_counters(self, zone: str) -> DuplexCounters:
        """What left a zone for others, and what came into it from others."""
        return self._gateway(zone).counters

    def kill(self, host: str) -> None:
        """Let a host lose its power: its sockets send and receive nothing any more, what it had queued is lost.

        Whoever uses such a socket is not told; he should be cancelled. Its address is free at once, and what
        is bound to it next is a new life of the host.
        """
        for address in [address for address in self._sockets if address[0] == host]:
            del self._seen_addresses[self._sockets.pop(address)]
        its = self._host(host)
        its.up.clear()
        its.down.clear()

    def _host(self, name: str) -> _Host:
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = _Host(self._agenda)
        return host

    def _gateway(self, zone: str) -> _Duplex:
        gateway = self._gateways.get(zone)
        if gateway is None:
            gateway = self._gateways[zone] = _Duplex(self._agenda)
        return gateway

    # -- links ---------------------------------------------------------------------------------------------

    def set_profile(self, source_host: str, destination_host: str, profile: LinkProfile) -> None:
        """Let datagrams from one host to another (this direction only) be treated so from now on."""
        self._link(source_host, destination_host).profile = profile
        self._routes.clear()

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

    def _link(self, source_host: str, destination_host: str) -> Link:
        key = (source_host, destination_host)
        link = self._links.get(key)
        if link is None:
            rng = Random(f"{self._seed} {source_host} {destination_host}")
            link = self._links[key] = Link(self._agenda, self._default_profile, rng)
        return link

    def _route(self, source_host: str, destination_host: str) -> _Route:
        key = (source_host, destination_host)
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = self._find_route(source_host, destination_host)
        return route

    def _find_route(self, source_host: str, destination_host: str) -> _Route:
        source, destination = self._host(source_host), self._host(destination_host)
        link = self._link(source_host, destination_host)
        before, after = [source.up], [destination.down]
        if source.zone != destination.zone:
            before.append(self._gateway(source.zone).up)
            after.insert(0, self._gateway(destination.zone).down)
        rate = min(queue.rate for queue in (*before, *link.queues, *after))
        return _Route((*before, *link.stages, *after, self), link, rate * TRAIN_S)

    # -- datagrams -----------------------------------------------------------------------------------------

    def send(self, source: Address, destination: Address, data: bytes) -> None:
        """Send one datagram in the name of `source`, which need not exist: so are addresses forged."""
        self._agenda.run_until(trio.current_time())
        self._send_burst(source, destination, [data])
        self._wake_in_time()

    def _send_from(self, socket: NetworkSocket, bursts: Sequence[Burst]) -> None:
        source = self._seen_addresses.get(socket)
        if source is None:  # its host was killed
            return
        self._agenda.run_until(trio.current_time())
        for datagrams, destination in bursts:
            self._send_burst(source, destination, datagrams)
        self._wake_in_time()

    def _send_burst(self, source: Address, destination: Address, datagrams: list[bytes]) -> None:
        stages, link, train_bytes = self._route(source[0], destination[0])
        counters = link.counters
        counters.sent += len(datagrams)
        counters.bytes_sent += sum(map(len, datagrams))
        if self._taps:
            tapped = [self._through_taps(Datagram(source, destination, data)) for data in datagrams]
            datagrams = [data for data in tapped if data is not None]
            counters.lost += len(tapped) - len(datagrams)
            if not datagrams:
                return
        if self._blocked and frozenset((source[0], destination[0])) in self._blocked:
            counters.lost += len(datagrams)
            return
        size_max = max(map(len, datagrams)) or 1
        length = max(1, int(min(TRAIN_DATAGRAMS_MAX, train_bytes // size_max)))
        for start in range(0, len(datagrams), length):
            part = datagrams[start : start + length]
            train = Train(part, sum(map(len, part)), source, destination, counters, stages)
            train.go_on(self._agenda.now, self._agenda.now)

    def _through_taps(self, datagram: Datagram) -> bytes | None:
        for tap in self._taps:
            data = tap(datagram)
            if data is None:
                return None
            datagram = datagram._replace(data=data)
        return datagram.data

    # -- delivery ------------------------------------------------------------------------------------------

    def take(self, train: Train, _first: float, last: float) -> None:
        """The last stage of each route: have a train handed over when all of it is there."""
        self._agenda.enter(self._tick(last), self._hand_over, train)

    def _hand_over(self, train: Train, _now: float) -> None:
        socket = self._sockets.get(train.destination)
        if socket is None:
            train.cut(0)
        else:
            socket._accept(train)

    def _tick(self, time: float) -> float:
        return ceil(time / self._tick_s) * self._tick_s if self._tick_s and time < inf else time

    def _wake_in_time(self) -> None:
        time = self._tick(self._agenda.next_time)
        if time < self._sleep.deadline:
            self._sleep.deadline = time

    async def _deliver(self) -> None:
        """Sleep until the next thing happens, which may be moved to an earlier time; let it happen."""
        while True:
            self._sleep = trio.CancelScope(deadline=self._tick(self._agenda.next_time))
            with self._sleep:
                await trio.sleep_forever()
            self._agenda.run_until(trio.current_time())
