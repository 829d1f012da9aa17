"""A second opinion on what is hashed: canonical metainfo and TLS exporters from hashlib and hmac alone.

Written from BEP 3, BEP 52, RFC 5869 and RFC 8446 with nothing of p2pnode, and plain rather than fast.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

BLOCK = 16384
ZERO = bytes(32)

Tree = Mapping[tuple[str, ...], bytes]  # path below the torrent's name → content


def bencoded(value: Any) -> bytes:
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    pairs = sorted(value.items())
    return b"d" + b"".join(bencoded(key) + bencoded(item) for key, item in pairs) + b"e"


def pattern(size: int) -> bytes:
    """Byte i is i mod 251."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def piece_length(size: int) -> int:
    return next(
        (length for length in (BLOCK * 2**n for n in range(10)) if size <= 1024 * length), BLOCK * 2**10
    )


def folded(hashes: list[bytes]) -> bytes:
    """The root of a balanced tree; the number of leaves is a power of two."""
    while len(hashes) > 1:
        hashes = [hashlib.sha256(hashes[i] + hashes[i + 1]).digest() for i in range(0, len(hashes), 2)]
    return hashes[0]


def padded(hashes: list[bytes], count: int, padding: bytes) -> list[bytes]:
    return hashes + [padding] * (count - len(hashes))


def power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def root_and_layer(content: bytes, length: int) -> tuple[bytes, bytes]:
    """Pieces root and piece layer of a file that is not empty; no layer if it has no more than one piece."""
    leaves = [hashlib.sha256(content[i : i + BLOCK]).digest() for i in range(0, len(content), BLOCK)]
    if len(content) <= length:
        return folded(padded(leaves, power_of_two(len(leaves)), ZERO)), b""
    width = length // BLOCK
    layer = [folded(padded(leaves[i : i + width], width, ZERO)) for i in range(0, len(leaves), width)]
    no_piece = folded([ZERO] * width)
    return folded(padded(layer, power_of_two(len(layer)), no_piece)), b"".join(layer)


def canonical_metainfo(name: str, files: Tree) -> tuple[bytes, bytes]:
    """The canonical metainfo and its file id. A single file has the path (name,)."""
    length = piece_length(sum(map(len, files.values())))
    tree: dict[bytes, Any] = {}
    layers: dict[bytes, bytes] = {}
    for path, content in files.items():
        below = tree
        for component in path:
            below = below.setdefault(component.encode(), {})
        below[b""] = {b"length": len(content)}
        if content:
            root, layer = root_and_layer(content, length)
            below[b""][b"pieces root"] = root
            if layer:
                layers[root] = layer
    info = {b"file tree": tree, b"meta version": 2, b"name": name.encode(), b"piece length": length}
    return bencoded({b"info": info, b"piece layers": layers}), hashlib.sha256(bencoded(info)).digest()


def exporter(master_secret: bytes, label: str, hash_name: str, length: int = 32) -> bytes:
    """TLS-Exporter(label, empty context, length) of RFC 8446 §7.5; `length` is at most one hash."""
    nothing = hashlib.new(hash_name, b"").digest()
    derived = _expand_label(master_secret, label, nothing, len(nothing), hash_name)
    return _expand_label(derived, "exporter", nothing, length, hash_name)


def _expand_label(secret: bytes, label: str, context: bytes, length: int, hash_name: str) -> bytes:
    full_label = b"tls13 " + label.encode()
    info = length.to_bytes(2, "big") + bytes([len(full_label)]) + full_label + bytes([len(context)]) + context
    return hmac.digest(secret, info + b"\x01", hash_name)[:length]
