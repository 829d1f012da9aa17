"""How busy the event loop is: the part of the time in which it does not wait for anything.

Everything that a node does between disk and network runs in one loop. When that never waits, its processor is
what limits all transfers, whatever they themselves seem to wait for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

BusySeconds = Callable[[], float]
"""Seconds that the loop has worked so far, on the clock of `trio.current_time`."""


class LoopLoad(trio.abc.Instrument):
    """Counts how long the loop it is added to waits."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = clock()
        self._waited_s = 0.0
        self._waits_since: float | None = None

    def busy_s(self) -> float:
        """Seconds since the start in which the loop worked, or was not given a processor."""
        return self._clock() - self._began - self._waited_s

    def before_io_wait(self, timeout: float) -> None:
        """The loop looks for news; with a timeout it has nothing else to do."""
        self._waits_since = self._clock() if timeout > 0 else None

    def after_io_wait(self, timeout: float) -> None:
        """The loop goes on."""
        if self._waits_since is not None:
            self._waited_s += self._clock() - self._waits_since
            self._waits_since = None


@contextmanager
def measured_loop() -> Iterator[BusySeconds]:
    """Inside, this tells how long the running loop has worked."""
    load = LoopLoad()
    trio.lowlevel.add_instrument(load)
    try:
        yield load.busy_s
    finally:
        trio.lowlevel.remove_instrument(load)
