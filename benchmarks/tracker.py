"""How much a tracker answers on one core: over QUIC, HTTP and UDP, and beside npm's, in one run.

    python -m benchmarks.tracker [--npm PROGRAM] [--opentracker PROGRAM] [--rounds N] [--seconds S] [--json]

`--npm` is `node_modules/.bin/bittorrent-tracker` of the npm package (`npm install --ignore-scripts
bittorrent-tracker@9` somewhere else). What is measured of ours is `p2pnode tracker` as people run it. It has one core,
and whoever asks it the other; rounds of what is compared take turns. Where whoever asks is busy all the time, he is
the limit: then announces for each CPU second of the tracker say what its core could do.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks import tracker_udp
from benchmarks.figures import Figure
from benchmarks.measuring import MB, Failed, Place, free_port
from benchmarks.programs import Program, measure_pair, module
from benchmarks.tracker_load import LARGE, Extent, Load
from p2pnode.cli.swarm_nodes import program

TRACKER_CORE: Final = 0
LOAD_CORE: Final = 1
TIME_LIMIT_S: Final = 300.0
LARGE_SIZE: Final = 20 * MB


@dataclass(frozen=True)
class Round:
    """What one load saw of a tracker that was started for it."""

    load: Load
    tracker_cpu_s: float

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return self.load.count / self.load.seconds

    @property
    def per_cpu_s(self) -> float:
        """Answers for each CPU second of the tracker."""
        return self.load.count / max(self.tracker_cpu_s, 0.01)


@dataclass(frozen=True)
class Rounds:
    """All rounds of one way to ask one tracker."""

    title: str
    rounds: Sequence[Round]

    @property
    def per_s(self) -> float:
        """Of the median round."""
        return statistics.median(one.per_s for one in self.rounds)

    @property
    def per_cpu_s(self) -> float:
        """Of the median round."""
        return statistics.median(one.per_cpu_s for one in self.rounds)

    def row(self) -> str:
        """Of the table."""
        each = " ".join(f"{one.per_s:,.0f}" for one in self.rounds)
        tracker = statistics.mean(one.tracker_cpu_s / one.load.seconds for one in self.rounds)
        load = statistics.mean(one.load.cpu_s / one.load.seconds for one in self.rounds)
        return f"| {self.title} | {self.per_s:,.0f} | {each} | {self.per_cpu_s:,.0f} | {tracker:.0%} | {load:.0%} |"

    def to_json(self) -> dict[str, object]:
        """The line of `--json`."""
        return {
            "event": "answers",
            "name": self.title,
            "per_s": [round(one.per_s) for one in self.rounds],
            "median_per_s": round(self.per_s),
            "median_per_cpu_s": round(self.per_cpu_s),
        }


# -- trackers ------------------------------------------------------------------------------------------------


@contextmanager
def ours(language: str) -> Iterator[tuple[Program, int]]:
    """`p2pnode tracker`, and its port for a language; it has a large file."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "seed").mkdir()
        (directory / "seed" / LARGE).write_bytes(os.urandom(LARGE_SIZE))
        places = ["--seed-dir", directory / "seed", "--state-dir", directory / "state", "--log-file", "-"]
        doors = ["--addr", "127.0.0.1", "--quic", "0", "--http", "0"]
        with on_core(TRACKER_CORE, [*program("tracker", "--json"), *doors, *places]) as tracker:
            ready = json.loads(tracker.wait_for('"front_ends_ready"'))
            tracker.drain()
            ports = {door["language"]: door["address"][1] for door in ready["doors"]}
            yield tracker, ports[language]


@contextmanager
def npm(path: Path) -> Iterator[tuple[Program, int]]:
    """npm's bittorrent-tracker over HTTP, and its port."""
    port = free_port(socket.SOCK_STREAM)
    with on_core(TRACKER_CORE, [path, "--http", "--quiet", "--port", port]) as tracker:
        for _ in range(100):
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        else:
            raise Failed("npm's bittorrent-tracker does not listen")
        yield tracker, port


def on_core(core: int, command: Sequence[object]) -> Program:
    return Program(["taskset", "-c", core, *command], time_limit_s=TIME_LIMIT_S)


# -- rounds --------------------------------------------------------------------------------------------------


def ask(tracker: Program, port: int, kind: str, extent: Extent) -> Round:
    command = [sys.executable, "-m", "benchmarks.tracker_load", kind, port, json.dumps(asdict(extent))]
    with on_core(LOAD_CORE, command) as load:
        load.wait_for("begin")
        before = tracker.cpu_s()
        done = Load(**json.loads(load.wait_for("{")))
        return Round(done, tracker.cpu_s() - before)


def measure_ours(language: str, kind: str, extent: Extent) -> Round:
    with ours(language) as (tracker, port):
        return ask(tracker, port, kind, extent)


def measure_npm(path: Path, extent: Extent) -> Round:
    with npm(path) as (tracker, port):
        return ask(tracker, port, "http", extent)


def raw_stream(place: Place) -> float:
    """Seconds for the large file over a stream of ours, with nothing around it."""
    port = free_port()
    give = module("raw_stream", "serve", "mtu", port, place.source, place.certificate, place.key)
    take = module("raw_stream", "fetch", "mtu", port, place.target)
    sample = measure_pair(place, ["taskset", "-c", TRACKER_CORE, *give], ["taskset", "-c", LOAD_CORE, *take])
    place.check_target()
    return place.size / MB / sample.mb_per_s


def measure(options: argparse.Namespace) -> tuple[list[Rounds], list[Figure]]:
    extent = Extent(seconds=options.seconds)
    kinds: dict[str, Callable[[], Round]] = {
        "JSON, open QUIC connections": lambda: measure_ours("quic", "json-open", extent),
        "JSON, a new QUIC connection each": lambda: measure_ours("quic", "json-new", extent),
        "HTTP, keep-alive": lambda: measure_ours("http", "http", extent),
    }
    if options.npm:
        kinds["HTTP, keep-alive: bittorrent-tracker (npm)"] = lambda: measure_npm(options.npm, extent)
    rounds: dict[str, list[Round]] = {name: [] for name in kinds}
    for number in range(options.rounds):
        for name in [*kinds][:: -1 if number % 2 else 1]:
            rounds[name].append(kinds[name]())
    found = [Rounds(name, each) for name, each in rounds.items()]
    return found, [*figures(found), *udp_figures(options), transfer_figure(options.rounds, extent)]


# -- figures -------------------------------------------------------------------------------------------------


def figures(found: Sequence[Rounds]) -> Iterator[Figure]:
    opened, new, http, *others = found
    yield Figure(opened.title, opened.per_s, opened.per_cpu_s, 3000, 10_000, unit=" /s")
    yield Figure(new.title, new.per_s, new.per_cpu_s, 300, 700, unit=" /s")
    for other in others:
        by_cpu = http.per_cpu_s / other.per_cpu_s
        yield Figure(f"{http.title} ÷ {other.title}", http.per_s / other.per_s, by_cpu, 0.15, 0.25)


def udp_figures(options: argparse.Namespace) -> Iterator[Figure]:
    """Beside each of the others that were named."""
    extent = tracker_udp.Extent(seconds=options.seconds)
    commands: Mapping[str, tracker_udp.Command] = (
        {"p2pnode": tracker_udp.ours}
        | ({"bittorrent-tracker (npm)": tracker_udp.npm(options.npm)} if options.npm else {})
        | ({"opentracker": tracker_udp.opentracker(options.opentracker)} if options.opentracker else {})
    )
    rates: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(options.rounds):
        for name in [*commands][:: -1 if number % 2 else 1]:
            rates[name].append(tracker_udp.measure(commands[name], extent).per_s)
    medians = {name: statistics.median(each) for name, each in rates.items()}
    for name in [*commands][1:]:
        yield Figure(f"UDP ÷ {name}", medians["p2pnode"] / medians[name], None, 1.0, 3.0)


def transfer_figure(rounds: int, extent: Extent) -> Figure:
    raw_s: list[float] = []
    ours_s: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        place = Place(Path(name) / "raw", LARGE_SIZE)
        for _ in range(rounds):
            raw_s.append(raw_stream(place))
            ours_s.append(measure_ours("quic", "download", extent).load.median_s)
    ratio = statistics.median(raw_s) / statistics.median(ours_s)
    return Figure("20 MB by the client ÷ raw stream", ratio, None, 0.7, 0.9)


def show(found: Sequence[Rounds], reached: Sequence[Figure]) -> None:
    print(
        "| announces | a second (median) | all rounds | for a CPU second of the tracker | its core | load's core |"
    )
    print("|---|--:|---|--:|--:|--:|")
    for rounds in found:
        print(rounds.row())
    print("\n| figure | measured | by CPU time | at least | aim | |")
    print("|---|--:|--:|--:|--:|---|")
    for figure in reached:
        numbers = (figure.measured, figure.measured_by_cpu, figure.at_least, figure.aim)
        shown = " | ".join("" if number is None else f"{number:,.4g}{figure.unit}" for number in numbers)
        print(f"| {figure.name} | {shown} | {figure.verdict} |")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.tracker",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--npm", type=lambda path: Path(path).absolute(), metavar="PROGRAM")
    parser.add_argument("--opentracker", type=lambda path: Path(path).absolute(), metavar="PROGRAM")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=Extent.seconds)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    found, reached = measure(options)
    if options.json:
        lines: list[dict[str, object]] = [each.to_json() for each in found] + [
            each.to_json() for each in reached
        ]
        for line in lines:
            print(json.dumps(line))
    else:
        show(found, reached)


if __name__ == "__main__":
    main(sys.argv[1:])
