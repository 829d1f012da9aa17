"""Torrents as the known tracker's users have them: made on Windows, the last piece hashed with zeros after it."""

from __future__ import annotations

from hashlib import sha1

from p2pnode.torrent import Metainfo
from p2pnode.wire.bencoding import encode

PIECE_LENGTH = 262_144


def known_torrent(
    name: str,
    data: bytes,
    *,
    zero_padded: bool = True,
    length: int | None = None,
    piece_length: int = PIECE_LENGTH,
) -> Metainfo:
    """A v1 torrent of one file; `length` is what it says in place of the truth."""
    pieces = b""
    for start in range(0, len(data), piece_length):
        piece = data[start : start + piece_length]
        pieces += sha1(piece.ljust(piece_length, b"\0") if zero_padded else piece).digest()
    info = {
        b"length": len(data) if length is None else length,
        b"name": name.encode(),
        b"piece length": piece_length,
        b"pieces": pieces,
    }
    return Metainfo.decode(encode({b"announce": b"http://127.0.0.1:7000/announce", b"info": info}))
