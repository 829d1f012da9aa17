"""How fast a swarm can be at all: the least time in which a file reaches everybody.

Kumar and Ross, "Peer-Assisted File Distribution: The Minimum Distribution Time" (2006): with unlimited links
inside the network, whoever gives F bytes to N leechers needs at least

    max( F / u_s ,  F / d_min ,  N · F / (u_s + Σ u_i) )

seconds, where u_s is the uplink of the source, d_min the slowest downlink and u_i the uplink of a leecher; and
bytes that flow like water reach it. Real bytes come in pieces and packets, with headers, after handshakes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rates:
    """What one host, or one zone, can send and receive. Bytes a second."""

    up_bytes_per_s: float
    down_bytes_per_s: float


def least_seconds(size: int, source_up: float, leechers: Sequence[Rates]) -> float:
    """The bound of Kumar and Ross. `source_up` is what all sources send together, in bytes a second."""
    slowest = min(leecher.down_bytes_per_s for leecher in leechers)
    all_up = source_up + sum(leecher.up_bytes_per_s for leecher in leechers)
    return max(size / source_up, size / slowest, len(leechers) * size / all_up)


def least_seconds_in_zones(
    size: int, source_up: float, zones: Sequence[Sequence[Rates]], gateway: Rates
) -> float:
    """The same where each zone, the source's too, talks to the others through one gateway.

    Two bounds, of which the larger holds: of the leechers as if there were no gateways, and of the zones as if
    each were one leecher, with its gateway for a link.
    """
    hosts = [leecher for zone in zones for leecher in zone]
    gateways = [gateway for zone in zones if zone]
    return max(
        least_seconds(size, source_up, hosts),
        least_seconds(size, min(source_up, gateway.up_bytes_per_s), gateways),
    )
