"""What every verb has in common: `-h`, `P2PNODE_*`, settings from a file, `--json`, logs and colour."""

from __future__ import annotations

from typing import Any, Final

import click
from click.core import ParameterSource

from p2pnode.cli.config_file import check_settings
from p2pnode.cli.console import Console, color_wanted
from p2pnode.cli.logs import log_to_console

CONTEXT: Final = {
    "help_option_names": ["-h", "--help"],
    # The same for every verb: P2PNODE_SERVER_ADDR, not P2PNODE_GET_SERVER_ADDR and six more.
    "auto_envvar_prefix": "P2PNODE",
    "max_content_width": 100,
}
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


class Chosen:
    """What the options of `everywhere_options` came to; the root context's `obj`."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[ParameterSource, Any]] = {}

    def offer(self, name: str, source: ParameterSource, value: Any) -> None:
        """Keep the value with the better source; of two equal ones the later, nearer to the verb."""
        if name not in self._values or source <= self._values[name][0]:
            self._values[name] = source, value

    def __getitem__(self, name: str) -> Any:
        """The value that counts."""
        return self._values[name][1]

    def console(self) -> Console:
        """The console that the options seen so far describe."""
        values = {name: value for name, (_, value) in self._values.items()}
        return Console(json=values.get("json", False), color=color_wanted(values.get("no_color", False)))


def _remember(context: click.Context, option: click.Parameter, value: Any) -> None:
    assert option.name is not None
    source = context.get_parameter_source(option.name) or ParameterSource.DEFAULT
    _chosen(context).offer(option.name, source, value)


def _chosen(context: click.Context) -> Chosen:
    chosen = context.find_object(Chosen)
    assert chosen is not None, "the root context has a Chosen as its object"
    return chosen


def everywhere_options() -> list[click.Parameter]:
    """Options that may stand before the verb or after it."""
    return [
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="One event a line on stdout, as JSON.",
        ),
        click.Option(
            ["--log-level"],
            type=click.Choice(LOG_LEVELS),
            default="warning",
            show_default=True,
            expose_value=False,
            callback=_remember,
            help="How much the log on stderr says.",
        ),
        click.Option(
            ["--no-color"],
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="No colours; NO_COLOR does the same.",
        ),
    ]


class Verb(click.Command):
    """A command with the options of `everywhere_options`; `click.pass_obj` gives its function a `Console`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["context_settings"] = CONTEXT | (kwargs.get("context_settings") or {})
        super().__init__(*args, **kwargs)
        self.params.extend(everywhere_options())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse unknown settings, then parse."""
        path = ctx.command_path.split(" ", 1)[-1].replace(" ", ".")
        names = [p.name for p in self.params if p.name]
        repeatable = [p.name for p in self.params if p.name and p.multiple]
        check_settings(ctx.default_map or {}, names, path, repeatable=repeatable)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Set up output, then run."""
        chosen = _chosen(ctx)
        ctx.obj = chosen.console()
        ctx.color = ctx.obj.color
        log_to_console(chosen["log_level"])
        return super().invoke(ctx)


class VerbGroup(click.Group):
    """A verb with verbs of its own, as `torrent` is."""

    command_class = Verb

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["context_settings"] = CONTEXT | (kwargs.get("context_settings") or {})
        super().__init__(*args, **kwargs)
