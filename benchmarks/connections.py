"""What connections cost, beside the bytes they carry: handshakes, memory while idle, small requests.

    python -m benchmarks.connections serve PORT CERTIFICATE KEY
    python -m benchmarks.connections dial PORT EXTENT

The dialer prints a line before and after each step; whoever started both looks then at the CPU time and the
memory of the listener.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import trio

from benchmarks.measuring import Place, free_port
from benchmarks.programs import Program
from p2pnode.errors import ConnectionClosed
from p2pnode.quic import (
    Connection,
    Credentials,
    Endpoint,
    EndpointOptions,
    NodeKey,
    NoTrust,
    open_udp_socket,
)

ALPN: Final = "benchmark"
AT_ONCE: Final = 16  # dials, or requests, that are under way together
TIME_LIMIT_S: Final = 600.0
SETTLE_S: Final = 0.1  # for last acknowledgements, before and after a step
REQUEST: Final = b"?" * 64
ANSWER: Final = bytes(1024)


@dataclass(frozen=True)
class Extent:
    """How much is done."""

    open: tuple[int, ...] = (1, 10, 100, 1000)  # connections, one after the other
    requests: int = 2000  # with each of these numbers, in each round
    rounds: int = 5
    handshakes: int = 300

    def steps(self) -> Iterator[str]:
        """Their names, in order."""
        for count in self.open:
            yield f"open {count}"
            yield from self.rounds_of(f"requests {count}")
        yield from self.rounds_of("one by one")
        yield "handshakes"

    def rounds_of(self, name: str) -> list[str]:
        """The steps of what is done several times."""
        return [f"{name}, round {number}" for number in range(1, self.rounds + 1)]


WHOLE: Final = Extent()


@dataclass(frozen=True)
class Finding:
    """One figure of a listener with many connections."""

    name: str
    title: str
    value: float
    unit: str

    def to_json(self) -> dict[str, object]:
        """The line of `--json`."""
        return {"event": "finding", "name": self.name, "value": round(self.value, 2), "unit": self.unit}


# -- the listener -------------------------------------------------------------------------------------------


async def serve(port: int, certificate: Path, key: Path) -> None:
    socket = await open_udp_socket(("127.0.0.1", port))
    credentials = Credentials.load(certificate, key)
    async with (
        Endpoint(socket, credentials, EndpointOptions(alpns=[ALPN])) as endpoint,
        trio.open_nursery() as nursery,
    ):
        print("ready", flush=True)
        while True:
            nursery.start_soon(answer_all, await endpoint.accept())


async def answer_all(connection: Connection) -> None:
    """One task for each connection, as a server has."""
    try:
        while True:
            async with await connection.accept_stream() as stream:
                while await stream.receive_some():
                    pass
                await stream.send_all(ANSWER)
    except ConnectionClosed:
        return


# -- the dialer ---------------------------------------------------------------------------------------------


class Dialer:
    """All connections to one listener, from one socket."""

    def __init__(self, endpoint: Endpoint, port: int) -> None:
        self._endpoint = endpoint
        self._address = ("127.0.0.1", port)
        self.connections: list[Connection] = []

    async def dial(self, _number: int) -> None:
        """One more connection."""
        self.connections.append(
            await self._endpoint.dial(self._address, alpn=ALPN, server_name="127.0.0.1", trust=NoTrust())
        )

    async def request(self, number: int) -> None:
        """A small request on the connection whose turn it is, and its answer."""
        async with await self.connections[number % len(self.connections)].open_stream() as stream:
            await stream.send_all(REQUEST)
            await stream.send_eof()
            while await stream.receive_some():
                pass

    async def dial_and_close(self, number: int) -> None:
        """A handshake and nothing else."""
        await self.dial(number)
        self.connections.pop().close()

    async def close_all(self) -> None:
        """Until both sides know: a listener takes only so many from one address."""
        while self.connections:
            connection = self.connections.pop()
            connection.close()
            await connection.wait_closed()


async def dial(port: int, extent: Extent) -> None:
    socket = await open_udp_socket(("127.0.0.1", 0))
    async with Endpoint(socket, Credentials.from_node_key(NodeKey.generate())) as endpoint:
        dialer = Dialer(endpoint, port)
        for count in extent.open:
            new = count - len(dialer.connections)
            async with step(f"open {count}"):
                await many(dialer.dial, new, AT_ONCE)
            await many(dialer.request, count, AT_ONCE)  # the first on each makes what the others find
            for name in extent.rounds_of(f"requests {count}"):
                async with step(name):
                    await many(dialer.request, extent.requests, AT_ONCE)
        await dialer.close_all()
        await dialer.dial(0)
        for name in extent.rounds_of("one by one"):
            async with step(name):
                await many(dialer.request, extent.requests, 1)
        async with step("handshakes"):
            await many(dialer.dial_and_close, extent.handshakes, AT_ONCE)


async def many(act: Callable[[int], Awaitable[None]], count: int, at_once: int) -> None:
    """`act` with 0 … `count` - 1, some at once."""
    numbers = iter(range(count))

    async def act_in_turn() -> None:
        for number in numbers:
            await act(number)

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(act_in_turn)


@asynccontextmanager
async def step(name: str) -> AsyncIterator[None]:
    """Tell when it begins and ends, so that the listener can be looked at."""
    await trio.sleep(SETTLE_S)
    print(json.dumps({"begin": name}), flush=True)
    began_at = time.perf_counter()
    yield
    seconds = time.perf_counter() - began_at
    await trio.sleep(SETTLE_S)
    print(json.dumps({"end": name, "seconds": seconds}), flush=True)


# -- who looks at both --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spent:
    """What one step took: seconds of the clock, CPU seconds and new resident bytes of the listener."""

    seconds: float
    cpu_s: float
    rss: int


def measure(place: Place, extent: Extent = WHOLE) -> list[Finding]:
    """All of it, once. `Failed`."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.connections"]
    with Program(
        [*command, "serve", port, place.certificate, place.key], time_limit_s=TIME_LIMIT_S
    ) as listener:
        listener.wait_for("ready")
        with Program(
            [*command, "dial", port, json.dumps(asdict(extent))], time_limit_s=TIME_LIMIT_S
        ) as dialer:
            spent = {name: _look(listener, dialer, name) for name in extent.steps()}
    return list(_findings(spent, extent))


def _look(listener: Program, dialer: Program, name: str) -> Spent:
    dialer.wait_for(f'{{"begin": "{name}"')
    cpu_s, rss = listener.cpu_s(), listener.rss()
    end = json.loads(dialer.wait_for(f'{{"end": "{name}"'))
    return Spent(end["seconds"], listener.cpu_s() - cpu_s, listener.rss() - rss)


def _findings(spent: Mapping[str, Spent], extent: Extent) -> Iterator[Finding]:
    def seconds(name: str) -> float:
        return statistics.median(spent[step].seconds for step in extent.rounds_of(name))

    def cpu_s(name: str) -> float:
        return statistics.median(spent[step].cpu_s for step in extent.rounds_of(name))

    handshakes = spent["handshakes"]
    fewest, *_, some, most = extent.open
    yield Finding("handshakes", "handshakes a second", extent.handshakes / handshakes.seconds, "1/s")
    yield Finding(
        "handshake-cpu", "CPU time of the listener for one", handshakes.cpu_s / extent.handshakes * 1e6, "µs"
    )
    yield Finding(
        "requests",
        f"small requests a second, {AT_ONCE} at a time, connections open: {fewest}",
        extent.requests / seconds(f"requests {fewest}"),
        "1/s",
    )
    yield Finding(
        "requests-one-by-one",
        "small requests a second on one connection, one after the other",
        extent.requests / seconds("one by one"),
        "1/s",
    )
    for count in extent.open:
        yield Finding(
            f"request-cpu-{count}",
            f"CPU time of the listener for a small request, connections open: {count}",
            cpu_s(f"requests {count}") / extent.requests * 1e6,
            "µs",
        )
    yield Finding(
        "idle-rss",
        "resident memory of an idle accepted connection and its task",
        spent[f"open {most}"].rss / (most - some) / 1024,
        "KiB",
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case "serve", port, certificate, key:
            trio.run(serve, int(port), Path(certificate), Path(key))
        case "dial", port, extent:
            trio.run(dial, int(port), Extent(**json.loads(extent)))
