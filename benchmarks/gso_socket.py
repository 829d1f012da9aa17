"""A blocking UDP socket that sends runs of datagrams with one call (`UDP_SEGMENT`) and receives them so."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from p2pnode.quic.datagrams import Address, Burst

BUFFER_SIZE: Final = 4 * 1024 * 1024
DATAGRAMS_MAX: Final = 64  # of one send; the kernel's limit was this before it was 128
BYTES_MAX: Final = 65_000  # of one send; a little less than a UDP datagram can have
RECEIVES_MAX: Final = 16  # before the connection gets its turn

_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104


class GsoSocket:
    """UDP on 127.0.0.1; port 0 lets the system choose."""

    def __init__(self, port: int = 0) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_SIZE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_SIZE)
        self._socket.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
        self._socket.setblocking(False)
        self._socket.bind(("127.0.0.1", port))

    def wait_readable(self, timeout_s: float | None) -> None:
        """Until something is there, or `timeout_s` is over."""
        select.select([self._socket], [], [], timeout_s)

    def receive(self) -> Iterator[tuple[bytes, int, Address]]:
        """What is there: runs of datagrams of one size (the last may be shorter), that size, the sender."""
        for _ in range(RECEIVES_MAX):
            try:
                data, ancillary, _, address = self._socket.recvmsg(65_535, 64)
            except BlockingIOError:
                return
            size = len(data)
            for level, kind, value in ancillary:
                if level == socket.IPPROTO_UDP and kind == _UDP_GRO:
                    (size,) = struct.unpack("=i", value)
            yield data, size, address

    def send(self, bursts: Iterable[Burst]) -> None:
        """All of them, in as few calls as can be; waits while the socket's buffer is full."""
        for datagrams, address in bursts:
            start = 0
            while start < len(datagrams):
                end = _run_end(datagrams, start)
                self._send_run(datagrams[start:end], address)
                start = end

    def _send_run(self, run: list[bytes], address: Address) -> None:
        ancillary = []
        if len(run) > 1:
            ancillary.append((socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", len(run[0]))))
        while True:
            try:
                self._socket.sendmsg(run, ancillary, 0, address)
            except BlockingIOError:
                select.select([], [self._socket], [])
            else:
                return


def _run_end(datagrams: list[bytes], start: int) -> int:
    """Where the run that begins at `start` ends: all of one size, but the last may be shorter."""
    size = len(datagrams[start])
    limit = min(len(datagrams), start + min(DATAGRAMS_MAX, BYTES_MAX // size))
    end = start + 1
    while end < limit and len(datagrams[end]) == size:
        end += 1
    if end < limit and len(datagrams[end]) < size:
        end += 1
    return end
