"""Which files of a tree are meant: patterns for paths, as in gitignore, with includes beside excludes.

A path is what leads to a file below its tree, with `/` between names: `src/lib/a.c`.

- `*` stands for any characters but `/`, `?` for one of them, `[a-z]` for one of those, `[!a-z]` for any other.
- `**` between slashes stands for any number of directories, none included.
- A pattern with a `/` at its start or in its middle counts from the root of the tree; any other one fits at every
  depth: `*.c` is every C file, `/*.c` those at the root.
- A pattern that fits a directory means all that is in it; with `/` at its end it fits directories alone.

A file is selected when an include fits it, or none is given, and no exclude does. Their order does not matter, and
upper and lower case differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from p2pnode.errors import ConfigError
from p2pnode.torrent.bitfield import Bitfield
from p2pnode.torrent.metainfo import Metainfo

__all__ = ["Selection"]


@dataclass(frozen=True)
class Selection:
    """Patterns of what to take and what to leave. ConfigError for one that is none."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for pattern in (*self.include, *self.exclude):
            if not pattern.strip("/") or "//" in pattern or "\0" in pattern:
                raise ConfigError(f"{pattern!r} is no pattern for paths")

    def __bool__(self) -> bool:
        """Whether there is any pattern: without one, everything is selected."""
        return bool(self.include or self.exclude)

    def fits(self, path: Sequence[str]) -> bool:
        """Whether the file at `path`, its names from the root of the tree on, is selected."""
        included, excluded = self._expressions
        text = "/".join(path)
        return bool(included.fullmatch(text)) and not excluded.fullmatch(text)

    def files_of(self, metainfo: Metainfo) -> frozenset[int]:
        """The files of a torrent that are selected, by index; of a single file the name is the path."""
        return frozenset(index for index, file in enumerate(metainfo.files) if self.fits(file.path))

    @cached_property
    def _expressions(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        return _any_of(self.include or ("**",)), _any_of(self.exclude)


def pieces_of(metainfo: Metainfo, files: Iterable[int]) -> Bitfield:
    """The pieces that have bytes of these files."""
    runs = (metainfo.pieces_of(index) for index in sorted(files))
    return Bitfield.from_ranges(((run.start, len(run)) for run in runs if run), metainfo.piece_count)


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    """What fits the path of a file if one of the patterns fits it, or a directory that it is in; nothing for none."""
    if not patterns:
        return re.compile(r"(?!)")
    return re.compile("|".join(map(_expression, patterns)), re.DOTALL)


def _expression(pattern: str) -> str:
    """A pattern as a regular expression of whole paths of files."""
    names = pattern.removesuffix("/").removeprefix("/").split("/")
    is_anchored = "/" in pattern.removesuffix("/")
    start = "" if is_anchored else "(?:.*/)?"
    end = "/.*" if pattern.endswith("/") else "(?:/.*)?"
    return f"(?:{start}{''.join(_steps(names))}{end})"


def _steps(names: list[str]) -> Iterator[str]:
    """The expression of each step of a path with the slash after it."""
    *directories, last = names
    for name in directories:
        yield "(?:.*/)?" if name == "**" else "".join(_parts(name)) + "/"
    yield ".*" if last == "**" else "".join(_parts(last))


_PART = re.compile(r"(\*+)|(\?)|\[([!^]?)(\]?[^]]*)\]|\\(.)|(.)", re.DOTALL)


def _parts(name: str) -> Iterator[str]:
    """The expression of each character or wildcard of a name."""
    for found in _PART.finditer(name):
        star, question, negated, members, escaped, plain = found.groups()
        if star:
            yield "[^/]*"
        elif question:
            yield "[^/]"
        elif members is not None:
            yield _class(members, is_negated=bool(negated))
        else:
            yield re.escape(escaped or plain)


def _class(members: str, *, is_negated: bool) -> str:
    """One character of a set, never a slash."""
    quoted = re.sub(r"[\\\[\]^&~|]", r"\\\g<0>", members)
    try:
        re.compile(f"[{quoted}]")
    except re.error:
        raise ConfigError(f"[{members}] in a pattern is no set of characters") from None
    return f"(?!/)[{'^' if is_negated else ''}{quoted}]"
