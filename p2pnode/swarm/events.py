"""What happens to a download. The driver tells the machine in the order in which it happened.

An event may be late: its peer dropped, its request ended, its piece complete. That is normal, and such an
event changes nothing but what is still true of it (a verified piece is verified, whoever sent it).
"""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode.torrent.bitfield import Bitfield

__all__ = [
    "BlockStored",
    "BytesWasted",
    "DeadlinePassed",
    "Event",
    "PeerComing",
    "PeerHas",
    "PeerId",
    "PeerJoined",
    "PeerLeft",
    "PieceCorrupt",
    "PieceFailed",
    "PieceVerified",
    "RequestFailed",
    "RequestFinished",
]

PeerId = bytes
"""What the driver knows a peer by, such as a node id; here it is opaque."""


@dataclass(frozen=True, slots=True)
class PeerJoined:
    """A peer can be asked from now on, and has these pieces. Said again, it has these and no others.

    A near one is in our zone: what comes from it costs nothing scarce.
    """

    peer: PeerId
    have: Bitfield
    is_near: bool = True


@dataclass(frozen=True, slots=True)
class PeerHas:
    """A peer has these pieces too."""

    peer: PeerId
    have: Bitfield


@dataclass(frozen=True, slots=True)
class PeerComing:
    """A peer has asked somebody else for these pieces: it will have them soon, or say no more of them."""

    peer: PeerId
    pieces: Bitfield


@dataclass(frozen=True, slots=True)
class PeerLeft:
    """A peer can no longer be asked; all its requests are over."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class BlockStored:
    """`length` bytes of a piece came from a peer, were not here yet, and were written."""

    peer: PeerId
    piece: int
    length: int


@dataclass(frozen=True, slots=True)
class BytesWasted:
    """`length` file bytes came from a peer for nothing: they were here already, or nobody wanted them any more."""

    peer: PeerId
    length: int


@dataclass(frozen=True, slots=True)
class PieceVerified:
    """All of a piece is written and is what its hash says; the last of it came from this peer."""

    peer: PeerId
    piece: int


@dataclass(frozen=True, slots=True)
class PieceCorrupt:
    """A peer sent bytes of a piece that are not what their hash says."""

    peer: PeerId
    piece: int


@dataclass(frozen=True, slots=True)
class PieceFailed:
    """All of a piece was written and is not what its hash says; its blocks have no hashes that tell whose fault it is.

    Nothing of it is here any more.
    """

    piece: int


@dataclass(frozen=True, slots=True)
class RequestFinished:
    """A peer says that it sent all of a request. Every `BlockStored` of the request came before."""

    request: int


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """A request ended early; the peer stays. Retryable: the peer may be asked again after so long."""

    request: int
    retryable: bool
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The time that `Download.next_deadline` gave has come."""


Event = (
    PeerJoined
    | PeerHas
    | PeerComing
    | PeerLeft
    | BlockStored
    | BytesWasted
    | PieceVerified
    | PieceCorrupt
    | PieceFailed
    | RequestFinished
    | RequestFailed
    | DeadlinePassed
)
