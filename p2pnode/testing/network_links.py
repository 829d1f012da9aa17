"""The way between two hosts of the simulated network: what it loses, delays, repeats, reorders and breaks."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from random import Random
from typing import Final

from p2pnode.testing.network_queues import Agenda, LinkCounters, Queue, Stage, Train

ETHERNET_MTU: Final = 1472  # what Ethernet's 1500 bytes leave for UDP over IPv4


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """How one direction between two hosts treats datagrams. Probabilities are 0 … 1, for each datagram.

    Jitter alone never reorders: a datagram arrives no earlier than the one before it. A reordered one is
    held back up to `reorder_delay_s` more while later ones overtake it.
    """

    delay_s: float = 0.01
    jitter_s: float = 0.0  # up to so much is added to the delay
    loss: float = 0.0
    loss_run_max: int | None = None  # at most so many lost by chance in a row
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_delay_s: float = 0.02
    corrupt: float = 0.0  # one bit is flipped
    rate_bytes_per_s: float | None = None  # None: unlimited
    queue_bytes: int = 256 * 1024  # waiting for the rate; what comes above it is lost
    mtu: int = ETHERNET_MTU  # bytes of UDP payload; larger datagrams vanish

    @property
    def keeps_trains(self) -> bool:
        """Whether datagrams that come together leave together."""
        return not (self.jitter_s or self.duplicate or self.reorder or self.corrupt)


class Link:
    """One direction between two hosts: its losses, the queue of its rate, its delays.

    Its chances are its own: what others carry changes none of them.
    """

    def __init__(self, agenda: Agenda, profile: LinkProfile, rng: Random) -> None:
        self.counters = LinkCounters()
        self._profile = profile
        self._losses = _Losses(profile, rng)
        self._queue = Queue(agenda)
        self._delays = _Delays(profile, rng)
        self.profile = profile

    @property
    def profile(self) -> LinkProfile:
        """How it treats datagrams from now on."""
        return self._profile

    @profile.setter
    def profile(self, profile: LinkProfile) -> None:
        self._profile = self._losses.profile = self._delays.profile = profile
        self._queue.change(profile.rate_bytes_per_s or inf, profile.queue_bytes)

    @property
    def queues(self) -> list[Queue]:
        """The queue of its rate, if it has one."""
        return [] if self._profile.rate_bytes_per_s is None else [self._queue]

    @property
    def stages(self) -> list[Stage]:
        """The way through it."""
        return [self._losses, *self.queues, self._delays]


class _Losses:
    """What is too large, and what chance takes."""

    def __init__(self, profile: LinkProfile, rng: Random) -> None:
        self.profile = profile
        self._rng = rng
        self._lost_in_a_row = 0

    def take(self, train: Train, first: float, last: float) -> None:
        """As `Stage` says."""
        profile = self.profile
        if profile.loss or max(map(len, train.datagrams)) > profile.mtu:
            kept = [data for data in train.datagrams if len(data) <= profile.mtu and not self._loses()]
            train.counters.lost += len(train.datagrams) - len(kept)
            if not kept:
                return
            train = train.with_only(kept)
        train.go_on(first, last)

    def _loses(self) -> bool:
        run_max = self.profile.loss_run_max
        lost = self._rng.random() < self.profile.loss and (run_max is None or self._lost_in_a_row < run_max)
        self._lost_in_a_row = self._lost_in_a_row + 1 if lost else 0
        return lost


class _Delays:
    """When, how often and in what shape datagrams arrive."""

    def __init__(self, profile: LinkProfile, rng: Random) -> None:
        self.profile = profile
        self._rng = rng
        self._last_arrival = -inf

    def take(self, train: Train, first: float, last: float) -> None:
        """As `Stage` says."""
        profile = self.profile
        if not profile.keeps_trains:
            for data in train.datagrams:
                self._take_single(train, data, last)
            return
        last = self._last_arrival = max(last + profile.delay_s, self._last_arrival)
        train.go_on(min(first + profile.delay_s, last), last)

    def _take_single(self, train: Train, data: bytes, now: float) -> None:
        copies = 1
        if self._rng.random() < self.profile.duplicate:
            train.counters.duplicated += 1
            copies = 2
        for _ in range(copies):
            arrival = self._arrival_time(now)
            carried = self._flip_bit(data) if self._rng.random() < self.profile.corrupt else data
            train.with_only([carried]).go_on(arrival, arrival)

    def _arrival_time(self, now: float) -> float:
        profile = self.profile
        time = max(now + profile.delay_s + self._rng.uniform(0.0, profile.jitter_s), self._last_arrival)
        if self._rng.random() < profile.reorder:
            return time + self._rng.uniform(0.0, profile.reorder_delay_s)
        self._last_arrival = time
        return time

    def _flip_bit(self, data: bytes) -> bytes:
        if not data:
            return data
        flipped = bytearray(data)
        flipped[self._rng.randrange(len(data))] ^= 1 << self._rng.randrange(8)
        return bytes(flipped)
