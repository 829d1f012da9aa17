"""`p2pnode push`: the server tells peers to fetch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path

import click
import msgspec

from p2pnode.assembly import Diagnostics
from p2pnode.cli.console import Console
from p2pnode.cli.options import DIRECTORY, ServerChoice, diagnostic_options, server_options
from p2pnode.cli.running import open_commands, run
from p2pnode.cli.units import duration_text, rate_text, size_text
from p2pnode.cli.verb import Verb
from p2pnode.errors import NotFound, Refused
from p2pnode.torrent.names import printable


@click.command(cls=Verb)
@click.argument("reference", metavar="REF")
@click.option(
    "--to",
    "target",
    required=True,
    metavar="PEER|all|server",
    help="A peer's name or node id; all; or the server itself.",
)
@server_options(required=False)
@click.option("--state-dir", type=DIRECTORY, help="Ask the server that runs on this state directory.")
@diagnostic_options
@click.pass_obj
def command(
    console: Console,
    *,
    reference: str,
    target: str,
    server: ServerChoice,
    state_dir: Path | None,
    diagnostics: Diagnostics,
) -> None:
    """Let the server tell peers to fetch REF: a name or a file id.

    \b
    Examples:
      p2pnode push model.bin --to all         every peer fetches it, from each other as well
      p2pnode push model.bin --to gpu-07      one peer, by its name or node id
      p2pnode push backup.tar --to server     the server itself fetches it

    Ends when every peer has it, said no or failed; 0 only if all have it, 8 if all that lack it said no.
    """
    run(
        partial(_push, console, reference, target, server, state_dir, diagnostics),
        console,
        when_interrupted="interrupted; the peers go on fetching",
    )


async def _push(
    console: Console,
    reference: str,
    target: str,
    server: ServerChoice,
    state_dir: Path | None,
    diagnostics: Diagnostics,
) -> None:
    rows: dict[bytes, tuple[str, str, str, str, str, str]] = {}
    async with (
        open_commands(console, server, state_dir, diagnostics) as commands,
        aclosing(commands.push(reference, target)) as reports,
    ):
        async for report in reports:
            known = rows.get(report.node_id)
            row = rows[report.node_id] = (
                printable(report.name),
                printable(report.state),
                size_text(report.bytes_done),
                duration_text(report.seconds),
                rate_text(report.bytes_done / report.seconds if report.seconds > 0 else 0),
                report.node_id.hex(),
            )
            if console.json:
                console.event({"event": "push_report", **msgspec.structs.asdict(report)})
            elif known is None or known[1] != row[1]:
                console.say(f"{row[0]}: {row[1]} {printable(report.text)}".rstrip())
    if not rows:
        raise NotFound(f"no peer is there for {printable(target)!r}")
    if not console.json:
        console.rows(("PEER", "STATE", "BYTES", "TIME", "RATE", "NODE ID"), list(rows.values()))
    _require_complete([row[:2] for row in rows.values()])


def _require_complete(ends: Sequence[tuple[str, str]]) -> None:
    """Name those, of (name, final state), who lack it: `Refused` if all of them said no, else `NotFound`."""
    lacking = [(name, state) for name, state in ends if state != "complete"]
    if lacking:
        kind = Refused if all(state == "refused" for _, state in lacking) else NotFound
        names = ", ".join(name for name, _ in lacking)
        raise kind(f"{len(lacking)} of {len(ends)} did not get it: {names}")
