"""What a download knows of one peer that it may ask."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pnode.torrent.bitfield import Bitfield

__all__ = ["Peer"]


@dataclass(slots=True)
class Peer:
    """A source: what it has, and what it was asked for."""

    have: Bitfield
    refused: Bitfield  # what it has but will not give
    first_piece: int  # what it is asked for comes from here on, then from the beginning
    requests: set[int] = field(default_factory=set)
    in_flight: set[int] = field(default_factory=set)  # pieces asked for and not complete
    verifying: set[int] = field(default_factory=set)  # pieces complete, about which we have not decided
    asked_again_at: float | None = None  # it was busy: ask nothing new before
    progress_at: float = 0.0  # when it last completed a piece, or was asked after it had been idle
    was_relieved: bool = False  # another got what it was slow to give; it has completed no piece since

    @property
    def offered(self) -> Bitfield:
        """The pieces that it may be asked for."""
        return self.have - self.refused
