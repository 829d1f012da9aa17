"""The `info` dictionary of a torrent, written: v1, v2 or both, from names, sizes and hashes.

The same v2 form serves every torrent that is made here, and the canonical one, which our nodes know a file
by, has nothing but it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from p2pnode.config import NAME_LENGTH_MAX, PATH_DEPTH_MAX
from p2pnode.errors import MetainfoError
from p2pnode.torrent.merkle import FileHashes
from p2pnode.torrent.pieces import piece_length_for
from p2pnode.wire.bencoding import Value, encode

__all__ = ["NamedFile", "canonical_encoding", "check_file_name", "half_v1", "half_v2", "piece_layers"]


class NamedFile(NamedTuple):
    """A path below the torrent's directory, or the torrent's name alone, the hashes of the file, and its mode."""

    path: tuple[bytes, ...]
    hashes: FileHashes
    is_executable: bool = False


def canonical_encoding(name: bytes, files: Sequence[NamedFile]) -> bytes:
    """Encode what two nodes that share the same name and bytes both get, whatever they run on.

    It is v2 only, has no optional key but the `attr` of executable files, and its piece length follows from
    its size. MetainfoError for names
    that no file can have.
    """
    check_file_name(name)
    piece_length = piece_length_for(sum(file.hashes.size for file in files))
    info = {b"name": name, b"piece length": piece_length, **half_v2(files)}
    return encode({b"info": info, b"piece layers": piece_layers(files)})


def check_file_name(name: bytes) -> None:
    """Raise MetainfoError for what cannot be the name of a file or directory on any system."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name or len(name) > NAME_LENGTH_MAX:
        raise MetainfoError("a file or directory with a name that none can have")


def half_v2(files: Sequence[NamedFile]) -> dict[bytes, Value]:
    """Give `meta version` and `file tree` (BEP 52)."""
    tree: dict[bytes, Value] = {}
    for file in files:
        _insert(tree, file.path, _properties(file))
    return {b"file tree": tree, b"meta version": 2}


def piece_layers(files: Iterable[NamedFile]) -> dict[bytes, Value]:
    """Give `piece layers`, which stands outside of `info` (BEP 52)."""
    return {
        file.hashes.pieces_root: file.hashes.piece_layer
        for file in files
        if file.hashes.pieces_root and file.hashes.piece_layer
    }


def half_v1(
    files: Sequence[NamedFile], piece_hashes: bytes, *, is_directory: bool, pad_to: int | None
) -> dict[bytes, Value]:
    """Give `pieces` and `length` or `files` (BEP 3), with pad files up to multiples of `pad_to` (BEP 47)."""
    if not is_directory:
        (file,) = files
        return {b"length": file.hashes.size, b"pieces": piece_hashes}
    entries: list[Value] = []
    for path, hashes, is_executable in files:
        for component in path:
            check_file_name(component)
        entries.append({**_mode(is_executable), b"length": hashes.size, b"path": list(path)})
        if pad_to and hashes.size % pad_to:
            padding = pad_to - hashes.size % pad_to
            entries.append({b"attr": b"p", b"length": padding, b"path": [b".pad", str(padding).encode()]})
    return {b"files": entries, b"pieces": piece_hashes}


def _properties(file: NamedFile) -> dict[bytes, Value]:
    properties: dict[bytes, Value] = {**_mode(file.is_executable), b"length": file.hashes.size}
    if file.hashes.pieces_root is not None:
        properties[b"pieces root"] = file.hashes.pieces_root
    return properties


def _mode(is_executable: bool) -> dict[bytes, Value]:
    """Give what BEP 47 has for the mode of a file."""
    return {b"attr": b"x"} if is_executable else {}


def _insert(tree: dict[bytes, Value], path: tuple[bytes, ...], properties: dict[bytes, Value]) -> None:
    if not 0 < len(path) <= PATH_DEPTH_MAX:
        raise MetainfoError(f"a path of {len(path)} components; at most {PATH_DEPTH_MAX} are allowed")
    for name in path:
        check_file_name(name)
    for name in path[:-1]:
        below = tree.setdefault(name, {})
        if not isinstance(below, dict) or b"" in below:
            raise MetainfoError("a file that is a directory too")
        tree = below
    if path[-1] in tree:
        raise MetainfoError("two files of one path")
    tree[path[-1]] = {b"": properties}
