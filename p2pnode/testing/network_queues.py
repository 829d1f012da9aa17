"""What the simulated network is made of, below addresses: events in order, trains of datagrams, queues.

Datagrams of one burst travel as a *train*, a unit for queues and events, so that most of the work is done once
for many of them. They are handed over together, when the last one is there. That one is on time to the last
digit; so that the others are hardly late, a train is bounded: by `TRAIN_DATAGRAMS_MAX`, and by `TRAIN_S` of the
slowest queue on its way. Below 10 Mbit/s each datagram travels alone.

Nothing here knows of trio: time is what callers say.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

from p2pnode.quic import Address

TRAIN_DATAGRAMS_MAX: Final = 16  # just below 2 ms of 100 Mbit/s in full datagrams
TRAIN_S: Final = 0.002  # what senders pace out at once, whatever the rate

QUEUE_BYTES_MIN: Final = 256 * 1024
QUEUE_S: Final = 0.1  # a queue of the usual size holds so much of its rate


class Agenda:
    """What will happen when, in order; at equal times what was entered first. `now` is never ahead of time."""

    def __init__(self) -> None:
        self.now = -inf  # the time of what happens at present
        self._events: list[tuple[float, int, Callable[[Train, float], None], Train]] = []
        self._entered = 0

    @property
    def next_time(self) -> float:
        """When the next thing happens; `inf` if nothing will."""
        return self._events[0][0] if self._events else inf

    def enter(self, time: float, action: Callable[[Train, float], None], train: Train) -> None:
        """Have `action(train, time)` called at a time that is not past."""
        self._entered += 1
        heapq.heappush(self._events, (time, self._entered, action, train))

    def run_until(self, now: float) -> None:
        """Let everything happen that is due."""
        events = self._events
        while events and events[0][0] <= now:
            time, _, action, train = heapq.heappop(events)
            self.now = time
            action(train, time)
        self.now = now


@dataclass(slots=True)
class LinkCounters:
    """What a link did so far. `sent + duplicated = delivered + lost +` what is on its way.

    Lost is all that did not come to a socket, also what other queues on the way dropped.
    """

    sent: int = 0
    duplicated: int = 0
    delivered: int = 0
    lost: int = 0
    bytes_sent: int = 0
    bytes_delivered: int = 0


class Stage(Protocol):
    """A part of the way from one socket to another."""

    def take(self, train: Train, first: float, last: float) -> None:
        """Take a train whose first and last datagram will be here, whole, at these times."""
        ...


@dataclass(slots=True, eq=False)
class Train:
    """Datagrams, at least one, that travel together from one address to another through `stages`."""

    datagrams: list[bytes]
    size: int  # bytes
    source: Address
    destination: Address
    counters: LinkCounters
    stages: Sequence[Stage]
    stage: int = -1  # where it is

    def go_on(self, first: float, last: float) -> None:
        """On to the next stage."""
        self.stage += 1
        self.stages[self.stage].take(self, first, last)

    def with_only(self, datagrams: list[bytes]) -> Train:
        """Another one in the same place."""
        size = sum(map(len, datagrams))
        return Train(
            datagrams, size, self.source, self.destination, self.counters, self.stages, stage=self.stage
        )

    def cut(self, size_max: float) -> tuple[int, int]:
        """Drop the datagrams at its end that are beyond so many bytes: how many, and of how many bytes."""
        dropped = dropped_bytes = 0
        while self.size > size_max and self.datagrams:
            size = len(self.datagrams.pop())
            self.size -= size
            dropped, dropped_bytes = dropped + 1, dropped_bytes + size
        self.counters.lost += dropped
        return dropped, dropped_bytes


@dataclass(slots=True)
class QueueCounters:
    """What went through a queue so far: `in = out + dropped +` what waits. Bytes are those of UDP payload."""

    datagrams_in: int = 0
    datagrams_out: int = 0  # begun to be sent on
    datagrams_dropped: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    bytes_dropped: int = 0


class Queue:
    """First in, first out at a rate in bytes a second; what finds no room is dropped. `inf`: no rate, no queue.

    A train is passed on when its sending begins, and a change of the rate is for all that has not begun.
    """

    def __init__(self, agenda: Agenda, rate: float = inf, size_max: int | None = None) -> None:
        self.counters = QueueCounters()
        self._agenda = agenda
        self._waiting: deque[Train] = deque()
        self._waiting_bytes = 0
        self._busy_until = -inf
        self._busy_rate = inf  # of what is being sent
        self._set(rate, size_max)

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self._rate

    def change(self, rate: float, size_max: int | None = None) -> None:
        """From now on be of this rate and size; by default of the usual size for the rate."""
        self._set(rate, size_max)
        if rate == inf:
            while self._waiting:
                self._begin(self._next(), max(self._agenda.now, self._busy_until))

    def _set(self, rate: float, size_max: int | None) -> None:
        if rate <= 0:
            raise ValueError(f"a rate must be above 0, not {rate}")
        self._rate = rate
        self._size_max = max(QUEUE_BYTES_MIN, rate * QUEUE_S) if size_max is None else size_max

    def clear(self) -> None:
        """Drop all that waits."""
        while self._waiting:
            train = self._next()
            self._count_dropped(*train.cut(0))

    def take(self, train: Train, first: float, last: float) -> None:
        """As `Stage` says. It is served from the time on from which it is served without a gap."""
        if self._rate == inf and self._busy_until <= self._agenda.now:
            self._count_in(train)
            self._count_out(train)
            train.go_on(first, last)
            return
        time = max(first, last - (train.size - len(train.datagrams[-1])) / self._rate)
        if time <= self._agenda.now:
            self._arrive(train, self._agenda.now)
        else:
            self._agenda.enter(time, self._arrive, train)

    def _arrive(self, train: Train, now: float) -> None:
        self._count_in(train)
        is_busy = now < self._busy_until
        queued = self._waiting_bytes + ((self._busy_until - now) * self._busy_rate if is_busy else 0)
        if train.size + queued > self._size_max:
            self._count_dropped(*train.cut(self._size_max - queued))
            if not train.datagrams:
                return
        if not self._waiting:
            if not is_busy:
                self._begin(train, now)
                return
            self._agenda.enter(self._busy_until, self._serve, train)
        self._waiting.append(train)
        self._waiting_bytes += train.size

    def _serve(self, train: Train, now: float) -> None:
        """It is the turn of `train`, unless that was cleared away."""
        if self._waiting and self._waiting[0] is train:
            self._begin(self._next(), now)
            if self._waiting:
                self._agenda.enter(self._busy_until, self._serve, self._waiting[0])

    def _next(self) -> Train:
        train = self._waiting.popleft()
        self._waiting_bytes -= train.size
        return train

    def _begin(self, train: Train, now: float) -> None:
        self._count_out(train)
        self._busy_rate = self._rate
        self._busy_until = now + train.size / self._rate
        train.go_on(now + len(train.datagrams[0]) / self._rate, self._busy_until)

    def _count_in(self, train: Train) -> None:
        self.counters.datagrams_in += len(train.datagrams)
        self.counters.bytes_in += train.size

    def _count_out(self, train: Train) -> None:
        self.counters.datagrams_out += len(train.datagrams)
        self.counters.bytes_out += train.size

    def _count_dropped(self, datagrams: int, size: int) -> None:
        self.counters.datagrams_dropped += datagrams
        self.counters.bytes_dropped += size
