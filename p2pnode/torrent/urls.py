"""Which addresses of trackers and web seeds are taken from a torrent or a magnet link.

Schemes are an allow-list: nothing that others wrote may make us read `file:` or speak `gopher:`. What these
addresses resolve to is checked by whoever dials them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Final

from p2pnode.config import TRACKERS_MAX, URL_LENGTH_MAX, WEB_SEEDS_MAX
from p2pnode.torrent.names import printable

__all__ = ["Tiers", "tracker_tiers", "web_seeds"]

Tiers = tuple[tuple[str, ...], ...]
"""Trackers in tiers: all of the first are tried before any of the second (BEP 12)."""

_TRACKER: Final = re.compile(r"(?:https?|udp|quic)://\S+", re.IGNORECASE)
_WEB_SEED: Final = re.compile(r"https?://\S+", re.IGNORECASE)


def tracker_tiers(tiers: Iterable[Iterable[str]]) -> Tiers:
    """Keep the first 32 different addresses of trackers, and the tiers that still have one."""
    seen: set[str] = set()
    kept = []
    for tier in tiers:
        new = dict.fromkeys(url for url in tier if _is_url(_TRACKER, url) and url not in seen)
        taken = tuple(islice(new, TRACKERS_MAX - len(seen)))
        seen.update(taken)
        if taken:
            kept.append(taken)
        if len(seen) == TRACKERS_MAX:
            break
    return tuple(kept)


def web_seeds(urls: Iterable[str]) -> tuple[str, ...]:
    """Keep the first 32 different addresses of web seeds (BEP 19)."""
    return tuple(islice(dict.fromkeys(url for url in urls if _is_url(_WEB_SEED, url)), WEB_SEEDS_MAX))


def _is_url(pattern: re.Pattern[str], url: str) -> bool:
    return len(url) <= URL_LENGTH_MAX and pattern.fullmatch(url) is not None and printable(url) == url
