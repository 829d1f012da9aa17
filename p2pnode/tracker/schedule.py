"""When to announce one torrent, and to which of its trackers (BEP 12).

Trackers come in tiers. An announce goes to the first tracker of the first tier, to the next one when it fails, and to
the next tier when all of a tier failed; who answers moves to the front of its tier. One thing is added to BEP 12: while
we fetch, a tracker that knows nobody does not keep us from asking the next tier.

A tracker that answered is asked again after the interval that it names, one that failed after a time that doubles, with
chance in it so that those who lost it together do not come back together. When all are dead the transfer goes on with
the peers it knows: nothing here ever takes a peer back.

Pure: `receive` events, carry out `commands`, come back at `next_deadline`. Each announce that a command asks for is
followed by one event that tells how it went.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from math import inf
from random import Random
from typing import Final

from p2pnode import config
from p2pnode.errors import LocalProtocolError
from p2pnode.torrent.urls import tracker_tiers
from p2pnode.tracker.announces import AnnounceEvent

__all__ = [
    "AnnounceFailed",
    "AnnounceSucceeded",
    "DeadlinePassed",
    "PeersNeeded",
    "Schedule",
    "ScheduleEvent",
    "SendAnnounce",
    "TrackerState",
    "TrackerStatus",
    "TransferCompleted",
    "TransferStopped",
]

_DOUBLINGS_MAX: Final = 16  # of the time after a failure: by then it has long been the longest


@dataclass(frozen=True, slots=True)
class AnnounceSucceeded:
    """A tracker answered. Intervals in seconds, as it wrote them: any integer; None where it names no minimum."""

    url: str
    interval_s: int
    interval_min_s: int | None
    peer_count: int


@dataclass(frozen=True, slots=True)
class AnnounceFailed:
    """A tracker refused, could not be reached or understood, or did not answer in time; `reason` is one line."""

    url: str
    reason: str


@dataclass(frozen=True, slots=True)
class PeersNeeded:
    """The transfer has nobody left: ask as soon as the trackers allow, until one of them gives a peer."""


@dataclass(frozen=True, slots=True)
class TransferCompleted:
    """We have everything now."""


@dataclass(frozen=True, slots=True)
class TransferStopped:
    """We leave: who knows us is told, once. The announce that was under way is given up before this is said."""


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """It is `next_deadline`, or later."""


ScheduleEvent = (
    AnnounceSucceeded | AnnounceFailed | PeersNeeded | TransferCompleted | TransferStopped | DeadlinePassed
)


@dataclass(frozen=True, slots=True)
class SendAnnounce:
    """Announce to this tracker, now."""

    url: str
    event: AnnounceEvent


class TrackerState(Enum):
    """How a tracker is doing."""

    UNTRIED = "not asked yet"
    ASKED = "being asked"
    WORKING = "working"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class TrackerStatus:
    """A tracker as people are shown it. `failures` are those in a row, `reason` is that of the last one."""

    url: str
    tier: int
    state: TrackerState
    failures: int
    reason: str


class _Phase(Enum):
    WAITING = auto()  # for the deadline
    ASKING = auto()  # one tracker, in a round through the tiers
    STOPPED = auto()  # for good; who is told of it is told at once


_MOVES: Final = {
    _Phase.WAITING: {_Phase.ASKING, _Phase.STOPPED},
    _Phase.ASKING: {_Phase.WAITING, _Phase.STOPPED},
    _Phase.STOPPED: set(),
}


class _Known(Enum):
    """As what a tracker knows us."""

    NOT = auto()
    LEECH = auto()
    SEED = auto()


@dataclass(slots=True)
class _Tracker:
    url: str
    known: _Known = _Known.NOT
    state: TrackerState = TrackerState.UNTRIED
    failures: int = 0
    reason: str = ""
    not_before: float = -inf  # when it may be asked again
    due: float = inf  # when it wants to hear of us again, if it answered

    def event_for(self, *, is_complete: bool) -> AnnounceEvent:
        """What the next announce is to tell: who has everything when it starts does not complete (BEP 3)."""
        if self.known is _Known.NOT:
            return AnnounceEvent.STARTED
        if self.known is _Known.LEECH and is_complete:
            return AnnounceEvent.COMPLETED
        return AnnounceEvent.NONE


class Schedule:
    """The announces of one torrent, from the first to the last.

    Of `tiers`, the first `TRACKERS_MAX` addresses of a scheme that we speak are used. `is_complete` is whether we have
    everything from the start.
    """

    def __init__(self, tiers: Iterable[Iterable[str]], *, rng: Random, is_complete: bool = False) -> None:
        self._tiers = [[_Tracker(url) for url in tier] for tier in tracker_tiers(tiers)]
        for tier in self._tiers:
            rng.shuffle(tier)
        self._rng = rng
        self._is_complete = is_complete
        self._is_starving = False
        self._phase = _Phase.WAITING
        self._round_at = -inf if self._tiers else inf
        self._to_ask: list[list[_Tracker]] = []  # the rest of this round, tier by tier
        self._asked: dict[str, _Known] = {}  # and as what they know us if they answer
        self._completion_untold = False
        self._commands: list[SendAnnounce] = []

    @property
    def trackers(self) -> tuple[TrackerStatus, ...]:
        """All of them, in the order in which they are asked."""
        return tuple(
            TrackerStatus(tracker.url, number, tracker.state, tracker.failures, tracker.reason)
            for number, tier in enumerate(self._tiers)
            for tracker in tier
        )

    def next_deadline(self) -> float | None:
        """When to announce next; None while one is under way, and when there is nothing more to announce."""
        is_awaited = self._phase is _Phase.WAITING and self._round_at < inf
        return self._round_at if is_awaited else None

    def commands(self) -> Iterator[SendAnnounce]:
        """Drain what is to be done."""
        commands, self._commands = self._commands, []
        return iter(commands)

    def receive(self, event: ScheduleEvent, now: float) -> None:
        """Take in what happened; an answer that nobody waits for changes nothing."""
        match event:
            case AnnounceSucceeded(url) if url in self._asked:
                self._succeeded(event, now)
            case AnnounceFailed(url) if url in self._asked:
                self._failed(event, now)
            case PeersNeeded():
                self._is_starving = True
                self._plan()
            case TransferCompleted() if not self._is_complete:
                self._is_complete = self._completion_untold = True
                self._is_starving = False
                self._plan()
            case TransferStopped() if self._phase is not _Phase.STOPPED:
                self._stop()
        if self._phase is _Phase.WAITING and now >= self._round_at:
            self._begin_round(now)

    # -- rounds through the tiers --------------------------------------------------------------------------

    def _begin_round(self, now: float) -> None:
        """Ask who may be asked. That we completed is news that does not wait, but only for who knows us."""
        may_ask = self._owes_completion if self._completion_untold else partial(_allows, now=now)
        self._completion_untold = False
        self._to_ask = [list(filter(may_ask, tier)) for tier in self._tiers]
        self._ask_next()

    def _owes_completion(self, tracker: _Tracker) -> bool:
        return tracker.known is _Known.LEECH and tracker.state is TrackerState.WORKING

    def _ask_next(self) -> None:
        while self._to_ask and not self._to_ask[0]:
            self._to_ask.pop(0)
        if self._to_ask:
            tracker = self._to_ask[0].pop(0)
            self._enter(_Phase.ASKING)
            self._ask(tracker, tracker.event_for(is_complete=self._is_complete))
        else:
            self._enter(_Phase.WAITING)
            self._plan()

    def _ask(self, tracker: _Tracker, event: AnnounceEvent) -> None:
        tracker.state = TrackerState.ASKED
        self._asked[tracker.url] = _Known.SEED if self._is_complete else _Known.LEECH
        self._commands.append(SendAnnounce(tracker.url, event))

    def _plan(self) -> None:
        """Set the time of the next round: when a tracker wants to hear of us, or when the first may be asked."""
        trackers = self._every_tracker()
        due = min((tracker.due for tracker in trackers), default=inf)
        if self._completion_untold:
            self._round_at = -inf
        elif due < inf and not self._is_starving:
            self._round_at = due
        else:
            self._round_at = min((tracker.not_before for tracker in trackers), default=inf)

    def _every_tracker(self) -> list[_Tracker]:
        return [tracker for tier in self._tiers for tracker in tier]

    # -- answers -------------------------------------------------------------------------------------------

    def _succeeded(self, answer: AnnounceSucceeded, now: float) -> None:
        tier, tracker = self._find(answer.url)
        tracker.state = TrackerState.WORKING
        tracker.known = self._asked.pop(answer.url)
        tracker.failures, tracker.reason = 0, ""
        earliest_s = _clamp(
            config.ANNOUNCE_EARLIEST_S if answer.interval_min_s is None else answer.interval_min_s
        )
        interval_s = _clamp(answer.interval_s)
        tracker.not_before = now + min(earliest_s, interval_s)
        tracker.due = now + interval_s
        if self._phase is _Phase.STOPPED:
            return
        tier.remove(tracker)
        tier.insert(0, tracker)
        if answer.peer_count:
            self._is_starving = False
        if answer.peer_count or self._is_complete:
            self._leave_those_behind(tracker)
            self._to_ask.clear()
        else:
            self._to_ask.pop(0)  # those of one tier know the same (BEP 12)
        self._ask_next()

    def _leave_those_behind(self, tracker: _Tracker) -> None:
        """We have no further use for the trackers that stand after this one."""
        trackers = self._every_tracker()
        for other in trackers[trackers.index(tracker) + 1 :]:
            other.due = inf

    def _failed(self, failure: AnnounceFailed, now: float) -> None:
        _, tracker = self._find(failure.url)
        del self._asked[failure.url]
        tracker.state = TrackerState.FAILING
        tracker.reason = failure.reason
        tracker.failures += 1
        wait_s = config.ANNOUNCE_RETRY_MIN_S * 2 ** min(tracker.failures - 1, _DOUBLINGS_MAX)
        tracker.not_before = now + min(wait_s, config.ANNOUNCE_RETRY_MAX_S) * self._rng.uniform(0.5, 1.0)
        tracker.due = inf
        if self._phase is not _Phase.STOPPED:
            self._ask_next()

    def _find(self, url: str) -> tuple[list[_Tracker], _Tracker]:
        return next((tier, tracker) for tier in self._tiers for tracker in tier if tracker.url == url)

    # -- the end -------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Tell those who know us, or are just being told of us; not those who did not answer the last time."""
        given_up = set(self._asked)
        self._asked.clear()
        self._to_ask.clear()
        self._enter(_Phase.STOPPED)
        for tracker in self._every_tracker():
            may_know_us = tracker.known is not _Known.NOT or tracker.url in given_up
            if may_know_us and not tracker.failures:
                self._ask(tracker, AnnounceEvent.STOPPED)
            elif tracker.url in given_up:
                tracker.state = TrackerState.FAILING

    def _enter(self, phase: _Phase) -> None:
        if phase is not self._phase:
            if phase not in _MOVES[self._phase]:
                raise LocalProtocolError(f"from {self._phase.name} to {phase.name}")
            self._phase = phase


def _allows(tracker: _Tracker, now: float) -> bool:
    return now >= tracker.not_before


def _clamp(interval_s: float) -> float:
    return max(config.TRACKER_INTERVAL_MIN_S, min(interval_s, config.TRACKER_INTERVAL_MAX_S))
