"""What a socket does where the path's MTU is 1300, in a network of its own. Run as a program.

Writes one JSON object, or `null` where this user may not make a network.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import socket
import struct
import sys

import trio

from p2pnode.quic.udp import UdpSocket, open_udp_socket

MTU = 1300
OVERHEAD = {"127.0.0.1": 28, "::1": 48}  # bytes of IP and UDP headers

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCSIFFLAGS, _SIOCSIFMTU = 0x8914, 0x8922
_IFF_UP = 1


def make_network() -> bool:
    """Leave for a network that has nothing but a loopback with a small MTU. False when that is forbidden."""
    if ctypes.CDLL(None).unshare(_CLONE_NEWUSER | _CLONE_NEWNET):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFMTU, struct.pack("16si16x", b"lo", MTU))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh18x", b"lo", _IFF_UP))
    return True


async def received(bound: UdpSocket) -> list[int]:
    """The sizes of all that has arrived: over this loopback, at once."""
    sizes: list[int] = []
    with trio.move_on_after(0.05):
        while True:
            sizes += [len(data) for datagrams, _ in await bound.receive_batch() for data in datagrams]
    return sizes


async def try_out(host: str) -> dict[str, object]:
    bound = await open_udp_socket((host, 0))
    there = bound.local_address
    fits = MTU - OVERHEAD[host]
    outcome: dict[str, object] = {}
    for name, sizes in {
        "fits": [fits] * 10,
        "too large": [fits + 1] * 10,
        "mixed": [fits] * 5 + [fits + 1] * 2 + [fits] * 5 + [fits + 1] * 3 + [100],
    }.items():
        bound.send_failures.clear()
        await bound.send_batch([([bytes(size) for size in sizes], there)])
        expected = [size for size in sizes if size <= fits]
        outcome[name] = [await received(bound) == expected, dict(bound.send_failures)]
    outcome["sends runs"] = bound.sends_runs
    outcome["runs refused"] = list(bound.runs_refused)
    bound.close()
    return outcome


if __name__ == "__main__":
    outcomes = {host: trio.run(try_out, host) for host in OVERHEAD} if make_network() else None
    sys.stdout.write(json.dumps(outcomes))
