"""`p2pnode client`: downloads through a tracker, and a console to talk to one."""

from __future__ import annotations

from functools import partial

import click

from p2pnode.assembly import Diagnostics
from p2pnode.cli.client_console import ClientConsole
from p2pnode.cli.client_lines import open_lines
from p2pnode.cli.client_talk import PORT, SERVER, open_talk, tracker_address
from p2pnode.cli.console import Console
from p2pnode.cli.logs import log_file_option
from p2pnode.cli.options import ServerChoice, diagnostic_options, server_options, user_state_dir
from p2pnode.cli.running import run
from p2pnode.cli.verb import VerbGroup

LOG_FILE = "client.log"
PROMPT = "p2pnode> "

_passkey_option = click.option("--passkey", metavar="KEY", help="What a private tracker knows you by.")
_check_option = click.option(
    "--check-pieces/--no-check-pieces",
    default=True,
    help="Take only what the torrent's hashes prove, or anything.  [check]",
)


class _ConsoleByDefault(VerbGroup):
    """Without a verb of its own it is the console."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put in what is left out."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["console", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ConsoleByDefault)
def command() -> None:
    """Download files through a tracker, or talk to it in a console.

    \b
    Examples:
      p2pnode client                                          the console; /help says what it can do
      p2pnode client download hello_world.txt                 from the tracker on this machine
      p2pnode client download data.torrent out.json 10.0.0.7 7001
      echo 'What do you have?' | p2pnode client               ask one question

    A tracker with a certificate of its own making is pinned at first use, and refused when it shows another.
    """


@command.command("console")
@_check_option
@_passkey_option
@server_options(required=False)
@diagnostic_options
@log_file_option(LOG_FILE)
@click.pass_obj
def console_command(
    console: Console,
    *,
    check_pieces: bool,
    passkey: str | None,
    server: ServerChoice,
    diagnostics: Diagnostics,
) -> None:
    """Type commands and questions, or pipe them in.

    \b
    Examples:
      p2pnode client
      p2pnode client console --server-addr 10.0.0.7:7001
      printf '/download hello_world.txt\\n/quit\\n' | p2pnode client
    """
    opened = partial(
        open_talk, console, server, check_pieces=check_pieces, passkey=passkey, diagnostics=diagnostics
    )

    async def converse() -> None:
        with open_lines(PROMPT, user_state_dir() / "client_history") as lines:
            async with opened() as talk:
                await ClientConsole(talk).run(lines)

    run(converse, console)


@command.command("download")
@click.argument("torrent_file")
@click.argument("output_file", required=False)
@click.argument("server_name", metavar="[SERVER]", required=False)
@click.argument("port", type=click.IntRange(1, 65_535), required=False)
@_check_option
@_passkey_option
@server_options(required=False)
@diagnostic_options
@log_file_option(LOG_FILE)
@click.pass_obj
def download_command(
    console: Console,
    *,
    torrent_file: str,
    output_file: str | None,
    server_name: str | None,
    port: int | None,
    check_pieces: bool,
    passkey: str | None,
    server: ServerChoice,
    diagnostics: Diagnostics,
) -> None:
    """Download the file of TORRENT_FILE from a tracker, and verify each piece of it.

    \b
    Examples:
      p2pnode client download hello_world.txt.torrent
      p2pnode client download hello_world.txt                 '.torrent' is added when missing
      p2pnode client download data.torrent data.json 10.0.0.7 7001

    Where there is no such file here, the tracker is asked for the torrent. OUTPUT_FILE is downloaded/NAME unless it
    is given, SERVER 127.0.0.1 and PORT 7001. A file that is too large for the tracker's JSON is fetched in the nodes'
    own protocol from the same server. Prints the path of what it downloaded.
    """
    address = tracker_address(server_name, port, server.address or f"{SERVER}:{PORT}")
    choice = ServerChoice(address, server.pin, server.certificate, server.verify)

    async def download() -> None:
        async with open_talk(
            console, choice, check_pieces=check_pieces, passkey=passkey, diagnostics=diagnostics
        ) as talk:
            await talk.download(torrent_file, output_file)

    run(download, console, when_interrupted="interrupted: run the same command again")
