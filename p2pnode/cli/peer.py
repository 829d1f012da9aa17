"""`p2pnode peer`: offers a directory, takes what is pushed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click
import trio

from p2pnode import config
from p2pnode.assembly import Diagnostics
from p2pnode.assembly.trackers import tracker_discoveries
from p2pnode.cli.console import Console
from p2pnode.cli.options import (
    DIRECTORY,
    ServerChoice,
    diagnostic_options,
    lan_option,
    limit_options,
    made_directory,
    node_ids,
    server_options,
    service_state_dir,
    size,
    tracker_option,
    union,
)
from p2pnode.cli.progress import open_reporter
from p2pnode.cli.running import open_node, reference_of, run, wait_for_server
from p2pnode.cli.verb import Verb
from p2pnode.errors import ConnectFailed, ConnectionClosed, TimedOut
from p2pnode.node.discovery import Discovery
from p2pnode.node.node import Node
from p2pnode.node.rate_limits import RateLimits


@click.command(cls=Verb)
@server_options(required=False)
@click.option(
    "--files-dir",
    type=DIRECTORY,
    default=Path("files"),
    show_default=True,
    help="Files to offer, and where pushed ones land; made if missing.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="UDP port; 0 takes a free one.",
)
@click.option(
    "--allow",
    type=node_ids,
    metavar="NODE_ID|FILE",
    multiple=True,
    help="Only these nodes may connect. Repeatable.",
)
@click.option(
    "--push-max",
    type=size,
    metavar="SIZE",
    default=config.PUSH_SIZE_MAX,
    help="Largest file the server may push.  [no limit]",
)
@click.option("--mirror", is_flag=True, help="Fetch everything that the server lists, and keep up.")
@click.option("--name", default="", help="How others see this node.  [default: the host's name]")
@click.option("--zone", default="", help="Where this node stands, as a rack or site.")
@click.option("--state-dir", type=DIRECTORY, help="Key and catalogue.  [default: one for --files-dir]")
@lan_option
@tracker_option
@limit_options
@diagnostic_options
@click.pass_obj
def command(
    console: Console,
    *,
    server: ServerChoice,
    files_dir: Path,
    port: int,
    allow: tuple[frozenset[bytes], ...],
    push_max: int,
    mirror: bool,
    name: str,
    zone: str,
    state_dir: Path | None,
    discoveries: Sequence[Discovery],
    trackers: Sequence[str],
    limits: RateLimits,
    diagnostics: Diagnostics,
) -> None:
    """Offer a directory of files, and take what the server pushes.

    \b
    Examples:
      p2pnode peer --server-addr 127.0.0.1:8080 --server-cert server.crt
      p2pnode peer --server-addr files.example.org:8080 --pin 5f0c... --files-dir /srv/files
      p2pnode peer --server-addr [2001:db8::7]:8080 --pin 5f0c... --mirror
      p2pnode peer --lan                                 for this network, without a server
      p2pnode peer --tracker udp://HOST:7000             found through a tracker

    Each file, and each directory as one tree, is offered by its name. Hidden files stay at home.
    """
    if server.address is None and not discoveries and not trackers:
        raise click.UsageError(
            "Missing option '--server-addr'; or give --lan or --tracker, to do without a server."
        )
    made_directory(files_dir)
    node = Node(
        role="peer",
        listen=("::", port),
        server=reference_of(server),
        files_dir=files_dir,
        state_dir=state_dir or service_state_dir("peer", files_dir),
        allow=union(allow),
        name=name,
        zone=zone,
        push_max=push_max,
        mirror=mirror,
        limits=limits,
        discoveries=[*discoveries, *tracker_discoveries(trackers)],
        diagnostics=diagnostics,
    )
    run(
        partial(_stay, console, node, server.address is not None),
        console,
        is_service=True,
        when_interrupted="peer stopped",
    )


async def _stay(console: Console, node: Node, has_server: bool) -> None:
    """A server that is not up yet is waited for; one that is not who it should be ends the peer."""
    async with open_node(node, open_reporter(console)):
        if has_server:
            await wait_for_server(node, console, (ConnectFailed, ConnectionClosed, TimedOut))
        await trio.sleep_forever()
