"""What holds a transfer back: the words for it, and the arithmetic by which one of them is found.

A transfer is a chain: the sender reads, hashes and sends, the network carries, the receiver hashes and writes.
Only the slowest part is busy all the time; all others wait for it. So each task says what it does or waits
for (`Timesheet`), and what took most of the last second is the bottleneck (`largest`). A receiver that mostly
waits for bytes cannot know why they do not come; the sender tells it once a second, with one of these words.

No IO here: clocks are passed in.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

Kind = TypeVar("Kind")

BUSY_SHARE_MIN: Final = 0.9  # of its time that an event loop works, before its processor is what limits it


class Bottleneck(enum.StrEnum):
    """What limits a transfer. The values stand in events and on the wire; docs/EVENTS.md says what to do."""

    CONGESTION_WINDOW = "congestion_window"
    FLOW_CONTROL = "flow_control"
    SENDER = "sender"  # which does not say what limits it
    SENDER_DISK = "sender_disk"
    SENDER_HASHING = "sender_hashing"
    SENDER_CPU = "sender_cpu"
    SENDER_RATE_CAP = "sender_rate_cap"
    RECEIVER_DISK = "receiver_disk"
    RECEIVER_HASHING = "receiver_hashing"
    RECEIVER_CPU = "receiver_cpu"
    RECEIVER_RATE_CAP = "receiver_rate_cap"
    PEER_BUSY = "peer_busy"
    TOO_FEW_SOURCES = "too_few_sources"

    @property
    def phrase(self) -> str:
        """What a transfer's line says after "limited by"."""
        return _PHRASES[self]


_PHRASES: Final = {
    Bottleneck.CONGESTION_WINDOW: "the network (congestion window)",
    Bottleneck.FLOW_CONTROL: "flow control",
    Bottleneck.SENDER: "the sender",
    Bottleneck.SENDER_DISK: "the sender's disk",
    Bottleneck.SENDER_HASHING: "the sender's hashing",
    Bottleneck.SENDER_CPU: "the sender's CPU",
    Bottleneck.SENDER_RATE_CAP: "the sender's rate cap",
    Bottleneck.RECEIVER_DISK: "the receiver's disk",
    Bottleneck.RECEIVER_HASHING: "the receiver's hashing",
    Bottleneck.RECEIVER_CPU: "the receiver's CPU",
    Bottleneck.RECEIVER_RATE_CAP: "the receiver's rate cap",
    Bottleneck.PEER_BUSY: "busy peers",
    Bottleneck.TOO_FEW_SOURCES: "too few sources",
}

_TOLD_BY_SENDERS: Final = frozenset(
    {
        Bottleneck.CONGESTION_WINDOW,
        Bottleneck.FLOW_CONTROL,
        Bottleneck.SENDER_DISK,
        Bottleneck.SENDER_HASHING,
        Bottleneck.SENDER_CPU,
        Bottleneck.SENDER_RATE_CAP,
    }
)


def told_by_sender(word: str) -> Bottleneck | None:
    """What a sender's word means; None for one that senders do not say, or that this version does not know."""
    return next((bottleneck for bottleneck in _TOLD_BY_SENDERS if bottleneck == word), None)


def largest(seconds: Mapping[Bottleneck, float]) -> Bottleneck | None:
    """What took most of the time; of equals the one that is defined first. None when nothing took any."""
    return max(
        (bottleneck for bottleneck in Bottleneck if seconds.get(bottleneck, 0.0) > 0),
        key=lambda bottleneck: seconds[bottleneck],
        default=None,
    )


def added(*parts: Mapping[Bottleneck, float]) -> dict[Bottleneck, float]:
    """The times of all parts together."""
    total: dict[Bottleneck, float] = {}
    for part in parts:
        for bottleneck, seconds in part.items():
            total[bottleneck] = total.get(bottleneck, 0.0) + seconds
    return total


def divided(seconds: float, parts: Mapping[Bottleneck, float]) -> dict[Bottleneck, float]:
    """Share out a time in proportion to `parts`; when all are 0, the first one gets it."""
    total = sum(parts.values())
    if total <= 0:
        return {next(iter(parts)): seconds}
    return {bottleneck: seconds * part / total for bottleneck, part in parts.items()}


class Lap:
    """How much a counter has grown since it was last asked."""

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self._last = read()

    def take(self) -> float:
        """The growth; the next one counts from here."""
        last, self._last = self._last, self._read()
        return self._last - last


class Timesheet(Generic[Kind]):
    """Where the time of several tasks goes: shared out by what they do, for as long as there are any.

    The seconds of all kinds, those of None (when there was no task) among them, add up to the time that passed.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.seconds: dict[Kind, float] = {}  # of all tasks together
        self._tasks: set[Task[Kind]] = set()
        self._taken_at = self._empty_since = clock()
        self._empty_s = 0.0

    @property
    def tasks(self) -> int:
        """How many there are now."""
        return len(self._tasks)

    @contextmanager
    def task(self, kind: Kind) -> Iterator[Task[Kind]]:
        """One more task, which does this until it says something else."""
        self._count_emptiness()
        task = Task(self, kind)
        self._tasks.add(task)
        try:
            yield task
        finally:
            task.count()
            self._tasks.remove(task)
            self._empty_since = self.clock()

    def take(self) -> dict[Kind | None, float]:
        """The seconds of each kind since they were last taken."""
        for task in self._tasks:
            task.count()
        self._count_emptiness()
        now = self.clock()
        seconds, self.seconds = self.seconds, {}
        empty_s, self._empty_s = self._empty_s, 0.0
        passed_s, self._taken_at = now - self._taken_at, now
        total_s = sum(seconds.values())
        share = (passed_s - empty_s) / total_s if total_s > 0 else 0.0
        return {None: empty_s} | {kind: share * task_s for kind, task_s in seconds.items()}

    def _count_emptiness(self) -> None:
        if not self._tasks:
            now = self.clock()
            self._empty_s += now - self._empty_since
            self._empty_since = now


class Task(Generic[Kind]):
    """One line of a `Timesheet`."""

    def __init__(self, sheet: Timesheet[Kind], kind: Kind) -> None:
        self._sheet = sheet
        self.kind = kind
        self._since = sheet.clock()

    @contextmanager
    def doing(self, kind: Kind) -> Iterator[None]:
        """Inside, the task does this; afterwards what it did before."""
        before = self.kind
        self.count()
        self.kind = kind
        try:
            yield
        finally:
            self.count()
            self.kind = before

    def count(self) -> None:
        """Note for what the time went since this was last done."""
        now = self._sheet.clock()
        seconds = self._sheet.seconds
        seconds[self.kind] = seconds.get(self.kind, 0.0) + now - self._since
        self._since = now
