"""`p2pnode sim`: a swarm of simulated nodes in virtual time, beside the least time that is possible."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import click

from p2pnode.cli.console import Console
from p2pnode.cli.options import FILE, duration, fraction
from p2pnode.cli.options import rate as rate_type
from p2pnode.cli.options import size as size_type
from p2pnode.cli.running import run
from p2pnode.cli.verb import Verb
from p2pnode.errors import ConfigError, StorageError
from p2pnode.testing.network import ETHERNET_MTU
from p2pnode.testing.simulation import run_swarm, virtual_clock
from p2pnode.testing.swarm_plan import Happening, Incident, Progress, SwarmPlan
from p2pnode.testing.swarm_result import SwarmResult
from p2pnode.testing.timeline import timeline

NEWS_INTERVAL_S: Final = 2.0  # of real time, between two lines of progress
MB: Final = 1_000_000


def some_rate(value: str) -> float:
    """Read a rate for click; a simulated link has one."""
    rate = rate_type(value)
    if rate is None:
        raise click.BadParameter(f"{value!r} is no rate of a link: write 100Mbit or 12.5MB/s")
    return rate


def kill(value: str) -> Incident:
    """Read for click who is killed when."""
    try:
        return Incident.parse(value, Happening.KILL)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None


@click.command(cls=Verb)
@click.option(
    "--peers", type=click.IntRange(1, 256), default=8, show_default=True, help="How many fetch the file."
)
@click.option(
    "--size", type=size_type, metavar="SIZE", default="100MB", show_default=True, help="Of the file."
)
@click.option(
    "--rate",
    type=some_rate,
    metavar="RATE",
    default="100Mbit",
    show_default=True,
    help="Uplink and downlink of each host, in UDP payload.",
)
@click.option("--seed-rate", type=some_rate, metavar="RATE", help="Those of the seed.  [default: --rate]")
@click.option(
    "--delay",
    type=duration,
    metavar="TIME",
    default="20ms",
    show_default=True,
    help="From any host to any other.",
)
@click.option(
    "--loss",
    type=fraction,
    metavar="FRACTION",
    default="0",
    show_default=True,
    help="Share of datagrams that are lost on the way: 1%, 0.01.",
)
@click.option(
    "--zones",
    type=click.IntRange(0, 64),
    default=0,
    show_default=True,
    help="Deal the peers over so many zones; the seed is in one of its own.",
)
@click.option(
    "--wide-rate", type=some_rate, metavar="RATE", help="Of each zone's link to others.  [default: --rate]"
)
@click.option(
    "--kill",
    "kills",
    type=kill,
    metavar="NAME@MOMENT",
    multiple=True,
    help="Kill server, seed or peer-3 at 50% (of the median peer), 12.5s, or union.  Repeatable.",
)
@click.option(
    "--liars",
    type=click.IntRange(0, 64),
    default=0,
    show_default=True,
    help="Sources that send wrong blocks.",
)
@click.option(
    "--seeds", type=click.IntRange(1, 64), default=1, show_default=True, help="Sources that send right ones."
)
@click.option(
    "--mtu",
    type=click.IntRange(1200, 65527),
    default=ETHERNET_MTU,
    show_default=True,
    help="Largest UDP payload that gets through.",
)
@click.option(
    "--random-seed", type=int, default=0, show_default=True, help="Of the network's chance, and the file."
)
@click.option(
    "--timeline", "timeline_path", type=FILE, metavar="FILE.svg", help="Draw who had how much when."
)
@click.pass_obj
def command(
    console: Console,
    *,
    peers: int,
    size: int,
    rate: float,
    seed_rate: float | None,
    delay: float,
    loss: float,
    zones: int,
    wide_rate: float | None,
    kills: tuple[Incident, ...],
    liars: int,
    seeds: int,
    mtu: int,
    random_seed: int,
    timeline_path: Path | None,
) -> None:
    """Simulate a swarm: real nodes on a simulated network, in virtual time.

    \b
    Examples:
      p2pnode sim                                       8 peers, 100 MB, 100 Mbit/s each
      p2pnode sim --peers 16 --kill server@50%          the coordinator dies half way
      p2pnode sim --zones 4 --wide-rate 20Mbit          four places with thin links between them
      p2pnode sim --liars 3 --timeline swarm.svg        three more sources that lie, and a picture

    A coordinator without files, a seed, and peers that are told to fetch all at once. Shows when each had the
    file beside the least time that is possible (Kumar and Ross), what was sent twice, and what went from zone to
    zone. 0 only if every peer that was not killed has every byte.
    """
    plan = SwarmPlan(
        peers=peers,
        seeds=seeds,
        liars=liars,
        size=size,
        rate=rate,
        seed_rate=seed_rate,
        delay_s=delay,
        loss=loss,
        zones=zones,
        wide_rate=wide_rate,
        mtu=mtu,
        incidents=kills,
        random_seed=random_seed,
    )
    results: list[SwarmResult] = []

    async def simulate() -> None:
        results.append(await run_swarm(plan, on_progress=_News(console, plan).tell))

    run(simulate, console, clock=virtual_clock())
    [result] = results
    if timeline_path is not None:
        _draw(timeline_path, result)
    if not _show(console, result):
        raise SystemExit(1)


class _News:
    """Lines about how far it is, now and then."""

    def __init__(self, console: Console, plan: SwarmPlan) -> None:
        self._console = console
        self._plan = plan
        self._began_at = self._told_at = time.perf_counter()

    def tell(self, progress: Progress) -> None:
        """Say it, unless something was said a moment ago."""
        now = time.perf_counter()
        if now - self._told_at < NEWS_INTERVAL_S:
            return
        self._told_at = now
        self._console.say(
            f"{progress.seconds:.1f} s of the swarm in {now - self._began_at:.0f} s: the median peer has "
            f"{progress.median_share:.0%}, {progress.completed} of {self._plan.peers} have all"
        )


def _draw(path: Path, result: SwarmResult) -> None:
    try:
        path.write_text(timeline(result), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def _show(console: Console, result: SwarmResult) -> bool:
    """Say how it came out; whether all is well. With `--json` the result is the last line, whatever else is said."""
    if not console.json:
        _show_table(console, result)
    if result.problems:
        more = f" (and {len(result.problems) - 1} more)" if result.problems[1:] else ""
        console.fail(f"the swarm did not come out right: {result.problems[0]}{more}", 1)
    if console.json:
        console.event(result.to_json())
    return not result.problems


def _show_table(console: Console, result: SwarmResult) -> None:
    plan = result.plan
    rows = []
    for name in (*plan.seed_names, *plan.liar_names, *plan.peer_names):
        after = result.completions.get(name)
        became = "" if after is None else f"{after:.2f} s"
        if name in result.banned:
            became = f"banned by {len(result.banned[name])}"
        rows.append((name, plan.zone_of(name), became, f"{result.given[name] / MB:.1f} MB"))
    console.rows(("node", "zone", "complete after", "gave"), rows)
    console.data(
        f"{result.completed} of {plan.peers} peers have all {plan.size / MB:g} MB after {result.seconds:.2f} s; "
        f"the least time possible is {plan.bound_s:.2f} s"
    )
    facts = [f"ratio {result.ratio:.3f}"] if result.ratio is not None else []
    facts.append(f"{result.duplicate_fraction:.2%} sent twice")
    if result.wide_ratio is not None:
        facts.append(f"{result.wide_ratio:.2f} copies for each zone over the links between them")
    facts.append(f"{result.overhead - 1:.1%} more UDP payload than file")
    console.data(", ".join(facts))
