"""What connections cost: handshakes, memory while they are idle, and requests with few or many of them open.

    python -m benchmarks.connections [--json] [--counts 1 10 100 1000] [--requests 2000]

A listener in one process, a dialer in another. Figures are those of the listener: CPU time and resident memory
without those of a process that only listens.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

import trio

from benchmarks.measuring import PROJECT
from p2pnode import config
from p2pnode.errors import ConnectionClosed
from p2pnode.quic import (
    Connection,
    Credentials,
    Endpoint,
    NodeKey,
    NoTrust,
    Stream,
    open_endpoint,
    open_udp_socket,
)

ALPN: Final = "benchmark"
LOCALHOST: Final = "127.0.0.1"
REQUEST: Final = b"a small request of some fifty bytes, as they often are"
ANSWER: Final = bytes(1024)
DIALED_AT_ONCE: Final = 16
ASKED_AT_ONCE: Final = 16
ROUNDS: Final = 5


# -- the listener, in a process of its own ---------------------------------------------------------------------


async def listen() -> None:
    """Answer every request; for each line of standard input tell CPU seconds and resident bytes."""
    async with an_endpoint() as endpoint, trio.open_nursery() as nursery:
        print(endpoint.local_address[1], flush=True)
        nursery.start_soon(accept_all, endpoint, nursery)
        while await trio.to_thread.run_sync(sys.stdin.readline):
            gc.collect()
            print(time.process_time(), resident_bytes(), flush=True)
        nursery.cancel_scope.cancel()


async def accept_all(endpoint: Endpoint, nursery: trio.Nursery) -> None:
    while True:
        nursery.start_soon(answer_all, await endpoint.accept(), nursery)


async def answer_all(connection: Connection, nursery: trio.Nursery) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            nursery.start_soon(answer, await connection.accept_stream())


async def answer(stream: Stream) -> None:
    async with stream:
        while await stream.receive_some():
            pass
        await stream.send_all(ANSWER)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


class AnEndpoint:
    """An endpoint on a free port of loopback, that closes with its socket."""

    async def __aenter__(self) -> Endpoint:
        self._socket = await open_udp_socket((LOCALHOST, 0))
        credentials = Credentials.from_node_key(NodeKey.generate())
        self._endpoint = open_endpoint(self._socket, credentials, alpns=[ALPN])
        return await self._endpoint.__aenter__()

    async def __aexit__(self, *_: object) -> None:
        await self._endpoint.__aexit__(None, None, None)
        self._socket.close()


def an_endpoint() -> AnEndpoint:
    return AnEndpoint()


# -- the dialer ------------------------------------------------------------------------------------------------


class Listener:
    """The other process, and what it says of itself."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._stdin: IO[str] = process.stdin
        self._stdout: IO[str] = process.stdout
        self.port = int(self._stdout.readline())

    async def usage(self) -> tuple[float, int]:
        """CPU seconds since its start, and resident bytes now."""
        return await trio.to_thread.run_sync(self._ask)

    def _ask(self) -> tuple[float, int]:
        self._stdin.write("\n")
        self._stdin.flush()
        cpu, resident = self._stdout.readline().split()
        return float(cpu), int(resident)


async def dial(endpoint: Endpoint, port: int, count: int) -> list[Connection]:
    """So many connections, some at a time."""
    connections: list[Connection] = []
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            connections.append(
                await endpoint.dial((LOCALHOST, port), alpn=ALPN, server_name=LOCALHOST, trust=NoTrust())
            )

    async with trio.open_nursery() as nursery:
        for _ in range(DIALED_AT_ONCE):
            nursery.start_soon(worker)
    return connections


async def ask(connections: Sequence[Connection], requests: int, at_once: int) -> None:
    """So many requests, each on a stream of its own, in turn over the connections."""
    left = iter(range(requests))

    async def worker() -> None:
        for number in left:
            async with await connections[number % len(connections)].open_stream() as stream:
                await stream.send_all(REQUEST)
                await stream.send_eof()
                while await stream.receive_some():
                    pass

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(worker)


class Measurements:
    """What was found, told as it is found."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        self.values: dict[str, float] = {}

    def tell(self, name: str, value: float, unit: str) -> None:
        self.values[name] = value
        if self._is_json:
            print(
                json.dumps({"event": "measurement", "name": name, "value": value, "unit": unit}), flush=True
            )
        else:
            print(f"{name:44} {value:12,.2f} {unit}", flush=True)


async def measure(listener: Listener, counts: Sequence[int], requests: int, found: Measurements) -> None:
    async with an_endpoint() as endpoint:
        await ask(await dial(endpoint, listener.port, 1), 200, ASKED_AT_ONCE)  # all code has run once
        connections: list[Connection] = []
        for count in sorted(counts):
            cpu, resident = await listener.usage()
            began_at, before = trio.current_time(), len(connections)
            connections += await dial(endpoint, listener.port, count - before)
            seconds, dialed = trio.current_time() - began_at, count - before
            after_cpu, after_resident = await listener.usage()
            if count == max(counts):
                found.tell("handshakes", dialed / seconds, "a second, both sides together")
                found.tell("handshake, CPU of the listener", (after_cpu - cpu) / dialed * 1000, "ms")
                found.tell("idle connection, listener", (after_resident - resident) / dialed / 1024, "KiB")
            await measure_requests(listener, connections, requests, found)
        few, many = f"request, {10} open", f"request, {max(counts)} open"
        if few in found.values and max(counts) > 10:
            found.tell(f"request, {max(counts)} ÷ 10 open", found.values[many] / found.values[few], "times")
        await measure_one(connections[0], requests, found)


async def measure_requests(
    listener: Listener, connections: Sequence[Connection], requests: int, found: Measurements
) -> None:
    """CPU time of the listener for one request, with all these open and each of them in use."""
    costs = []
    for _ in range(ROUNDS):
        before, _ = await listener.usage()
        await ask(connections, requests, ASKED_AT_ONCE)
        after, _ = await listener.usage()
        costs.append((after - before) / requests * 1e6)
    found.tell(f"request, {len(connections)} open", statistics.median(costs), "µs of the listener's CPU")


async def measure_one(connection: Connection, requests: int, found: Measurements) -> None:
    """Requests a second on one connection, one after the other and some at a time."""
    for at_once in (1, ASKED_AT_ONCE):
        rates = []
        for _ in range(ROUNDS):
            began_at = trio.current_time()
            await ask([connection], requests // 4, at_once)
            rates.append(requests // 4 / (trio.current_time() - began_at))
        found.tell(f"requests on one connection, {at_once} at a time", statistics.median(rates), "a second")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 10, 100, 1000], metavar="N")
    parser.add_argument("--requests", type=int, default=2000, metavar="N")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    assert max(options.counts) <= config.CONNECTIONS_PER_NETWORK_MAX
    command = [sys.executable, "-m", "benchmarks.connections", "listen"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT
    ) as process:
        found = Measurements(is_json=options.json)
        trio.run(measure, Listener(process), options.counts, options.requests, found)
        assert process.stdin is not None
        process.stdin.close()


if __name__ == "__main__":
    if sys.argv[1:] == ["listen"]:
        trio.run(listen)
    else:
        main()
