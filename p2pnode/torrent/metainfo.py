"""Metainfo: what a torrent's files are, and the hashes that prove their bytes.

v1 (BEP 3), v2 (BEP 52) and hybrid torrents are read here; what makes them, and the canonical form by which
our nodes know a file, is in `creation`. A `Metainfo` exists only if every rule was kept, so nobody has to
check again.

Paths are safe (`names`), symbolic links are left out and never created, pad files are not files. An info
hash is taken of the bytes that were read. Files without a single byte are allowed, but a foreign torrent of
nothing else is refused; a canonical one is not, since people do share empty files.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from hashlib import sha1, sha256
from typing import Final, Self

from p2pnode.config import FOREIGN_METAINFO_SIZE_MAX, METAINFO_SIZE_MAX
from p2pnode.errors import MetainfoError
from p2pnode.torrent.info_reading import (
    Dictionary,
    optional,
    preferred,
    read_halves,
    read_piece_layers,
    required,
)
from p2pnode.torrent.info_writing import NamedFile, canonical_encoding
from p2pnode.torrent.layout import EntryKind, TorrentFile, lay_out
from p2pnode.torrent.merkle import HASH_SIZE, Buffer, FileHashes, merkle_root, piece_leaf_count, zeros
from p2pnode.torrent.names import last_component, safe_name
from p2pnode.torrent.outer_reading import read_creation_date, read_text, read_trackers, read_web_seeds
from p2pnode.torrent.pieces import Piece, PieceSpan, piece_length_for
from p2pnode.torrent.urls import Tiers
from p2pnode.wire.bencoding import KeyOrder, decode, raw_value

__all__ = ["Metainfo", "PieceMatch"]

SHA1_SIZE: Final = 20


class PieceMatch(Enum):
    """How the bytes of a piece compare with its SHA-1 hash."""

    EXACT = "as BEP 3 says"
    ZERO_PADDED = "only with zeros up to the piece length, as some programs hash the last piece"
    DIFFERENT = "not at all"


@dataclass(frozen=True, eq=False, kw_only=True)
class Metainfo:
    """A torrent; equal to another if their encodings are.

    `name` is safe to create, `raw_name` what the torrent says. `info_hash_v1` has 20 bytes, `info_hash_v2`
    32; at least one is there. `size` counts the bytes of all files, without pad files. `symlink_count` says
    how many symbolic links were left out. Texts are as others wrote them: `names.printable` before a
    terminal sees them.
    """

    name: str
    raw_name: bytes
    is_directory: bool
    size: int
    piece_length: int
    piece_count: int
    files: tuple[TorrentFile, ...] = field(repr=False)
    info_hash_v1: bytes | None
    info_hash_v2: bytes | None
    is_private: bool
    symlink_count: int
    trackers: Tiers
    web_seeds: tuple[str, ...]
    comment: str
    created_by: str
    creation_date: int | None
    _hashes_v1: bytes = field(repr=False)
    _size_v1: int = field(repr=False)
    _layers: Mapping[bytes, bytes] = field(repr=False)
    _encoding: bytes = field(repr=False)

    # -- reading and writing -------------------------------------------------------------------------------

    @classmethod
    def decode(cls, data: bytes, *, size_max: int = FOREIGN_METAINFO_SIZE_MAX) -> Self:
        """Read a torrent from anywhere; BencodeError or MetainfoError unless every rule is kept."""
        outer = decode(data, size_max, key_order=KeyOrder.SORTED_BELOW_TOP)
        if not isinstance(outer, dict):
            raise MetainfoError("a torrent is a dictionary")
        info = required(outer, b"info", dict)
        metainfo = cls._assemble(outer, info, raw_value(data, b"info", size_max), data)
        if metainfo.size == 0 and not metainfo.is_canonical:
            raise MetainfoError("the files of the torrent have no bytes")
        return metainfo

    @classmethod
    def decode_canonical(cls, data: bytes) -> Self:
        """Read what travels between our nodes: the canonical form, byte for byte, and nothing else.

        So the same name and bytes have one file id, whoever made the metainfo.
        """
        metainfo = cls.decode(data, size_max=METAINFO_SIZE_MAX)
        if not metainfo.is_canonical:
            raise MetainfoError("the metainfo is not in the canonical form")
        return metainfo

    @classmethod
    def _assemble(cls, outer: Dictionary, info: Dictionary, raw_info: bytes, data: bytes) -> Self:
        halves = read_halves(info)
        leading = halves.leading
        raw_name = required(info, b"name", bytes) if halves.v2 else preferred(info, b"name", bytes)
        name = safe_name(
            raw_name if halves.v2 else last_component(raw_name.decode("utf-8", "surrogateescape"))
        )
        piece_length = required(info, b"piece length", int)
        files = lay_out(
            leading.entries, leading.offsets, piece_length, name=name, is_directory=halves.is_directory
        )
        return cls(
            name=name,
            raw_name=raw_name,
            is_directory=halves.is_directory,
            size=sum(file.size for file in files),
            piece_length=piece_length,
            piece_count=leading.piece_count,
            files=files,
            info_hash_v1=sha1(raw_info).digest() if halves.v1 else None,
            info_hash_v2=sha256(raw_info).digest() if halves.v2 else None,
            is_private=optional(info, b"private", int) == 1,
            symlink_count=sum(entry.kind is EntryKind.SYMLINK for entry in leading.entries),
            trackers=read_trackers(outer),
            web_seeds=read_web_seeds(outer),
            comment=read_text(outer, b"comment"),
            created_by=read_text(outer, b"created by"),
            creation_date=read_creation_date(outer),
            _hashes_v1=halves.v1.hashes_v1 if halves.v1 else b"",
            _size_v1=halves.v1.size if halves.v1 else 0,
            _layers=read_piece_layers(outer, leading.entries, piece_length) if halves.v2 else {},
            _encoding=data,
        )

    def encode(self) -> bytes:
        """Give the torrent byte for byte as it was read or made."""
        return self._encoding

    @cached_property
    def is_canonical(self) -> bool:
        """Whether this is exactly what `creation.canonical_metainfo` makes of the same name and bytes."""
        return self._encoding == self._canonical_encoding

    def in_canonical_form(self) -> Metainfo | None:
        """What our nodes make of the same name and bytes; None where that cannot be told from here.

        It can of a v2 or hybrid torrent whose piece length is the one that follows from its size.
        """
        encoding = self._canonical_encoding
        if self.info_hash_v2 is None or self.piece_length != piece_length_for(self.size) or encoding is None:
            return None
        return Metainfo.decode_canonical(encoding)

    @cached_property
    def _canonical_encoding(self) -> bytes | None:
        files = [
            NamedFile(
                file.raw_path,
                FileHashes(file.size, file.pieces_root, self._layer_of(file)),
                self.is_directory and file.is_executable,
            )
            for file in self.files
        ]
        try:
            return canonical_encoding(self.raw_name, files)
        except MetainfoError:
            return None

    @property
    def file_id(self) -> bytes:
        """What nodes call it: the v2 info hash (32 bytes), or where there is none that of v1 (20 bytes)."""
        file_id = self.info_hash_v2 or self.info_hash_v1
        assert file_id is not None, "one half was read"
        return file_id

    @property
    def asked_name(self) -> str:
        """What a tracker's file query calls it: the last component of the name, be that a path of Windows."""
        return last_component(self.raw_name.decode("utf-8", "replace"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Metainfo) and self._encoding == other._encoding

    def __hash__(self) -> int:
        return hash(self._encoding)

    # -- pieces --------------------------------------------------------------------------------------------

    def piece(self, index: int) -> Piece:
        """Describe a piece; IndexError when there is none of this number."""
        if not 0 <= index < self.piece_count:
            raise IndexError(f"piece {index} of {self.piece_count}")
        start = index * self.piece_length
        file_index = bisect_right(self._offsets, start) - 1
        file = self.files[file_index]
        offset = start - file.offset
        rest = self._size_v1 - start if self.info_hash_v2 is None else file.size - offset
        return Piece(index, file_index, offset, min(self.piece_length, rest), self._root(file, index))

    def pieces_of(self, file_index: int) -> range:
        """Give the numbers of the pieces that have bytes of a file."""
        file = self.files[file_index]
        return range(file.first_piece, file.first_piece + file.piece_count)

    def spans(self, index: int) -> tuple[PieceSpan, ...]:
        """Say where the bytes of a piece lie, in order; more than one span only where there is no v2 half."""
        piece = self.piece(index)
        if self.info_hash_v2 is not None:
            return (PieceSpan(piece.file_index, piece.offset, piece.length),)
        start = index * self.piece_length
        return tuple(self._spans_v1(piece.file_index, start, start + piece.length))

    def check_block_hashes(self, index: int, hashes: bytes) -> bool:
        """Say whether this list of block hashes, 32 bytes each, is that of a piece (v2 and hybrid only).

        Once it is, each block can be verified alone. ValueError in a torrent that is v1 only.
        """
        piece = self.piece(index)
        if piece.root is None:
            raise ValueError("blocks of a torrent that is v1 only have no hashes")
        if len(hashes) != piece.block_count * HASH_SIZE:
            return False
        leaves = piece_leaf_count(self.files[piece.file_index].size, self.piece_length)
        return merkle_root(hashes, leaves) == piece.root

    def match_piece_v1(self, index: int, data: Buffer) -> PieceMatch:
        """Compare the bytes of a whole piece with its SHA-1 hash (v1 and hybrid only).

        `data` is `Piece.length` bytes; zeros of pad files that follow in a hybrid torrent are added here.
        ValueError for another length and in a torrent that is v2 only.
        """
        piece = self.piece(index)
        if self.info_hash_v1 is None or memoryview(data).nbytes != piece.length:
            raise ValueError(f"{memoryview(data).nbytes} bytes for a v1 piece of {piece.length}")
        expected = self._hashes_v1[index * SHA1_SIZE : (index + 1) * SHA1_SIZE]
        covered = min(self.piece_length, self._size_v1 - index * self.piece_length)
        digest = sha1(data)
        for part in zeros(covered - piece.length):
            digest.update(part)
        if digest.digest() == expected:
            return PieceMatch.EXACT
        for part in zeros(self.piece_length - covered):
            digest.update(part)
        return PieceMatch.ZERO_PADDED if digest.digest() == expected else PieceMatch.DIFFERENT

    @cached_property
    def _offsets(self) -> list[int]:
        return [file.offset for file in self.files]

    def _layer_of(self, file: TorrentFile) -> bytes:
        """Give the piece layer of a file, which only those of more than one piece have."""
        return self._layers[file.pieces_root] if file.pieces_root and file.piece_count > 1 else b""

    def _root(self, file: TorrentFile, index: int) -> bytes | None:
        layer = self._layer_of(file)
        number = index - file.first_piece
        return layer[number * HASH_SIZE : (number + 1) * HASH_SIZE] if layer else file.pieces_root

    def _spans_v1(self, file_index: int, start: int, end: int) -> Iterator[PieceSpan]:
        """Walk the torrent space from `start`, which lies in a file, to `end`; padding is only at the end."""
        for index in range(file_index, len(self.files)):
            file = self.files[index]
            if file.offset >= end:
                break
            length = min(file.offset + file.size, end) - start
            if length:
                yield PieceSpan(index, start - file.offset, length)
                start += length
        if start < end:
            yield PieceSpan(None, 0, end - start)
