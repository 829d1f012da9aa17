"""Two endpoints over the loopback of a network namespace of their own; run by `test_aioquic_path_mtu.py`.

shrinking_loopback.py MTU [MTU …]

Before each of several transfers the loopback interface gets the next MTU, in bytes; after each, the datagram
size that was found is printed. While the first one runs over a new MTU nothing tells the endpoints.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys

import trio

from p2pnode.quic import Connection, Endpoint, NoTrust, open_udp_socket
from tests.quic.endpoints import receive_all, send_and_finish
from tests.quic.engines import credentials

SIOCSIFFLAGS = 0x8914
SIOCSIFMTU = 0x8922
IFF_UP = 1
TRANSFERS = 20  # over each MTU: the search takes some round trips
SIZE = 300_000


def set_loopback(request: int, form: str, value: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, request, struct.pack("16s" + form, b"lo", value).ljust(40, b"\0"))


async def transfer(source: Connection, target: Connection) -> None:
    data = os.urandom(SIZE)
    async with trio.open_nursery() as nursery:
        stream = await source.open_stream()
        nursery.start_soon(send_and_finish, stream, data)
        theirs = await target.accept_stream()
        assert await receive_all(theirs) == data
        await theirs.send_eof()
        assert await receive_all(stream) == b""


async def main(mtus: list[int]) -> None:
    set_loopback(SIOCSIFFLAGS, "h", IFF_UP)
    dialing, listening = await open_udp_socket(("127.0.0.1", 0)), await open_udp_socket(("127.0.0.1", 0))
    async with (
        Endpoint(dialing, credentials()) as dialer,
        Endpoint(listening, credentials()) as listener,
    ):
        dialled = await dialer.dial(listening.local_address, server_name="localhost", trust=NoTrust())
        accepted = await listener.accept()
        for mtu in mtus:
            set_loopback(SIOCSIFMTU, "i", mtu)
            for _ in range(TRANSFERS):
                await transfer(dialled, accepted)
            sys.stdout.write(f"{dialled.statistics.datagram_size}\n")


if __name__ == "__main__":
    trio.run(main, [int(argument) for argument in sys.argv[1:]])
