"""`p2pnode config`: what is set, and by what."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

import click
from click.core import ParameterSource

from p2pnode.cli.config_file import default_path
from p2pnode.cli.console import Console
from p2pnode.cli.verb import VerbGroup

_SOURCES = {
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "file",
    ParameterSource.DEFAULT: "default",
}


@click.group(cls=VerbGroup)
def command() -> None:
    """Show every setting and where it comes from.

    \b
    Examples:
      p2pnode config show           the options of every verb
      p2pnode config show peer      those of one
      p2pnode config path           where the file of settings is looked for
    """


@command.command("path")
@click.pass_obj
def path_command(console: Console) -> None:
    """Print the path of the file of settings."""
    console.data(str(default_path()))


@command.command("show")
@click.argument("verb", default="")
@click.pass_obj
def show_command(console: Console, verb: str) -> None:
    """Show verb, option, value and source of each setting, and check the whole file of settings.

    \b
    Examples:
      p2pnode config show
      P2PNODE_FILES_DIR=/srv p2pnode config show peer
    """
    root = click.get_current_context().find_root()
    rows = list(_rows(root, verb))
    if console.json:
        for name, option, value, source in rows:
            console.event(
                {"event": "setting", "verb": name, "option": option, "value": value, "source": source}
            )
        return
    console.rows(("VERB", "OPTION", "VALUE", "FROM"), rows)


def _rows(root: click.Context, asked: str) -> Iterator[tuple[str, str, str, str]]:
    assert isinstance(root.command, click.Group)
    for name in [asked] if asked else root.command.list_commands(root):
        verb = root.command.get_command(root, name)
        if verb is None:
            raise click.UsageError(f"No such command {name!r}.")
        yield from _rows_of(verb, root, name)


def _rows_of(verb: click.Command, parent: click.Context, path: str) -> Iterator[tuple[str, str, str, str]]:
    # Resilient: nothing is required and nothing converted, but unknown settings are refused as ever.
    context = verb.make_context(path.rpartition(" ")[2], [], parent=parent, resilient_parsing=True)
    if isinstance(verb, click.Group):
        for name, inner in verb.commands.items():
            yield from _rows_of(inner, context, f"{path} {name}")
        return
    for option in verb.params:
        if isinstance(option, click.Option):
            value, source = option.consume_value(context, {})
            yield path, option.opts[-1], _text(value), _SOURCES[source]


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, Enum):  # click's own mark for "no default"
        return ""
    return str(value)
