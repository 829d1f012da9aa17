"""Who asked for a torrent a moment ago, and so is about to fetch it.

When a whole fleet is told to fetch at the same time, its nodes find each other by this before the first of them
knows what it is going to fetch. It is a hint, forgotten soon and bounded: who fetches announces it.
"""

from __future__ import annotations

from collections.abc import Iterator

from p2pnode import config

__all__ = ["RecentAskers"]


class RecentAskers:
    """For each of the torrents that were asked for last, who asked last."""

    def __init__(self) -> None:
        self._by_file: dict[bytes, dict[bytes, float]] = {}  # file id → node id → when; the latest last

    def note(self, file_id: bytes, node_id: bytes, now: float) -> None:
        """It asks now."""
        askers = self._by_file.pop(file_id, {})
        askers.pop(node_id, None)
        askers[node_id] = now
        if len(askers) > config.RECENT_ASKERS_MAX:
            del askers[next(iter(askers))]
        self._by_file[file_id] = askers
        if len(self._by_file) > config.SEARCHES_MAX:
            del self._by_file[next(iter(self._by_file))]

    def recent(self, file_id: bytes, now: float) -> Iterator[bytes]:
        """Who asked within `RECENT_ASKER_S`, the latest first."""
        for node_id, when in reversed(self._by_file.get(file_id, {}).items()):
            if now - when > config.RECENT_ASKER_S:
                return
            yield node_id
