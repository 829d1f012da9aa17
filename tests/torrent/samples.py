"""Files in memory, and torrents of them in every version."""

from __future__ import annotations

from typing import Any

from p2pnode.torrent import (
    FileHasher,
    FileHashes,
    HashedFile,
    Metainfo,
    PieceHasherV1,
    TorrentVersion,
    canonical_metainfo,
    create_metainfo,
    piece_length_for,
)
from p2pnode.wire.bencoding import decode

KIB = 1024
Tree = dict[str, bytes]
"""Paths with slashes, and what the files hold."""


def content(size: int, seed: int = 0) -> bytes:
    """Bytes of which no two blocks are equal, different for each seed."""
    return b"".join((number + (seed << 40)).to_bytes(8, "big") for number in range(size // 8 + 1))[:size]


TREE: Tree = {
    "a.bin": content(70_000, 1),
    "docs/empty": b"",
    "docs/readme.txt": b"read me\n",
    "docs/z": content(32 * KIB, 2),
    "last.bin": content(40_000, 3),
}


def hash_file(data: bytes, piece_length: int) -> FileHashes:
    hasher = FileHasher(piece_length)
    hasher.update(data)
    return hasher.finish()


def hash_tree(tree: Tree, piece_length: int) -> list[HashedFile]:
    return [HashedFile(tuple(path.split("/")), hash_file(data, piece_length)) for path, data in tree.items()]


def canonical(name: str, content: bytes | Tree) -> Metainfo:
    """The canonical metainfo of one file, or of a directory."""
    tree = content if isinstance(content, dict) else {name: content}
    piece_length = piece_length_for(sum(map(len, tree.values())))
    return canonical_metainfo(name, hash_tree(tree, piece_length), is_directory=isinstance(content, dict))


def torrent(
    name: str,
    content: bytes | Tree,
    version: TorrentVersion = TorrentVersion.HYBRID,
    piece_length: int = 32 * KIB,
    **outer: object,
) -> Metainfo:
    """A torrent for any program, of one file or of a directory."""
    tree = content if isinstance(content, dict) else {name: content}
    files = hash_tree(tree, piece_length if version is not TorrentVersion.V1 else 16 * KIB)
    hasher = PieceHasherV1(piece_length)
    for path in sorted(tree, key=lambda path: path.encode().split(b"/")):
        hasher.update(tree[path])
        if version is TorrentVersion.HYBRID and len(tree) > 1:
            hasher.align()
    return create_metainfo(
        name,
        files,
        is_directory=isinstance(content, dict),
        version=version,
        piece_length=piece_length,
        piece_hashes_v1=hasher.finish(),
        **outer,  # type: ignore[arg-type]
    )


def opened(metainfo: Metainfo) -> tuple[dict[bytes, Any], dict[bytes, Any]]:
    """The outer and the `info` dictionary of a torrent, to be changed and encoded again."""
    outer: Any = decode(metainfo.encode())
    return outer, outer[b"info"]
