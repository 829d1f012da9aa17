"""UDP for QUIC: one socket for all connections of a process, datagrams in batches.

An `Address` is `(host, port)` and nothing else: the same peer must have the same address whether a dual-stack
socket shows it as `::ffff:192.0.2.1` or a user typed `192.0.2.1`, because aioquic drops what does not come
from the very address that was dialled.

Nothing that happens to one datagram ends anything: an ICMP error, a firewall, an address that cannot be are
losses, and QUIC repairs losses. They are counted, each by its name.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, Protocol

import trio

from p2pnode.errors import AddressError, AddressInUse

Address = tuple[str, int]
Datagram = tuple[bytes, Address]  # one, as aioquic gives it
Burst = tuple[list[bytes], Address]  # datagrams from or to one address, in their order; never empty

BATCH_MAX: Final = 256  # datagrams of one batch: about 4 ms of work before the connections get their turn
DATAGRAM_SIZE_MAX: Final = 65_535  # what recvfrom has room for, so that nothing is ever cut
SOCKET_BUFFER_SIZE: Final = 4 * 1024 * 1024  # asked for, in both directions; the kernel may give less
NO_BUFFER_TRIES: Final = 5  # ENOBUFS: the interface's queue is full …
NO_BUFFER_WAIT_S: Final = 0.001  # … so wait a little between the tries, and then call it a loss
ADDRESSES_REMEMBERED_MAX: Final = 4096  # conversions between the kernel's form of an address and ours

_MAPPED_PREFIX: Final = "::ffff:"


class DatagramSocket(Protocol):
    """What QUIC needs of a network. `UdpSocket` is one; so are those of `p2pnode.testing.network`."""

    @property
    def local_address(self) -> Address:
        """The address it is bound to."""
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
    addresses = [_from_sockaddr(sockaddr) for *_, sockaddr in answers]
    return list(dict.fromkeys(addresses))


def bursts_of(datagrams: Iterable[Datagram]) -> list[Burst]:
    """The same datagrams in the same order, those that follow each other to one address together."""
    return [([data for data, _ in group], address) for address, group in groupby(datagrams, itemgetter(1))]


async def open_udp_socket(address: Address) -> UdpSocket:
    """A UDP socket bound to `address`; port 0 lets the system choose.

    `::` takes IPv4 as well, and becomes `0.0.0.0` on a host without IPv6. `AddressInUse`, `AddressError`.
    """
    [local, *_] = await resolve(*address)
    try:
        bound = _bind(local)
    except OSError as error:
        no_ipv6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)
        if local[0] == "::" and error.errno in no_ipv6:
            return await open_udp_socket(("0.0.0.0", local[1]))
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(f"UDP port {local[1]} on {local[0]} is in use by another program") from error
        raise AddressError(f"cannot listen on {format_address(local)}: {error.strerror}") from error
    return UdpSocket(bound)


def _bind(local: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
    unbound = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            unbound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        unbound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_SIZE)
        unbound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_SIZE)
        unbound.setblocking(False)
        unbound.bind(_to_sockaddr(local, family))
    except OSError:
        unbound.close()
        raise
    return unbound


def _from_sockaddr(sockaddr: tuple[Any, ...]) -> Address:
    """Our form of what the kernel calls an address: `(host, port)` or `(host, port, flow, scope)`."""
    return normalise(sockaddr[0], sockaddr[1], sockaddr[3] if len(sockaddr) == 4 else 0)


def _to_sockaddr(address: Address, family: socket.AddressFamily) -> tuple[Any, ...]:
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


class UdpSocket:
    """A `DatagramSocket` of the operating system. Made by `open_udp_socket`.

    `send_failures` counts datagrams the system refused to send, by the name of the error.
    """

    def __init__(self, bound: socket.socket) -> None:
        self._socket = bound
        self._local_address = _from_sockaddr(bound.getsockname())
        self._writable = trio.Lock()  # trio lets one task wait for a descriptor, and every connection sends
        self._received_from: dict[tuple[Any, ...], Address] = {}
        self._send_to: dict[Address, tuple[Any, ...]] = {}
        self.send_failures: Counter[str] = Counter()

    @property
    def local_address(self) -> Address:
        """The address it is bound to, with the port that the system chose."""
        return self._local_address

    async def receive_batch(self) -> list[Burst]:
        """Wait for datagrams, then give all that are there: at least one, at most `BATCH_MAX`."""
        await trio.lowlevel.checkpoint()  # under a flood too, the connections get their turn
        while True:
            self._check_open()
            batch = self._drain()
            if batch:
                return bursts_of(batch)
            await trio.lowlevel.wait_readable(self._socket)

    def _drain(self) -> list[Datagram]:
        batch: list[Datagram] = []
        receive = self._socket.recvfrom
        for _ in range(BATCH_MAX):
            try:
                data, sockaddr = receive(DATAGRAM_SIZE_MAX)
            except BlockingIOError:
                break
            except OSError:
                continue  # an ICMP error for something we sent: reading it cleared it
            batch.append((data, self._received_from.get(sockaddr) or self._remember_sender(sockaddr)))
        return batch

    def _remember_sender(self, sockaddr: tuple[Any, ...]) -> Address:
        if len(self._received_from) >= ADDRESSES_REMEMBERED_MAX:
            self._received_from.clear()
        address = self._received_from[sockaddr] = _from_sockaddr(sockaddr)
        return address

    async def send_batch(self, bursts: Sequence[Burst]) -> None:
        """Send each datagram to its address; what the system refuses is counted and dropped.

        Waits only while the socket's buffer is full; the caller's own loop is the checkpoint.
        """
        self._check_open()
        send = self._socket.sendto
        for data, address in ((data, address) for datagrams, address in bursts for data in datagrams):
            try:
                send(data, self._send_to.get(address) or self._remember_receiver(address))
            except (OSError, OverflowError, AddressError) as error:
                await self._send_again(data, address, error)

    async def _send_again(self, data: bytes, address: Address, error: Exception) -> None:
        """What to do when a datagram was not sent: wait for room, or call it a loss."""
        tries_left = NO_BUFFER_TRIES
        while True:
            if isinstance(error, BlockingIOError):
                async with self._writable:
                    await trio.lowlevel.wait_writable(self._socket)
            elif isinstance(error, OSError) and error.errno == errno.ENOBUFS and tries_left:
                tries_left -= 1
                await trio.sleep(NO_BUFFER_WAIT_S)
            else:
                self._count_failure(error)
                return
            try:
                self._socket.sendto(data, self._send_to.get(address) or self._remember_receiver(address))
            except OSError as next_error:
                error = next_error
            else:
                return

    def _remember_receiver(self, address: Address) -> tuple[Any, ...]:
        if len(self._send_to) >= ADDRESSES_REMEMBERED_MAX:
            self._send_to.clear()
        sockaddr = self._send_to[address] = _to_sockaddr(address, self._socket.family)
        return sockaddr

    def _count_failure(self, error: Exception) -> None:
        name = type(error).__name__
        if isinstance(error, OSError) and error.errno is not None:
            name = errno.errorcode.get(error.errno, name)
        self.send_failures[name] += 1

    def close(self) -> None:
        """Free the port. Whoever waits gets `trio.ClosedResourceError`."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def _check_open(self) -> None:
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError("this socket was closed")
