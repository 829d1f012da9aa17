"""A swarm of real `Download` machines over links of given rates and delays, as discrete events without any network.

Each host sends over its uplink in turns to those whose requests wait, `QUANTUM` bytes at a time, no more than `window`
bytes to one that has not acknowledged them; what arrives waits for its turn on the downlink, and between zones on the
gateway of the sender's zone. News of pieces travel every `NEWS_INTERVAL_S`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from random import Random

from p2pnode.swarm import (
    BlockStored,
    BytesWasted,
    CancelRequest,
    Command,
    DeadlinePassed,
    Download,
    DownloadLimits,
    DropPeer,
    Event,
    Finish,
    PeerComing,
    PeerHas,
    PeerJoined,
    PeerLeft,
    PieceCorrupt,
    PieceVerified,
    RequestFailed,
    RequestFinished,
    RequestPieces,
    ShortenRequest,
)
from p2pnode.torrent.bitfield import Bitfield

QUANTUM = 32 * 1024
GATEWAY_QUEUE_S = 0.1  # as much waits at a gateway; then senders hold back, as congestion control makes them
NEWS_INTERVAL_S = 0.1
NEWS_INTERVAL_FAR_S = 1.0
MBIT = 1e6 / 8


@dataclass(eq=False)
class Ask:
    """One request at its server: what is still to be sent."""

    id: int
    client: Host
    server: Host
    parts: deque[tuple[int, int]]  # (piece, next byte)
    is_over: bool = False  # the client wants nothing more
    to_deliver: int = 0  # quanta on the way


@dataclass(eq=False)
class Lane:
    """What one host sends to another one."""

    client: Host
    asks: deque[Ask] = field(default_factory=deque)
    unacknowledged: int = 0
    is_waiting: bool = False  # in the uplink's round


@dataclass(eq=False)
class Host:
    """A node: its links, what it has, and its machine if it fetches."""

    id: bytes
    up: float
    down: float
    zone: int = 0
    have: int = 0
    machine: Download | None = None
    is_liar: bool = False
    is_frozen: bool = False
    is_here: bool = True
    completed_at: float | None = None
    lanes: dict[bytes, Lane] = field(default_factory=dict)
    round: deque[Lane] = field(default_factory=deque)
    is_sending: bool = False
    down_free_at: float = 0.0
    stored: dict[int, int] = field(default_factory=dict)
    asks: dict[int, Ask] = field(default_factory=dict)
    friends: dict[bytes, Host] = field(default_factory=dict)
    new_bits: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})  # by: for far ones
    coming_bits: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})
    news_at: dict[bool, float] = field(default_factory=lambda: {False: 0.0, True: 0.0})
    news_due: dict[bool, bool] = field(default_factory=lambda: {False: False, True: False})
    look_at: float | None = None
    wasted: int = 0
    bad_pieces: dict[bytes, int] = field(default_factory=dict)


class Simulation:
    """A swarm that fetches one file."""

    def __init__(
        self,
        size: int,
        piece_length: int = 128 * 1024,
        *,
        delay_s: float = 0.02,
        window: int = 1024 * 1024,
        seed: int = 1,
        slots: int | None = None,
        limits: DownloadLimits | None = None,
        gateway: float | None = None,
    ) -> None:
        whole, rest = divmod(size, piece_length)
        self.size = size
        self.sizes = [piece_length] * whole + [rest] * bool(rest)
        self.everything = Bitfield.full(len(self.sizes))
        self.delay_s = delay_s
        self.window = window
        self.rng = Random(seed)
        self.slots = slots
        self.limits = limits
        self.gateway = gateway
        self.gateway_free_at: dict[int, float] = {}
        self.wide_bytes = 0
        self.now = 0.0
        self.hosts: list[Host] = []
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self.on_piece: Callable[[Host, int], None] = lambda host, piece: None

    # -- building ------------------------------------------------------------------------------------------

    def host(
        self, up: float, down: float, *, have: Bitfield | None = None, zone: int = 0, liar: bool = False
    ) -> Host:
        """Add a host; one that does not have everything fetches."""
        bits = have.bits if have is not None else 0
        host = Host(self.rng.randbytes(16), up, down, zone, bits, is_liar=liar)
        if bits != self.everything.bits and not liar:
            host.machine = Download(
                self.sizes,
                have=Bitfield(len(self.sizes), bits),
                rng=Random(self.rng.random()),
                limits=self.limits,
                own_id=host.id,
            )
        self.hosts.append(host)
        return host

    def join(self, *hosts: Host, after_s: float = 0.05) -> None:
        """Link these hosts with all others, those who have all of it first."""
        for one in hosts:
            for other in self.hosts:
                if other is not one and other.id not in one.friends:
                    later = after_s * self.rng.uniform(0.5, 1.5)
                    is_seed = one.machine is None or other.machine is None
                    self.at(later if is_seed else 2 * later, lambda a=one, b=other: self._meet(a, b))

    def _meet(self, one: Host, other: Host) -> None:
        if not one.is_here or not other.is_here:
            return
        for a, b in ((one, other), (other, one)):
            a.friends[b.id] = b
            have = self.everything if b.is_liar else Bitfield(len(self.sizes), b.have)
            self.tell(a, PeerJoined(b.id, have, is_near=a.zone == b.zone))

    def leave(self, host: Host) -> None:
        """A host is gone."""
        host.is_here = False
        for friend in host.friends.values():
            friend.friends.pop(host.id, None)
            for ask in [ask for ask in friend.asks.values() if ask.server is host]:
                self._forget_ask(ask)
            self.tell(friend, PeerLeft(host.id))
        for ask in list(host.asks.values()):
            self._forget_ask(ask)
        host.friends.clear()
        host.lanes.clear()
        host.round.clear()

    def come_back(self, host: Host) -> None:
        """A host that was gone is here again, with what it had, and a new machine."""
        host.is_here = True
        if host.machine is not None:
            have = Bitfield(len(self.sizes), host.have)
            host.machine = Download(
                self.sizes, have=have, rng=Random(self.rng.random()), limits=self.limits, own_id=host.id
            )
            host.look_at = None
        self.join(host)

    # -- time ----------------------------------------------------------------------------------------------

    def at(self, after_s: float, happen: Callable[[], None]) -> None:
        """Let something happen after a while."""
        heapq.heappush(self._queue, (self.now + after_s, next(self._order), happen))

    def run(self, until_s: float = 1e9) -> float:
        """Go on until everybody who fetches has it; gives when the last one had it."""
        while self._queue and not all(
            host.completed_at is not None for host in self.hosts if host.machine is not None and host.is_here
        ):
            for _ in range(50):
                if not self._queue:
                    break
                at, _order, happen = heapq.heappop(self._queue)
                if at > until_s:
                    raise TimeoutError(f"not complete at {until_s} s")
                self.now = at
                happen()
        assert all(
            host.completed_at is not None for host in self.hosts if host.machine is not None and host.is_here
        )
        return max(host.completed_at for host in self.hosts if host.completed_at is not None)

    def bound(self) -> float:
        """The least time in which anything could give the file to all that fetch (Kumar and Ross 2006)."""
        seeds = [host for host in self.hosts if host.machine is None]
        leechers = [host for host in self.hosts if host.machine is not None]
        seed_rate = sum(host.up for host in seeds)
        total = seed_rate + sum(host.up for host in leechers)
        return max(
            self.size / seed_rate,
            self.size / min(host.down for host in leechers),
            len(leechers) * self.size / total,
        )

    # -- the machines --------------------------------------------------------------------------------------

    def tell(self, host: Host, event: Event) -> None:
        """Tell a host's machine, and carry out what it decides."""
        machine = host.machine
        if machine is None or not host.is_here:
            return
        machine.receive(event, self.now)
        for command in machine.commands():
            self._carry_out(host, command)
        deadline = machine.next_deadline()
        if deadline is not None and (host.look_at is None or deadline < host.look_at):
            host.look_at = deadline
            self.at(max(0.0, deadline - self.now), lambda: self._deadline(host, deadline))

    def _deadline(self, host: Host, at: float) -> None:
        if host.look_at == at:
            host.look_at = None
            self.tell(host, DeadlinePassed())

    def _carry_out(self, host: Host, command: Command) -> None:
        match command:
            case RequestPieces(request, peer, ranges):
                pieces = list(Bitfield.from_ranges(ranges, len(self.sizes)))
                server = host.friends[peer]
                parts = deque((piece, host.stored.get(piece, 0)) for piece in pieces)
                ask = host.asks[request] = Ask(request, host, server, parts)
                for far in (False, True):
                    host.coming_bits[far] |= sum(1 << piece for piece in pieces)
                    self._news(host, far)
                self.at(self.delay_s, lambda: self._asked(ask))
            case CancelRequest(request):
                if request in host.asks:
                    self._forget_ask(host.asks[request])
            case ShortenRequest(request, ranges):
                if request in host.asks:
                    kept = set(Bitfield.from_ranges(ranges, len(self.sizes)))
                    ask = host.asks[request]
                    self.at(self.delay_s, lambda: self._shorten(ask, kept))
            case DropPeer(peer):
                for ask in [ask for ask in host.asks.values() if ask.server.id == peer]:
                    self._forget_ask(ask)
            case Finish():
                host.completed_at = self.now

    def _forget_ask(self, ask: Ask) -> None:
        del ask.client.asks[ask.id]

        def stop() -> None:
            ask.is_over = True
            ask.parts.clear()

        self.at(self.delay_s, stop)

    def _shorten(self, ask: Ask, kept: set[int]) -> None:
        while ask.parts and ask.parts[-1][0] not in kept:
            ask.parts.pop()
        if not ask.parts and not ask.to_deliver and not ask.is_over:
            ask.is_over = True
            self.at(self.delay_s, lambda: self._finished(ask))

    # -- bytes ---------------------------------------------------------------------------------------------

    def _asked(self, ask: Ask) -> None:
        server = ask.server
        if ask.is_over or not server.is_here:
            return
        if not server.is_liar and any(not server.have >> piece & 1 for piece, _ in ask.parts):
            ask.client.asks.pop(ask.id, None)
            failed = RequestFailed(ask.id, retryable=False)
            self.at(self.delay_s, lambda: self.tell(ask.client, failed))
            return
        lane = server.lanes.setdefault(ask.client.id, Lane(ask.client))
        lane.asks.append(ask)
        self._serve(server, lane)

    def _serve(self, server: Host, lane: Lane) -> None:
        if server.lanes.get(lane.client.id) is not lane:
            return
        if not lane.is_waiting and lane.asks and lane.unacknowledged < self.window:
            lane.is_waiting = True
            server.round.append(lane)
        if not server.is_sending:
            self._send_next(server)

    def _send_next(self, server: Host) -> None:
        """Send one quantum to the next in turn."""
        server.is_sending = False
        while server.round and not server.is_frozen:
            lane = server.round.popleft()
            lane.is_waiting = False
            while lane.asks and not lane.asks[0].parts:
                lane.asks.popleft()
            if not lane.asks or lane.unacknowledged >= self.window:
                continue
            if (
                lane.client.zone != server.zone
                and (wait_s := self._gateway_wait_s(server.zone)) > GATEWAY_QUEUE_S
            ):
                self.at(wait_s - GATEWAY_QUEUE_S / 2, partial(self._serve, server, lane))
                continue
            self._send(server, lane, lane.asks[0])
            return

    def _gateway_wait_s(self, zone: int) -> float:
        return self.gateway_free_at.get(zone, 0.0) - self.now

    def _send(self, server: Host, lane: Lane, ask: Ask) -> None:
        piece, offset = ask.parts[0]
        length = min(QUANTUM, self.sizes[piece] - offset)
        is_end = offset + length >= self.sizes[piece]
        if is_end:
            ask.parts.popleft()
        else:
            ask.parts[0] = (piece, offset + length)
        lane.unacknowledged += length
        ask.to_deliver += 1
        if lane.unacknowledged < self.window:
            lane.is_waiting = True
            if self.slots is not None and len(server.round) >= self.slots and not is_end:
                server.round.insert(self.slots - 1, lane)
            else:
                server.round.append(lane)
        server.is_sending = True
        self.at(length / server.up, lambda: self._sent(server, lane, ask, piece, offset, length))

    def _sent(self, server: Host, lane: Lane, ask: Ask, piece: int, offset: int, length: int) -> None:
        client = ask.client
        arrives = self.now + self.delay_s
        if server.zone != client.zone:
            self.wide_bytes += length
            if self.gateway is not None:
                free = max(self.gateway_free_at.get(server.zone, 0.0), self.now) + length / self.gateway
                self.gateway_free_at[server.zone] = free
                arrives = free + self.delay_s
        delivered = max(arrives, client.down_free_at) + length / client.down
        client.down_free_at = delivered
        self.at(delivered - self.now, lambda: self._delivered(server, lane, ask, piece, offset, length))
        self._send_next(server)

    def _delivered(self, server: Host, lane: Lane, ask: Ask, piece: int, offset: int, length: int) -> None:
        def acknowledged() -> None:
            lane.unacknowledged -= length
            self._serve(server, lane)

        self.at(self.delay_s, acknowledged)
        ask.to_deliver -= 1
        client = ask.client
        if not client.is_here or client.machine is None:
            return
        if client.machine.is_finished:
            client.wasted += length
            return
        if ask.id in client.asks and client.asks[ask.id] is ask and server.is_liar:
            client.bad_pieces[server.id] = client.bad_pieces.get(server.id, 0) + 1
            self._forget_ask(ask)
            self.tell(client, PieceCorrupt(server.id, piece))
            return
        stored = client.stored.get(piece, 0)
        is_live = client.asks.get(ask.id) is ask
        new = (
            0
            if client.have >> piece & 1 or offset > stored or not is_live
            else max(0, offset + length - stored)
        )
        if new < length:
            client.wasted += length - new
            self.tell(client, BytesWasted(server.id, length - new))
        if new:
            self._store(client, server, piece, new)
        if is_live and not ask.parts and not ask.to_deliver:
            self._finished(ask)

    def _store(self, client: Host, server: Host, piece: int, length: int) -> None:
        client.stored[piece] = client.stored.get(piece, 0) + length
        self.tell(client, BlockStored(server.id, piece, length))
        if client.stored[piece] == self.sizes[piece]:
            client.have |= 1 << piece
            for far in (False, True):
                client.new_bits[far] |= 1 << piece
                self._news(client, far)
            self.tell(client, PieceVerified(server.id, piece))
            self.on_piece(client, piece)

    def _finished(self, ask: Ask) -> None:
        if ask.client.asks.get(ask.id) is ask:
            del ask.client.asks[ask.id]
            ask.is_over = True
            self.tell(ask.client, RequestFinished(ask.id))

    # -- news ----------------------------------------------------------------------------------------------

    def _news(self, host: Host, far: bool) -> None:
        if host.news_due[far]:
            return
        interval = NEWS_INTERVAL_FAR_S if far else NEWS_INTERVAL_S
        host.news_due[far] = True
        host.news_at[far] = max(self.now, host.news_at[far] + interval)
        self.at(host.news_at[far] - self.now, lambda: self._tell_news(host, far))

    def _tell_news(self, host: Host, far: bool) -> None:
        host.news_due[far] = False
        if not host.is_here:
            return
        new, coming = host.new_bits[far], host.coming_bits[far] & ~host.have
        host.new_bits[far] = host.coming_bits[far] = 0
        has, comes = Bitfield(len(self.sizes), new), Bitfield(len(self.sizes), coming)
        for friend in list(host.friends.values()):
            if (
                (friend.zone != host.zone) == far
                and friend.machine is not None
                and not friend.machine.is_finished
            ):
                self.at(self.delay_s, lambda friend=friend: self._hear(friend, host, has, comes))

    def _hear(self, friend: Host, host: Host, has: Bitfield, comes: Bitfield) -> None:
        if host.id not in friend.friends:
            return
        if has.bits:
            self.tell(friend, PeerHas(host.id, has))
        if comes.bits:
            self.tell(friend, PeerComing(host.id, comes))
