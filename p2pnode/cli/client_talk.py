"""What a client of trackers does and says, whether it was told on the command line or in the console."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from p2pnode.assembly import Diagnostics
from p2pnode.assembly.tracker_client import (
    DownloadAnnounced,
    DownloadCompleted,
    DownloadSwitched,
    TrackerClient,
    TrackerDownloads,
    TrackerTrust,
    Way,
    open_tracker_client,
)
from p2pnode.cli.console import Console
from p2pnode.cli.options import ServerChoice, user_state_dir
from p2pnode.cli.progress import address_text, open_reporter
from p2pnode.cli.running import open_node
from p2pnode.cli.torrent_file import read_torrent_file
from p2pnode.cli.units import duration_text, size_text
from p2pnode.node.events import NodeEvent
from p2pnode.node.node import Node
from p2pnode.node.server_reference import ServerReference
from p2pnode.torrent import TORRENT_SUFFIX, Metainfo, last_component, printable

SERVER: Final = "127.0.0.1"
PORT: Final = 7001
DOWNLOADS: Final = Path("downloaded")


@dataclass(frozen=True)
class Talk:
    """A client and the console it talks on; `address` is the tracker that is meant unless another is named."""

    client: TrackerClient
    console: Console
    address: str
    check_pieces: bool

    async def download(self, torrent: str, output: str | None, address: str | None = None) -> None:
        """Download by a `.torrent`, a file here or a name there; prints the path. Raises P2PNodeErrors."""
        tracker = self.client.at(address or self.address)
        name = torrent if torrent.endswith(TORRENT_SUFFIX) else torrent + TORRENT_SUFFIX
        metainfo = await _find_torrent(tracker, name)
        target = await _target(output, name)
        completed = await tracker.download(metainfo, target, check_pieces=self.check_pieces)
        if not self.console.json:
            self.console.data(str(completed.target))


async def _find_torrent(tracker: TrackerDownloads, name: str) -> Metainfo:
    # Not those of Path, for which a name that is too long for a file here is an error: it may be one there.
    if await trio.to_thread.run_sync(os.path.exists, name):
        return await trio.to_thread.run_sync(read_torrent_file, Path(name))
    return await tracker.ask_for_torrent(last_component(name))


async def _target(output: str | None, torrent: str) -> Path:
    """Where it shall go: a path, or in the directory that is meant, by the name of the torrent."""
    name = last_component(torrent).removesuffix(TORRENT_SUFFIX) or "_"
    if not output:
        return DOWNLOADS / name
    is_directory = output.endswith("/") or await trio.to_thread.run_sync(os.path.isdir, output)
    return Path(output) / name if is_directory else Path(output)


@asynccontextmanager
async def open_talk(
    console: Console,
    choice: ServerChoice,
    *,
    check_pieces: bool,
    passkey: str | None,
    diagnostics: Diagnostics,
) -> AsyncIterator[Talk]:
    """A client for a while; `choice` has the tracker and what makes us believe that it is it."""
    address = choice.address or f"{SERVER}:{PORT}"
    if not choice.verify:
        console.warn("--no-verify-tls: nobody checks who the tracker is; whoever sits on the way can answer")
    trust = TrackerTrust(
        user_state_dir(), console.say, address, choice.pin, choice.certificate, choice.verify
    )

    def open_fetching(server: ServerReference) -> AbstractAsyncContextManager[Node]:
        node = Node(
            role="client",
            state_dir=user_state_dir(),
            lock_state=False,
            server=server,
            diagnostics=diagnostics,
        )
        return open_node(node, open_reporter(console, failure_is_raised=True))

    def tell(event: NodeEvent) -> None:
        if console.json:
            console.event(event.to_json())
            return
        if line := event_line(event):
            console.say(line)
        if warning := event_warning(event):
            console.warn(warning)

    async with open_tracker_client(
        trust, open_fetching, tell, passkey=passkey, diagnostics=diagnostics
    ) as client:
        yield Talk(client, console, address, check_pieces)


def event_line(event: NodeEvent) -> str | None:
    """What a person is told of a download."""
    match event:
        case DownloadAnnounced():
            counts = f"{event.complete} have it, {event.incomplete} are fetching it"
            return f"announced {printable(event.name)}, {size_text(event.size)}: {counts}"
        case DownloadSwitched():
            return f"{printable(event.name)} is too large for JSON: fetching it in the nodes' own protocol"
        case DownloadCompleted(way=Way.HERE):
            return f"{printable(event.name)} is here already, verified"
        case DownloadCompleted():
            verified = "verified" if event.verified else "not verified"
            took = duration_text(event.seconds)
            return f"downloaded {printable(event.name)}: {size_text(event.size)} in {took}, {verified}"
        case _:
            return None


def event_warning(event: NodeEvent) -> str | None:
    """What a person must not miss of it."""
    match event:
        case DownloadCompleted(verified=False):
            return f"{printable(event.name)} is not what the torrent says; taken because of --no-check-pieces"
        case DownloadCompleted(zero_padded=True):
            return (
                f"{printable(event.name)}: its torrent hashes the last piece with zeros up to the piece length, "
                "against BEP 3"
            )
        case _:
            return None


def tracker_address(server: str | None, port: int | None, default: str) -> str:
    """ "host:port" of what was named; what was not is that of `default`."""
    if server is None and port is None:
        return default
    return address_text((server or SERVER, port or PORT))
