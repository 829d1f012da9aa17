"""What `server` and `tracker` do alike: a node where peers meet, with front ends beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import trio

from p2pnode.assembly.front_ends import Credentials, Door, FrontEndOptions, FrontEnds, open_front_ends
from p2pnode.cli.console import Console
from p2pnode.cli.options import DIRECTORY, FILE, node_ids, packed, union
from p2pnode.cli.progress import address_text, open_reporter
from p2pnode.cli.running import open_node
from p2pnode.node.connection_service import ConnectionService
from p2pnode.node.node import Node

MakeNode = Callable[..., Node]  # what is left open are its `credentials` and `connection_services`

_SPOKEN: Final = {
    "quic": "QUIC (UDP): JSON, HTTP/3, HTTP/0.9, and our own nodes",
    "http": "TCP: HTTP/1.1 and HTTP/2",
    "https": "TCP: HTTP/1.1 and HTTP/2 over TLS",
    "udp": "UDP: announces and scrapes as of BEP 15",
}

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class MeetingPlace:
    """Who a server is, and whom it lets in."""

    certificate: Path | None
    key: Path | None
    allow: frozenset[bytes] | None
    admins: frozenset[bytes]
    name: str
    zone: str
    state_dir: Path | None

    @property
    def node_options(self) -> dict[str, Any]:
        """What a `Node` is given of this as it is."""
        return {"allow": self.allow, "admins": self.admins, "name": self.name, "zone": self.zone}


def meeting_options(function: _Function) -> _Function:
    """`--cert`, `--allow` and so on; the function gets them as `place: MeetingPlace`."""
    return packed(
        "place",
        _place,
        click.option(
            "--cert",
            type=FILE,
            help="TLS certificate; without one the node's own key serves, and peers --pin it.",
        ),
        click.option(
            "--key",
            type=FILE,
            help="Its private key. Default: the certificate's path with .key, or the same file.",
        ),
        click.option(
            "--allow",
            type=node_ids,
            metavar="NODE_ID|FILE",
            multiple=True,
            help="Only these nodes may connect. Repeatable.",
        ),
        click.option(
            "--admin",
            type=node_ids,
            metavar="NODE_ID|FILE",
            multiple=True,
            help="Who may list peers and push over the network. Repeatable.",
        ),
        click.option("--name", default="", help="How others see this node.  [default: the host's name]"),
        click.option("--zone", default="", help="Where this node stands, as a rack or site."),
        click.option(
            "--state-dir", type=DIRECTORY, help="Key, catalogue and socket.  [default: one for its files]"
        ),
    )(function)


def _place(
    _context: click.Context,
    *,
    cert: Path | None,
    key: Path | None,
    allow: tuple[frozenset[bytes], ...],
    admin: tuple[frozenset[bytes], ...],
    name: str,
    zone: str,
    state_dir: Path | None,
) -> MeetingPlace:
    return MeetingPlace(cert, key, union(allow), union(admin) or frozenset(), name, zone, state_dir)


async def serve(
    console: Console,
    options: FrontEndOptions,
    files_dir: Path,
    credentials: Credentials | None,
    make_node: MakeNode | None,
) -> None:
    """Run the node, if there shall be one, and the front ends that `options` open, until cancelled.

    `credentials` are those of HTTPS, and of the node: None for its own key's.
    """
    async with AsyncExitStack() as stack:
        front_ends: FrontEnds | None = None
        services: Sequence[ConnectionService] = ()
        if options.any_open:
            front_ends = await stack.enter_async_context(open_front_ends(options, files_dir, credentials))
            services = front_ends.connection_services
        node: Node | None = None
        if make_node is not None:
            node = make_node(credentials=credentials, connection_services=services)
            await stack.enter_async_context(open_node(node, open_reporter(console)))
        nursery = await stack.enter_async_context(trio.open_nursery())
        doors: list[Door] = [] if front_ends is None else await nursery.start(front_ends.run)
        if node is not None and services:
            doors = [Door("quic", node.listen_address), *doors]
        _say_where(console, node, doors)
        await trio.sleep_forever()


def _say_where(console: Console, node: Node | None, doors: Sequence[Door]) -> None:
    """Tell in one block what answers where, and how to get in."""
    if console.json:
        if doors:
            opened = [{"language": door.language, "address": door.address} for door in doors]
            console.event({"event": "front_ends_ready", "doors": opened})
        return
    if doors:
        console.say("the tracker answers")
    for door in doors:
        console.say(f"  on {address_text(door.address):21} {_SPOKEN[door.language]}")
    if node is not None:
        port = node.listen_address[1]
        console.say(f"peers join with: p2pnode peer --server-addr HOST:{port} --pin {node.node_id.hex()}")
