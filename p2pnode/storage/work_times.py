"""How long the threads of a store worked, and on what: the disk, or hashing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType


class Stopwatch:
    """Counts the seconds that threads spend inside it, those who are still inside included."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._inside = 0
        self._seconds = 0.0
        self._counted_to = clock()

    def __enter__(self) -> None:
        with self._lock:
            self._count()
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._count()
            self._inside -= 1

    @property
    def seconds(self) -> float:
        """Of all threads together, up to now."""
        with self._lock:
            self._count()
            return self._seconds

    def _count(self) -> None:
        now = self._clock()
        self._seconds += self._inside * (now - self._counted_to)
        self._counted_to = now


class WorkTimes:
    """Where the time of a store's threads goes."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.disk = Stopwatch(clock)
        self.hashing = Stopwatch(clock)
