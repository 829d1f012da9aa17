"""What an announce says and what it is answered, whatever language it came in (BEP 3, 15, 23; JSON over QUIC)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from p2pnode.tracker.addresses import Address

__all__ = ["Announce", "AnnounceAnswer", "AnnounceEvent", "SwarmCounts", "SwarmPeer"]


class AnnounceEvent(Enum):
    """Why a peer announces; `NONE` is one of those that come at regular intervals."""

    NONE = ""
    STARTED = "started"
    COMPLETED = "completed"
    STOPPED = "stopped"
    PAUSED = "paused"  # BEP 21: a partial seed, which wants nothing more


@dataclass(frozen=True, slots=True)
class Announce:
    """One peer and one torrent.

    `source` is where the packet came from, never what is claimed in it: host in digits, and the port of that packet.
    `claimed_host` counts only where it is the same host, or where the operator opted in. `port` is where the peer
    listens, `left` how many bytes it lacks (0: a seed), `numwant` how many peers it asks for (None: it does not say).
    """

    info_hash: bytes  # 20 bytes; a v2 hash cut to 20 (BEP 52)
    peer_id: bytes  # 1 to 64 bytes; 20 in every language but JSON
    source: Address
    port: int
    left: int = 0
    event: AnnounceEvent = AnnounceEvent.NONE
    numwant: int | None = None
    claimed_host: str | None = None
    key: str = ""  # what proves that a peer with a new address is the same (BEP 7, 15)


@dataclass(frozen=True, slots=True)
class SwarmPeer:
    """A peer as others are told of it; the host in digits, IPv4 never in IPv6 clothes."""

    peer_id: bytes
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class SwarmCounts:
    """How many there are; `downloaded` counts the completions ever announced here."""

    complete: int
    incomplete: int
    downloaded: int


@dataclass(frozen=True, slots=True)
class AnnounceAnswer:
    """Whom to talk to, and when to announce again at the latest and at the earliest."""

    interval_s: int
    interval_min_s: int
    counts: SwarmCounts
    peers: tuple[SwarmPeer, ...]
