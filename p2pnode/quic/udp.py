"""UDP of the operating system: one socket for all connections of a process, many datagrams a system call.

A run of datagrams of one size to one address is sent by one call and cut by the kernel or the network card
(`UDP_SEGMENT`); what arrived in such runs is received joined (`UDP_GRO`). Where the kernel has neither, or an
interface refuses, datagrams go one by one.

Nothing that happens to one datagram ends anything: an ICMP error, a firewall, an address that cannot be are
losses, and QUIC repairs losses. They are counted, each by its name.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import trio

from p2pnode.errors import AddressError, AddressInUse
from p2pnode.quic import udp_options
from p2pnode.quic.datagrams import Address, Burst, format_address, from_sockaddr, resolve, to_sockaddr

BATCH_MAX: Final = 256  # when so many were received, the connections get their turn
RECEIVE_SIZE_MAX: Final = 65_535  # what one receive has room for, so that nothing is ever cut off
NO_BUFFER_TRIES: Final = 5  # ENOBUFS: the interface's queue is full …
NO_BUFFER_WAIT_S: Final = 0.001  # … so wait a little between the tries, and then call it a loss
NO_RUNS: Final = {errno.EINVAL, errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP}  # what an interface answers
ADDRESSES_REMEMBERED_MAX: Final = 4096  # conversions between the kernel's form of an address and ours


async def open_udp_socket(address: Address, *, offload: bool = True) -> UdpSocket:
    """A UDP socket bound to `address`, as `bind_udp` binds it. `offload`: see `UdpSocket`."""
    return UdpSocket(await bind_udp(address), offload=offload)


async def bind_udp(address: Address) -> socket.socket:
    """The system's own socket at `address`, which never blocks; port 0 lets the system choose.

    `::` takes IPv4 as well, and becomes `0.0.0.0` on a host without IPv6. `AddressInUse`, `AddressError`.
    """
    [local, *_] = await resolve(*address)
    try:
        return _bind(local)
    except OSError as error:
        no_ipv6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)
        if local[0] == "::" and error.errno in no_ipv6:
            return await bind_udp(("0.0.0.0", local[1]))
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(f"UDP port {local[1]} on {local[0]} is in use by another program") from error
        raise AddressError(f"cannot listen on {format_address(local)}: {error.strerror}") from error


def _bind(local: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
    unbound = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            unbound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        udp_options.ask_for_buffers(unbound)
        udp_options.forbid_fragments(unbound)
        unbound.setblocking(False)
        unbound.bind(to_sockaddr(local, family))
    except OSError:
        unbound.close()
        raise
    return unbound


class UdpSocket:
    """A `DatagramSocket` of the operating system. Made by `open_udp_socket`.

    With `offload`, runs of datagrams are sent and received at once as far as the kernel can; `sends_runs` and
    `receives_runs` say whether it can. `send_failures` counts datagrams that the system refused to send,
    `runs_refused` runs whose datagrams went one by one instead; both by the name of the error.
    """

    def __init__(self, bound: socket.socket, *, offload: bool = True) -> None:
        self.sends_runs = offload and udp_options.has_segmentation(bound)
        self.receives_runs = offload and udp_options.join_received(bound)
        self.send_failures: Counter[str] = Counter()
        self.runs_refused: Counter[str] = Counter()
        self._socket = bound
        self._local_address = from_sockaddr(bound.getsockname())
        self._writable = trio.Lock()  # trio lets one task wait for a descriptor, and every connection sends
        self._received_from: dict[tuple[Any, ...], Address] = {}
        self._send_to: dict[Address, tuple[Any, ...]] = {}

    @property
    def local_address(self) -> Address:
        """The address it is bound to, with the port that the system chose."""
        return self._local_address

    @property
    def hint(self) -> str | None:
        """How to get larger buffers than the kernel gave."""
        return udp_options.buffer_hint(self._socket)

    # -- receiving -----------------------------------------------------------------------------------------

    async def receive_batch(self) -> list[Burst]:
        """Wait for datagrams, then give all that are there, up to `BATCH_MAX` or a run more."""
        while True:
            self._check_open()
            await trio.lowlevel.wait_readable(
                self._socket
            )  # under a flood too, the connections get their turn
            if bursts := self._drain():
                return bursts

    def _drain(self) -> list[Burst]:
        bursts: list[Burst] = []
        last_sockaddr = None
        room = BATCH_MAX
        while room > 0:
            try:
                data, controls, _, sockaddr = self._socket.recvmsg(
                    RECEIVE_SIZE_MAX, udp_options.CONTROL_SIZE_MAX
                )
            except BlockingIOError:
                break
            except OSError:
                room -= 1  # an ICMP error for something we sent: reading it cleared it
                continue
            datagrams = udp_options.cut_received(data, controls) if controls else [data]
            if sockaddr == last_sockaddr:
                bursts[-1][0].extend(datagrams)
            else:
                bursts.append((datagrams, self._received_from.get(sockaddr) or self._remember(sockaddr)))
                last_sockaddr = sockaddr
            room -= len(datagrams)
        return bursts

    def _remember(self, sockaddr: tuple[Any, ...]) -> Address:
        if len(self._received_from) >= ADDRESSES_REMEMBERED_MAX:
            self._received_from.clear()
        address = self._received_from[sockaddr] = from_sockaddr(sockaddr)
        return address

    # -- sending -------------------------------------------------------------------------------------------

    async def send_batch(self, bursts: Sequence[Burst]) -> None:
        """Send each datagram to its address; what the system refuses is counted and dropped.

        Waits only while the socket's buffer is full; the caller's own loop is the checkpoint.
        """
        self._check_open()
        for datagrams, address in bursts:
            try:
                sockaddr = self._send_to.get(address) or self._remember_receiver(address)
            except (OSError, AddressError) as error:
                self.send_failures[name_of_error(error)] += len(datagrams)
                continue
            for run in udp_options.runs_of(datagrams) if self.sends_runs else zip(datagrams):
                try:
                    self._transmit(run, sockaddr)
                except OSError as error:
                    await self._transmit_again(run, sockaddr, error)

    def _transmit(self, run: Sequence[bytes], sockaddr: tuple[Any, ...]) -> None:
        if len(run) == 1:
            self._socket.sendto(run[0], sockaddr)
        else:
            self._socket.sendmsg(run, udp_options.segments_of(len(run[0])), 0, sockaddr)

    async def _transmit_again(
        self,
        run: Sequence[bytes],
        sockaddr: tuple[Any, ...],
        error: OSError,
        tries_left: int = NO_BUFFER_TRIES,
    ) -> bool:
        """What to do when a run was not sent: wait for room, try one by one, or call it a loss.

        Returns whether all of it was sent in the end. `tries_left` is how often it waits for a full queue.
        """
        while True:
            if isinstance(error, BlockingIOError):
                async with self._writable:
                    await trio.lowlevel.wait_writable(self._socket)
            elif error.errno == errno.ENOBUFS and tries_left:
                tries_left -= 1
                await trio.sleep(NO_BUFFER_WAIT_S)
            elif len(run) > 1:
                return await self._transmit_singly(run, sockaddr, error)
            else:
                self.send_failures[name_of_error(error)] += 1
                return False
            try:
                self._transmit(run, sockaddr)
            except OSError as next_error:
                error = next_error
            else:
                return True

    async def _transmit_singly(
        self, run: Sequence[bytes], sockaddr: tuple[Any, ...], refusal: OSError
    ) -> bool:
        """Send a run's datagrams one by one: what stopped the run may be one of them, or none.

        A path that takes only smaller datagrams refuses each (EMSGSIZE); an interface that cannot cut runs
        refuses none (EINVAL, EIO), and from then on this socket sends no more runs. No datagram waits for a
        full queue by itself, or the many of a run would wait in turn. Returns whether all were sent.
        """
        self.runs_refused[name_of_error(refusal)] += 1
        all_sent = True
        for data in run:
            try:
                self._transmit((data,), sockaddr)
            except OSError as error:
                all_sent &= await self._transmit_again((data,), sockaddr, error, tries_left=0)
        if all_sent and refusal.errno in NO_RUNS:
            self.sends_runs = False
        return all_sent

    def _remember_receiver(self, address: Address) -> tuple[Any, ...]:
        if len(self._send_to) >= ADDRESSES_REMEMBERED_MAX:
            self._send_to.clear()
        sockaddr = self._send_to[address] = to_sockaddr(address, self._socket.family)
        return sockaddr

    # -- the end -------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Free the port. Whoever waits gets `trio.ClosedResourceError`."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def _check_open(self) -> None:
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError("this socket was closed")


def name_of_error(error: Exception) -> str:
    """`EMSGSIZE`, say."""
    name = type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:
        return errno.errorcode.get(error.errno, name)
    return name
