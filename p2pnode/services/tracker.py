"""The tracker behind all its doors: one registry, one policy, one clock, whatever language an announce came in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field, replace
from enum import Enum
from random import Random

import trio

from p2pnode import config
from p2pnode.errors import Busy, Refused
from p2pnode.tracker.announces import Announce, AnnounceAnswer, AnnounceEvent, SwarmCounts
from p2pnode.tracker.memory_store import MemoryStore
from p2pnode.tracker.peer_store import PeerStore, StoreLimits
from p2pnode.tracker.policy import Admission, Haste, Pace, PaceLimits
from p2pnode.tracker.registry import Registry, RegistryLimits, place_of

__all__ = ["Language", "Tracker", "TrackerOptions"]


class Language(Enum):
    """What a front end speaks; the values are those of logs and metrics."""

    JSON = "json"
    HTTP = "http"
    UDP = "udp"


@dataclass(frozen=True, slots=True)
class TrackerOptions:
    """What the operator of a tracker decides. None for `passkeys` or `allowed`: anybody, or anything.

    `interval_s` is that of HTTP and UDP; over QUIC in JSON it is `TRACKER_JSON_INTERVAL_S`. `trust_claimed_hosts`: a
    peer is told at the host that it claims, for those who let nobody announce whom they do not know.
    """

    interval_s: int = config.TRACKER_INTERVAL_S
    passkeys: Set[str] | None = None
    allowed: Set[bytes] | None = None
    denied: Set[bytes] = frozenset()
    trust_claimed_hosts: bool = False
    limits: StoreLimits = field(default_factory=StoreLimits)
    pace: PaceLimits | None = field(default_factory=PaceLimits)  # None: as often as they like


class Tracker:
    """What every front end asks. Nothing here waits: an answer is there at once.

    `store` is where the peers are kept, by default this process's memory; `clock` gives seconds and never goes back.
    """

    def __init__(
        self,
        options: TrackerOptions | None = None,
        *,
        store: PeerStore | None = None,
        rng: Random | None = None,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self.options = options = options or TrackerOptions()
        self._admission = Admission(options.passkeys, options.allowed, options.denied)
        self._pace = None if options.pace is None else Pace(options.pace)
        self._registry = Registry(
            RegistryLimits(trust_claimed_hosts=options.trust_claimed_hosts),
            store or MemoryStore(options.limits, rng or Random()),
        )
        self._clock = clock
        self._announces = self._scrapes = self._refused = self._hasty = self._floods = 0

    def announce(self, announce: Announce, *, passkey: str | None, language: Language) -> AnnounceAnswer:
        """Take in what a peer says, and tell it of others.

        `Refused` with the text to show. Who announces far too often is told of nobody; if he goes on, it is `Busy`,
        which over UDP is best not answered at all. In JSON it never comes to that.
        """
        self._announces += 1
        try:
            self._admission.check_passkey(passkey)
            self._admission.check_torrent(announce.info_hash)
            now = self._clock()
            haste = self._haste(announce, now)
            if haste is Haste.FLOOD and language is not Language.JSON:
                self._floods += 1
                raise Busy("you announce too often", retry_after_s=float(self._interval_s(language)))
            if haste is not Haste.NONE:
                self._hasty += 1
                announce = replace(announce, numwant=0)
            return self._registry.announce(announce, now, self._interval_s(language))
        except Refused:
            self._refused += 1
            raise

    def scrape(
        self, info_hashes: Iterable[bytes], *, passkey: str | None, language: Language
    ) -> dict[bytes, SwarmCounts]:
        """How many peers these torrents have; those that are not tracked here are left out. `Refused` as above."""
        self._scrapes += 1
        self._admission.check_passkey(passkey)
        return {
            info_hash: self._registry.scrape(info_hash)
            for info_hash in info_hashes
            if self._admission.allows(info_hash)
        }

    async def run(self) -> None:
        """Forget whoever does not come back, until cancelled."""
        while True:
            wait_s = self.expire()
            await trio.sleep(wait_s)

    def expire(self) -> float:
        """Forget some of those who did not come back; gives after how many seconds to look again."""
        now = self._clock()
        self._registry.expire(now)
        deadline = self._registry.next_deadline()
        return config.TRACKER_EXPIRY_INTERVAL_S if deadline is None else max(0.0, deadline - now)

    @property
    def statistics(self) -> dict[str, int | float]:
        """What there is, and what was asked so far."""
        return self._registry.statistics | {
            "announces": self._announces,
            "scrapes": self._scrapes,
            "announces_refused": self._refused,
            "announces_hasty": self._hasty,
            "announces_flooding": self._floods,
        }

    def _haste(self, announce: Announce, now: float) -> Haste:
        if self._pace is None or announce.event is AnnounceEvent.STOPPED:
            return Haste.NONE
        place = place_of(announce.source[0])
        return self._pace.note(announce.info_hash, announce.peer_id, place.network if place else b"", now)

    def _interval_s(self, language: Language) -> int:
        return config.TRACKER_JSON_INTERVAL_S if language is Language.JSON else self.options.interval_s
