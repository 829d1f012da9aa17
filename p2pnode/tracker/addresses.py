"""Which addresses of a node are told to whom.

An address that a node claims is not proven. Handed on, it would let anybody send a whole swarm's dials to a
third party, or into somebody's own network. So a claim counts only where its author could be reached anyway:
at the host that his packets came from, or inside the site that he and the asker share.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from p2pnode import config

__all__ = [
    "Address",
    "Reach",
    "believable_addresses",
    "known_addresses",
    "network_of",
    "reach_of",
    "visible_addresses",
]

Address = tuple[str, int]
"""A host and a port, the host in digits."""

# "This network" (RFC 791), what a gateway translates (RFC 6052, 3056, 4380), and what is kept for protocols or was
# given up (RFC 6890, 3879): no peer listens there. Clouds keep their secrets in some of these, Azure in the last.
_NOT_DIALABLE: Final = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8", "64:ff9b::/96", "2002::/16", "2001::/32",
            "192.0.0.0/24", "fec0::/10", "168.63.129.16/32",
        ),
    ),
)  # fmt: skip


class Reach(Enum):
    """From where an address means the same node."""

    NOWHERE = auto()  # nobody can dial it, or it is no address
    MACHINE = auto()  # loopback
    SITE = auto()  # private networks, and those of carriers and VPNs (100.64.0.0/10)
    WORLD = auto()

    __hash__ = object.__hash__  # as good as Enum's own, and not written in Python: every announce needs a few


_NEAR: Final = frozenset({Reach.MACHINE, Reach.SITE})


@lru_cache(maxsize=config.NODES_MAX)  # a question for sources asks for many, again and again
def reach_of(host: str) -> Reach:
    """From where `host` can be dialled. Only digits have a reach: a name may lead anywhere."""
    ip = _parse(host)
    if ip is None:
        return Reach.NOWHERE
    if ip.is_loopback:  # first, since ::1 is also among the reserved
        return Reach.MACHINE
    if ip.is_unspecified or ip.is_multicast or ip.is_reserved or ip.is_link_local:
        return Reach.NOWHERE
    if any(ip in network for network in _NOT_DIALABLE):
        return Reach.NOWHERE
    return Reach.WORLD if ip.is_global else Reach.SITE


def network_of(host: str) -> str:
    """What one customer has: an IPv4 address, or the 2**64 addresses of an IPv6 network."""
    ip = _parse(host)
    if isinstance(ip, IPv6Address):
        return str(ip_network((ip, 64), strict=False))
    return str(ip or host)


def known_addresses(observed: Address, claimed: Iterable[Address], listen_port: int) -> tuple[Address, ...]:
    """Where a node can be dialled, best first: as it was seen, and what it claims as far as that counts.

    `observed` is where its packets came from. A claim of an address in the world counts if it names the same
    host, or if its author runs on our own machine.
    """
    candidates = [observed, (observed[0], listen_port)]
    observed_host = _normal(observed[0])
    local = reach_of(observed[0]) is Reach.MACHINE
    for host, port in claimed:
        if local or _normal(host) == observed_host or reach_of(host) is Reach.SITE:
            candidates.append((host, port))
    dialable = (
        (_normal(host), port)
        for host, port in candidates
        if reach_of(host) is not Reach.NOWHERE and port not in config.PORTS_NEVER_DIALED
    )
    return tuple(dict.fromkeys(dialable))[: config.ADDRESSES_PER_NODE_MAX]


def visible_addresses(
    addresses: Iterable[Address], observed_host: str, asker_host: str
) -> tuple[Address, ...]:
    """Those of a node's `addresses` that mean this node where the asker is."""
    node, asker = reach_of(observed_host), reach_of(asker_host)
    allowed = {Reach.WORLD}
    if node is asker is Reach.MACHINE:
        allowed.add(Reach.MACHINE)
    if (node in _NEAR and asker in _NEAR) or _normal(observed_host) == _normal(asker_host):
        allowed.add(Reach.SITE)
    return tuple(address for address in addresses if reach_of(address[0]) in allowed)


def believable_addresses(addresses: Iterable[Address], teller_host: str) -> tuple[Address, ...]:
    """Those that a node at `teller_host` may have met, of the `addresses` that it gives for another node.

    Who is out in the world can know nobody on our machine, nor in our site.
    """
    allowed = {
        Reach.MACHINE: {Reach.MACHINE, Reach.SITE, Reach.WORLD},
        Reach.SITE: {Reach.SITE, Reach.WORLD},
    }.get(reach_of(teller_host), {Reach.WORLD})
    believable = (
        (_normal(host), port)
        for host, port in addresses
        if reach_of(host) in allowed and port not in config.PORTS_NEVER_DIALED
    )
    return tuple(dict.fromkeys(believable))[: config.ADDRESSES_PER_NODE_MAX]


def _parse(host: str) -> IPv4Address | IPv6Address | None:
    """The address that `host` means; an IPv4 address in IPv6 clothes is that IPv4 address."""
    try:
        ip = ip_address(host)
    except ValueError:
        return None
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return ip.ipv4_mapped
        if ip.scope_id is not None:
            return None  # the scope is a network card of whoever said it
    return ip


@lru_cache(maxsize=config.NODES_MAX)
def _normal(host: str) -> str:
    return str(_parse(host) or host)
