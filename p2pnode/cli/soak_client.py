"""A client of a soak test: what `p2pnode client download` does, again and again over one connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from p2pnode.assembly.tracker_client import (
    TrackerDownloads,
    TrackerTrust,
    open_tracker_client,
)
from p2pnode.cli.console import Console
from p2pnode.node.events import NodeEvent
from p2pnode.node.node import Node
from p2pnode.node.server_reference import ServerReference
from p2pnode.torrent import TORRENT_SUFFIX


@dataclass(frozen=True)
class SoakClient:
    """Downloads from one tracker."""

    tracker: TrackerDownloads

    async def download(self, name: str, target: Path) -> None:
        """Ask for the torrent of a file, and download that; a P2PNodeError says why not."""
        metainfo = await self.tracker.ask_for_torrent(name + TORRENT_SUFFIX)
        await self.tracker.download(metainfo, target)


@asynccontextmanager
async def open_soak_client(console: Console, address: str, state_dir: Path) -> AsyncIterator[SoakClient]:
    """A client of the tracker at "host:port", which is pinned in `state_dir` at first use."""
    trust = TrackerTrust(state_dir, console.say)
    async with open_tracker_client(trust, partial(_node, state_dir), _ignore) as client:
        yield SoakClient(client.at(address))


def _node(state_dir: Path, server: ServerReference) -> Node:
    """For what is too large for JSON."""
    return Node(role="client", server=server, state_dir=state_dir, lock_state=False)


def _ignore(_event: NodeEvent) -> None:
    """What became of a download is looked at in its file."""
