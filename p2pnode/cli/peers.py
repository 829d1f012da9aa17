"""`p2pnode peers`: whom a server knows."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click
import msgspec

from p2pnode.assembly import Diagnostics
from p2pnode.cli.console import Console
from p2pnode.cli.options import DIRECTORY, ServerChoice, diagnostic_options, server_options
from p2pnode.cli.progress import address_text
from p2pnode.cli.running import open_commands, run
from p2pnode.cli.units import duration_text
from p2pnode.cli.verb import Verb
from p2pnode.torrent.names import printable


@click.command(cls=Verb)
@server_options(required=False)
@click.option("--state-dir", type=DIRECTORY, help="Ask the server that runs on this state directory.")
@diagnostic_options
@click.pass_obj
def command(
    console: Console, *, server: ServerChoice, state_dir: Path | None, diagnostics: Diagnostics
) -> None:
    """List the peers that a server knows: name, role, files, time, address, node id.

    \b
    Examples:
      p2pnode peers                              of the server that runs on this machine
      p2pnode peers --server-addr HOST:8080      of another one, whose --admin you are
    """
    run(partial(_list, console, server, state_dir, diagnostics), console)


async def _list(
    console: Console, server: ServerChoice, state_dir: Path | None, diagnostics: Diagnostics
) -> None:
    async with open_commands(console, server, state_dir, diagnostics) as commands:
        peers = await commands.list_peers()
    if console.json:
        for peer in peers:
            console.event({"event": "peer", **msgspec.structs.asdict(peer)})
        return
    rows = [
        (
            printable(peer.name),
            printable(peer.role),
            str(peer.files),
            duration_text(peer.connected_s),
            " ".join(printable(address_text(address)) for address in peer.addresses),
            peer.node_id.hex(),
        )
        for peer in peers
    ]
    console.rows(("NAME", "ROLE", "FILES", "SINCE", "ADDRESSES", "NODE ID"), rows)
