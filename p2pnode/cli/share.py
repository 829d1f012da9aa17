"""`p2pnode share`: offers one file or directory until interrupted."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import click
import trio

from p2pnode.assembly import Diagnostics
from p2pnode.assembly.trackers import tracker_discoveries
from p2pnode.cli.console import Console
from p2pnode.cli.local_servers import known_server
from p2pnode.cli.options import (
    ServerChoice,
    absolute,
    diagnostic_options,
    lan_option,
    limit_options,
    selection_options,
    server_options,
    service_state_dir,
    tracker_option,
)
from p2pnode.cli.progress import open_reporter
from p2pnode.cli.running import open_node, reference_of, run, wait_for_server
from p2pnode.cli.verb import Verb
from p2pnode.errors import NotFound
from p2pnode.node.discovery import Discovery
from p2pnode.node.node import Node
from p2pnode.node.rate_limits import RateLimits
from p2pnode.torrent import Selection


@click.command(cls=Verb)
@click.argument("path", metavar="PATH")
@selection_options
@click.option("--name", default="stdin", show_default=True, help="What to call it when PATH is -.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="UDP port; 0 takes a free one.",
)
@server_options(required=False)
@lan_option
@tracker_option
@limit_options
@diagnostic_options
@click.pass_obj
def command(
    console: Console,
    *,
    path: str,
    select: Selection,
    name: str,
    port: int,
    server: ServerChoice,
    discoveries: Sequence[Discovery],
    trackers: Sequence[str],
    limits: RateLimits,
    diagnostics: Diagnostics,
) -> None:
    """Offer PATH, and print the whole command that fetches it.

    \b
    Examples:
      p2pnode share movie.mkv                         to who can reach this machine
      p2pnode share photos/ --server-addr HOST:8080   listed by a server as well
      p2pnode share film.mkv --tracker udp://HOST:7000   found through a tracker: get FILE_ID --tracker ...
      p2pnode share src/ --exclude '*.o' --exclude build/
      tar c src | p2pnode share - --name src.tar      what comes on stdin

    Stays until interrupted: what nobody offers, nobody can fetch.
    """
    run(
        partial(
            _share, console, path, select, name, port, server, discoveries, trackers, limits, diagnostics
        ),
        console,
        is_service=True,
        when_interrupted="no longer shared",
    )


async def _share(
    console: Console,
    path: str,
    select: Selection,
    name: str,
    port: int,
    choice: ServerChoice,
    discoveries: Sequence[Discovery],
    trackers: Sequence[str],
    limits: RateLimits,
    diagnostics: Diagnostics,
) -> None:
    choice = await known_server(choice)
    with ExitStack() as stack:
        if path == "-":
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="p2pnode-"))
            shared_path = Path(directory) / Path(name).name
            await trio.to_thread.run_sync(_spool_stdin, shared_path, abandon_on_cancel=True)
        else:
            shared_path = absolute(Path(path))
            if not shared_path.exists():
                raise NotFound(f"there is no file or directory {path!r}")
        node = Node(
            role="peer",
            listen=("::", port),
            server=reference_of(choice),
            # A node of its own, so that its user's `get` is another one; what came on stdin comes only once.
            state_dir=None if path == "-" else service_state_dir("share", shared_path),
            limits=limits,
            discoveries=[*discoveries, *tracker_discoveries(trackers)],
            diagnostics=diagnostics,
        )
        async with open_node(node, open_reporter(console)):
            if choice.address is not None:
                await wait_for_server(node, console)
            shared = await node.share(shared_path, select=select)
            ticket = str(await node.ticket(shared.file_id))
            if console.json:
                console.event({"event": "ticket", "file_id": shared.file_id, "ticket": ticket})
            else:
                console.data(f"p2pnode get {shlex.quote(ticket)}")
            await trio.sleep_forever()


def _spool_stdin(target: Path) -> None:
    """Keep what comes on stdin: blocks are read again for each peer. Runs in a thread."""
    with target.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, length=1024 * 1024)
