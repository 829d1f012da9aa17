from __future__ import annotations

import threading

import pytest

from p2pnode.storage.work_times import Stopwatch


class Clock:
    def __init__(self) -> None:
        self.now = 7.0

    def __call__(self) -> float:
        return self.now


def test_each_thread_inside_counts_also_while_it_is_there() -> None:
    clock = Clock()
    watch = Stopwatch(clock)
    clock.now += 1
    with watch:
        clock.now += 2
        assert watch.seconds == 2
        with watch:
            clock.now += 4
            assert watch.seconds == 2 + 2 * 4
    clock.now += 8
    assert watch.seconds == 10


def test_a_failure_ends_the_counting() -> None:
    clock = Clock()
    watch = Stopwatch(clock)
    with pytest.raises(OSError, match="full"), watch:
        raise OSError("full")
    clock.now += 1
    assert watch.seconds == 0


def test_many_threads_lose_nothing() -> None:
    watch = Stopwatch(Clock())

    def enter_often() -> None:
        for _ in range(2_000):
            with watch:
                pass

    threads = [threading.Thread(target=enter_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with watch:
        watch._clock.now += 1  # type: ignore[attr-defined]
    assert watch.seconds == 1
