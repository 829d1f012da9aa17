"""`p2pnode server`: where peers meet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from p2pnode.assembly import Diagnostics, kept_credentials, load_credentials
from p2pnode.assembly.front_ends import FrontEndOptions
from p2pnode.cli.console import Console
from p2pnode.cli.front_ends import front_end_options, opened
from p2pnode.cli.logs import log_file_option
from p2pnode.cli.options import (
    DIRECTORY,
    diagnostic_options,
    lan_option,
    limit_options,
    listen_address,
    made_directory,
    service_state_dir,
)
from p2pnode.cli.running import run
from p2pnode.cli.serving import MeetingPlace, meeting_options, serve
from p2pnode.cli.verb import Verb
from p2pnode.node.discovery import Discovery
from p2pnode.node.node import Node
from p2pnode.node.rate_limits import RateLimits


@click.command(cls=Verb)
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
@meeting_options
@lan_option
@limit_options
@click.option(
    "--quic",
    "trackers_quic",
    is_flag=True,
    help="Answer clients of QUIC trackers on --addr, too, and HTTP/3.",
)
@front_end_options
@diagnostic_options
@log_file_option(None)
@click.pass_obj
def command(
    console: Console,
    *,
    addr: tuple[str, int],
    files_dir: Path,
    place: MeetingPlace,
    discoveries: Sequence[Discovery],
    limits: RateLimits,
    trackers_quic: bool,
    front_ends: FrontEndOptions,
    diagnostics: Diagnostics,
) -> None:
    """Run the place where peers meet.

    \b
    Examples:
      p2pnode server --cert server.crt --key server.key       for this machine, on 127.0.0.1:8080
      p2pnode server --cert server.crt --addr 0.0.0.0:8080    for others too
      p2pnode server --addr all:8080                          IPv4 and IPv6; peers --pin its node id
      p2pnode server --http --udp                             a BitTorrent tracker beside it, on port 7000

    Peers register here, find each other here, and fetch what lies in --files-dir. `p2pnode list`, `peers`
    and `push` command it from the same user on the same machine. With --quic, --http or --udp it is a tracker
    as well, as `p2pnode tracker` is by itself, and makes a .torrent beside each file.
    """
    made_directory(files_dir)
    state_dir = place.state_dir or service_state_dir("server", files_dir)
    credentials = load_credentials(place.certificate, place.key)
    if credentials is None and front_ends.https is not None:
        credentials = kept_credentials(state_dir)
    make_node = partial(
        Node,
        role="server",
        listen=addr,
        files_dir=files_dir,
        state_dir=state_dir,
        **place.node_options,
        limits=limits,
        discoveries=discoveries,
        diagnostics=diagnostics,
    )
    options = opened(front_ends, addr[0], quic=addr[1] if trackers_quic else None)
    run(
        partial(serve, console, options, files_dir, credentials, make_node),
        console,
        is_service=True,
        when_interrupted="server stopped",
    )
