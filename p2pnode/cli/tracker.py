"""`p2pnode tracker`: a server that BitTorrent clients and clients of QUIC trackers can ask as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from p2pnode.assembly import Diagnostics, kept_credentials, load_credentials
from p2pnode.assembly.front_ends import FrontEndOptions
from p2pnode.cli.console import Console
from p2pnode.cli.front_ends import HTTP_PORT, QUIC_PORT, UDP_PORT, front_end_options, opened, port_option
from p2pnode.cli.logs import log_file_option
from p2pnode.cli.options import (
    DIRECTORY,
    diagnostic_options,
    lan_option,
    limit_options,
    listen_host,
    made_directory,
    service_state_dir,
)
from p2pnode.cli.running import run
from p2pnode.cli.serving import MakeNode, MeetingPlace, meeting_options, serve
from p2pnode.cli.verb import Verb
from p2pnode.node.discovery import Discovery
from p2pnode.node.node import Node
from p2pnode.node.rate_limits import RateLimits


@click.command(cls=Verb)
@port_option("-q", "--quic", usual=QUIC_PORT, help="Answer over QUIC: JSON, HTTP/3, and our own nodes.")
@front_end_options
@click.option(
    "--addr",
    type=listen_host,
    metavar="all|HOST",
    default="all",
    show_default=True,
    help="Where to listen; all: every address, IPv4 and IPv6.",
)
@click.option(
    "--seed-dir",
    type=DIRECTORY,
    default=Path("seed"),
    show_default=True,
    help="Files to offer, a .torrent is made beside each; made if missing, with hello_world.txt.",
)
@meeting_options
@lan_option
@limit_options
@diagnostic_options
@log_file_option("tracker.log")
@click.pass_obj
def command(
    console: Console,
    *,
    quic: int | None,
    front_ends: FrontEndOptions,
    addr: str,
    seed_dir: Path,
    place: MeetingPlace,
    discoveries: Sequence[Discovery],
    limits: RateLimits,
    diagnostics: Diagnostics,
) -> None:
    """Run a tracker that seeds its own files: over QUIC, HTTP and UDP, all three unless some are named.

    \b
    Examples:
      p2pnode tracker                                   QUIC on 7001, HTTP and UDP on 7000, files in seed/
      p2pnode tracker --addr 127.0.0.1 --quic 7443      over QUIC alone, for this machine
      p2pnode tracker --http --udp 6969 --announce-url http://tracker.example.org:7000/announce
      p2pnode client download hello_world.txt           fetch a file from it
      curl http://127.0.0.1:7000/stats

    Each request is a line of tracker.log. It is a server too: peers join it, and `p2pnode list`, `peers` and `push`
    command it, as long as it answers over QUIC.
    """
    if quic is None and not front_ends.any_open:
        quic = QUIC_PORT
        front_ends = replace(front_ends, http=(addr, HTTP_PORT), udp=(addr, UDP_PORT))
    options = opened(front_ends, addr, quic=quic)
    made_directory(seed_dir)
    state_dir = place.state_dir or service_state_dir("server", seed_dir)
    credentials = load_credentials(place.certificate, place.key) or kept_credentials(state_dir)
    make_node: MakeNode | None = None
    if options.quic is not None:
        make_node = partial(
            Node,
            role="server",
            listen=options.quic,
            files_dir=seed_dir,
            state_dir=state_dir,
            **place.node_options,
            limits=limits,
            discoveries=discoveries,
            diagnostics=diagnostics,
        )
    run(
        partial(serve, console, options, seed_dir, credentials, make_node),
        console,
        is_service=True,
        when_interrupted="tracker stopped",
    )
