"""The command `p2pnode`: finds the verb, runs it, and turns what is raised into a line and an exit code."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import click
from click.exceptions import NoArgsIsHelpError
from click.shell_completion import CompletionItem

import p2pnode
from p2pnode.cli.config_file import load_settings
from p2pnode.cli.console import Console
from p2pnode.cli.verb import CONTEXT, Chosen, everywhere_options
from p2pnode.errors import LocalProtocolError, P2PNodeError, leaves

VERBS: Final = {
    "server": "Run the place where peers meet; it may have files of its own.",
    "tracker": "Track torrents over QUIC, HTTP and UDP, and seed files.",
    "peer": "Offer a directory of files and take what is pushed.",
    "get": "Fetch a file or directory by name, id, ticket, .torrent or magnet link.",
    "share": "Offer one file or directory, and print the command that fetches it.",
    "list": "List the files that a server or a peer offers.",
    "peers": "List the peers that a server knows.",
    "push": "Tell peers to fetch a file.",
    "client": "Download through a tracker by a .torrent, or talk to it in a console.",
    "swarm": "Run a whole swarm on this machine and verify every file.",
    "soak": "Download from a tracker again and again, and tell what became of it.",
    "sim": "Simulate a swarm in virtual time, and compare it with the least time possible.",
    "bench": "Measure this machine, and p2pnode on it.",
    "torrent": "Create, show and verify .torrent files; make magnet links.",
    "config": "Show every setting and where it comes from.",
    "completion": "Print the completion script of a shell.",
}
"""Each verb and its line in `--help`. Its module, `p2pnode.cli.<verb>`, has the rest in `command`."""

EXIT_CODES: Final = """\
\b
Exit codes:
    0  success
    1  a defect of p2pnode, a swarm that did not come out right, or a soak test with a FAIL
    2  the command line or a setting makes no sense
    3  not found, nobody who has it can be reached, or a peer failed to get what was pushed
    4  nothing happened for too long
    5  the other side is not who it should be, or our certificate is bad
    6  the network: unknown host, port in use, nobody listening
    8  the other side said no; of a push: every peer that did not get it
    9  the disk is full
   10  cannot read or write here
   11  another process works on the same target
   12  malformed or corrupt data
   13  the target holds other bytes
  130  interrupted; what was fetched is kept (server, peer and share: 0 after SIGTERM)

\b
Every option can be set as P2PNODE_<OPTION> or in ~/.config/p2pnode/config.toml.
"""

_INTERRUPTED: Final = 130
_BROKEN_PIPE: Final = 141  # as the shell calls a program that SIGPIPE ended
_EXPECTED: Final = (P2PNodeError, BrokenPipeError, KeyboardInterrupt, click.Abort)


class _Verbs(click.Group):
    """Loads a verb's module when it is asked for: `p2pnode --help` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table: what one needs first stands first."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load the verb."""
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"p2pnode.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which one may be meant."""
        name = args[0]
        if name not in VERBS and not name.startswith("-") and not ctx.resilient_parsing:
            close = [verb for verb in VERBS if verb.startswith(name)] or difflib.get_close_matches(
                name, VERBS
            )
            raise click.UsageError(
                f"No such command {name!r}." + (f" Did you mean {close[0]!r}?" if close else ""), ctx
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a verb without loading them all."""
        verbs = [
            CompletionItem(name, help=text) for name, text in VERBS.items() if name.startswith(incomplete)
        ]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)


def _load_settings(context: click.Context, _option: click.Parameter, value: Path | None) -> None:
    if not context.resilient_parsing:
        context.default_map = load_settings(value, VERBS)


@click.group(
    cls=_Verbs,
    context_settings=CONTEXT,
    params=everywhere_options(),
    epilog=EXIT_CODES,
    no_args_is_help=True,
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_load_settings,
    help="A file of settings instead of ~/.config/p2pnode/config.toml.",
)
@click.version_option(p2pnode.__version__, "-V", "--version", message="p2pnode %(version)s")
def cli() -> None:
    """Move large files among many machines over QUIC: one UDP port, encrypted, verified, resumable.

    \b
    Examples:
      p2pnode share movie.mkv                     offer a file; prints the command that fetches it
      p2pnode get REF                             fetch it; run it again to resume
      p2pnode server --cert server.crt            a place to meet, with the files in server_files/
      p2pnode peer --server-addr 127.0.0.1:8080 --server-cert server.crt
      p2pnode tracker                             a BitTorrent tracker over QUIC, HTTP and UDP that seeds files
      p2pnode swarm                               see it all work on this machine
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run and exit. Expected errors are one line; a defect of ours keeps its traceback."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # a stranger's odd certificate makes libraries warn on our terminal
    chosen = Chosen()
    try:
        exit_code = cli.main(args=arguments, prog_name="p2pnode", standalone_mode=False, obj=chosen)
    except NoArgsIsHelpError as error:
        error.show()
        exit_code = error.exit_code
    except click.ClickException as error:
        chosen.console().fail(_usage_text(error), error.exit_code)
        exit_code = error.exit_code
    except (P2PNodeError, BaseExceptionGroup, BrokenPipeError, click.Abort) as error:
        exit_code = _explain(error, chosen.console())
    sys.exit(exit_code or 0)


def _usage_text(error: click.ClickException) -> str:
    """What click says, in one line, and where to read what would be right."""
    text = " ".join(error.format_message().split()).rstrip(".")
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{text}; see {error.ctx.command_path} --help"
    return text


def _explain(error: BaseException, console: Console) -> int:
    """Say why the program ends and give its exit code, or raise again what is a defect of ours.

    trio wraps what its tasks raise in groups: several may have failed for one reason, which is said once.
    """
    all_errors = list(leaves(error))
    if any(isinstance(leaf, LocalProtocolError) or not isinstance(leaf, _EXPECTED) for leaf in all_errors):
        raise error
    known = [leaf for leaf in all_errors if isinstance(leaf, P2PNodeError)]
    if known:
        console.fail(str(known[0]), known[0].exit_code)
        return known[0].exit_code
    if any(isinstance(leaf, BrokenPipeError) for leaf in all_errors):
        # Whoever read our stdout has seen enough (`p2pnode list | head`): the flush at exit must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return _INTERRUPTED
