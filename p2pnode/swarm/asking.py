"""Whom to ask for what: the decisions of a download once its events have been taken in.

`ask` follows an event about one peer, and costs the same however many peers there are. `look` is for all that time
alone brings about: who is silent, who is idle while others are slow, what was expected and did not come.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from random import Random

from p2pnode import config
from p2pnode.swarm.availability import Availability
from p2pnode.swarm.commands import CancelRequest, Command, RequestPieces, ShortenRequest
from p2pnode.swarm.conduct import Conduct
from p2pnode.swarm.events import PeerId
from p2pnode.swarm.ledger import Ledger
from p2pnode.swarm.peer import Peer, Request
from p2pnode.swarm.picker import Picker
from p2pnode.swarm.piece_map import bits_of
from p2pnode.swarm.pipeline import ahead_s
from p2pnode.swarm.tail import Budget, Hedge, PieceTimes, Steal, find_hedge, find_steal
from p2pnode.swarm.zone import Zone
from p2pnode.torrent.bitfield import runs_of

__all__ = ["Asking", "DownloadLimits"]


SPARING_PATIENCE = 4  # times as long silent until a request is cancelled, once haste has cost half the budget
FAR_AT_ONCE = 3  # peers of other zones: more over one thin link are slow, and others take it for lost


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """How much a download asks for at once, and how long it leaves a busy or silent peer alone."""

    peers_at_once: int = config.SOURCES_AT_ONCE  # to begin with …
    peers_at_once_max: int = config.SOURCES_LINKED_MAX  # … and when others could give too
    requests_per_peer: int = config.REQUESTS_PER_SOURCE
    request_bytes: int = config.REQUEST_BYTES
    ranges_per_request: int = config.RANGES_PER_MESSAGE_MAX
    retry_after_min_s: float = config.RETRY_AFTER_MIN_S
    retry_after_max_s: float = config.RETRY_AFTER_MAX_S
    relieve_after_s: float = config.RELIEVE_AFTER_S


class Asking:
    """What is under way from whom, and what is asked next. Its `commands` are drained by `Download`."""

    def __init__(
        self,
        ledger: Ledger,
        availability: Availability,
        picker: Picker,
        conduct: Conduct,
        limits: DownloadLimits,
        rng: Random,
    ) -> None:
        self.ledger = ledger
        self.peers: dict[PeerId, Peer] = {}
        self.commands: list[Command] = []
        self.budget = Budget(ledger.remaining_bytes)
        self.times = PieceTimes()
        self.zone = Zone()
        self.looks_at: float | None = None
        self._availability = availability
        self._picker = picker
        self._conduct = conduct
        self._limits = limits
        self._rng = rng
        largest = max(ledger.piece_sizes, default=0)
        self._unit = min(max(largest, config.REQUEST_BYTES_MIN), max(largest, limits.request_bytes))
        self._ahead_s = ahead_s(ledger.remaining_bytes, 0.0)
        self._rate_else = 0.0  # bytes/s of a usual peer: what is believed of one that is not known yet
        self._silent_count = 0
        self._places = limits.peers_at_once
        self._is_somebody_without_place = False

    # -- the next questions --------------------------------------------------------------------------------

    def ask(self, peer: Peer, now: float) -> None:
        """Fill up the requests of one peer; if it can give nothing, its place is another's."""
        self._fill(peer, now)
        if not peer.owed_bytes:
            if not self.ledger.pieces.missing_bits:
                self._take_over(peer, now)
            if self._is_somebody_without_place and self._has_free_place:
                self.ask_everybody(now)

    def ask_everybody(self, now: float) -> None:
        """Keep those busy who give already, then turn to others while there is room for them."""
        self._is_somebody_without_place = False
        peers = list(self.peers.values())
        self._rng.shuffle(peers)
        peers.sort(key=lambda peer: not peer.owed_bytes)
        for peer in peers:
            self._fill(peer, now)

    def schedule(self, now: float) -> None:
        """Say when to look at everything next."""
        if self.ledger.requests:
            self.looks_at = min(self.looks_at or inf, now + config.LOOK_INTERVAL_S)
            return
        times = [peer.asked_again_at for peer in self.peers.values() if peer.asked_again_at > now]
        missing = self.ledger.pieces.missing_bits
        if any(peer.offered_bits & missing for peer in self.peers.values() if peer.asked_again_at <= now):
            times.append(now + config.LOOK_INTERVAL_S)  # a far one, and it is not far ones' turn yet
        self.looks_at = min(times, default=None)

    def _fill(self, peer: Peer, now: float) -> None:
        if peer.asked_again_at > now:
            return
        while (
            owing := sum(bool(request.owed) for request in peer.requests)
        ) < self._limits.requests_per_peer:
            ahead = peer.pace.bytes_ahead(self._ahead_s, self._unit)
            size = min(max(ahead // 3, self._unit), self._limits.request_bytes)
            if owing >= 2 and peer.owed_bytes + size > ahead:
                return
            among = peer.offered_bits & self.ledger.pieces.missing_bits
            if not among or not self._has_place(peer, among):
                return
            among = self._allowed(peer, among, now)
            if not among:
                return
            self._request(peer, self._pick(peer, among, size), now)

    def _pick(self, peer: Peer, among: int, size: int) -> list[int]:
        """A piece on parole is asked for alone, and last."""
        usual = among & ~self._conduct.on_parole if self._conduct.on_parole else among
        return self._picker.pick(usual, peer, size) if usual else self._picker.pick(among, peer, 1)

    def _allowed(self, peer: Peer, bits: int, now: float) -> int:
        """Of these pieces those that this peer may be asked for: a far one first for what is not near."""
        if peer.is_near:
            return bits
        not_near = self._availability.not_near(bits)
        return not_near or (bits if self.zone.may_ask(peer, now) else 0)

    def _has_place(self, peer: Peer, among: int) -> bool:
        """Whether it may be one of those that are asked at once: it is, there is room, or it is the only one."""
        if not peer.owed_bytes and not peer.is_near and self.zone.has_near and self._far_count >= FAR_AT_ONCE:
            return False
        if peer.owed_bytes or self._has_free_place or self._availability.is_needed(peer, among):
            return True
        self._is_somebody_without_place = True
        return False

    @property
    def _far_count(self) -> int:
        return sum(not self.peers[peer].is_near for peer in self.ledger.giving)

    @property
    def _has_free_place(self) -> bool:
        return len(self.ledger.giving) - self._silent_count < self._places

    def _request(self, peer: Peer, pieces: list[int], now: float, *, is_hedge: bool = False) -> None:
        request = self.ledger.open(peer, pieces, now, is_hedge=is_hedge)
        self.commands.append(RequestPieces(request.id, peer.id, runs_of(pieces)))

    # -- endings -------------------------------------------------------------------------------------------

    def end(self, request: Request, now: float, *, is_cancelled: bool = False) -> int:
        """A request is over; gives all that it owed, as a set."""
        for piece in request.owed:
            self.budget.end_hedge(piece, now)
        return self.ledger.end(request, now, conclude=is_cancelled)

    def cancel(self, request: Request, now: float) -> None:
        """Nothing of a request is wanted any more."""
        self.end(request, now, is_cancelled=True)
        self.commands.append(CancelRequest(request.id))

    # -- what time brings ----------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """See to everything that no event tells."""
        for peer in self.peers.values():
            self._look_at_peer(peer, now)
        self._silent_count = sum(peer.is_silent for peer in self.peers.values())
        rates = [peer.pace.rate for peer in self.peers.values() if peer.pace.rate]
        self._rate_else = sum(rates) / len(rates) if rates else 0.0
        giving = sum(self.peers[peer].pace.rate for peer in self.ledger.giving)
        self._ahead_s = ahead_s(self.ledger.remaining_bytes, giving)
        self.zone.look(self.peers.values(), now)
        self.looks_at = None
        if self._is_somebody_without_place:
            self._places = max(self._places, min(self._places * 3 // 2 + 1, self._limits.peers_at_once_max))
        self.ask_everybody(now)
        self._relieve(now)
        for peer in self.peers.values():
            if not peer.owed_bytes:
                self._take_over(peer, now)

    def _look_at_peer(self, peer: Peer, now: float) -> None:
        is_silent = peer.pace.is_silent(now, self._limits.relieve_after_s)
        is_changed = is_silent != peer.is_silent
        peer.is_silent = is_silent
        if peer.expire_coming(now) or is_changed:
            self._availability.recount(peer)

    def _relieve(self, now: float) -> None:
        """What silent peers were asked for is asked of idle ones; each takes the place of one of them.

        Who was relieved is left alone for a while, and relieves nobody before it has given something, so pieces
        do not go back and forth.
        """
        is_sparing = self.budget.left(now) < self.budget.limit // 2
        patience_s = self._limits.relieve_after_s * (SPARING_PATIENCE if is_sparing else 1)
        silent = [peer for peer in self.peers.values() if peer.pace.is_silent(now, patience_s)]
        for peer in sorted(silent, key=lambda peer: peer.pace.stored_at):
            in_flight = 0
            for request in peer.requests:
                in_flight |= bits_of(list(request.owed))
            relief = next(
                (other for other in self.peers.values() if self._can_give(other, in_flight, now)), None
            )
            if relief is None:
                continue
            for request in peer.requests[:]:
                self.cancel(request, now)
            peer.times_relieved += 1
            wait_s = self._limits.retry_after_min_s * 2 ** (peer.times_relieved - 1)
            peer.asked_again_at = now + min(wait_s, self._limits.retry_after_max_s)
            peer.is_silent = False
            self._silent_count -= 1
            self._fill(relief, now)

    def _can_give(self, idle: Peer, bits: int, now: float) -> bool:
        is_free = not idle.owed_bytes and not idle.times_relieved and idle.asked_again_at <= now
        return is_free and bool(self._allowed(idle, idle.offered_bits & bits, now))

    def _take_over(self, idle: Peer, now: float) -> None:
        """Let a peer that nothing missing can be asked of take something from a slow one."""
        if idle.asked_again_at > now or idle.times_relieved or not self._has_free_place:
            return
        offered = idle.offered_bits & ~self._conduct.on_parole
        if not self.ledger.requests or offered & self.ledger.pieces.missing_bits:
            return
        offered = self._allowed(idle, offered, now)
        steal = find_steal(
            idle,
            offered,
            self.ledger,
            rate_else=self._rate_else,
            size_max=self._limits.request_bytes,
            now=now,
        )
        if steal is not None:
            self._steal(idle, steal, now)
            return
        hedge = find_hedge(idle, offered, self.ledger, self.times, rate_else=self._rate_else, now=now)
        if hedge is not None:
            self._hedge(idle, hedge, now)

    def _steal(self, idle: Peer, steal: Steal, now: float) -> None:
        if steal.at_risk > self.budget.left(now):
            return
        self.budget.hold(steal.at_risk, now)
        request = steal.request
        pieces = request.pieces[steal.cut :]
        if steal.cut:
            self.ledger.shorten(request, steal.cut, now)
            self.commands.append(ShortenRequest(request.id, runs_of(request.pieces)))
        else:
            self.cancel(request, now)
        self._request(idle, pieces, now)

    def _hedge(self, idle: Peer, hedge: Hedge, now: float) -> None:
        size = self.ledger.missing_bytes(hedge.piece)
        if size <= self.budget.left(now):
            if hedge.instead is not None:
                self.cancel(hedge.instead, now)
            self.budget.hedge(hedge.piece, size)
            self._request(idle, [hedge.piece], now, is_hedge=True)
