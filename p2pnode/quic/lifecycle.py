"""A connection's life: who began it, its phases, and what is counted meanwhile."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from p2pnode.quic.send_clock import SendClock


class Role(enum.Enum):
    """Who began the connection."""

    DIALED = "dialed"
    ACCEPTED = "accepted"


class Phase(enum.Enum):
    """Where a connection is; `MOVES` says where it can go from there."""

    HANDSHAKE = "handshake"
    OPEN = "open"
    CLOSING = "closing"  # we end it: CLOSE is being said
    CLOSED = "closed"


MOVES: Final = {
    Phase.HANDSHAKE: {Phase.OPEN, Phase.CLOSING, Phase.CLOSED},
    Phase.OPEN: {Phase.CLOSING, Phase.CLOSED},
    Phase.CLOSING: {Phase.CLOSED},
    Phase.CLOSED: set[Phase](),
}


@dataclass(slots=True)
class ConnectionStatistics:
    """Counters since the connection began, and what its path is like now."""

    bytes_received: int = 0
    bytes_sent: int = 0
    datagrams_received: int = 0
    datagrams_sent: int = 0
    datagrams_dropped: int = 0  # came faster than they were taken in
    packets_lost: int = 0
    escapes: int = 0
    streams_refused: int = 0  # nobody accepted them in time
    rtt_s: float | None = None
    congestion_window: int = 0
    datagram_size: int = 0  # bytes of UDP payload that the path to the remote is known to carry
    sending: SendClock = field(default_factory=SendClock)  # what held it back
