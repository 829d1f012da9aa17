"""The multicast groups of BEP 14, and who in them is near: sockets of the operating system, driven by trio.

No router carries further what is said there: the system sends to groups with a hop limit of 1. For each family there
are two sockets: one that hears what is said to the group, at the group's port, which all programs of a host share; and
one of our own, from which we speak, so that who answers us alone reaches this process.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final, Protocol, Self

import trio

from p2pnode import config
from p2pnode.errors import NetworkError
from p2pnode.node.presence import local_hosts
from p2pnode.quic import Address
from p2pnode.quic.datagrams import format_address, from_sockaddr, to_sockaddr

GROUP_PORT: Final = 6771
GROUP_IPV4: Final = "239.192.152.143"
GROUP_IPV6: Final = "ff15::efc0:988f"
ANY_INTERFACE: Final = 0


class Group(Protocol):
    """Where everybody in this network hears us, and we hear everybody."""

    @property
    def name(self) -> str:
        """host:port of the group."""

    async def hear(self) -> tuple[bytes, Address]:
        """The next datagram that was sent to the group, and from where."""

    async def hear_answer(self) -> tuple[bytes, Address]:
        """The next one that was sent to us alone."""

    async def say(self, datagram: bytes) -> None:
        """Send to the group, on every interface that there is. What does not get through is lost."""

    async def answer(self, datagram: bytes, address: Address) -> None:
        """Send to one who spoke to the group."""

    def close(self) -> None:
        """Leave."""


@dataclass
class GroupSocket:
    """A group of one family. `host` is where we listen: only its interface is used, all if it is unspecified."""

    family: socket.AddressFamily
    group: str
    host: str
    _heard: trio.socket.SocketType
    _own: trio.socket.SocketType

    @classmethod
    async def open(cls, host: str, family: socket.AddressFamily, group: str) -> Self:
        """Join the group. `OSError` where that is not possible."""
        heard = trio.socket.socket(family, socket.SOCK_DGRAM)
        own = trio.socket.socket(family, socket.SOCK_DGRAM)
        opened = cls(family, group, host, heard, own)
        try:
            heard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                heard.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            await heard.bind((group, GROUP_PORT))
            await own.bind(("", 0))
            opened._join()
        except BaseException:
            opened.close()
            raise
        return opened

    @property
    def name(self) -> str:
        """host:port of the group."""
        return format_address((self.group, GROUP_PORT))

    async def hear(self) -> tuple[bytes, Address]:
        """The next datagram to the group."""
        return await self._receive(self._heard)

    async def hear_answer(self) -> tuple[bytes, Address]:
        """The next datagram to us alone."""
        return await self._receive(self._own)

    async def say(self, datagram: bytes) -> None:
        """Send on every interface."""
        self._join()  # there may be new interfaces
        for interface in self._interfaces():
            with suppress(OSError):
                self._own.setsockopt(*self._choice(interface))
                await self._own.sendto(datagram, (self.group, GROUP_PORT))

    async def answer(self, datagram: bytes, address: Address) -> None:
        """Send to one."""
        with suppress(OSError):
            await self._own.sendto(datagram, to_sockaddr(address, self.family))

    def close(self) -> None:
        """Leave the group."""
        self._heard.close()
        self._own.close()

    @staticmethod
    async def _receive(sock: trio.socket.SocketType) -> tuple[bytes, Address]:
        while True:
            with suppress(OSError):  # an error that came back for something we sent
                datagram, sender = await sock.recvfrom(config.LAN_DATAGRAM_SIZE_MAX + 1)
                return datagram, from_sockaddr(sender)

    def _join(self) -> None:
        """Join on each interface, where we have not yet."""
        level, option = (
            (socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP)
            if self.family == socket.AF_INET
            else (socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP)
        )
        for interface in self._interfaces():
            with suppress(OSError):  # we are in already, or it knows no multicast
                self._heard.setsockopt(level, option, self._membership(interface))

    def _interfaces(self) -> list[int]:
        if not ip_address(self.host).is_unspecified:
            return [ANY_INTERFACE]
        with suppress(OSError):  # it takes a descriptor, and there may be none: what is said now is lost
            return [index for index, _ in socket.if_nameindex()]
        return []

    def _membership(self, interface: int) -> bytes:
        """`struct ip_mreqn` or `struct ipv6_mreq`: the group, and on which interface."""
        group = socket.inet_pton(self.family, self.group)
        if self.family == socket.AF_INET6:
            return group + struct.pack("@I", interface)
        host = socket.inet_aton("0.0.0.0" if interface else self.host)
        return struct.pack("@4s4si", group, host, interface)

    def _choice(self, interface: int) -> tuple[int, int, bytes]:
        """The socket option that has us speak on an interface."""
        if self.family == socket.AF_INET6:
            return socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, struct.pack("@I", interface)
        return socket.IPPROTO_IP, socket.IP_MULTICAST_IF, self._membership(interface)


async def open_groups(host: str) -> list[Group]:
    """The groups that a node can be in that listens at `host`. `NetworkError` when there is none."""
    listen = ip_address(host)
    groups: list[Group] = []
    failures: list[OSError] = []
    for family, group, version in (
        (socket.AF_INET, GROUP_IPV4, 4),
        (socket.AF_INET6, GROUP_IPV6, 6),
    ):
        if listen.version == version or host == "::":
            own_host = "0.0.0.0" if host == "::" and version == 4 else host
            try:
                groups.append(await GroupSocket.open(own_host, family, group))
            except OSError as error:
                failures.append(error)
    if not groups:
        raise NetworkError(f"no multicast here: {failures[0].strerror}")
    return groups


def is_near(host: str) -> bool:
    """Whether a datagram from there can have come from our own network."""
    ip = ip_address(host)
    if ip.is_private or ip.is_link_local or ip.is_loopback:
        return True
    length = 24 if ip.version == 4 else 64
    own_hosts = (own for own in map(ip_address, local_hosts()) if own.version == ip.version)
    return any(ip in ip_network(f"{own}/{length}", strict=False) for own in own_hosts)
