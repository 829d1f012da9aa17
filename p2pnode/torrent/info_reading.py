"""The `info` dictionary of a torrent, read: each half into a list of entries, every rule checked.

The halves are read apart and know nothing of each other: `metainfo` compares them. Nothing here trusts a
value because another one vouches for it, and every refusal is a `MetainfoError` of one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from p2pnode.config import (
    BLOCK_SIZE,
    FOREIGN_PIECE_LENGTH_MAX,
    FOREIGN_PIECE_LENGTH_MIN,
    PATH_DEPTH_MAX,
    PIECES_MAX,
)
from p2pnode.errors import MetainfoError
from p2pnode.torrent.layout import EntryKind, FileEntry, offsets_v1, offsets_v2
from p2pnode.torrent.merkle import HASH_SIZE, root_of_layer
from p2pnode.torrent.pieces import piece_count
from p2pnode.wire.bencoding import Value

__all__ = [
    "Dictionary",
    "Half",
    "Halves",
    "optional",
    "preferred",
    "read_halves",
    "read_piece_layers",
    "required",
]

Dictionary: TypeAlias = Mapping[bytes, Value]
T = TypeVar("T", int, bytes, list[Value], dict[bytes, Value])

SHA1_SIZE = 20
_KINDS = {int: "an integer", bytes: "a string", list: "a list", dict: "a dictionary"}


@dataclass(frozen=True, slots=True)
class Half:
    """What v1 or v2 says of the files: all entries in their order and where each starts in the torrent space.

    `size` is that of the space, with pad files or without what is left of last pieces; `hashes_v1` has 20
    bytes for each piece, none in v2.
    """

    entries: list[FileEntry]
    offsets: list[int]
    size: int
    piece_count: int
    is_directory: bool
    hashes_v1: bytes = b""


@dataclass(frozen=True, slots=True)
class Halves:
    """Both halves of a hybrid torrent, which say the same, or the one that there is."""

    v1: Half | None
    v2: Half | None

    @property
    def leading(self) -> Half:
        """The half by which pieces and files are counted: v2, since its pieces belong to one file each."""
        half = self.v2 or self.v1
        assert half is not None, "read_halves gives at least one"
        return half

    @property
    def is_directory(self) -> bool:
        """Whether the files lie in a directory: v1 tells, v2 has to guess."""
        return (self.v1 or self.leading).is_directory


def read_halves(info: Dictionary) -> Halves:
    """Read what there is; MetainfoError unless every rule is kept and both halves describe the same files."""
    piece_length = required(info, b"piece length", int)
    is_v2 = b"meta version" in info or b"file tree" in info
    v2 = _read_v2(info, piece_length) if is_v2 else None
    v1 = _read_v1(info, piece_length) if b"pieces" in info or not is_v2 else None
    if v1 and v2 and _described(v1) != _described(v2):
        raise MetainfoError("the v1 and v2 halves of the torrent describe different files")
    return Halves(v1, v2)


def _described(half: Half) -> list[tuple[tuple[bytes, ...], int, int | None]]:
    """What both halves must agree on; where an empty file starts means nothing.

    Then the pieces are the same too, since pad files cannot make a piece of their own.
    """
    return [
        (entry.path, entry.size, offset if entry.size else None)
        for entry, offset in zip(half.entries, half.offsets, strict=True)
        if entry.kind is EntryKind.FILE
    ]


def required(dictionary: Dictionary, key: bytes, kind: type[T]) -> T:
    """Give a value of this type, which must be there."""
    value = optional(dictionary, key, kind)
    if value is None:
        raise MetainfoError(f"no '{key.decode()}' in the torrent")
    return value


def optional(dictionary: Dictionary, key: bytes, kind: type[T]) -> T | None:
    """Give a value of this type, or None when there is none."""
    value = dictionary.get(key)
    if value is not None and not isinstance(value, kind):
        raise MetainfoError(f"'{key.decode()}' in the torrent is not {_KINDS[kind]}")
    return value


def preferred(dictionary: Dictionary, key: bytes, kind: type[T]) -> T:
    """Give the value of `key`, or the UTF-8 form that old programs put beside one of another encoding."""
    plain = required(dictionary, key, kind)
    utf8 = optional(dictionary, key + b".utf-8", kind)
    return plain if utf8 is None else utf8


def _checked_count(count: int) -> int:
    if count > PIECES_MAX:
        raise MetainfoError(f"{count} pieces are more than the {PIECES_MAX} that are allowed")
    return count


# -- v1 ----------------------------------------------------------------------------------------------------


def _read_v1(info: Dictionary, piece_length: int) -> Half:
    """Read `pieces` and `length` or `files` (BEP 3, BEP 47)."""
    if not FOREIGN_PIECE_LENGTH_MIN <= piece_length <= FOREIGN_PIECE_LENGTH_MAX:
        raise MetainfoError(f"a piece length of {piece_length} bytes")
    hashes = required(info, b"pieces", bytes)
    if (b"length" in info) == (b"files" in info):
        raise MetainfoError("a torrent has either 'length' or 'files'")
    is_directory = b"files" in info
    entries = list(_files_v1(info)) if is_directory else [_single_file_v1(info)]
    size = sum(entry.size for entry in entries)
    count = _checked_count(piece_count(size, piece_length))
    if len(hashes) != count * SHA1_SIZE:
        raise MetainfoError(f"{len(hashes)} bytes of piece hashes do not fit the {count} pieces of the files")
    return Half(entries, offsets_v1(entries, piece_length), size, count, is_directory, hashes)


def _single_file_v1(info: Dictionary) -> FileEntry:
    entry = _entry_v1(info, (preferred(info, b"name", bytes),))
    if entry.kind is not EntryKind.FILE:
        raise MetainfoError("the only file of the torrent is none")
    return entry


def _files_v1(info: Dictionary) -> Iterator[FileEntry]:
    for file in required(info, b"files", list):
        if not isinstance(file, dict):
            raise MetainfoError("a file of the torrent is not a dictionary")
        path = tuple(part for part in preferred(file, b"path", list) if isinstance(part, bytes))
        if not 0 < len(path) <= PATH_DEPTH_MAX or len(path) != len(preferred(file, b"path", list)):
            raise MetainfoError(f"the path of a file is not a list of 1 to {PATH_DEPTH_MAX} strings")
        yield _entry_v1(file, path)


def _entry_v1(file: Dictionary, path: tuple[bytes, ...]) -> FileEntry:
    kind, is_executable = _attributes(file)
    size = (
        optional(file, b"length", int) or 0 if kind is EntryKind.SYMLINK else required(file, b"length", int)
    )
    if size < 0 or (size and kind is EntryKind.SYMLINK):
        raise MetainfoError(f"a file of {size} bytes")
    return FileEntry(path, size, kind=kind, is_executable=is_executable)


def _attributes(file: Dictionary) -> tuple[EntryKind, bool]:
    attributes = optional(file, b"attr", bytes) or b""
    if b"l" in attributes:
        return EntryKind.SYMLINK, False
    return EntryKind.PAD if b"p" in attributes else EntryKind.FILE, b"x" in attributes


# -- v2 ----------------------------------------------------------------------------------------------------


def _read_v2(info: Dictionary, piece_length: int) -> Half:
    """Read `meta version` and `file tree` (BEP 52)."""
    version = required(info, b"meta version", int)
    if version != 2:
        raise MetainfoError(f"a torrent of version {version}")
    if not BLOCK_SIZE <= piece_length <= FOREIGN_PIECE_LENGTH_MAX or piece_length & (piece_length - 1):
        raise MetainfoError(f"a piece length of {piece_length} bytes")
    entries = list(_walk(required(info, b"file tree", dict), ()))
    size = sum(entry.size for entry in entries)
    count = _checked_count(sum(piece_count(entry.size, piece_length) for entry in entries))
    # one file alone cannot be told from a directory that holds one file of its own name
    is_directory = [entry.path for entry in entries] != [(required(info, b"name", bytes),)]
    return Half(entries, offsets_v2(entries, piece_length), size, count, is_directory)


def _walk(tree: Dictionary, path: tuple[bytes, ...]) -> Iterator[FileEntry]:
    if b"" in tree:
        if len(tree) > 1 or not path:
            raise MetainfoError("a file of the tree is a directory too")
        yield _entry_v2(required(tree, b"", dict), path)
        return
    if not tree:
        raise MetainfoError("an empty directory in the file tree")
    if len(path) == PATH_DEPTH_MAX:
        raise MetainfoError(f"a file tree of more than {PATH_DEPTH_MAX} levels")
    for name, below in tree.items():
        if not isinstance(below, dict):
            raise MetainfoError("an entry of the file tree is not a dictionary")
        yield from _walk(below, (*path, name))


def _entry_v2(file: Dictionary, path: tuple[bytes, ...]) -> FileEntry:
    entry = _entry_v1(file, path)
    root = optional(file, b"pieces root", bytes)
    if entry.kind is EntryKind.PAD:
        raise MetainfoError("a pad file in the file tree")
    if (root is None) != (entry.size == 0) or (root is not None and len(root) != HASH_SIZE):
        raise MetainfoError("a file of the tree without a proper 'pieces root'")
    return FileEntry(path, entry.size, root, entry.kind, entry.is_executable)


def read_piece_layers(outer: Dictionary, entries: list[FileEntry], piece_length: int) -> dict[bytes, bytes]:
    """Read and verify the layers of all files larger than a piece: pieces root → 32 bytes for each piece."""
    found = optional(outer, b"piece layers", dict) or {}
    layers: dict[bytes, bytes] = {}
    for entry in entries:
        if entry.pieces_root is None or entry.size <= piece_length:
            continue
        layer = found.get(entry.pieces_root)
        if not isinstance(layer, bytes):
            raise MetainfoError("the piece layer of a file is missing")
        if len(layer) != piece_count(entry.size, piece_length) * HASH_SIZE:
            raise MetainfoError("the piece layer of a file does not fit its size")
        if entry.pieces_root not in layers and root_of_layer(layer, piece_length) != entry.pieces_root:
            raise MetainfoError("the piece layer of a file does not match its root")
        layers[entry.pieces_root] = layer
    return layers
