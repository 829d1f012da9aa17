"""What a download wants done. The driver carries commands out in the order in which they were given."""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode.swarm.events import PeerId
from p2pnode.torrent.bitfield import Ranges

__all__ = ["CancelRequest", "Command", "DropPeer", "Finish", "RequestPieces", "ShortenRequest"]


@dataclass(frozen=True, slots=True)
class RequestPieces:
    """Ask a peer for these whole pieces, in this order. `request` names the request in later events.

    A piece may be under way from somebody else as well: whoever completes it first wins.
    """

    request: int
    peer: PeerId
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class ShortenRequest:
    """Of this request only these pieces are still wanted: the first ones of it, in the same order.

    It goes on without the others, which somebody else is asked for, and ends as it would have.
    """

    request: int
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Nothing of this request is wanted any more. No event about it is expected."""

    request: int


@dataclass(frozen=True, slots=True)
class DropPeer:
    """Take nothing more from a peer, which sent two pieces that are not what their hashes say.

    All its requests are over, without a `CancelRequest` for each. It is dropped each time it joins again.
    """

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Finish:
    """Every piece is here. Given once, and the last command."""


Command = RequestPieces | ShortenRequest | CancelRequest | DropPeer | Finish
