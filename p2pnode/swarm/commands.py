"""What a download wants done. The driver carries commands out in the order in which they were given."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from p2pnode.swarm.events import PeerId
from p2pnode.torrent.bitfield import Ranges

__all__ = ["CancelRequest", "Command", "DropPeer", "DropReason", "Finish", "RequestPieces"]


class DropReason(StrEnum):
    """Why a peer is no longer wanted: a text to show."""

    STALLED = "it sent nothing for too long"
    CORRUPT = "it sent bytes that are not what their hash says"


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
    """Take nothing more from a peer; all its requests are over, without a `CancelRequest` for each.

    A stalled one may join again, a corrupt one is dropped each time it does.
    """

    peer: PeerId
    reason: DropReason


@dataclass(frozen=True, slots=True)
class Finish:
    """Every piece is here. Given once, and the last command."""


Command = RequestPieces | CancelRequest | DropPeer | Finish
