"""`p2pnode get`: fetches one file or directory."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
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
    diagnostic_options,
    lan_option,
    limit_options,
    made_directory,
    selection_options,
    server_options,
    tracker_option,
)
from p2pnode.cli.progress import address_text
from p2pnode.cli.running import open_client, run, wait_for_server
from p2pnode.cli.torrent_file import read_torrent_file
from p2pnode.cli.verb import Verb
from p2pnode.errors import ConfigError, NetworkError, StorageError, TimedOut
from p2pnode.node.discovery import Discovery
from p2pnode.node.rate_limits import RateLimits
from p2pnode.node.references import Reference, wanted_from
from p2pnode.torrent import Magnet, Metainfo, Selection, Ticket
from p2pnode.torrent.magnet import PREFIX as MAGNET_PREFIX
from p2pnode.torrent.ticket import PREFIX as TICKET_PREFIX


@click.command(cls=Verb)
@click.argument("reference", metavar="REF")
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    default=".",
    help="Target file; or its directory, when that exists or ends in /; - is stdout.",
)
@selection_options
@click.option("--wait", is_flag=True, help="Wait until somebody has it, however long that takes.")
@click.option(
    "--sequential",
    is_flag=True,
    help="Fetch the first pieces first, for who reads it meanwhile; may be slower.",
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
    reference: str,
    output: str,
    select: Selection,
    wait: bool,
    sequential: bool,
    server: ServerChoice,
    discoveries: Sequence[Discovery],
    trackers: Sequence[str],
    limits: RateLimits,
    diagnostics: Diagnostics,
) -> None:
    """Fetch REF: a name, a file id, a ticket, a .torrent file or a magnet link.

    \b
    Examples:
      p2pnode get model.bin --server-addr HOST:8080 --pin 5f0c...
      p2pnode get p2pnode1... -o downloads/              a ticket, as `p2pnode share` prints it
      p2pnode get backup.tar -o - | tar x
      p2pnode get 5d0c... --lan                          from whoever in this network has it, without a server
      p2pnode get 5d0c... --tracker udp://HOST:7000      from whoever a tracker names
      p2pnode get photos --include '*.jpg' --exclude drafts/

    Every block is verified before it is written. Interrupted, run the same command again: it resumes.
    With --include or --exclude, a part of a directory is fetched; `get` again with other patterns, or none,
    adds to it. When they fit no file it ends with 3.
    Prints the path of what it fetched.
    """
    if output == "-" and console.json:
        raise click.UsageError("-o - and --json both want stdout: give one")
    run(
        partial(
            _get,
            console,
            reference,
            output,
            select,
            wait,
            sequential,
            server,
            discoveries,
            trackers,
            limits,
            diagnostics,
        ),
        console,
        when_interrupted="interrupted: run the same command again to resume",
    )


async def _get(
    console: Console,
    text: str,
    output: str,
    select: Selection,
    wait: bool,
    sequential: bool,
    choice: ServerChoice,
    discoveries: Sequence[Discovery],
    trackers: Sequence[str],
    limits: RateLimits,
    diagnostics: Diagnostics,
) -> None:
    reference, choice = await _resolved(text, choice)
    wanted = wanted_from(reference)  # what is malformed is said before anybody is dialed
    torrent = reference if isinstance(reference, Metainfo | Magnet) else None
    discoveries = [*discoveries, *tracker_discoveries(trackers, torrent)]
    if choice.address is None and not discoveries and not isinstance(reference, Ticket):
        raise ConfigError("a server must say who has it: give --server-addr, a ticket, --lan or --tracker")
    if choice.address is None and wanted.file_id is None and wanted.likely_id is None:
        raise ConfigError(
            "only a server knows names: give --server-addr, or a file id, a ticket or a .torrent file"
        )
    to = _target(output)
    async with open_client(console, choice, diagnostics, limits, discoveries) as node:
        if choice.address is not None and not isinstance(reference, Ticket):  # which says itself who has it
            await wait_for_server(node, console, (NetworkError, TimedOut) if wait or discoveries else ())
        if output == "-":
            with tempfile.TemporaryDirectory(prefix="p2pnode-") as directory:
                to = Path(directory)
                completed = await node.fetch(
                    reference, to=to, wait=wait, select=select, sequential=sequential
                )
                await trio.to_thread.run_sync(_copy_to_stdout, completed.target)
        else:
            completed = await node.fetch(reference, to=to, wait=wait, select=select, sequential=sequential)
    if output != "-" and not console.json:
        console.data(str(completed.target))


async def _resolved(text: str, choice: ServerChoice) -> tuple[Reference, ServerChoice]:
    """What `text` refers to, and which server to ask: the chosen one, that of a ticket, or the one here."""
    if text.lower().startswith(TICKET_PREFIX):
        ticket = Ticket.parse(text)
        return ticket, (choice if choice.address else _server_of(ticket))
    choice = await known_server(choice)
    if text.lower().startswith(MAGNET_PREFIX):
        return Magnet.parse(text), choice
    path = Path(text)
    if path.suffix == ".torrent" and await trio.to_thread.run_sync(path.exists):
        return await trio.to_thread.run_sync(read_torrent_file, path), choice
    return text, choice


def _server_of(ticket: Ticket) -> ServerChoice:
    if ticket.server is None:
        return ServerChoice(None)
    pin = ticket.server.pin
    return ServerChoice(address_text(ticket.server.address), pin=pin.hex() if pin is not None else None)


def _target(output: str) -> Path:
    """Where it shall go: a path, or the directory to put it in, which is made when the text ends in /."""
    path = Path(output)
    if output.endswith("/"):
        return made_directory(path)
    if not path.parent.is_dir():
        raise StorageError(
            f"there is no directory {str(path.parent)!r}: make it, or end -o with / and it is made"
        )
    return path


def _copy_to_stdout(path: Path) -> None:
    """Copy what was fetched and verified; runs in a thread."""
    if path.is_dir():
        raise StorageError(f"{path.name!r} is a directory, and stdout takes one file: give -o DIRECTORY/")
    with path.open("rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer, length=1024 * 1024)
    sys.stdout.buffer.flush()
