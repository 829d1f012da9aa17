"""What a download wants done. The driver carries commands out in the order in which they were given."""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode.swarm.events import PeerId
from p2pnode.torrent.bitfield import Ranges

__all__ = ["CancelRequest", "Command", "DropPeer", "Finish", "RequestPieces"]


@dataclass(frozen=True, slots=True)
class RequestPieces:
    """Ask a peer for these whole pieces, in this order. `request` names the request in later events."""

    request: int
    peer: PeerId
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Nothing of this request is wanted any more. No event about it is expected."""

    request: int


@dataclass(frozen=True, slots=True)
class DropPeer:
    """Take nothing more from a peer, which sent bytes that are not what their hash says.

    All its requests are over, without a `CancelRequest` for each. It is dropped each time it joins again.
    """

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Finish:
    """Every piece is here. Given once, and the last command."""


Command = RequestPieces | CancelRequest | DropPeer | Finish
