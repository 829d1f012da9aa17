"""`p2pnode list`: what a server knows or a peer offers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click
import msgspec

from p2pnode.assembly import Diagnostics
from p2pnode.cli.console import Console
from p2pnode.cli.options import DIRECTORY, ServerChoice, diagnostic_options, server_options
from p2pnode.cli.running import open_commands, run
from p2pnode.cli.units import size_text
from p2pnode.cli.verb import Verb
from p2pnode.torrent.names import printable


@click.command(cls=Verb)
@click.argument("prefix", default="")
@click.option("--peer", metavar="PEER", default="", help="Only what this peer offers: its name or node id.")
@server_options(required=False)
@click.option("--state-dir", type=DIRECTORY, help="Ask the server that runs on this state directory.")
@diagnostic_options
@click.pass_obj
def command(
    console: Console,
    *,
    prefix: str,
    peer: str,
    server: ServerChoice,
    state_dir: Path | None,
    diagnostics: Diagnostics,
) -> None:
    """List the files that a server knows: name, size, sources, file id.

    \b
    Examples:
      p2pnode list                                   the server that runs on this machine
      p2pnode list model- --server-addr HOST:8080    names that begin with model-
      p2pnode list --peer lab-3                      what that peer offers: the server asks it
      p2pnode list --json                            one object a line
    """
    run(partial(_list, console, prefix, peer, server, state_dir, diagnostics), console)


async def _list(
    console: Console,
    prefix: str,
    peer: str,
    server: ServerChoice,
    state_dir: Path | None,
    diagnostics: Diagnostics,
) -> None:
    async with open_commands(console, server, state_dir, diagnostics) as commands:
        files = await commands.list_files(prefix, peer=peer)
    if console.json:
        for item in files:
            console.event({"event": "file", **msgspec.structs.asdict(item)})
        return
    rows = [
        (
            printable(item.name) + ("/" if item.is_directory else ""),
            size_text(item.size),
            str(item.sources),
            item.file_id.hex(),
        )
        for item in files
    ]
    console.rows(("NAME", "SIZE", "SOURCES", "FILE ID"), rows)
