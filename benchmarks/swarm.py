"""How close swarms come to the least time that is possible, and what they survive: the project's own figures.

    python -m benchmarks.swarm [--only NAME …] [--size-mb 100] [--jobs 2] [--random-seed 0] [--json]

Real nodes on a simulated network, in virtual time (`docs/simulation.md`): the figures depend on the code alone,
and repeat within some 2 %. All hosts are on 100 Mbit/s with 20 ms to each other unless the case says otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Final

from p2pnode.testing.bounds import Rates
from p2pnode.testing.simulation import simulate
from p2pnode.testing.swarm_plan import MBIT, Happening, Incident, SwarmPlan
from p2pnode.testing.swarm_result import SwarmResult

Results = Mapping[str, SwarmResult]  # by the name of the case

SIZES: Final = ("2 peers", "8 peers", "16 peers", "32 peers")
KILLS: Final = ("server@10%", "server@50%", "server@90%", "seed@union")
LIARS: Final = ("1 of 8 lie", "3 of 8 lie", "7 of 8 lie")
FEW_SOURCES: Final = SwarmPlan(
    peers=1, seeds=6, seed_rate=10 * MBIT, rates={"peer-1": Rates(100 * MBIT, 100 * MBIT)}
)
CASES: Final = {
    **{name: SwarmPlan(peers=int(name.split()[0])) for name in SIZES},
    "8 peers, 1 GB": SwarmPlan(peers=8, size=1_000_000_000),
    "6 sources": FEW_SOURCES,
    "6 sources, a slow one, one that freezes": replace(
        FEW_SOURCES,
        seeds=8,
        rates={**FEW_SOURCES.rates, "seed-8": Rates(MBIT / 2, MBIT / 2)},
        incidents=(Incident.parse("seed-7@95%", Happening.FREEZE),),
    ),
    **{
        name: SwarmPlan(peers=1, seeds=8 - int(name[0]), liars=int(name[0]), seed_rate=20 * MBIT)
        for name in LIARS
    },
    **{f"8 peers, {kill}": SwarmPlan(peers=8, incidents=(Incident.parse(kill),)) for kill in KILLS},
    "4 zones": SwarmPlan(peers=32, zones=4, wide_rate=20 * MBIT),
}
WHOLE_SIZE: Final = {"8 peers, 1 GB"}  # whatever --size-mb says


@dataclass(frozen=True)
class Figure:
    """One line of the table. Less is better. `measure` takes the results of `cases`, in their order."""

    name: str
    cases: tuple[str, ...]
    measure: Callable[[Sequence[SwarmResult]], float]
    at_least: float
    aim: float
    needs_all: bool = True  # of these cases; if not, those that were measured will do

    def of(self, results: Results) -> float | None:
        """What was reached; None when a case that it needs was left out."""
        measured = [results[case] for case in self.cases if case in results]
        if not measured or (self.needs_all and len(measured) < len(self.cases)):
            return None
        return self.measure(measured)

    def verdict(self, measured: float | None) -> str:
        """In words."""
        if measured is None:
            return "not measured"
        if measured <= self.aim:
            return "aim reached"
        return "reached" if measured <= self.at_least else "missed"


def ratio(results: Sequence[SwarmResult]) -> float:
    """The worst last completion ÷ the least time; infinite when somebody never had it."""
    return max(float("inf") if result.ratio is None else result.ratio for result in results)


def growth(results: Sequence[SwarmResult]) -> float:
    """How much worse the ratio of the last is than that of the first."""
    return ratio(results[-1:]) - ratio(results[:1])


def slowdown(results: Sequence[SwarmResult]) -> float:
    """The time of the second ÷ that of the first."""
    return results[1].seconds / results[0].seconds


def not_right(results: Sequence[SwarmResult]) -> float:
    """How many leechers have not every byte right."""
    return sum(len(result.problems) for result in results)


def wide(results: Sequence[SwarmResult]) -> float:
    """UDP payload from zone to zone ÷ (file × zones)."""
    return max(result.wide_ratio or 0.0 for result in results)


def duplicates(results: Sequence[SwarmResult]) -> float:
    """The largest share of bytes that came for nothing."""
    return max(result.duplicate_fraction for result in results)


FIGURES: Final = (
    *(
        Figure(f"last completion ÷ least time, {name}", (name,), ratio, 1.25, 1.10)
        for name in (*SIZES, "8 peers, 1 GB")
    ),
    Figure("growth of that from 2 peers to 32", ("2 peers", "32 peers"), growth, 0.10, 0.0),
    Figure("duplicate bytes", SIZES, duplicates, 0.02, 0.005, needs_all=False),
    Figure(
        "time with a slow source and a frozen one ÷ without",
        ("6 sources", "6 sources, a slow one, one that freezes"),
        slowdown,
        1.15,
        1.05,
    ),
    *(Figure(f"peers not right, {name}", (name,), not_right, 0, 0) for name in LIARS),
    *(Figure(f"peers not right, {kill}", (f"8 peers, {kill}",), not_right, 0, 0) for kill in KILLS),
    Figure("4 zones × 8 peers: bytes over thin links ÷ (file × zones)", ("4 zones",), wide, 1.15, 1.05),
)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.swarm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(CASES), metavar="NAME", help="these cases; see --list"
    )
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--size-mb", type=float, default=100, metavar="N", help="of the file")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="simulations at a time")
    parser.add_argument("--random-seed", type=int, default=0, metavar="N")
    parser.add_argument(
        "--json", action="store_true", help="one line of JSON for each result and each figure"
    )
    return parser.parse_args(arguments)


def measure(plans: Mapping[str, SwarmPlan], jobs: int, tell: Callable[[str, SwarmResult], None]) -> Results:
    """Simulate all, the largest first; `tell` of each as it ends."""
    results = {}
    with ProcessPoolExecutor(jobs) as executor:
        by_size = sorted(plans, key=lambda name: -plans[name].size * plans[name].peers)
        names = {executor.submit(simulate, plans[name]): name for name in by_size}
        for future in as_completed(names):
            results[names[future]] = future.result()
            tell(names[future], results[names[future]])
    return results


def tell_json(name: str, result: SwarmResult) -> None:
    print(json.dumps(result.to_json() | {"event": "simulation", "case": name}), flush=True)


def tell_text(name: str, result: SwarmResult) -> None:
    ratio_text = "-" if result.ratio is None else f"{result.ratio:.3f}"
    print(
        f"{name}: {result.completed} of {result.expected} after {result.seconds:.2f} s, ratio {ratio_text}, "
        f"{result.duplicate_fraction:.2%} twice, {result.real_seconds:.0f} s of this machine"
        + "".join(f"\n  {problem}" for problem in result.problems[:3]),
        file=sys.stderr,
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.list:
        print(*CASES, sep="\n")
        return 0
    size = round(options.size_mb * 1e6)
    plans = {
        name: replace(plan, random_seed=options.random_seed, size=plan.size if name in WHOLE_SIZE else size)
        for name, plan in CASES.items()
        if options.only is None or name in options.only
    }
    results = measure(plans, options.jobs, tell_json if options.json else tell_text)
    missed = sum(bool(result.problems) for result in results.values())
    for figure in FIGURES:
        measured = figure.of(results)
        verdict = figure.verdict(measured)
        missed += verdict == "missed"
        if options.json:
            values = {
                "measured": measured,
                "at_least": figure.at_least,
                "aim": figure.aim,
                "verdict": verdict,
            }
            print(json.dumps({"event": "figure", "name": figure.name, **values}))
        elif measured is not None:
            print(
                f"{figure.name:<62} {measured:>8.3f}  (≤ {figure.at_least:g}, aim {figure.aim:g})  {verdict}"
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
