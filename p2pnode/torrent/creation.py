"""Torrents made here: the canonical one, by which our nodes know a file, and those for everybody else.

Whatever is made is then read by `Metainfo.decode`, so nothing leaves that would not be accepted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter

from p2pnode.config import METAINFO_SIZE_MAX
from p2pnode.errors import MetainfoError
from p2pnode.torrent.info_writing import (
    NamedFile,
    canonical_encoding,
    check_file_name,
    half_v1,
    half_v2,
    piece_layers,
)
from p2pnode.torrent.merkle import FileHashes
from p2pnode.torrent.metainfo import Metainfo
from p2pnode.wire.bencoding import Value, encode

__all__ = ["HashedFile", "TorrentVersion", "canonical_metainfo", "create_metainfo"]


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A file to describe: its path below the directory, or `(name,)`, its hashes, and whether it can be executed.

    The mode is kept in trees alone: the id of a single file follows from its name and bytes. Names are text as
    `os.fsdecode` gives it, so those that are not UTF-8 stay the bytes they are.
    """

    path: tuple[str, ...]
    hashes: FileHashes
    is_executable: bool = False


class TorrentVersion(Enum):
    """Which halves a torrent has."""

    V1 = "v1"
    V2 = "v2"
    HYBRID = "hybrid"


def canonical_metainfo(name: str, files: Sequence[HashedFile], *, is_directory: bool) -> Metainfo:
    """Describe a file or tree the one way that gives everyone the same file id.

    The files must have been hashed with `piece_length_for` the sum of their sizes; their order does not
    matter. MetainfoError for a tree without files, for names that no file can have, and for a directory that
    holds nothing but a file of the directory's own name.
    """
    named = _named(name, files, is_directory=is_directory)
    return _checked(Metainfo.decode_canonical(canonical_encoding(_raw(name), named)), is_directory)


def create_metainfo(
    name: str,
    files: Sequence[HashedFile],
    *,
    is_directory: bool,
    version: TorrentVersion,
    piece_length: int,
    piece_hashes_v1: bytes = b"",
    trackers: Iterable[Iterable[str]] = (),
    web_seeds: Sequence[str] = (),
    is_private: bool = False,
    comment: str = "",
    created_by: str = "",
    creation_date: int | None = None,
) -> Metainfo:
    """Describe a file or tree as a torrent for any program.

    All files must have been hashed with `piece_length`. `piece_hashes_v1` comes from a `PieceHasherV1` that
    was given the files in the order of their raw paths (as bytes), for a hybrid torrent of more than one file
    with `align()` after each. Without v1 they are not used; without v2 only the sizes of `FileHashes` are.
    A single tracker is written without a list, which not every reader can read. MetainfoError as
    `Metainfo.decode` says.
    """
    named = _named(name, files, is_directory=is_directory)
    check_file_name(_raw(name))
    info: dict[bytes, Value] = {b"name": _raw(name), b"piece length": piece_length}
    outer: dict[bytes, Value] = {b"info": info}
    if version is not TorrentVersion.V1:
        info |= half_v2(named)
        outer[b"piece layers"] = piece_layers(named)
    if version is not TorrentVersion.V2:
        pad_to = piece_length if version is TorrentVersion.HYBRID and len(named) > 1 else None
        info |= half_v1(named, piece_hashes_v1, is_directory=is_directory, pad_to=pad_to)
    if is_private:
        info[b"private"] = 1
    outer |= _announcing(trackers, web_seeds)
    outer |= {
        key: text.encode() for key, text in ((b"comment", comment), (b"created by", created_by)) if text
    }
    if creation_date is not None:
        outer[b"creation date"] = creation_date
    return _checked(Metainfo.decode(encode(outer), size_max=METAINFO_SIZE_MAX), is_directory)


def _named(name: str, files: Sequence[HashedFile], *, is_directory: bool) -> list[NamedFile]:
    """Give raw paths and hashes in the order of a file tree."""
    if not is_directory and [file.path for file in files] != [(name,)]:
        raise ValueError("the path of the only file is the torrent's name")
    named = (
        NamedFile(tuple(map(_raw, file.path)), file.hashes, is_directory and file.is_executable)
        for file in files
    )
    return sorted(named, key=attrgetter("path"))


def _raw(name: str) -> bytes:
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise MetainfoError("a file or directory with a name that is no text") from None


def _announcing(trackers: Iterable[Iterable[str]], web_seeds: Sequence[str]) -> dict[bytes, Value]:
    tiers: list[list[bytes]] = [[url.encode() for url in tier] for tier in trackers]
    urls = [url for tier in tiers for url in tier]
    keys: dict[bytes, Value] = {}
    if urls:
        keys[b"announce"] = urls[0]
    if len(urls) > 1:
        keys[b"announce-list"] = [list[Value](tier) for tier in tiers]
    if web_seeds:
        keys[b"url-list"] = (
            web_seeds[0].encode() if len(web_seeds) == 1 else [url.encode() for url in web_seeds]
        )
    return keys


def _checked(metainfo: Metainfo, is_directory: bool) -> Metainfo:
    if metainfo.is_directory != is_directory:
        raise MetainfoError(
            "a directory with only a file of its own name is not different from that file in v2"
        )
    return metainfo
