"""The end of a download: an idle peer takes over what a slow one still owes.

Two ways. *Stealing*: the rear of a request, of which nothing came yet, is asked of the idle peer instead, so much of
it that both end together. *Hedging*: what is the last piece of its request and takes longer than pieces usually do is
asked of the idle peer as well; whoever completes it first wins, and the other's request is cancelled.

Both may cost bytes that come twice: what was on the wire when a request was cut, or what two peers gave of a piece.
`Budget` bounds that strictly: what was wasted and what all that is open could waste at worst stays within it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from p2pnode.swarm.ledger import Ledger
from p2pnode.swarm.peer import Peer, Request

__all__ = ["Budget", "Hedge", "PieceTimes", "Steal", "find_hedge", "find_steal"]

DUPLICATES_MAX = 0.02  # of the bytes that are wanted may come twice
WORD_LASTS_S = 1.0  # after a request was cut, what of it was on the wire has come and has been told of
STOP_TAKES_S = 0.1  # what a peer sends for so long after a word to stop comes for nothing
SOON_SAFETY = 4  # times as much may be on the wire as we think: queues there are not seen from here
GAIN_MIN_S = 0.05  # for less nothing is taken away: estimates are not better
GAIN_PART = 0.25  # nor for less than this part of the time that it would take
PIECE_TIMES = 64  # recent pieces tell how long one takes


class Budget:
    """The bytes that may come twice: 2 % of all that is wanted."""

    def __init__(self, wanted_bytes: int) -> None:
        self.limit = int(wanted_bytes * DUPLICATES_MAX)
        self.spent = 0
        self._held: deque[tuple[float, int]] = deque()  # of what was cut short: until when, how much
        self._held_sum = 0
        self._hedged: dict[int, int] = {}  # piece → bytes, of open hedges

    def spend(self, size: int) -> None:
        """So many bytes came for nothing. Those were held, most often."""
        self.spent += size
        while size > 0 and self._held:
            until, held = self._held.popleft()
            freed = min(size, held)
            size -= freed
            self._held_sum -= freed
            if held > freed:
                self._held.appendleft((until, held - freed))

    def left(self, now: float) -> int:
        """What may still be risked."""
        while self._held and self._held[0][0] <= now:
            self._held_sum -= self._held.popleft()[1]
        return self.limit - self.spent - self._held_sum - sum(self._hedged.values())

    def hold(self, size: int, now: float) -> None:
        """So many bytes may be on the wire for nothing: until they have come, or do not come any more."""
        self._held.append((now + WORD_LASTS_S, size))
        self._held_sum += size

    def hedge(self, piece: int, size: int) -> None:
        """So many bytes of a piece may come twice."""
        self._hedged[piece] = size

    def end_hedge(self, piece: int, now: float) -> None:
        """A piece is not asked of two peers any more."""
        if (size := self._hedged.pop(piece, None)) is not None:
            self.hold(size, now)


class PieceTimes:
    """How long recent pieces took, from the question to the last byte."""

    def __init__(self) -> None:
        self._recent_s: deque[float] = deque(maxlen=PIECE_TIMES)
        self._slowest_s: float | None = None

    def add(self, seconds: float) -> None:
        """A piece took so long."""
        self._recent_s.append(seconds)
        self._slowest_s = None

    @property
    def usual_max_s(self) -> float:
        """What one piece in twenty exceeds; 0: none came yet."""
        if self._slowest_s is None:
            ordered = sorted(self._recent_s)
            self._slowest_s = ordered[len(ordered) * 19 // 20] if ordered else 0.0
        return self._slowest_s


@dataclass(frozen=True, slots=True)
class Steal:
    """Take the pieces of a request from its `cut`th on; `at_risk` bytes of them may be on the wire."""

    request: Request
    cut: int
    at_risk: int


@dataclass(frozen=True, slots=True)
class Hedge:
    """Ask for a piece a second time, or somebody else than the second one, whose request `instead` gives nothing."""

    piece: int
    instead: Request | None


def find_steal(
    idle: Peer, offered: int, ledger: Ledger, *, rate_else: float, size_max: int, now: float
) -> Steal | None:
    """What `idle`, which offers a set of pieces, had best take of the slowest one's: None if it gains nothing."""
    for slow in _slowest_first(idle, offered, ledger, rate_else, now):
        request = slow.requests[-1]
        slow_s = slow.pace.seconds_for(slow.owed_bytes, now, rate_else)
        size = cut_size = 0
        cut = len(request.pieces)
        while cut:
            piece = request.pieces[cut - 1]
            is_begun = ledger.missing_bytes(piece) < ledger.piece_sizes[piece]
            if (
                piece not in request.owed
                or is_begun
                or len(ledger.owing(piece)) > 1
                or not offered >> piece & 1
            ):
                break
            size += ledger.piece_sizes[piece]
            idle_s = idle.pace.seconds_for(size, now, rate_else)
            rest_s = slow.pace.seconds_for(slow.owed_bytes - size, now, rate_else)
            if (size > size_max and cut_size) or not _gains(idle_s, slow_s) or (idle_s > rest_s and cut_size):
                break
            cut, cut_size = cut - 1, size
        if cut_size:
            soon = slow.pace.rate * (slow.pace.latency_s + STOP_TAKES_S) * SOON_SAFETY
            return Steal(request, cut, 0 if slow.owed_bytes - cut_size > soon else cut_size)
    return None


def find_hedge(
    idle: Peer, offered: int, ledger: Ledger, times: PieceTimes, *, rate_else: float, now: float
) -> Hedge | None:
    """The piece that `idle` had best be asked for as well: None if none is late, or it gains nothing."""
    for slow in _slowest_first(idle, offered, ledger, rate_else, now):
        for request in slow.requests:
            owed = [piece for piece in request.pieces if piece in request.owed]
            if len(owed) != 1 or now - request.asked_at <= times.usual_max_s:
                continue
            piece = owed[0]
            is_second = request.is_hedge and now - slow.pace.stored_at > times.usual_max_s
            if piece in ledger.verifier or not offered >> piece & 1:
                continue
            if len(ledger.owing(piece)) > 1 and (not is_second or idle in ledger.owing_peers(piece)):
                continue
            idle_s = idle.pace.seconds_for(ledger.piece_sizes[piece], now, rate_else)
            slow_s = slow.pace.seconds_for(ledger.missing_bytes(piece), now, rate_else)
            if _gains(idle_s, slow_s):
                return Hedge(piece, request if is_second else None)
    return None


def _slowest_first(idle: Peer, offered: int, ledger: Ledger, rate_else: float, now: float) -> Iterable[Peer]:
    """Those who owe what `idle` offers, whoever will need longest for it first."""
    owing = {request.peer.id: request.peer for request in ledger.requests.values() if request.bits & offered}
    return sorted(
        (peer for peer in owing.values() if peer is not idle),
        key=lambda peer: peer.pace.seconds_for(peer.owed_bytes, now, rate_else),
        reverse=True,
    )


def _gains(fast_s: float, slow_s: float) -> bool:
    return slow_s - fast_s > max(GAIN_MIN_S, GAIN_PART * slow_s)
