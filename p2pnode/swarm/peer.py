"""What a download knows of one peer that it may ask, and of one request."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from p2pnode.swarm.events import PeerId
from p2pnode.swarm.pipeline import Pace

__all__ = ["Peer", "Request"]


@dataclass(slots=True, eq=False)
class Request:
    """A request under way."""

    id: int
    peer: Peer
    pieces: list[int]  # in the order in which they were asked for and come: ascending
    bits: int  # the same as a set
    asked_at: float
    owed: set[int]  # those of which not all came
    was_idle: bool  # the peer, when it was asked: the first bytes tell its latency
    gave_bytes: bool = False
    is_hedge: bool = False  # its piece is under way from somebody else too


@dataclass(slots=True, eq=False)
class Peer:
    """A source: what it has, and what it was asked for. Sets of pieces are ints, piece *i* at bit *i*."""

    id: PeerId
    have_bits: int
    is_complete: bool
    is_near: bool
    refused_bits: int = 0  # what it has but will not give, since it last said all that it has
    coming: list[tuple[float, int]] = field(default_factory=list)  # what it expects, each until a time
    requests: list[Request] = field(default_factory=list)
    owed_bytes: int = 0  # of all pieces that its requests owe
    pace: Pace = field(default_factory=Pace)
    next_piece: int | None = None  # behind what it was asked for last
    asked_again_at: float = -inf  # it was busy: ask nothing new before
    times_relieved: int = 0  # that another got what it did not give, since it gave something
    is_silent: bool = False  # it owes something and gave nothing for long: nobody waits for what it has

    @property
    def offered_bits(self) -> int:
        """The pieces that it may be asked for."""
        return self.have_bits ^ (self.have_bits & self.refused_bits) if self.refused_bits else self.have_bits

    @property
    def expected_bits(self) -> int:
        """What it has or will have soon."""
        bits = self.have_bits
        for _, coming in self.coming:
            bits |= coming
        return bits

    def expects(self, bits: int, until: float) -> None:
        """It expects these pieces too; they are remembered by the second."""
        bits &= ~self.have_bits
        if self.coming and until - self.coming[-1][0] < 1.0:
            self.coming[-1] = (self.coming[-1][0], self.coming[-1][1] | bits)
        else:
            self.coming.append((until, bits))

    def got(self, bits: int) -> None:
        """It has these pieces and no others."""
        self.have_bits = bits
        self.coming = [(until, left) for until, coming in self.coming if (left := coming & ~bits)]

    def expire_coming(self, now: float) -> bool:
        """Forget what it expected and did not get in time; whether there was any."""
        if not self.coming or self.coming[0][0] > now:
            return False
        self.coming = [(until, bits) for until, bits in self.coming if until > now]
        return True
