"""What an announce says and what it is answered, whatever language it came in (BEP 3, 15, 23; JSON over QUIC).

Nobody changes one of these. What is made for each announce is not frozen all the same: that takes Python five times as
long, and all four together a tenth of what an announce takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address, ip_address
from typing import Final, overload

from p2pnode.tracker.addresses import Address

__all__ = [
    "PEER_ID_SIZE",
    "V4_SIZE",
    "V6_SIZE",
    "Announce",
    "AnnounceAnswer",
    "AnnounceEvent",
    "SwarmCounts",
    "SwarmPeer",
    "SwarmPeers",
]

PEER_ID_SIZE: Final = 20
V4_SIZE: Final = 6  # bytes of a peer as BEP 23 has it: the host, then the port, big-endian
V6_SIZE: Final = 18  # the same for IPv6 (BEP 7)


class AnnounceEvent(Enum):
    """Why a peer announces; `NONE` is one of those that come at regular intervals."""

    NONE = ""
    STARTED = "started"
    COMPLETED = "completed"
    STOPPED = "stopped"
    PAUSED = "paused"  # BEP 21: a partial seed, which wants nothing more


@dataclass(slots=True)
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
    same_family: bool = False  # its language has room for peers of its own family only (BEP 15)


@dataclass(frozen=True, slots=True)
class SwarmPeer:
    """A peer as others are told of it; the host in digits, IPv4 never in IPv6 clothes."""

    peer_id: bytes  # 20; an id of another length is not told, but a hash of it
    host: str
    port: int


@dataclass(slots=True)
class SwarmPeers(Sequence[SwarmPeer]):
    """Peers, IPv4 first, kept as they go over the wire: most answers need no more than that."""

    compact_v4: bytes = b""  # 6 for each (BEP 23)
    compact_v6: bytes = b""  # 18 for each (BEP 7)
    peer_ids: bytes = b""  # 20 for each, in the same order

    @classmethod
    def of(cls, peers: Iterable[SwarmPeer]) -> SwarmPeers:
        """The same peers, packed."""
        packed = [(ip_address(one.host).packed + one.port.to_bytes(2), one.peer_id) for one in peers]
        v4 = [one for one in packed if len(one[0]) == V4_SIZE]
        v6 = [one for one in packed if len(one[0]) == V6_SIZE]
        return cls(
            b"".join(address for address, _ in v4),
            b"".join(address for address, _ in v6),
            b"".join(peer_id for _, peer_id in v4 + v6),
        )

    def __len__(self) -> int:
        return len(self.peer_ids) // PEER_ID_SIZE

    def __iter__(self) -> Iterator[SwarmPeer]:
        return map(self._peer, range(len(self)))

    @overload
    def __getitem__(self, index: int) -> SwarmPeer: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[SwarmPeer, ...]: ...
    def __getitem__(self, index: int | slice) -> SwarmPeer | tuple[SwarmPeer, ...]:
        places = range(len(self))[index]
        return self._peer(places) if isinstance(places, int) else tuple(map(self._peer, places))

    def _peer(self, place: int) -> SwarmPeer:
        peer_id = self.peer_ids[place * PEER_ID_SIZE : (place + 1) * PEER_ID_SIZE]
        start = place * V4_SIZE
        if start < len(self.compact_v4):
            address = self.compact_v4[start : start + V4_SIZE]
            return SwarmPeer(peer_id, ".".join(map(str, address[:4])), int.from_bytes(address[4:]))
        start = place * V6_SIZE - len(self.compact_v4) // V4_SIZE * V6_SIZE
        address = self.compact_v6[start : start + V6_SIZE]
        return SwarmPeer(peer_id, str(IPv6Address(address[:16])), int.from_bytes(address[16:]))


@dataclass(slots=True)
class SwarmCounts:
    """How many there are; `downloaded` counts the completions ever announced here."""

    complete: int
    incomplete: int
    downloaded: int


@dataclass(slots=True)
class AnnounceAnswer:
    """Whom to talk to, and when to announce again at the latest and at the earliest."""

    interval_s: int
    interval_min_s: int
    counts: SwarmCounts
    peers: SwarmPeers
