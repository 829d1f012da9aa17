"""`p2pnode server`: where peers meet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click
import trio

from p2pnode.assembly import Diagnostics, load_credentials
from p2pnode.cli.console import Console
from p2pnode.cli.options import (
    DIRECTORY,
    FILE,
    diagnostic_options,
    lan_option,
    limit_options,
    listen_address,
    made_directory,
    node_ids,
    service_state_dir,
    union,
)
from p2pnode.cli.progress import open_reporter
from p2pnode.cli.running import open_node, run
from p2pnode.cli.verb import Verb
from p2pnode.node.discovery import Discovery
from p2pnode.node.node import Node
from p2pnode.node.rate_limits import RateLimits


@click.command(cls=Verb)
@click.option(
    "--cert",
    type=FILE,
    help="TLS certificate; without one the node's own key serves, and peers --pin it.",
)
@click.option(
    "--key",
    type=FILE,
    help="Its private key. Default: the certificate's path with .key, or the same file.",
)
@click.option(
    "--addr",
    type=listen_address,
    metavar="HOST:PORT",
    default="127.0.0.1:8080",
    show_default=True,
    help="Where to listen.",
)
@click.option(
    "--files-dir",
    type=DIRECTORY,
    default=Path("server_files"),
    show_default=True,
    help="Files to offer; made if missing.",
)
@click.option(
    "--allow",
    type=node_ids,
    metavar="NODE_ID|FILE",
    multiple=True,
    help="Only these nodes may connect. Repeatable.",
)
@click.option(
    "--admin",
    type=node_ids,
    metavar="NODE_ID|FILE",
    multiple=True,
    help="Who may list peers and push over the network. Repeatable.",
)
@click.option("--name", default="", help="How others see this node.  [default: the host's name]")
@click.option("--zone", default="", help="Where this node stands, as a rack or site.")
@click.option(
    "--state-dir", type=DIRECTORY, help="Key, catalogue and socket.  [default: one for --files-dir]"
)
@lan_option
@limit_options
@diagnostic_options
@click.pass_obj
def command(
    console: Console,
    *,
    cert: Path | None,
    key: Path | None,
    addr: tuple[str, int],
    files_dir: Path,
    allow: tuple[frozenset[bytes], ...],
    admin: tuple[frozenset[bytes], ...],
    name: str,
    zone: str,
    state_dir: Path | None,
    discoveries: Sequence[Discovery],
    limits: RateLimits,
    diagnostics: Diagnostics,
) -> None:
    """Run the place where peers meet.

    \b
    Examples:
      p2pnode server --cert server.crt --key server.key       for this machine, on 127.0.0.1:8080
      p2pnode server --cert server.crt --addr 0.0.0.0:8080    for others too
      p2pnode server --addr all:8080                          IPv4 and IPv6; peers --pin its node id

    Peers register here, find each other here, and fetch what lies in --files-dir. `p2pnode list`, `peers`
    and `push` command it from the same user on the same machine.
    """
    made_directory(files_dir)
    node = Node(
        role="server",
        listen=addr,
        credentials=load_credentials(cert, key),
        files_dir=files_dir,
        state_dir=state_dir or service_state_dir("server", files_dir),
        allow=union(allow),
        admins=union(admin) or frozenset(),
        name=name,
        zone=zone,
        limits=limits,
        discoveries=discoveries,
        diagnostics=diagnostics,
    )
    run(partial(_serve, console, node), console, is_service=True, when_interrupted="server stopped")


async def _serve(console: Console, node: Node) -> None:
    async with open_node(node, open_reporter(console)):
        if not console.json:
            port = node.listen_address[1]
            console.say(f"peers join with: p2pnode peer --server-addr HOST:{port} --pin {node.node_id.hex()}")
        await trio.sleep_forever()
