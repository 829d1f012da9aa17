"""Addresses of peers as trackers send them: the host, then the port, nothing between them (BEP 7, 15, 23)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Final

__all__ = ["unpack_peers"]

_PORT_SIZE: Final = 2


def unpack_peers(compact: bytes, *, is_ipv6: bool) -> tuple[tuple[str, int], ...]:
    """Hosts in digits, and ports; of 6 bytes each, or 18 over IPv6. What is no whole peer at the end is left out."""
    host_type, host_size = (IPv6Address, 16) if is_ipv6 else (IPv4Address, 4)
    size = host_size + _PORT_SIZE
    whole = (compact[start : start + size] for start in range(0, len(compact) - size + 1, size))
    return tuple((str(host_type(peer[:host_size])), int.from_bytes(peer[host_size:])) for peer in whole)
