"""What this system's UDP offers beyond sending and receiving, and whether it does: asked, never assumed.

Python names few of these options; the numbers are those of Linux (`linux/udp.h`, `linux/in.h`, `linux/in6.h`)
and mean something else elsewhere, so elsewhere none is asked for.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final

SOCKET_BUFFER_SIZE: Final = 4 * 1024 * 1024  # bytes, each way: what one connection may have in flight to us
RUN_BYTES_MAX: Final = 65_487  # of a run that is sent at once: with its headers 65,535 over IPv4 and IPv6
RUN_LENGTH_MAX: Final = 64  # datagrams of such a run: newer kernels take 128, but then of 511 bytes or less

_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_PMTUDISC_PROBE: Final = 3  # never fragment, and take no router's word for the path's MTU
_IS_LINUX: Final = sys.platform == "linux"
_KIB: Final = 1024

Control = tuple[int, int, bytes]
"""One item of ancillary data: level, type, value."""

CONTROL_SIZE_MAX: Final = 64  # bytes of ancillary data that one receive has room for; one item takes 24


def ask_for_buffers(unbound: socket.socket) -> None:
    """Ask for buffers that hold what arrives while we are busy; the kernel may give less, silently."""
    unbound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_SIZE)
    unbound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_SIZE)


def buffer_hint(bound: socket.socket) -> str | None:
    """How to get the buffers that the kernel did not give; None when it gave them."""
    if not _IS_LINUX:
        return None
    settings = {"net.core.rmem_max": socket.SO_RCVBUF, "net.core.wmem_max": socket.SO_SNDBUF}
    granted = {
        name: bound.getsockopt(socket.SOL_SOCKET, option) // 2  # the kernel doubles them (socket(7))
        for name, option in settings.items()
    }
    capped = [name for name, size in granted.items() if size < SOCKET_BUFFER_SIZE]
    if not capped:
        return None
    remedy = " ".join(f"{name}={SOCKET_BUFFER_SIZE}" for name in capped)
    smallest = min(granted.values()) // _KIB
    return (
        f"the kernel allows UDP buffers of {smallest} KiB only: `sysctl -w {remedy}` makes transfers faster"
    )


def forbid_fragments(unbound: socket.socket) -> bool:
    """Send every datagram whole or not at all, whatever the kernel thinks of a path. True when that works.

    So a probe for the path's MTU measures the path (RFC 8899 §4.1), and what was said to the kernel by a
    forged ICMP message stops nothing.
    """
    if not _IS_LINUX:
        return False
    is_forbidden = _set(unbound, socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
    if unbound.family == socket.AF_INET6:
        is_forbidden &= _set(unbound, socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
    return is_forbidden


def has_segmentation(bound: socket.socket) -> bool:
    """Whether one system call can send a run of datagrams (Linux 4.18). The interface may still refuse."""
    return _IS_LINUX and _set(bound, _SOL_UDP, _UDP_SEGMENT, 0)


def join_received(bound: socket.socket) -> bool:
    """Have the kernel hand over runs of datagrams joined (Linux 5.0). True when it will."""
    return _IS_LINUX and _set(bound, _SOL_UDP, _UDP_GRO, 1)


def segments_of(size: int) -> list[Control]:
    """What tells the kernel to cut what is sent into datagrams of `size` bytes, the last one of the rest."""
    return [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", size))]


def cut_received(data: bytes, controls: list[Control]) -> list[bytes]:
    """The datagrams of one receive: of equal size and the last one of the rest, or just one."""
    for level, kind, value in controls:
        if level == _SOL_UDP and kind == _UDP_GRO:
            [size] = struct.unpack("=i", value)
            return [data[start : start + size] for start in range(0, len(data), size)]
    return [data]


def runs_of(datagrams: list[bytes]) -> list[list[bytes]]:
    """The same datagrams in the same order, as runs that can each be sent at once.

    A run's datagrams are of one size, but for the last, which may be smaller and not empty.
    """
    sizes = list(map(len, datagrams))
    runs = []
    start = 0
    while start < len(sizes):
        stop = _end_of_run(sizes, start)
        runs.append(datagrams[start:stop])
        start = stop
    return runs


def _end_of_run(sizes: list[int], start: int) -> int:
    size = sizes[start]
    if not 0 < size <= RUN_BYTES_MAX:
        return start + 1
    stop_max = min(len(sizes), start + min(RUN_LENGTH_MAX, RUN_BYTES_MAX // size))
    if sizes[start:stop_max].count(size) == stop_max - start:
        return stop_max
    stop = start + 1
    while sizes[stop] == size:
        stop += 1
    return stop + 1 if 0 < sizes[stop] < size else stop


def _set(any_socket: socket.socket, level: int, option: int, value: int) -> bool:
    try:
        any_socket.setsockopt(level, option, value)
    except OSError:
        return False
    return True
