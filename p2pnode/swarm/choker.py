"""Whom we give to while more want something than we have upload slots: tit for tat, and a chance for everyone.

Each 10 s the interested peers are ranked. While we fetch: by what each gave us; who gives nothing though we gave to it
for a minute is snubbing us, and comes last. Once we have everything: by what each takes, and who had its turn goes to
the end. The best have the slots (BEP 3). One more peer is unchoked whatever its rank, for 30 s each: the optimistic
one, by how long it has waited, and for who was never unchoked that counts three times. So every peer that stays
interested is unchoked at the latest when each of the others was the optimistic one once.

Pure, and of no transport: `receive` events, carry out `commands`, come back at `next_deadline`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

from p2pnode.swarm.events import DeadlinePassed, PeerId, PeerLeft

__all__ = [
    "BytesGiven",
    "BytesTaken",
    "Choke",
    "Choker",
    "ChokerCommand",
    "ChokerEvent",
    "FetchingChanged",
    "InterestChanged",
    "Unchoke",
]

RECHOKE_INTERVAL_S: Final = 10.0  # long enough for a rate to show, and for TCP to reach it (BEP 3)
OPTIMISTIC_ROUNDS: Final = 3  # re-chokes for which the optimistic one stays
NEWCOMER_WEIGHT: Final = 3  # waits so many times as fast: it has nothing to give before it gets something
SNUBBED_S: Final = 60.0  # given to for so long, and nothing came: it snubs us (BEP 3)
SEED_TURN_S: Final = 30.0  # a slot of a seed is kept for so long while others wait
SCORE_KEPT: Final = 0.5  # of what was counted before a re-choke, at the next: a rate over about two rounds


@dataclass(frozen=True, slots=True)
class InterestChanged:
    """A peer wants something that we have, or nothing any more. All are uninterested at first."""

    peer: PeerId
    is_interested: bool


@dataclass(frozen=True, slots=True)
class BytesGiven:
    """A peer gave us bytes of pieces."""

    peer: PeerId
    size: int


@dataclass(frozen=True, slots=True)
class BytesTaken:
    """A peer took bytes of pieces from us."""

    peer: PeerId
    size: int


@dataclass(frozen=True, slots=True)
class FetchingChanged:
    """Whether we want something ourselves: if not, it is no merit to give us anything. At first we do not."""

    is_fetching: bool


ChokerEvent = InterestChanged | BytesGiven | BytesTaken | FetchingChanged | PeerLeft | DeadlinePassed


@dataclass(frozen=True, slots=True)
class Choke:
    """Answer nothing more of this peer."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Unchoke:
    """Answer what this peer asks for. Each peer is choked at first."""

    peer: PeerId


ChokerCommand = Choke | Unchoke


@dataclass(slots=True)
class _Peer:
    """An interested one."""

    since: float  # it is choked, or unchoked
    order: float  # by chance, among equals
    is_new: bool = True  # never unchoked
    is_unchoked: bool = False
    given: float = 0.0  # bytes, those before the last re-choke count less
    taken: float = 0.0
    gave_at: float = field(default=float("-inf"))

    def snubs(self, now: float) -> bool:
        return self.is_unchoked and now - max(self.since, self.gave_at) >= SNUBBED_S

    def patience(self, now: float) -> float:
        """How long it has waited; the optimistic one is who has the most of it."""
        return (now - self.since) * (NEWCOMER_WEIGHT if self.is_new else 1)


class Choker:
    """Upload slots of one node, or of one torrent: never more than `slots` + 1 peers are unchoked."""

    def __init__(self, slots: int, *, rng: Random) -> None:
        if slots < 1:
            raise ValueError("at least one slot")
        self._slots = slots
        self._rng = rng
        self._peers: dict[PeerId, _Peer] = {}
        self._served: set[PeerId] = set()  # not new any more, until they leave
        self._optimistic: PeerId | None = None
        self._optimistic_rounds = 0  # that it has been the one
        self._is_fetching = False
        self._deadline: float | None = None
        self._commands: list[ChokerCommand] = []

    @property
    def unchoked(self) -> frozenset[PeerId]:
        """Those who are given to."""
        return frozenset(peer for peer, state in self._peers.items() if state.is_unchoked)

    def next_deadline(self) -> float | None:
        """The next re-choke; None while nobody is interested."""
        return self._deadline

    def commands(self) -> Iterator[ChokerCommand]:
        """Drain what is to be done: no peer is choked or unchoked twice in a row."""
        commands, self._commands = self._commands, []
        return iter(commands)

    def receive(self, event: ChokerEvent, now: float) -> None:
        """Take in what happened; re-choke when it is time."""
        match event:
            case InterestChanged(peer, True):
                if peer not in self._peers:
                    self._peers[peer] = _Peer(now, self._rng.random(), is_new=peer not in self._served)
                    self._fill_slots(now)
            case InterestChanged(peer, False):
                self._remove(peer, now)
            case PeerLeft(peer):
                self._remove(peer, now)
                self._served.discard(peer)
            case BytesGiven(peer, size):
                if (state := self._peers.get(peer)) is not None:
                    state.given += size
                    state.gave_at = now
            case BytesTaken(peer, size):
                if (state := self._peers.get(peer)) is not None:
                    state.taken += size
            case FetchingChanged(is_fetching):
                self._is_fetching = is_fetching
            case DeadlinePassed():
                pass
        self._look_at_clock(now)

    def _look_at_clock(self, now: float) -> None:
        if not self._peers:
            self._deadline = None
        elif self._deadline is None:
            self._deadline = now + RECHOKE_INTERVAL_S
        elif now >= self._deadline:
            self._deadline = now + RECHOKE_INTERVAL_S
            self._rechoke(now)

    def _remove(self, peer: PeerId, now: float) -> None:
        state = self._peers.pop(peer, None)
        if state is None:
            return
        if self._optimistic == peer:
            self._optimistic = None
        if state.is_unchoked:
            self._commands.append(Choke(peer))
            self._fill_slots(now)

    def _fill_slots(self, now: float) -> None:
        """Slots that nobody has go to those who waited longest, without a re-choke."""
        while len(self.unchoked) - (self._optimistic is not None) < self._slots:
            peer = self._most_patient(self._peers.keys() - self.unchoked, now)
            if peer is None:
                return
            self._unchoke(peer, now)

    def _rechoke(self, now: float) -> None:
        ranked = sorted(self._peers, key=lambda peer: self._rank(self._peers[peer], now))
        best, rest = set(ranked[: self._slots]), set(ranked[self._slots :])
        self._choose_optimistic(rest, now)
        wanted = best if self._optimistic is None else best | {self._optimistic}
        for peer in self.unchoked - wanted:
            self._choke(peer, now)
        for peer in ranked:
            if peer in wanted and not self._peers[peer].is_unchoked:
                self._unchoke(peer, now)
        for state in self._peers.values():
            state.given *= SCORE_KEPT
            state.taken *= SCORE_KEPT

    def _rank(self, peer: _Peer, now: float) -> tuple[bool, float, float, float]:
        """The smallest is the best."""
        if self._is_fetching:
            return peer.snubs(now), -peer.given, -peer.patience(now), peer.order
        had_its_turn = peer.is_unchoked and now - peer.since >= SEED_TURN_S
        return had_its_turn, -peer.taken, -peer.patience(now), peer.order

    def _choose_optimistic(self, rest: set[PeerId], now: float) -> None:
        """One of those who have no slot; whoever got one makes room for another."""
        self._optimistic_rounds += 1
        if self._optimistic in rest and self._optimistic_rounds < OPTIMISTIC_ROUNDS:
            return
        waiting = {peer for peer in rest if not self._peers[peer].is_unchoked}
        self._optimistic = self._most_patient(waiting or rest, now)
        self._optimistic_rounds = 0

    def _most_patient(self, peers: set[PeerId], now: float) -> PeerId | None:
        return max(
            peers,
            key=lambda peer: (
                self._peers[peer].patience(now),
                self._peers[peer].is_new,
                self._peers[peer].order,
            ),
            default=None,
        )

    def _unchoke(self, peer: PeerId, now: float) -> None:
        state = self._peers[peer]
        state.is_unchoked, state.is_new, state.since = True, False, now
        self._served.add(peer)
        self._commands.append(Unchoke(peer))

    def _choke(self, peer: PeerId, now: float) -> None:
        state = self._peers[peer]
        state.is_unchoked, state.since = False, now
        self._commands.append(Choke(peer))
