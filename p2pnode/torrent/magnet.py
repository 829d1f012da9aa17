"""Magnet links (BEP 9), with the hashes of v2 (`urn:btmh`, BEP 52) and web seeds (`ws`)."""

from __future__ import annotations

import re
from base64 import b32decode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, Self
from urllib.parse import parse_qsl, quote

from p2pnode.config import MAGNET_LENGTH_MAX, MAGNET_PEERS_MAX
from p2pnode.errors import InvalidData
from p2pnode.torrent.urls import tracker_tiers, web_seeds

__all__ = ["Magnet"]

PREFIX: Final = "magnet:?"
_SHA256_MULTIHASH: Final = "1220"  # the code of SHA-256 and its 32 bytes
_FIELDS_MAX: Final = 1000
_NUMBERED: Final = re.compile(r"(xt|tr|ws)\.[0-9]+")
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9A-Za-z._-]{1,255})):([0-9]{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Magnet:
    """A torrent by its hash: `info_hash_v1` has 20 bytes, `info_hash_v2` 32, at least one is there.

    `peers` are host and port. `name` is as others wrote it, fit neither for a disk nor for a terminal.
    """

    info_hash_v1: bytes | None = None
    info_hash_v2: bytes | None = None
    name: str = ""
    trackers: tuple[str, ...] = ()
    web_seeds: tuple[str, ...] = ()
    peers: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a magnet link; InvalidData unless it names a torrent.

        Unknown fields, and addresses that are malformed or too many, are left out.
        """
        if text[: len(PREFIX)].lower() != PREFIX or len(text) > MAGNET_LENGTH_MAX:
            raise InvalidData(
                f"a magnet link starts with {PREFIX} and has at most {MAGNET_LENGTH_MAX} characters"
            )
        try:
            fields = parse_qsl(text[len(PREFIX) :], errors="replace", max_num_fields=_FIELDS_MAX)
        except ValueError:
            raise InvalidData(f"a magnet link of more than {_FIELDS_MAX} fields") from None
        values: dict[str, list[str]] = {}
        for key, value in fields:
            numbered = _NUMBERED.fullmatch(key)
            values.setdefault(numbered[1] if numbered else key, []).append(value)
        topics = values.get("xt", [])
        v1 = _only(_hashes(topics, "urn:btih:", _read_btih))
        v2 = _only(_hashes(topics, "urn:btmh:", _read_btmh))
        if v1 is None and v2 is None:
            raise InvalidData("a magnet link without the hash of a torrent")
        return cls(
            info_hash_v1=v1,
            info_hash_v2=v2,
            name=next(iter(values.get("dn", [])), ""),
            trackers=tuple(url for (url,) in tracker_tiers([url] for url in values.get("tr", []))),
            web_seeds=web_seeds(values.get("ws", [])),
            peers=tuple(islice(_addresses(values.get("x.pe", [])), MAGNET_PEERS_MAX)),
        )

    @property
    def file_id(self) -> bytes:
        """What nodes call it: the v2 info hash (32 bytes), or where there is none that of v1 (20 bytes)."""
        file_id = self.info_hash_v2 or self.info_hash_v1
        assert file_id is not None, "a magnet link has a hash"
        return file_id

    def __str__(self) -> str:
        """Give the link."""
        fields = []
        if self.info_hash_v1 is not None:
            fields.append(f"xt=urn:btih:{self.info_hash_v1.hex()}")
        if self.info_hash_v2 is not None:
            fields.append(f"xt=urn:btmh:{_SHA256_MULTIHASH}{self.info_hash_v2.hex()}")
        if self.name:
            fields.append(f"dn={_quoted(self.name)}")
        fields += [f"tr={_quoted(url)}" for url in self.trackers]
        fields += [f"ws={_quoted(url)}" for url in self.web_seeds]
        fields += [
            f"x.pe=[{host}]:{port}" if ":" in host else f"x.pe={host}:{port}" for host, port in self.peers
        ]
        return PREFIX + "&".join(fields)


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="replace")


def _hashes(topics: Iterable[str], prefix: str, read: Callable[[str], bytes]) -> set[bytes]:
    return {read(topic[len(prefix) :]) for topic in topics if topic.lower().startswith(prefix)}


def _read_btih(text: str) -> bytes:
    """Read 40 hex digits or 32 characters of base32."""
    try:
        info_hash = bytes.fromhex(text) if len(text) == 40 else b32decode(text, casefold=True)
    except ValueError:
        info_hash = b""
    if len(info_hash) != 20:
        raise InvalidData("a magnet link whose 'btih' is no SHA-1 hash")
    return info_hash


def _read_btmh(text: str) -> bytes:
    """Read a multihash in hex, of which only SHA-256 names torrents."""
    try:
        info_hash = bytes.fromhex(text.removeprefix(_SHA256_MULTIHASH))
    except ValueError:
        info_hash = b""
    if len(info_hash) != 32 or not text.startswith(_SHA256_MULTIHASH):
        raise InvalidData("a magnet link whose 'btmh' is no SHA-256 hash")
    return info_hash


def _only(hashes: set[bytes]) -> bytes | None:
    if len(hashes) > 1:
        raise InvalidData("a magnet link that names two torrents")
    return next(iter(hashes), None)


def _addresses(texts: Iterable[str]) -> Iterator[tuple[str, int]]:
    for text in texts:
        address = _ADDRESS.fullmatch(text)
        if address and 0 < int(address[3]) < 2**16:
            yield address[1] or address[2], int(address[3])
