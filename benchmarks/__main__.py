"""How fast p2pnode is beside others that move a file between two processes over loopback.

Every way is measured once in each round, so that all see the same machine; what arrives is compared with what
was sent. Without --only, a page and a plot are written into docs/benchmarks.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import connections
from benchmarks.catalogue import WAYS
from benchmarks.figures import figures
from benchmarks.machine import OtherLoad, describe
from benchmarks.measuring import MIB, PROJECT, Failed, Measurement, Place, Sample, Way
from benchmarks.report import Run, to_markdown

OUTPUT: Final = PROJECT / "docs" / "benchmarks"
CONNECTIONS: Final = "connections"  # the one thing to measure that moves no file
PAGE: Final = "RESULTS.md"
PLOT: Final = "results.svg"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*(way.name for way in WAYS), CONNECTIONS]
    parser.add_argument(
        "--size-mib", type=int, nargs="+", default=[256, 1024], metavar="N", help="file sizes"
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="how often each way is measured")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help="these ways; see --list")
    parser.add_argument("--list", action="store_true", help="name the ways, and what hinders them here")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each measurement")
    parser.add_argument("--ratios", action="store_true", help="with --json: also the figures to reach")
    parser.add_argument("--dir", type=Path, help="where files are written meanwhile (a temporary directory)")
    parser.add_argument("--out", type=Path, help=f"where page and plot go (without --only: {OUTPUT.name})")
    return parser.parse_args(arguments)


def tell(event: dict[str, object]) -> None:
    print(json.dumps(event, ensure_ascii=False), flush=True)


def remark(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Bench:
    """One call of the program."""

    def __init__(self, ways: Sequence[Way], rounds: int, scratch: Path | None, *, is_json: bool) -> None:
        titles = {way.name: way.title for way in ways} | {CONNECTIONS: CONNECTIONS}
        self.run = Run(describe(), rounds, titles)
        self.has_failed = False  # one of ours, which is a defect
        self._scratch = scratch
        self._is_json = is_json
        self._ways = list(ways)
        for way in ways:
            reason = way.why_not()
            if reason is not None:
                self._skip(way, reason)

    def measure(self, size_mib: int) -> None:
        """All ways with one size."""
        samples: dict[str, list[Sample]] = {way.name: [] for way in self._ways}
        load = OtherLoad()
        with tempfile.TemporaryDirectory(prefix="p2pnode-bench-", dir=self._scratch) as root:
            place = Place(Path(root), size_mib * MIB)
            for number in range(1, self.run.rounds + 1):
                for way in list(self._ways):
                    self._measure_once(way, place, samples[way.name], f"{size_mib} MiB, round {number}")
        self.run.other_load[size_mib] = load.cores()
        self.run.results[size_mib] = {
            way.name: Measurement(f"{way.name} {size_mib} MiB", samples[way.name]) for way in self._ways
        }
        if self._is_json:
            for measurement in self.run.results[size_mib].values():
                tell(measurement.to_json())

    def measure_connections(self) -> None:
        """What connections cost beside their bytes."""
        with tempfile.TemporaryDirectory(prefix="p2pnode-bench-", dir=self._scratch) as root:
            try:
                self.run.findings = connections.measure(Place(Path(root), 0))
            except Failed as failure:
                self.has_failed = True
                self._tell_skipped(CONNECTIONS, str(failure))
        if self._is_json:
            for finding in self.run.findings:
                tell(finding.to_json())

    def _measure_once(self, way: Way, place: Place, samples: list[Sample], where: str) -> None:
        place.warm()
        try:
            sample = way.measure(place)
        except Failed as failure:
            self.has_failed |= way.is_ours
            self._skip(way, str(failure))
        else:
            samples.append(sample)
            remark(f"{where}: {way.name:16} {sample.mb_per_s:8.1f} MB/s")

    def _skip(self, way: Way, reason: str) -> None:
        self._ways.remove(way)
        self._tell_skipped(way.name, reason)

    def _tell_skipped(self, name: str, reason: str) -> None:
        self.run.skipped[name] = reason
        if self._is_json:
            tell({"event": "skipped", "name": name, "reason": reason})
        else:
            remark(f"skipped: {name}: {reason}")


def main() -> int:
    options = parse()
    ways = [way for way in WAYS if options.only is None or way.name in options.only]
    if options.list:
        for way in ways:
            reason = way.why_not()
            print(f"{way.name:16} {way.title}" + (f" (not here: {reason})" if reason else ""))
        print(f"{CONNECTIONS:16} handshakes, small requests, memory of idle connections")
        return 0
    bench = Bench(ways, options.rounds, options.dir, is_json=options.json)
    if ways:
        for size_mib in options.size_mib:
            bench.measure(size_mib)
    if options.only is None or CONNECTIONS in options.only:
        bench.measure_connections()
    report(bench.run, options)
    return int(bench.has_failed)


def report(run: Run, options: argparse.Namespace) -> None:
    """What was asked for, to standard output and to the documents."""
    reached = figures(run.results, run.findings)
    if not options.json:
        print(to_markdown(run))
    elif options.ratios:
        for figure in reached:
            tell(figure.to_json())
    output = options.out if options.out or options.only else OUTPUT
    if output is not None:
        write_documents(run, output)


def write_documents(run: Run, output: Path) -> None:
    """The page, and the plot where matplotlib is there."""
    output.mkdir(parents=True, exist_ok=True)
    try:
        from benchmarks.plot import write_plot

        write_plot(run, frozenset(way.name for way in WAYS if way.is_ours), output / PLOT)
    except ImportError as missing:
        remark(f"no plot: {missing}")
        (output / PAGE).write_text(to_markdown(run), encoding="utf-8")
    else:
        (output / PAGE).write_text(to_markdown(run, PLOT), encoding="utf-8")
    remark(f"wrote {output / PAGE}")


if __name__ == "__main__":
    raise SystemExit(main())
