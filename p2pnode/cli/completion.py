"""`p2pnode completion`: the script that makes a shell complete verbs and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from p2pnode.cli.console import Console
from p2pnode.cli.verb import Verb


@click.command(cls=Verb)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_obj
def command(console: Console, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    Examples:
      eval "$(p2pnode completion bash)"                                      in ~/.bashrc
      eval "$(p2pnode completion zsh)"                                       in ~/.zshrc
      p2pnode completion fish > ~/.config/fish/completions/p2pnode.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    console.data(kind(root, {}, "p2pnode", "_P2PNODE_COMPLETE").source())
