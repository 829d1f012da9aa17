"""What asks a tracker, as fast as it can: JSON over QUIC, HTTP, and downloads. Each is a process of its own.

    python -m benchmarks.tracker_load json-open|json-new|http|download PORT EXTENT

Prints a line before and after, so that whoever started it can look at the tracker's CPU time between them.
"""

from __future__ import annotations

import json
import os
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from select import EPOLLIN, epoll
from typing import Final

import trio

from p2pnode.assembly.tracker_client import TrackerTrust, open_tracker_client
from p2pnode.node.node import Node
from p2pnode.quic import Connection, Credentials, Endpoint, NodeKey, NoTrust, open_udp_socket
from p2pnode.torrent import TORRENT_SUFFIX

LARGE: Final = "large.bin"
_ALPN: Final = "h3"
_ESCAPED: Final = [f"%{byte:02x}" for byte in range(256)]


@dataclass(frozen=True)
class Extent:
    """How much is asked for."""

    seconds: float = 5.0
    torrents: int = 10_000
    connections: int = 16
    at_once: int = 64  # announces
    downloads: int = 9


@dataclass(frozen=True)
class Load:
    """What came of it. `cpu_s` is that of the load itself."""

    count: int
    seconds: float
    cpu_s: float
    median_s: float = 0.0  # of downloads, one by one


def info_hashes(extent: Extent) -> list[bytes]:
    chance = random.Random(6)
    return [chance.randbytes(20) for _ in range(extent.torrents)]


# -- JSON over QUIC ------------------------------------------------------------------------------------------


def announces(extent: Extent) -> Iterator[bytes]:
    """Each of a peer that never announced before, to the next torrent, as the known client writes it."""
    hashes = [each.hex() for each in info_hashes(extent)]
    number = 0
    while True:
        number += 1
        yield (
            b'{"info_hash":"%b","peer_id":"-QC0001-%016d","port":6881,"uploaded":0,"downloaded":0,'
            b'"left":1024,"event":"started","ip":null}'
        ) % (hashes[number % len(hashes)].encode(), number)


@asynccontextmanager
async def open_endpoint(number: int) -> AsyncIterator[Endpoint]:
    """At an address of its own: one address may announce only so often."""
    udp_socket = await open_udp_socket((f"127.1.0.{number}", 0))
    try:
        async with Endpoint(udp_socket, Credentials.from_node_key(NodeKey.generate())) as endpoint:
            yield endpoint
    finally:
        udp_socket.close()


async def dial(endpoint: Endpoint, port: int) -> Connection:
    return await endpoint.dial(("127.0.0.1", port), alpn=_ALPN, server_name="127.0.0.1", trust=NoTrust())


async def announce(connection: Connection, request: bytes) -> None:
    stream = await connection.open_stream()
    stream.send_nowait(request, end=True)
    answer = bytearray()
    while part := await stream.receive_some():
        answer += part
    assert answer.startswith(b'{"interval":'), answer


async def json_open(port: int, extent: Extent) -> None:
    """Over connections that stay open, a stream for each announce."""
    requests = announces(extent)
    count = 0

    async def ask(connection: Connection) -> None:
        nonlocal count
        while True:
            await announce(connection, next(requests))
            count += 1

    async with AsyncExitStack() as stack:
        connections = []
        for number in range(extent.connections):
            endpoint = await stack.enter_async_context(open_endpoint(number + 1))
            connections.append(await dial(endpoint, port))
        begin()
        with trio.move_on_after(extent.seconds):
            async with trio.open_nursery() as nursery:
                for number in range(extent.at_once):
                    nursery.start_soon(ask, connections[number % len(connections)])
        end(Load(count, *elapsed()))


async def json_new(port: int, extent: Extent) -> None:
    """A new connection for each announce, as the known clients do."""
    requests = announces(extent)
    count = 0

    async def ask(endpoint: Endpoint) -> None:
        nonlocal count
        while True:
            connection = await dial(endpoint, port)
            await announce(connection, next(requests))
            connection.close()
            count += 1

    async with AsyncExitStack() as stack:
        endpoints = [
            await stack.enter_async_context(open_endpoint(number + 1)) for number in range(extent.connections)
        ]
        begin()
        with trio.move_on_after(extent.seconds):
            async with trio.open_nursery() as nursery:
                for endpoint in endpoints:
                    nursery.start_soon(ask, endpoint)
        end(Load(count, *elapsed()))


# -- HTTP ----------------------------------------------------------------------------------------------------


def http(port: int, extent: Extent) -> None:
    """Over connections that stay open, one announce at a time on each."""
    hashes = ["".join(_ESCAPED[byte] for byte in each) for each in info_hashes(extent)]
    polled = epoll()
    asking: dict[int, socket.socket] = {}
    number = 0

    def send(asker: socket.socket) -> None:
        nonlocal number
        number += 1
        query = f"info_hash={hashes[number % len(hashes)]}&peer_id=-BM0001-{number:012}"
        rest = "port=6881&uploaded=0&downloaded=0&left=1024&compact=1&event=started"
        asker.send(f"GET /announce?{query}&{rest} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())

    for place in range(extent.at_once):
        asker = socket.create_connection(("127.0.0.1", port), source_address=(f"127.1.0.{place + 1}", 0))
        asker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asking[asker.fileno()] = asker
        polled.register(asker, EPOLLIN)
    begin()
    for asker in asking.values():
        send(asker)
    count = 0
    unfinished: dict[int, bytes] = {}
    until = time.perf_counter() + extent.seconds
    while time.perf_counter() < until:
        for descriptor, _event in polled.poll():
            asker = asking[descriptor]
            answer = unfinished.pop(descriptor, b"") + asker.recv(65536)
            if not is_whole(answer):
                unfinished[descriptor] = answer
                continue
            assert b"8:interval" in answer, answer
            count += 1
            send(asker)
    end(Load(count, *elapsed()))


def is_whole(answer: bytes) -> bool:
    """An answer with its length before it, or in one chunk, as Node.js sends it."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return False
    lowered = head.lower()
    if b"content-length: " in lowered:
        return len(body) >= int(lowered.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return body.endswith(b"\r\n0\r\n\r\n") or body == b"0\r\n\r\n"


# -- downloads -----------------------------------------------------------------------------------------------


async def download(port: int, extent: Extent) -> None:
    """A large file as `p2pnode client download` gets it, again and again over one session."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        trust = TrackerTrust(directory, lambda _text: None)
        async with open_tracker_client(
            trust,
            lambda server: Node(role="client", server=server, state_dir=directory, lock_state=False),
            lambda _event: None,
        ) as client:
            tracker = client.at(f"127.0.0.1:{port}")
            metainfo = await tracker.ask_for_torrent(LARGE + TORRENT_SUFFIX)
            target = directory / LARGE
            await tracker.download(metainfo, target)  # the first makes what the others find
            target.unlink()
            seconds = []
            begin()
            for _ in range(extent.downloads):
                completed = await tracker.download(metainfo, target)
                seconds.append(completed.seconds)
                target.unlink()
            end(Load(len(seconds), *elapsed(), statistics.median(seconds)))


# -- the clock -----------------------------------------------------------------------------------------------

_began: list[float] = []


def begin() -> None:
    """The next thing is the first request."""
    print("begin", flush=True)
    _began[:] = time.perf_counter(), time.process_time()


def elapsed() -> tuple[float, float]:
    """Seconds of the clock and of the CPU since `begin`."""
    return time.perf_counter() - _began[0], time.process_time() - _began[1]


def end(load: Load) -> None:
    """All that was to be asked has been."""
    print(json.dumps(asdict(load)), flush=True)
    os.read(sys.stdin.fileno(), 1)  # until the tracker was looked at


def main(kind: str, port: int, extent: Extent) -> None:
    match kind:
        case "json-open":
            trio.run(json_open, port, extent)
        case "json-new":
            trio.run(json_new, port, extent)
        case "http":
            http(port, extent)
        case "download":
            trio.run(download, port, extent)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Extent(**json.loads(sys.argv[3])))
