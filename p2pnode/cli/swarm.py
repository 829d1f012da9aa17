"""`p2pnode swarm`: a coordinator, a seed and peers on this machine, real processes, every file verified."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

import click
import trio

from p2pnode.cli.console import Console
from p2pnode.cli.options import DIRECTORY, FILE, duration, fraction, made_directory, rate
from p2pnode.cli.options import size as size_type
from p2pnode.cli.running import run
from p2pnode.cli.swarm_nodes import Event, SwarmFailed, SwarmNode, environment, program
from p2pnode.cli.swarm_race import Finish, Race
from p2pnode.cli.swarm_result import (
    Digests,
    Transfers,
    digests,
    item_names,
    problems,
    result_event,
    transfers,
)
from p2pnode.cli.swarm_setup import Nodes, Plan, prepare, start
from p2pnode.cli.units import duration_text, rate_text, size_text
from p2pnode.cli.verb import Verb
from p2pnode.errors import ConfigError, leaves
from p2pnode.testing.swarm_plan import Incident, Moment
from p2pnode.torrent import printable

DEADLINE_S: Final = 300.0  # for the whole run: whoever watches must not wait for ever


def _kill(value: str) -> Incident:
    """Read whom to kill and when, for click."""
    try:
        incident = Incident.parse(value)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None
    if incident.when == Moment():
        raise click.BadParameter("what the peers have together is known in a simulation alone: p2pnode sim")
    return incident


@click.command(cls=Verb)
@click.option("--peers", type=click.IntRange(1, 64), default=4, show_default=True, help="How many fetch.")
@click.option(
    "--size",
    type=size_type,
    metavar="SIZE",
    default="256M",
    show_default=True,
    help="Of the random file that all fetch.",
)
@click.option("--rate", type=rate, metavar="RATE", help="Each node's limit, up and down: 100Mbit.  [none]")
@click.option("--seed-rate", type=rate, metavar="RATE", help="That of the seed.  [as --rate]")
@click.option(
    "--delay", type=duration, metavar="TIME", default="0", help="One way between any two: 20ms.  [none]"
)
@click.option("--loss", type=fraction, metavar="SHARE", default="0", help="Of all datagrams: 1%.  [none]")
@click.option("--zones", type=click.IntRange(0, 64), default=0, help="Spread the peers over so many.  [none]")
@click.option(
    "--kill",
    "kills",
    type=_kill,
    multiple=True,
    metavar="NODE@SHARE",
    help="server@50%, seed@95%, peer-1@10%: when the median peer has so much.",
)
@click.option("--liars", type=click.IntRange(0, 64), default=0, help="So many more offer it and lie.  [none]")
@click.option("--random-seed", type=int, default=0, help="Of the file's bytes.  [0]")
@click.option(
    "--dir",
    "directory",
    type=DIRECTORY,
    help="Where the nodes get their directories.  [default: a temporary one]",
)
@click.option("--keep", is_flag=True, help="Keep the nodes' files and logs.")
@click.option("--files-dir", type=DIRECTORY, help="What peer-1 offers.  [default: a small sample]")
@click.option("--server-files-dir", type=DIRECTORY, help="What the server offers.  [default: a small sample]")
@click.option("--cert", type=FILE, help="The server's certificate.  [default: of its own key]")
@click.option("--key", type=FILE, help="Its private key.")
@click.pass_obj
def command(
    console: Console,
    *,
    peers: int,
    size: int,
    rate: float | None,
    seed_rate: float | None,
    delay: float,
    loss: float,
    zones: int,
    kills: tuple[Incident, ...],
    liars: int,
    random_seed: int,
    directory: Path | None,
    keep: bool,
    files_dir: Path | None,
    server_files_dir: Path | None,
    cert: Path | None,
    key: Path | None,
) -> None:
    """Run a whole swarm on this machine, and verify every file by SHA-256.

    \b
    Examples:
      p2pnode swarm                          a server, a seed, 4 peers, 256 MiB
      p2pnode swarm --peers 8 --size 1G
      p2pnode swarm --rate 100Mbit --kill server@50%
      p2pnode swarm --keep --dir swarm-run   and look at the logs

    The seed has a large random file, and the server pushes it to all peers at the same moment: they fetch it
    from the seed and from each other. Then all fetch what peer-1 and the server have, unless one was killed.
    Shows who gave whom how much at what rate. 0 only if every peer has every byte.
    """
    parent = made_directory(directory) if directory else Path(tempfile.gettempdir())
    run_directory = (
        parent / "swarm-nodes" if directory else Path(tempfile.mkdtemp(prefix="p2pnode-swarm-", dir=parent))
    )
    plan = Plan(
        run_directory,
        peers,
        size,
        rate=rate,
        seed_rate=seed_rate if seed_rate is not None else rate,
        delay_s=delay,
        loss=loss,
        zones=zones,
        kills=kills,
        liars=liars,
        random_seed=random_seed,
        files_dir=files_dir,
        server_files_dir=server_files_dir,
        certificate=cert,
        key=key,
    )
    is_worth_a_look = True
    try:
        run(partial(_swarm, console, plan), console)
        is_worth_a_look = False
    except SystemExit as ended:
        is_worth_a_look = ended.code == SwarmFailed.exit_code  # else it was interrupted
        raise
    finally:
        _clean_up(console, run_directory, keep=keep or is_worth_a_look)


def _clean_up(console: Console, run_directory: Path, *, keep: bool) -> None:
    if not run_directory.exists():
        return  # it ended before there was anything
    if keep:
        console.say(f"files and logs are kept in {run_directory}")
    else:
        shutil.rmtree(run_directory)


async def _swarm(console: Console, plan: Plan) -> None:
    started = trio.current_time()
    nodes = await trio.to_thread.run_sync(prepare, plan)
    expected = await _origins(nodes)
    kills = [(kill, nodes.named(kill.who)) for kill in plan.kills]
    finishes: dict[str, Finish] = {}
    failures: list[str] = []
    with trio.move_on_after(DEADLINE_S) as deadline:
        try:
            async with trio.open_nursery() as nursery:
                await start(console, nursery, plan, nodes)
                await Race(plan.race_file, plan.size, nodes.server, nodes.peers, kills, finishes).run()
                _show_race(console, finishes)
                if not kills:
                    await _push_the_rest(console, nodes, item_names(expected) - {plan.race_file})
                for node in nodes.all:
                    nursery.start_soon(node.stop)
        except* SwarmFailed as group:
            failures += [str(error) for error in leaves(group)]
    if deadline.cancelled_caught:
        failures.append(f"not done within {duration_text(DEADLINE_S)}")
    survivors = [peer for peer in nodes.peers if peer not in [victim for _, victim in kills]]
    for peer in survivors:
        found = await _digests(peer)
        own = {path: expected[path] for path in found if path in expected}
        failures += problems(
            peer.name, own | {plan.race_file: expected[plan.race_file]} if kills else expected, found
        )
    _show_transfers(console, transfers({node.name: node.events for node in nodes.all}))
    what = f"all {len(expected)} files" if not kills else printable(plan.race_file)
    success = f"{len(survivors)} peers have {what}, in {duration_text(trio.current_time() - started)}"
    _conclude(console, failures, success, result_event(plan, nodes, finishes, failures))


async def _digests(node: SwarmNode) -> Digests:
    return await trio.to_thread.run_sync(digests, node.files_dir)


async def _origins(nodes: Nodes) -> Digests:
    """What there is at the start, which is what all peers shall have at the end."""
    expected: Digests = {}
    for node in (nodes.server, nodes.seed, *nodes.peers):
        expected |= await _digests(node)
    return expected


async def _push_the_rest(console: Console, nodes: Nodes, names: frozenset[str]) -> None:
    """Let the server's operator push everything else to all, and show what became of the last of it."""
    for name in sorted(names):
        console.say(f"$ p2pnode push {printable(name)} --to all")
        pushed = await trio.run_process(
            program("push", name, "--to", "all", "--state-dir", str(nodes.server.state_dir), "--json"),
            env=environment(),
            capture_stdout=True,
            check=False,
        )
        reports = [
            event for event in map(json.loads, pushed.stdout.splitlines()) if event["event"] == "push_report"
        ]
        _show_push(console, name, reports)
        if pushed.returncode != 0:
            raise SwarmFailed(f"the push of {printable(name)} ended with {pushed.returncode}")


def _show_push(console: Console, name: str, reports: Sequence[Event]) -> None:
    if console.json:
        for report in reports:
            console.event(report)
        return
    last = {report["node_id"]: report for report in reports}
    rows = [
        (
            report["name"],
            report["state"],
            size_text(report["bytes_done"]),
            duration_text(report["seconds"]),
            printable(report["text"]),
        )
        for report in last.values()
    ]
    _show_table(console, f"push of {printable(name)}", ("peer", "state", "bytes", "time", ""), rows)


def _show_transfers(console: Console, gifts: Sequence[Transfers]) -> None:
    if console.json:
        for gift in gifts:
            console.event({"event": "swarm_transfers", **asdict(gift), "bytes_per_s": gift.bytes_per_s})
        return
    rows = [
        (gift.receiver, gift.giver, str(gift.files), size_text(gift.size), rate_text(gift.bytes_per_s))
        for gift in gifts
    ]
    _show_table(console, "who gave whom how much", ("receiver", "giver", "files", "bytes", "rate"), rows)


def _show_table(console: Console, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console as RichConsole  # slow to import, and only these tables need it
    from rich.markup import escape
    from rich.table import Table

    table = Table(*header, title=title)
    for row in rows:
        table.add_row(*map(escape, row))
    RichConsole(no_color=console.color is False, highlight=False).print(table)


def _show_race(console: Console, finishes: Mapping[str, Finish]) -> None:
    """Say of each peer when it had the random file."""
    if console.json:
        return  # the result has it
    rows = [
        (name, duration_text(finish.seconds), size_text(finish.duplicate_bytes))
        for name, finish in sorted(finishes.items(), key=lambda item: item[1].seconds)
    ]
    _show_table(console, "the race", ("peer", "complete after", "received twice"), rows)


def _conclude(console: Console, failures: Sequence[str], success: str, result: Event) -> None:
    """Say how it came out; the result is the last event. Exits with 1 unless every byte is where it should be."""
    for failure in failures:
        console.say(failure)
    if failures:
        console.fail(f"the swarm did not come out right; problems: {len(failures)}", SwarmFailed.exit_code)
    else:
        console.say(f"{success}, each verified by SHA-256")
    if console.json:
        console.event(result)
    if failures:
        raise SystemExit(SwarmFailed.exit_code)
