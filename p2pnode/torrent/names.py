"""Names that others chose, made safe for our disk and for a terminal.

`safe_component` turns any name into one that is an ordinary file name on Linux, macOS and Windows alike, and
`safe_paths` gives the files of a torrent paths that cannot meet on a disk that folds case or composes
accents. Both are deterministic and the same on every system, so that a partial download can be continued
anywhere. Nothing they return can lead out of the directory it is joined to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from unicodedata import normalize

from p2pnode.config import COMPONENT_SIZE_MAX

__all__ = ["TORRENT_SUFFIX", "last_component", "printable", "safe_component", "safe_name", "safe_paths"]

SafePath = tuple[str, ...]

# Control characters, lone surrogates, line and paragraph separators, the byte order mark, and what changes
# the direction of text: "photo\u202Egpj.exe" shows as "photoexe.jpg".
_UNPRINTABLE: Final = r"\x00-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
_NOT_PRINTABLE: Final = re.compile(f"[{_UNPRINTABLE}]")
# Separators of directories, drives and streams, and what Windows has no file names with.
_NOT_IN_NAMES: Final = re.compile(rf'[{_UNPRINTABLE}/\\:*?"<>|]')
_SEPARATOR: Final = re.compile(r"[/\\]")
_AT_END: Final = re.compile(r"[. ]+\Z")  # Windows drops these, so that "a." and "a" are one file
_DEVICES: Final = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|clock\$|(?:com|lpt)[0-9¹²³])[ ]*(?:\.|\Z)", re.IGNORECASE
)
_NUMBER_SIZE: Final = 8  # a dot and seven digits: more than there are files in a torrent
TORRENT_SUFFIX: Final = ".torrent"
_EXTENSION_SIZE_MAX: Final = 32  # bytes, with the dot; a longer one is a part of the name


def printable(text: str) -> str:
    """Escape what a terminal would obey or what would not be seen as it is: `\\n`, `\\x1b`, `\\u202e`."""
    return _NOT_PRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def last_component(path: str) -> str:
    """Give what a path ends with, be it one of Windows: `E:\\x\\hello.txt` ends with `hello.txt`."""
    return _SEPARATOR.split(path.rstrip("/\\"))[-1]


def safe_component(name: bytes | str) -> str:
    """Make one component of a path out of any name; what is safe already stays as it is.

    Each byte that is not UTF-8, and each character that no file name should have, becomes `_`; so do dots
    and spaces at the end, and with them `.` and `..`. The names of Windows' devices get a `_` in front. What
    is longer than 255 bytes is cut before its extension.
    """
    text = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
    text = _NOT_IN_NAMES.sub("_", text)
    if _DEVICES.match(text):
        text = "_" + text
    text = _cut(text, COMPONENT_SIZE_MAX)
    text = _AT_END.sub(lambda match: "_" * len(match[0]), text)
    return text or "_"


def safe_name(name: bytes | str) -> str:
    """Make the name under which a torrent lands: a safe component that is not hidden.

    A stranger's torrent must not become `.ssh` or `.bashrc` because it was fetched into the wrong directory.
    """
    text = safe_component(name)
    return "_" + text[1:] if text.startswith(".") else text


def safe_paths(paths: Iterable[tuple[bytes, ...]]) -> list[SafePath]:
    """Make the paths of all files of a torrent safe, in order; no two of the results can be one file.

    When a file would take the place of an earlier file or directory, or a directory that of an earlier file,
    the later one is called `name.1.ext`. Directories that differ only in case or composition may be one on
    some disks; the files in them still do not meet.
    """
    root = _Directory()
    components = _SafeComponents()
    return [root.place([components[component] for component in path]) for path in paths]


class _SafeComponents(dict[bytes, str]):
    """What became of each component, since the same directories come again and again."""

    def __missing__(self, component: bytes) -> str:
        text = self[component] = safe_component(component)
        return text


@dataclass(slots=True)
class _Directory:
    """What was placed in one directory, by folded name."""

    directories: dict[str, _Directory] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)  # directories whose name a file had taken
    numbers: dict[tuple[str, str], int] = field(default_factory=dict)  # the last given for a stem, extension

    def place(self, path: list[str]) -> SafePath:
        """Add a file, and give the path that it got."""
        directory = self
        placed = []
        for component in path[:-1]:
            name, directory = directory._enter(component)
            placed.append(name)
        return (*placed, directory._add_file(path[-1]))

    def _enter(self, name: str) -> tuple[str, _Directory]:
        folded = _folded(name)
        if folded in self.files:
            if folded not in self.renamed:
                self.renamed[folded] = self._numbered(name)
            name = self.renamed[folded]
            folded = _folded(name)
        return name, self.directories.setdefault(folded, _Directory())

    def _add_file(self, name: str) -> str:
        if self._is_taken(name):
            name = self._numbered(name)
        self.files.add(_folded(name))
        return name

    def _numbered(self, name: str) -> str:
        """Give the first free name with a number; counting goes on where it ended, so it is not quadratic."""
        stem, extension = _split(name)
        stem = _cut_bytes(stem, COMPONENT_SIZE_MAX - _NUMBER_SIZE - len(extension.encode()))
        key = _folded(stem), _folded(extension)
        number = self.numbers.get(key, 0) + 1
        while self._is_taken(f"{stem}.{number}{extension}"):
            number += 1
        self.numbers[key] = number
        return f"{stem}.{number}{extension}"

    def _is_taken(self, name: str) -> bool:
        folded = _folded(name)
        return folded in self.files or folded in self.directories


def _folded(name: str) -> str:
    """Fold as much as any file system does: equal results may be one file."""
    return name.lower() if name.isascii() else normalize("NFC", normalize("NFD", name).casefold())


def _split(name: str) -> tuple[str, str]:
    """Split before the extension, if it has one that is worth keeping."""
    stem, dot, extension = name.rpartition(".")
    if stem.strip(".") and len(extension.encode()) < _EXTENSION_SIZE_MAX:
        return stem, dot + extension
    return name, ""


def _cut(name: str, size_max: int) -> str:
    if len(name.encode()) <= size_max:
        return name
    stem, extension = _split(name)
    return _cut_bytes(stem, size_max - len(extension.encode())) + extension


def _cut_bytes(text: str, size_max: int) -> str:
    """Cut to so many bytes of UTF-8, between characters."""
    return text.encode()[:size_max].decode("utf-8", "ignore")
