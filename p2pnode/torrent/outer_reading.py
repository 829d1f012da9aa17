"""What stands beside `info` in a torrent: none of it changes the info hash, so none of it is worth a refusal.

What has the wrong type, a wrong scheme or is too much is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from p2pnode.torrent.urls import Tiers, tracker_tiers, web_seeds
from p2pnode.wire.bencoding import Value

__all__ = ["read_creation_date", "read_text", "read_trackers", "read_web_seeds"]


def read_trackers(outer: Mapping[bytes, Value]) -> Tiers:
    """Read `announce-list` (BEP 12), or `announce` where that gives nothing."""
    tiers = outer.get(b"announce-list")
    listed = tracker_tiers(_texts(tier) for tier in tiers) if isinstance(tiers, list) else ()
    return listed or tracker_tiers([_texts(outer.get(b"announce"))])


def read_web_seeds(outer: Mapping[bytes, Value]) -> tuple[str, ...]:
    """Read `url-list`, which is one string or a list (BEP 19)."""
    return web_seeds(_texts(outer.get(b"url-list")))


def read_text(outer: Mapping[bytes, Value], key: bytes) -> str:
    """Read a text for people, '' where there is none; it is not yet fit for a terminal."""
    return next(_texts(outer.get(key)), "")


def read_creation_date(outer: Mapping[bytes, Value]) -> int | None:
    """Read `creation date`: seconds since 1970."""
    date = outer.get(b"creation date")
    return date if isinstance(date, int) and date >= 0 else None


def _texts(value: Value | None) -> Iterator[str]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, bytes):
            yield item.decode("utf-8", "replace")
