"""Names the bottleneck of a fetch and of an upload, each second, from counters of our own.

The rules, in this order:

1. An event loop that worked nine tenths of the second limits every transfer in it: the CPU.
2. Time in which tasks store or read is the disk's or the hashing's, as their threads divided it.
3. Time in which tasks wait for their rate is the rate cap's.
4. A sender's time in which the connection takes nothing is divided as the connection says: congestion window,
   or flow control. Where all is sent and our own buffer is full of what is not acknowledged, that is the
   window as well.
5. A receiver's time of waiting for bytes belongs to what the source says of itself.
6. Time without any request is `PEER_BUSY` when somebody asked us to wait, `TOO_FEW_SOURCES` when nobody has more.

What has most of the second is the bottleneck.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import trio

from p2pnode.node.bottleneck import (
    BUSY_SHARE_MIN,
    Bottleneck,
    Lap,
    Task,
    Timesheet,
    added,
    divided,
    largest,
    told_by_sender,
)
from p2pnode.node.loop_load import BusySeconds
from p2pnode.quic import SendClock, SendLimit
from p2pnode.storage import WorkTimes


class Activity(enum.Enum):
    """What one request does at a moment."""

    WAITING = "a receiver waits for the source's bytes"
    STORING = "a receiver verifies and writes"
    READING = "a sender waits for what is read and verified ahead"
    SENDING = "a sender waits until the connection takes more"
    FINISHING = "a sender has handed over everything, and waits for the receiver's end"
    RATE_CAPPED = "a rate limit of ours makes it wait"


class _Loop:
    """Whether the event loop worked all the time."""

    def __init__(self, busy_s: BusySeconds) -> None:
        self._busy = Lap(busy_s)
        self._time = Lap(trio.current_time)

    def was_busy(self) -> bool:
        """Since it was last asked."""
        return self._busy.take() >= BUSY_SHARE_MIN * self._time.take()


class _Work:
    """What the threads of a store did."""

    def __init__(self, times: WorkTimes, disk: Bottleneck, hashing: Bottleneck) -> None:
        self._laps = {
            disk: Lap(lambda: times.disk.seconds),
            hashing: Lap(lambda: times.hashing.seconds),
        }
        self._parts = {disk: 0.0, hashing: 0.0}

    def divide(self, seconds: float) -> dict[Bottleneck, float]:
        """Share out the time of those who waited for the threads since it was last asked.

        Where no thread worked, the work that they wait for is thought to be like what was done before.
        """
        parts = {bottleneck: lap.take() for bottleneck, lap in self._laps.items()}
        if any(parts.values()):
            self._parts = parts
        return divided(seconds, self._parts)


class RequestTask:
    """One of our requests to a source: it waits for bytes, unless it says that it does something else."""

    def __init__(self, task: Task[tuple[Activity, bytes]]) -> None:
        self._task = task

    def doing(self, activity: Activity) -> AbstractContextManager[None]:
        """Inside, it does this."""
        _, source = self._task.kind
        return self._task.doing((activity, source))


class FetchDiagnosis:
    """What limits one fetch. `bottleneck` is that of the last second, None before the first one is over."""

    def __init__(self, times: WorkTimes, busy_s: BusySeconds) -> None:
        self._sheet: Timesheet[tuple[Activity, bytes]] = Timesheet(trio.current_time)
        self._loop = _Loop(busy_s)
        self._work = _Work(times, Bottleneck.RECEIVER_DISK, Bottleneck.RECEIVER_HASHING)
        self._told: dict[bytes, Bottleneck] = {}
        self.bottleneck: Bottleneck | None = None

    @contextmanager
    def request(self, source: bytes) -> Iterator[RequestTask]:
        """A request to this node is under way."""
        with self._sheet.task((Activity.WAITING, source)) as task:
            yield RequestTask(task)

    def source_told(self, source: bytes, word: str) -> None:
        """A source says what limits it; a word that means nothing here is ignored."""
        if (bottleneck := told_by_sender(word)) is not None:
            self._told[source] = bottleneck

    def source_left(self, source: bytes) -> None:
        """What it said no longer holds."""
        self._told.pop(source, None)

    def look(self, idle: Bottleneck | None) -> None:
        """Name what limited the time since the last look. `idle` is why there is no request, if there is none."""
        parts: list[Mapping[Bottleneck, float]] = []
        idle_s = stored_s = 0.0
        for kind, share_s in self._sheet.take().items():
            match kind:
                case None:
                    idle_s = share_s
                case (Activity.STORING, _):
                    stored_s += share_s
                case (Activity.RATE_CAPPED, _):
                    parts.append({Bottleneck.RECEIVER_RATE_CAP: share_s})
                case (_, source):
                    parts.append({self._told.get(source, Bottleneck.SENDER): share_s})
        working = added(*parts, self._work.divide(stored_s))
        if self._loop.was_busy():
            working = {Bottleneck.RECEIVER_CPU: sum(working.values())}
        self.bottleneck = largest(working if idle is None else added(working, {idle: idle_s}))


class UploadDiagnosis:
    """What limits what we send over one connection."""

    def __init__(self, times: WorkTimes, busy_s: BusySeconds, sending: SendClock) -> None:
        self._sheet: Timesheet[Activity] = Timesheet(trio.current_time)
        self._loop = _Loop(busy_s)
        self._work = _Work(times, Bottleneck.SENDER_DISK, Bottleneck.SENDER_HASHING)
        self._limits = {limit: Lap(partial(_seconds_so_far, sending, limit)) for limit in SendLimit}

    @property
    def requests(self) -> int:
        """How many are under way."""
        return self._sheet.tasks

    def request(self) -> AbstractContextManager[Task[Activity]]:
        """A request of theirs is under way; it waits for what is read ahead, unless it says something else."""
        return self._sheet.task(Activity.READING)

    def look(self) -> Bottleneck | None:
        """What limited the time since the last look; None when nothing was asked for, or all was sent."""
        taken = self._sheet.take()
        read = self._work.divide(taken.get(Activity.READING, 0.0))
        capped = {Bottleneck.SENDER_RATE_CAP: taken.get(Activity.RATE_CAPPED, 0.0)}
        sent = self._sent(taken.get(Activity.SENDING, 0.0), taken.get(Activity.FINISHING, 0.0))
        limits = added(read, capped, sent)
        if self._loop.was_busy():
            limits = {Bottleneck.SENDER_CPU: sum(limits.values())}
        return largest(limits)

    def _sent(self, sending_s: float, finishing_s: float) -> dict[Bottleneck, float]:
        """What the connection made wait for.

        Who has handed over everything waits for it only as long as not everything is sent; then for the receiver.
        """
        held_s = {limit: lap.take() for limit, lap in self._limits.items()}
        congested = {Bottleneck.CONGESTION_WINDOW: held_s[SendLimit.CONGESTION]}
        no_credit = {Bottleneck.FLOW_CONTROL: held_s[SendLimit.FLOW_CONTROL]}
        full = {Bottleneck.FLOW_CONTROL: held_s[SendLimit.APPLICATION]}  # of what is not acknowledged
        waited = divided(sending_s, added(congested, no_credit, full))
        if sum(held_s.values()) > 2 * held_s[SendLimit.APPLICATION]:
            return added(waited, divided(finishing_s, added(congested, no_credit)))
        return waited


def _seconds_so_far(sending: SendClock, limit: SendLimit) -> float:
    return sending.seconds(limit, trio.current_time())
