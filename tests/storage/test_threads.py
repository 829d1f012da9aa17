from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from p2pnode.storage.threads import in_threads


def test_results_come_in_order_with_their_tasks() -> None:
    assert list(in_threads(lambda task: task * 2, range(100), threads=4)) == [(i, 2 * i) for i in range(100)]
    assert list(in_threads(lambda task: task, [])) == []


def test_several_threads_are_at_work() -> None:
    barrier = threading.Barrier(3)
    assert len(list(in_threads(lambda _: barrier.wait(10), range(6), threads=3))) == 6


def test_tasks_are_drawn_only_a_few_ahead() -> None:
    drawn = 0

    def tasks() -> Iterator[int]:
        nonlocal drawn
        for task in range(1000):
            drawn += 1
            yield task

    results = in_threads(lambda task: task, tasks(), threads=2)
    next(results)
    assert drawn == 4
    results.close()


def test_the_first_error_ends_it() -> None:
    begun = []

    def work(task: int) -> int:
        begun.append(task)
        if task == 3:
            raise OSError("broken")
        return task

    results = in_threads(work, range(1000), threads=2)
    with pytest.raises(OSError, match="broken"):
        for _ in results:
            pass
    assert max(begun) < 10


def test_closing_it_waits_for_what_has_begun() -> None:
    release = threading.Event()
    ended = []

    def work(task: int) -> None:
        if task:
            release.wait(10)
        ended.append(task)

    results = in_threads(work, range(1000), threads=2)
    next(results)
    release.set()
    results.close()
    assert len(ended) < 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("p2pnode-hash")]
