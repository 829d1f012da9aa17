"""What is said to a tracker and what it answers, whatever its language: the words of all tracker clients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from p2pnode.tracker.addresses import believable_addresses
from p2pnode.tracker.announces import AnnounceEvent, SwarmCounts, SwarmPeer

__all__ = ["AnnounceRequest", "TrackerAnswer", "TrackerClient", "believable_peers"]


@dataclass(frozen=True, slots=True)
class AnnounceRequest:
    """One announce. `uploaded`, `downloaded` (since the start) and `left` are bytes, `numwant` is peers."""

    info_hash: bytes  # 20; a v2 hash cut to 20 (BEP 52)
    peer_id: bytes  # 20
    port: int  # where we listen
    uploaded: int
    downloaded: int
    left: int
    event: AnnounceEvent
    numwant: int
    key: int  # 32 bits, the same as long as we run: proves us where our address changes


@dataclass(frozen=True, slots=True)
class TrackerAnswer:
    """Intervals in seconds as the tracker wrote them, any integer; None for what it does not say."""

    interval_s: int
    interval_min_s: int | None
    complete: int | None
    incomplete: int | None
    peers: tuple[SwarmPeer, ...]  # those only that a tracker at its address may know
    warning: str = ""  # a line for a person


class TrackerClient(Protocol):
    """One tracker. No method has a limit of time in all: the caller sets it, and cancels."""

    async def announce(self, request: AnnounceRequest) -> TrackerAnswer:
        """Announce. Raises `Refused` for what the tracker or our policy refuses, else one of `REMOTE_FAULTS`."""
        ...

    async def scrape(self, info_hashes: Sequence[bytes]) -> dict[bytes, SwarmCounts]:
        """Ask how many peers torrents have (BEP 48); those it does not know are left out. Raises as `announce`."""
        ...


def believable_peers(peers: Iterable[SwarmPeer], tracker_host: str) -> tuple[SwarmPeer, ...]:
    """The peers that may be dialed because this tracker names them: one out in the world knows none near us."""
    return tuple(
        SwarmPeer(peer.peer_id, host, port)
        for peer in peers
        for host, port in believable_addresses([(peer.host, peer.port)], tracker_host)
    )
