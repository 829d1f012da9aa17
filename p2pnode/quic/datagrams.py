"""Datagrams and addresses: what QUIC needs of a network, whichever it is. `p2pnode.quic.udp` is the real one.

Datagrams travel in bursts, since each step from the system call to the engine is worth taking for many at
once or not at all.

An `Address` is `(host, port)` and nothing else: the same peer must have the same address whether a dual-stack
socket shows it as `::ffff:192.0.2.1` or a user typed `192.0.2.1`, because aioquic drops what does not come
from the very address that was dialled.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, Protocol

import trio

from p2pnode.errors import AddressError

Address = tuple[str, int]
Datagram = tuple[bytes, Address]  # one, as aioquic gives it
Burst = tuple[list[bytes], Address]  # datagrams from or to one address, in their order; never empty

_MAPPED_PREFIX: Final = "::ffff:"


class DatagramSocket(Protocol):
    """What QUIC needs of a network. `UdpSocket` is one; so are those of `p2pnode.testing.network`."""

    @property
    def local_address(self) -> Address:
        """The address it is bound to."""
        ...

    @property
    def hint(self) -> str | None:
        """What would make this socket faster and only its user can do: one line; None: nothing."""
        ...

    async def receive_batch(self) -> list[Burst]:
        """Wait for datagrams, then give all that are there: at least one, at most a bounded number.

        The lists are the caller's. A burst may be for several connections with one remote.
        """
        ...

    async def send_batch(self, bursts: Sequence[Burst]) -> None:
        """Send each datagram to its address. What the network refuses is a loss, never an error."""
        ...

    def close(self) -> None:
        """Free the address; whoever waits gets `trio.ClosedResourceError`."""
        ...


def normalise(host: str, port: int, scope_id: int = 0) -> Address:
    """The one form of a numeric address: IPv4-mapped becomes IPv4, IPv6 its short form. `AddressError`."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        raise AddressError(f"{host!r} is not an IP address") from None
    _check_port(port)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped), port
        if scope_id and ip.scope_id is None:
            return f"{ip}%{scope_id}", port
    return str(ip), port


def _check_port(port: int) -> None:
    if not 0 <= port <= 65_535:
        raise AddressError(f"{port} is not a port: ports are 0 to 65535")


def format_address(address: Address) -> str:
    """`192.0.2.1:4433` or `[2001:db8::1]:4433`."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def network_of(host: str) -> str:
    """What one customer has, of a numeric host: an IPv4 address, or the 2**64 addresses of an IPv6 network."""
    ip = ipaddress.ip_address(host)
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Address(int(ip) >> 64 << 64))
    return str(ip)


async def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host name or a numeric host, best first (RFC 6724). `AddressError`."""
    _check_port(port)  # getaddrinfo takes it modulo 65536
    try:
        answers = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (socket.gaierror, UnicodeError, OverflowError, ValueError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else str(error)
        raise AddressError(f"{host!r} does not resolve: {reason}") from error
    addresses = [from_sockaddr(sockaddr) for *_, sockaddr in answers]
    return list(dict.fromkeys(addresses))


def bursts_of(datagrams: Iterable[Datagram]) -> list[Burst]:
    """The same datagrams in the same order, those that follow each other to one address together."""
    return [([data for data, _ in group], address) for address, group in groupby(datagrams, itemgetter(1))]


def from_sockaddr(sockaddr: tuple[Any, ...]) -> Address:
    """Our form of what the kernel calls an address: `(host, port)` or `(host, port, flow, scope)`."""
    return normalise(sockaddr[0], sockaddr[1], sockaddr[3] if len(sockaddr) == 4 else 0)


def to_sockaddr(address: Address, family: socket.AddressFamily) -> tuple[Any, ...]:
    """The kernel's form. `AddressError` for a name: the kernel must never be made to look one up."""
    host, port = normalise(*address)
    if family == socket.AF_INET:
        return host, port
    if ":" not in host:
        return _MAPPED_PREFIX + host, port, 0, 0
    host, _, scope = host.partition("%")
    if scope and not scope.isdecimal():
        scope = str(socket.if_nametoindex(scope))
    return host, port, 0, int(scope or 0)
