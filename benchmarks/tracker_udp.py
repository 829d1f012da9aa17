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
from dataclasses import asdict, dataclass
from itertools import cycle, islice
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
PEERS_AT: Final = 20  # bytes of an answer before them …
PEER_SIZE: Final = 6  # … and of each


@dataclass(frozen=True)
class Extent:
    """How much is announced, to each tracker in each round."""

    seconds: float = 5.0
    torrents: int = 1000
    peers: int = (
        50_000  # of all torrents together; who announced once announces again, as in a tracker's daily life
    )
    clients: int = (
        128  # each at an address of its own, with one announce in flight: all fit any socket's buffer
    )


Command = Callable[[int, Path, Extent], list[object]]
"""What starts a tracker: given a port, a directory of its own, and what will come."""


def info_hashes(extent: Extent) -> list[bytes]:
    """Of all torrents, the same in each process."""
    rng = Random(15)
    return [rng.randbytes(20) for _ in range(extent.torrents)]


@dataclass
class Load:
    """What the load saw of one tracker."""

    answers: int = 0
    errors: int = 0
    lost: int = 0
    peers: int = 0  # in all answers
    seconds: float = 0.0
    cpu_s: float = 0.0  # of the load itself
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
    """A client at an address of its own, which announces its peers again and again."""

    def __init__(self, number: int, port: int, extent: Extent, hashes: Sequence[bytes]) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((f"127.1.{number >> 8}.{number & 255}", 0))
        self.socket.connect(("127.0.0.1", port))
        connection_id = self._connect()
        peers = range(number, extent.peers, extent.clients)
        requests = [self._request(connection_id, peer, hashes[peer % len(hashes)]) for peer in peers]
        self._requests = cycle(requests)
        self._untold = len(requests)
        self.socket.setblocking(False)
        self.in_flight = 0

    @property
    def is_told(self) -> bool:
        """Has each peer announced?"""
        return self._untold <= 0

    def _connect(self) -> bytes:
        self.socket.settimeout(SILENCE_S)
        self.socket.send(ConnectRequest(1).encode())
        answer = decode_response(self.socket.recv(2048))
        assert isinstance(answer, ConnectResponse)
        return answer.connection_id

    @staticmethod
    def _request(connection_id: bytes, peer: int, info_hash: bytes) -> bytes:
        peer_id, port = b"-BM0001-%012d" % peer, 1024 + peer % 60_000
        return AnnounceRequest(
            connection_id, peer, info_hash, peer_id, 0, 1 << 20, 0, Event.STARTED, 0, peer, 50, port
        ).encode()

    def send(self, count: int) -> None:
        """So many announces, each of the next peer."""
        for request in islice(self._requests, count):
            self.socket.send(request)
        self.in_flight += count
        self._untold -= count

    def send_again(self) -> int:
        """After a long silence: what is in flight is lost, and as much is sent; how much."""
        lost, self.in_flight = self.in_flight, 0
        self.send(lost)
        return lost

    def receive(self) -> Iterator[bytes]:
        """All answers that are there."""
        receive = self.socket.recv
        try:
            while True:
                yield receive(2048)
        except BlockingIOError:
            return


class Loading:
    """All announcers at one tracker."""

    def __init__(self, port: int, extent: Extent) -> None:
        hashes = info_hashes(extent)
        self._announcers = [Announcer(number, port, extent, hashes) for number in range(extent.clients)]
        self._by_descriptor = {each.socket.fileno(): each for each in self._announcers}
        self._polled = epoll()
        for descriptor in self._by_descriptor:
            self._polled.register(descriptor, EPOLLIN)
        for announcer in self._announcers:
            announcer.send(1)

    @property
    def is_told(self) -> bool:
        """Has every peer announced?"""
        return all(announcer.is_told for announcer in self._announcers)

    def run(self, is_enough: Callable[[Load], bool]) -> Load:
        """Announce without a pause until it is enough."""
        seen = Load()
        began_at, cpu_began_at = time.perf_counter(), time.process_time()
        while not is_enough(seen):
            ready = self._polled.poll(SILENCE_S)
            for descriptor, _ in ready:
                announcer = self._by_descriptor[descriptor]
                announcer.send(self._receive(announcer, seen))
            if not ready:
                seen.lost += sum(announcer.send_again() for announcer in self._announcers)
            seen.seconds = time.perf_counter() - began_at
        seen.cpu_s = time.process_time() - cpu_began_at
        return seen

    @staticmethod
    def _receive(announcer: Announcer, seen: Load) -> int:
        """Takes in the answers that are there; how many."""
        came = 0
        for answer in announcer.receive():
            came += 1
            if answer[3] == Action.ANNOUNCE:
                seen.answers += 1
                seen.peers += (len(answer) - PEERS_AT) // PEER_SIZE
            else:
                seen.errors += 1
        announcer.in_flight -= came
        return came


def load(port: int, extent: Extent) -> None:
    """Announce to whatever listens at `port`: once each peer, and then what is measured."""
    loading = Loading(port, extent)
    loading.run(lambda _seen: loading.is_told)
    print("warm", flush=True)
    print(json.dumps(asdict(loading.run(lambda seen: seen.seconds >= extent.seconds))), flush=True)


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
        loading = [sys.executable, "-m", "benchmarks.tracker_udp", "load", port, json.dumps(asdict(extent))]
        with Program(["taskset", "-c", LOAD_CORE, *loading], time_limit_s=TIME_LIMIT_S) as loaded:
            loaded.wait_for("warm")
            began_at = tracker.cpu_s()
            seen = Load(**json.loads(loaded.wait_for("{")))
            seen.tracker_cpu_s = tracker.cpu_s() - began_at
            return seen


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
    parser.add_argument("--peers", type=int, default=Extent.peers)
    parser.add_argument("--clients", type=int, default=Extent.clients)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    match arguments:
        case ["serve", port]:
            trio.run(serve, int(port))
        case ["forge", count]:
            print(json.dumps(forge(int(count))))
        case ["load", port, extent]:
            load(int(port), Extent(**json.loads(extent)))
        case _:
            compare(parse(arguments))


def compare(options: argparse.Namespace) -> None:
    extent = Extent(options.seconds, options.torrents, options.peers, options.clients)
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
