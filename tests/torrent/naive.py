"""BEP 52 written as its text reads, leaf by leaf: slow, and independent of the code under test."""

from __future__ import annotations

from hashlib import sha1, sha256

BLOCK = 16384


def parent(children: list[bytes]) -> bytes:
    if len(children) == 1:
        return children[0]
    middle = len(children) // 2
    return sha256(parent(children[:middle]) + parent(children[middle:])).digest()


def leaves(data: bytes) -> list[bytes]:
    return [sha256(data[start : start + BLOCK]).digest() for start in range(0, len(data), BLOCK)]


def filled(hashes: list[bytes], filling: bytes) -> list[bytes]:
    width = 1
    while width < len(hashes):
        width *= 2
    return hashes + [filling] * (width - len(hashes))


def pieces_root(data: bytes) -> bytes:
    """The root over all blocks: the piece length does not matter to it."""
    return parent(filled(leaves(data), bytes(32)))


def piece_layer(data: bytes, piece_length: int) -> list[bytes]:
    if len(data) <= piece_length:
        return []
    layer = []
    for start in range(0, len(data), piece_length):
        blocks = leaves(data[start : start + piece_length])
        layer.append(parent(blocks + [bytes(32)] * (piece_length // BLOCK - len(blocks))))
    return layer


def hashes_v1(data: bytes, piece_length: int) -> bytes:
    return b"".join(
        sha1(data[start : start + piece_length]).digest() for start in range(0, len(data), piece_length)
    )
