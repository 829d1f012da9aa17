"""Where output goes: data and `--json` events to stdout, everything said to people to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True)
class Console:
    """How this run talks."""

    json: bool = False
    color: bool | None = None  # None: as the terminal and NO_COLOR say

    @property
    def is_live(self) -> bool:
        """Whether somebody watches: progress may redraw its lines."""
        return not self.json and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def data(self, text: str) -> None:
        """One line that a program may read."""
        click.echo(text)

    def event(self, event: Mapping[str, Any]) -> None:
        """One object on one line, flushed, so that a reader of a pipe sees it now; bytes as hex."""
        click.echo(json.dumps(event, default=bytes.hex))

    def rows(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table: columns for a person, one line a row with tabs for a program."""
        if not sys.stdout.isatty():
            for row in rows:
                self.data("\t".join(row))
            return
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        for row in (header, *rows):
            self.data("  ".join(map(str.ljust, row, widths)).rstrip())

    def say(self, text: str) -> None:
        """One line for a person."""
        click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """One line that a person must not miss."""
        label = click.style("p2pnode: warning:", fg="yellow", bold=True)
        click.echo(f"{label} {text}", err=True, color=self.color)

    def fail(self, text: str, exit_code: int) -> None:
        """Why the program ends, in one line; with `--json` also as its last event.

        A part of it may be the words of another node, so a terminal is shown it escaped.
        """
        from p2pnode.torrent import printable  # slow to import, and `--help` has no use for it

        if self.json:
            self.event({"event": "error", "text": text, "exit_code": exit_code})
        label = click.style("p2pnode:", fg="red", bold=True)
        click.echo(f"{label} {printable(text)}", err=True, color=self.color)


def color_wanted(no_color: bool) -> bool | None:
    """False where `--no-color`, NO_COLOR (any value but the empty one) or a dumb terminal forbids colour."""
    forbidden = no_color or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return False if forbidden else None
