"""`p2pnode swarm`: a server and its peers on this machine, real processes, every file verified."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

import click
import trio

from p2pnode.cli.console import Console
from p2pnode.cli.options import DIRECTORY, FILE, made_directory
from p2pnode.cli.options import size as size_type
from p2pnode.cli.running import run
from p2pnode.cli.swarm_nodes import SwarmFailed, SwarmNode, environment, program
from p2pnode.cli.swarm_result import Digests, Transfers, digests, item_names, problems, transfers
from p2pnode.cli.units import duration_text, rate_text, size_text
from p2pnode.cli.verb import Verb
from p2pnode.config import KIB, MIB
from p2pnode.errors import leaves
from p2pnode.torrent import printable

DEADLINE_S: Final = 300.0  # for the whole run: whoever watches must not wait for ever
NEWS_INTERVAL_S: Final = 10.0  # between two lines about what is still missing
_PUSHED: Final = "pushed.bin"


@dataclass(frozen=True)
class Plan:
    """What the swarm is made of."""

    directory: Path
    peers: int
    size: int
    files_dir: Path | None
    server_files_dir: Path | None
    certificate: Path | None
    key: Path | None


@click.command(cls=Verb)
@click.option("--peers", type=click.IntRange(2, 64), default=4, show_default=True, help="How many peers.")
@click.option(
    "--size",
    type=size_type,
    metavar="SIZE",
    default="256M",
    show_default=True,
    help="Of the random file that all fetch.",
)
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
      p2pnode swarm                          a server, 4 peers, 256 MiB
      p2pnode swarm --peers 8 --size 1G
      p2pnode swarm --keep --dir swarm-run   and look at the logs

    peer-1 has a few files, peer-2 a large random one, the server some of its own. All fetch everything
    from each other; then the server pushes one more file to all. Shows who gave whom how much at what rate.
    0 only if every peer has every byte.
    """
    parent = made_directory(directory) if directory else Path(tempfile.gettempdir())
    run_directory = (
        parent / "swarm-nodes" if directory else Path(tempfile.mkdtemp(prefix="p2pnode-swarm-", dir=parent))
    )
    plan = Plan(run_directory, peers, size, files_dir, server_files_dir, cert, key)
    is_worth_a_look = True
    try:
        run(partial(_swarm, console, plan), console)
        is_worth_a_look = False
    except SystemExit:
        is_worth_a_look = False  # interrupted
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
    server, *peers = nodes = await trio.to_thread.run_sync(_prepare, plan)
    expected = await _origins(nodes)
    failures: list[str] = []
    with trio.move_on_after(DEADLINE_S) as deadline:
        try:
            async with trio.open_nursery() as nursery:
                await _start(console, nursery, plan, server, peers)
                await _everybody_has(console, peers, item_names(expected), "everything")
                expected[_PUSHED] = await _place(plan, server)
                await _push(console, server)
                await _everybody_has(console, peers, frozenset({_PUSHED}), _PUSHED)
                for node in nodes:
                    nursery.start_soon(node.stop)
        except* SwarmFailed as group:
            failures += [str(error) for error in leaves(group)]
    if deadline.cancelled_caught:
        failures.append(f"not done within {duration_text(DEADLINE_S)}")
    for peer in peers:
        failures += problems(peer.name, expected, await _digests(peer))
    seconds = trio.current_time() - started
    _show_transfers(console, transfers({node.name: node.events for node in nodes}))
    _conclude(console, failures, f"{len(peers)} peers have all {len(expected)} files", seconds)


def _prepare(plan: Plan) -> list[SwarmNode]:
    """Make every node's directory anew, and what the nodes have at the start. Runs in a thread."""
    if plan.directory.exists():
        shutil.rmtree(plan.directory)
    names = ["server", *(f"peer-{number}" for number in range(1, plan.peers + 1))]
    nodes = [SwarmNode(name, plan.directory / name) for name in names]
    for node in nodes:
        node.files_dir.mkdir(parents=True)
    server, first, second, *_ = nodes
    _fill(server.files_dir, plan.server_files_dir, "hello_from_server.txt")
    _fill(first.files_dir, plan.files_dir, "hello_from_peer.txt")
    write_random(second.files_dir / f"random-{size_text(plan.size).replace(' ', '')}.bin", plan.size)
    return nodes


def _fill(directory: Path, origin: Path | None, sample: str) -> None:
    if origin is None:
        (directory / sample).write_text("Hello from p2pnode!\n")
    else:
        shutil.copytree(origin, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))


def write_random(path: Path, size: int) -> None:
    """Make a file that no cache and no compression can help with. It appears under its name when whole."""
    partial_path = path.with_name(f".{path.name}")
    with partial_path.open("wb") as file:
        for done in range(0, size, MIB):
            file.write(os.urandom(min(MIB, size - done)))
    partial_path.rename(path)


async def _digests(node: SwarmNode) -> Digests:
    return await trio.to_thread.run_sync(digests, node.files_dir)


async def _origins(nodes: Sequence[SwarmNode]) -> Digests:
    """What there is at the start, which is what all peers shall have at the end."""
    expected: Digests = {}
    for node in nodes:
        expected |= await _digests(node)
    return expected


async def _start(
    console: Console, nursery: trio.Nursery, plan: Plan, server: SwarmNode, peers: Sequence[SwarmNode]
) -> None:
    """Start the server on a free port, then the peers, and wait until all are registered."""
    console.say(f"starting a server and {len(peers)} peers in {plan.directory}")
    credentials = []
    if plan.certificate is not None:
        credentials = ["--cert", str(plan.certificate), *(["--key", str(plan.key)] if plan.key else [])]
    await server.start(nursery, ["server", "--addr", "127.0.0.1:0", *credentials, *_directories(server)])
    listening = await server.first("listening")
    trust = ["--server-cert", str(plan.certificate)] if plan.certificate else ["--pin", listening["node_id"]]
    address = f"127.0.0.1:{listening['address'][1]}"
    for peer in peers:
        await peer.start(nursery, ["peer", "--server-addr", address, *trust, "--mirror", *_directories(peer)])
    for peer in peers:
        await peer.first("server_connected")


def _directories(node: SwarmNode) -> list[str]:
    return ["--name", node.name, "--files-dir", str(node.files_dir), "--state-dir", str(node.state_dir)]


async def _everybody_has(
    console: Console, peers: Sequence[SwarmNode], names: frozenset[str], what: str
) -> None:
    """Wait until each peer has all of `names`, with news now and then of who lacks what."""

    async def tell_news() -> None:
        while True:
            await trio.sleep(NEWS_INTERVAL_S)
            lacking = [f"{peer.name} ({len(names - peer.items())})" for peer in peers if names - peer.items()]
            console.say(f"waiting for {', '.join(lacking)}")

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell_news)
        for peer in peers:
            await peer.wait_for_items(names)
        nursery.cancel_scope.cancel()
    console.say(f"all {len(peers)} peers have {what} after {duration_text(trio.current_time() - started)}")


async def _place(plan: Plan, server: SwarmNode) -> str:
    """Put one more file on the server; gives its SHA-256 once the server offers it."""
    await trio.to_thread.run_sync(write_random, server.files_dir / _PUSHED, max(plan.size // 16, 64 * KIB))
    await server.wait_for_items(frozenset({_PUSHED}))
    return (await _digests(server))[_PUSHED]


async def _push(console: Console, server: SwarmNode) -> None:
    """Let the server's operator push it to all, and show what became of it."""
    console.say(f"$ p2pnode push {_PUSHED} --to all")
    pushed = await trio.run_process(
        program("push", _PUSHED, "--to", "all", "--state-dir", str(server.state_dir), "--json"),
        env=environment(),
        capture_stdout=True,
        check=False,
    )
    reports = [
        event for event in map(json.loads, pushed.stdout.splitlines()) if event["event"] == "push_report"
    ]
    if console.json:
        for report in reports:
            console.event(report)
    else:
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
        _show_table(console, f"push of {_PUSHED}", ("peer", "state", "bytes", "time", ""), rows)
    if pushed.returncode != 0:
        raise SwarmFailed(f"the push ended with {pushed.returncode}")


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


def _conclude(console: Console, failures: Sequence[str], success: str, seconds: float) -> None:
    """Say how it came out; SwarmFailed unless every byte is where it should be."""
    if console.json:
        is_ok = not failures
        console.event(
            {"event": "swarm_completed", "ok": is_ok, "problems": list(failures), "seconds": seconds}
        )
    for failure in failures:
        console.say(failure)
    if failures:
        raise SwarmFailed(f"the swarm did not come out right; problems: {len(failures)}")
    console.say(f"{success}, each verified by SHA-256, in {duration_text(seconds)}")
