"""What every front end was asked: counters for `/stats` and `/metrics`, and a line for each request.

The line is a record of the logger `p2pnode.requests`, level INFO, whose `extra` has `language`, `kind`, `peer`,
`seconds` and `outcome`. Whoever wants it formatted adds a handler; while nobody does, a request costs a count.
A flood must not become a flood of lines: beyond `REQUEST_LINES_PER_S_MAX` in one second only the counters go on,
and a line says how many were left out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from p2pnode import config
from p2pnode.tracker.addresses import Address

__all__ = ["LOGGER", "RequestKey", "RequestLog", "Tally"]

LOGGER: Final = logging.getLogger("p2pnode.requests")


class RequestKey(NamedTuple):
    """What is counted together. All three are words of ours, never of a remote: there are few of them."""

    language: str  # "json", "http/1.1", "http/2", "http/3", "udp"
    kind: str  # "announce", "scrape", "file", "query", …
    outcome: str  # "ok", or an error's code or status


@dataclass(slots=True)
class Tally:
    """So many requests, and how long they took in all."""

    count: int = 0
    seconds: float = 0.0


class RequestLog:
    """One for all front ends of a process; `note` is synchronous and may be called 10,000 times a second."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._tallies: dict[RequestKey, Tally] = {}
        self._second = 0  # the one that `_lines` counts in
        self._lines = 0
        self._left_out = 0

    @property
    def tallies(self) -> Mapping[RequestKey, Tally]:
        """All requests so far; a view that goes on counting."""
        return MappingProxyType(self._tallies)

    def note(self, language: str, kind: str, peer: Address, seconds: float, outcome: str) -> None:
        """One request was answered, or given up; `seconds` from its last byte to the answer's last."""
        key = RequestKey(language, kind, outcome)
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = Tally()
        tally.count += 1
        tally.seconds += seconds
        if LOGGER.isEnabledFor(logging.INFO) and self._has_room():
            self._write(key, peer, seconds)

    def _has_room(self) -> bool:
        second = int(self._now())
        if second != self._second:
            if self._left_out:
                LOGGER.info(
                    "%d more requests, not listed", self._left_out, extra={"left_out": self._left_out}
                )
            self._second, self._lines, self._left_out = second, 0, 0
        if self._lines >= config.REQUEST_LINES_PER_S_MAX:
            self._left_out += 1
            return False
        self._lines += 1
        return True

    @staticmethod
    def _write(key: RequestKey, peer: Address, seconds: float) -> None:
        where = f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"
        LOGGER.info(
            "%s %s from %s: %s in %.1f ms",
            key.language,
            key.kind,
            where,
            key.outcome,
            seconds * 1000,
            extra={**key._asdict(), "peer": where, "seconds": round(seconds, 6)},
        )
