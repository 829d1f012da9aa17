"""How many announces a second a UDP tracker answers on one core: ours, and others that are installed.

    python -m benchmarks.tracker_udp [--npm PROGRAM] [--opentracker PROGRAM] [--seconds S] [--rounds N] …
    python -m benchmarks.tracker_udp forge COUNT        announces with forged connection ids; how many were accepted

`--npm` is `node_modules/.bin/bittorrent-tracker` of the npm package, `--opentracker` the program of that name.
Each tracker is a process bound to one core, and what announces to it is another process on another core, the same
for all. Rounds take turns, so that every tracker sees the same machine. What counts is a second of the tracker's own
CPU time: a second where it has the core to itself and is never out of work, and what a busy machine leaves of it else.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from select import EPOLLIN, epoll
from typing import Final

import trio

from benchmarks.measuring import Failed, free_port
from benchmarks.programs import Program
from p2pnode.config import UDP_CONNECTION_LASTS_S
from p2pnode.services.request_log import RequestLog
from p2pnode.services.tracker import Tracker
from p2pnode.services.tracker_udp import UdpTracker
from p2pnode.wire.tracker_udp import (
    Action,
    AnnounceRequest,
    ConnectRequest,
    ConnectResponse,
    Event,
    decode_response,
)

SERVER_CORE: Final = 0
LOAD_CORE: Final = 1
SILENCE_S: Final = 0.5  # then what was in flight is taken for lost
TIME_LIMIT_S: Final = 120.0


@dataclass(frozen=True)
class Extent:
    """How much is announced, to each tracker in each round."""

    seconds: float = 5.0
    torrents: int = 10_000
    in_flight: int = 512
    sockets: int = 512  # each at an address of its own: so many clients


Command = Callable[[int, Path, Extent], list[object]]
"""What starts a tracker: given a port, a directory of its own, and what will come."""


def info_hashes(extent: Extent) -> list[bytes]:
    """Of all torrents, the same in each process."""
    rng = Random(15)
    return [rng.randbytes(20) for _ in range(extent.torrents)]


@dataclass(frozen=True)
class Load:
    """What the load saw of one tracker."""

    answers: int
    errors: int
    lost: int
    seconds: float
    peers: int  # in all answers
    cpu_s: float  # of the load itself
    tracker_cpu_s: float = 0.0

    @property
    def per_s(self) -> float:
        """Announces that were answered, a second."""
        return self.answers / self.seconds

    @property
    def per_cpu_s(self) -> float:
        """The same, a second of the tracker's CPU time: what a core does that others do not share."""
        return self.answers / self.tracker_cpu_s


# -- the load ----------------------------------------------------------------------------------------------


class Announcer:
    """One socket at an address of its own, which keeps so many announces in flight."""

    def __init__(self, number: int, port: int, hashes: Sequence[bytes], numbers: Iterator[int]) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((f"127.1.{number >> 8}.{number & 255}", 0))
        self.socket.connect(("127.0.0.1", port))
        self._hashes = hashes
        self._numbers = numbers
        self._front, self._tail = self._connect()
        self.socket.setblocking(False)
        self.in_flight = 0

    def _connect(self) -> tuple[bytes, bytes]:
        """What every announce begins and ends with."""
        self.socket.settimeout(SILENCE_S)
        self.socket.send(ConnectRequest(1).encode())
        answer = decode_response(self.socket.recv(2048))
        assert isinstance(answer, ConnectResponse)
        request = AnnounceRequest(
            answer.connection_id, 0, bytes(20), bytes(20), 0, 1 << 20, 0, Event.STARTED, 0, 0, 50, 6881
        )
        encoded = request.encode()
        return encoded[:12], encoded[56:]

    def send(self, count: int) -> None:
        """So many announces: each of a peer that never announced before, to the next torrent."""
        send, hashes = self.socket.send, self._hashes
        for _ in range(count):
            number = next(self._numbers)
            ids = b"%b%b-BM0001-%012d" % (number.to_bytes(4), hashes[number % len(hashes)], number)
            send(self._front + ids + self._tail)
        self.in_flight += count

    def receive(self) -> Iterator[bytes]:
        """All answers that are there."""
        receive = self.socket.recv
        try:
            while True:
                yield receive(2048)
        except BlockingIOError:
            return


def load(port: int, extent: Extent) -> Load:
    """Announce to whatever listens at `port`, without a pause."""
    hashes = info_hashes(extent)
    numbers = iter(range(1, 2**32))
    announcers = [Announcer(number + 1, port, hashes, numbers) for number in range(extent.sockets)]
    by_descriptor = {announcer.socket.fileno(): announcer for announcer in announcers}
    polled = epoll()
    for descriptor in by_descriptor:
        polled.register(descriptor, EPOLLIN)
    share = extent.in_flight // extent.sockets
    answers = errors = lost = peers = 0
    began_at, cpu_began_at = time.perf_counter(), time.process_time()
    for announcer in announcers:
        announcer.send(share)
    while time.perf_counter() - began_at < extent.seconds:
        ready = polled.poll(SILENCE_S)
        for announcer in [by_descriptor[descriptor] for descriptor, _ in ready] or announcers:
            came = 0
            for answer in announcer.receive():
                came += 1
                if answer[3] == Action.ANNOUNCE:
                    peers += (len(answer) - 20) // 6
                else:
                    errors += 1
            answers += came
            if not ready:  # nothing for so long
                lost += announcer.in_flight
                came = announcer.in_flight = share
            announcer.in_flight -= came
            announcer.send(came)
    seconds = time.perf_counter() - began_at
    cpu_s = time.process_time() - cpu_began_at
    return Load(answers - errors, errors, lost, seconds, peers, cpu_s)


# -- the trackers ------------------------------------------------------------------------------------------


async def serve(port: int) -> None:
    """Ours, by itself."""
    tracker = Tracker()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tracker.run)
        await UdpTracker(tracker, RequestLog()).serve([("127.0.0.1", port)])


def ours(port: int, _directory: Path, _extent: Extent) -> list[object]:
    """The command."""
    return [sys.executable, "-m", "benchmarks.tracker_udp", "serve", port]


def npm(program: Path) -> Command:
    """The command for npm's bittorrent-tracker."""
    return lambda port, _directory, _extent: [program, "--udp", "--quiet", "--port", port]


def opentracker(program: Path) -> Command:
    """The command for opentracker, which knows of no torrent that is not in its list."""

    def command(port: int, directory: Path, extent: Extent) -> list[object]:
        directory.chmod(0o755)  # it gives up its rights
        whitelist = directory / "whitelist"
        whitelist.write_text("".join(f"{info_hash.hex()}\n" for info_hash in info_hashes(extent)))
        configuration = directory / "opentracker.conf"
        configuration.write_text(f"listen.udp 127.0.0.1:{port}\naccess.whitelist {whitelist}\n")
        return [program, "-f", configuration]

    return command


@contextmanager
def running(command: Sequence[object], port: int) -> Iterator[Program]:
    """A tracker on its core, once it answers."""
    with Program(["taskset", "-c", SERVER_CORE, *command], time_limit_s=TIME_LIMIT_S) as program:
        wait_until_it_answers(port)
        yield program


def wait_until_it_answers(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(0.1)
        probe.connect(("127.0.0.1", port))
        for _ in range(100):
            try:
                probe.send(ConnectRequest(1).encode())
                probe.recv(2048)
            except TimeoutError:
                continue
            except ConnectionRefusedError:
                time.sleep(0.1)
                continue
            return
    raise Failed(f"nobody answers at UDP port {port}")


# -- forged ids ------------------------------------------------------------------------------------------------


def forge(count: int) -> dict[str, int]:
    """Announces by who never proved where he is, in equal parts: guessed, near misses, too old, of another host."""
    tracker = Tracker(clock=lambda: 0.0)
    udp, now = UdpTracker(tracker, RequestLog()), 10_000.0
    good, old, other = (
        udp.answer(ConnectRequest(1).encode(), (host, 1024), when) or b""
        for host, when in (("8.8.4.4", now), ("8.8.4.4", now - UDP_CONNECTION_LASTS_S), ("8.8.4.5", now))
    )
    rng = Random(15)
    for number in range(count):
        match number % 4:
            case 0:
                connection_id = rng.randbytes(8)
            case 1:
                connection_id = (int.from_bytes(good[8:]) ^ 1 << rng.randrange(64)).to_bytes(8)
            case 2:
                connection_id = old[8:]
            case _:
                connection_id = other[8:]
        request = AnnounceRequest(
            connection_id, number, bytes(20), number.to_bytes(20), 0, 1, 0, Event.NONE, 0, 0, -1, 6881
        )
        udp.answer(request.encode(), ("8.8.4.4", 1024), now)
    return {"forged": count, "accepted": int(tracker.statistics["announces"])}


# -- the measurement ---------------------------------------------------------------------------------------


def measure(command: Command, extent: Extent) -> Load:
    """One round of one tracker, which starts empty."""
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as directory,
        running(command(port, Path(directory), extent), port) as tracker,
    ):
        began_at = tracker.cpu_s()
        loading = [sys.executable, "-m", "benchmarks.tracker_udp", "load", port, json.dumps(asdict(extent))]
        with Program(["taskset", "-c", LOAD_CORE, *loading], time_limit_s=TIME_LIMIT_S) as loaded:
            seen = Load(**json.loads(loaded.wait_for("{")))
        return replace(seen, tracker_cpu_s=tracker.cpu_s() - began_at)


def table(loads: dict[str, list[Load]]) -> str:
    """Medians, and each beside ours."""
    lines = [
        "| tracker | announces/s | a second of its CPU | all rounds | ours ÷ it | peers in an answer | lost |",
        "|---|---|---|---|---|---|---|",
    ]
    ours_per_cpu_s = statistics.median(load.per_cpu_s for load in loads["p2pnode"])
    for name, rounds in loads.items():
        per_s = statistics.median(load.per_s for load in rounds)
        per_cpu_s = statistics.median(load.per_cpu_s for load in rounds)
        each = " ".join(f"{load.per_cpu_s:,.0f}" for load in rounds)
        peers = sum(load.peers for load in rounds) / sum(load.answers for load in rounds)
        lost = sum(load.lost + load.errors for load in rounds)
        ratio = ours_per_cpu_s / per_cpu_s
        lines.append(
            f"| {name} | {per_s:,.0f} | {per_cpu_s:,.0f} | {each} | {ratio:.2f} | {peers:.1f} | {lost} |"
        )
    return "\n".join(lines)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.tracker_udp",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--npm", type=Path, metavar="PROGRAM")
    parser.add_argument("--opentracker", type=Path, metavar="PROGRAM")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=Extent.seconds)
    parser.add_argument("--torrents", type=int, default=Extent.torrents)
    parser.add_argument("--in-flight", type=int, default=Extent.in_flight)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    match arguments:
        case ["serve", port]:
            trio.run(serve, int(port))
        case ["forge", count]:
            print(json.dumps(forge(int(count))))
        case ["load", port, extent]:
            print(json.dumps(asdict(load(int(port), Extent(**json.loads(extent))))))
        case _:
            compare(parse(arguments))


def compare(options: argparse.Namespace) -> None:
    extent = Extent(options.seconds, options.torrents, options.in_flight, min(options.in_flight, 512))
    commands: dict[str, Command] = {"p2pnode": ours}
    if options.npm:
        commands["bittorrent-tracker (npm)"] = npm(options.npm.absolute())
    if options.opentracker:
        commands["opentracker"] = opentracker(options.opentracker.absolute())
    loads: dict[str, list[Load]] = {name: [] for name in commands}
    for number in range(options.rounds):
        for name in [*commands][:: -1 if number % 2 else 1]:
            loads[name].append(measure(commands[name], extent))
    print(table(loads))


if __name__ == "__main__":
    main(sys.argv[1:])
