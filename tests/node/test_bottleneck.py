"""The arithmetic that finds a bottleneck."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.node.bottleneck import Bottleneck, Lap, Task, Timesheet, added, divided, largest, told_by_sender

DISK, HASHING = Bottleneck.SENDER_DISK, Bottleneck.SENDER_HASHING


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_largest_share_is_named() -> None:
    assert largest({DISK: 0.3, HASHING: 0.5}) is HASHING
    assert largest({HASHING: 0.4, DISK: 0.4}) is DISK
    assert largest({DISK: 0.0}) is None
    assert largest({}) is None


def test_times_are_divided_in_proportion() -> None:
    assert divided(8.0, {DISK: 1.0, HASHING: 3.0}) == {DISK: 2.0, HASHING: 6.0}
    assert divided(8.0, {DISK: 0.0, HASHING: 0.0}) == {DISK: 8.0}
    assert added({DISK: 1.0}, {HASHING: 2.0}, {DISK: 3.0}) == {DISK: 4.0, HASHING: 2.0}


def test_a_lap_is_the_growth_since_the_last() -> None:
    clock = Clock()
    lap = Lap(clock)
    clock.now += 2
    assert [lap.take(), lap.take()] == [2.0, 0.0]


def test_every_bottleneck_has_words_of_its_own() -> None:
    assert len({bottleneck.phrase for bottleneck in Bottleneck}) == len(Bottleneck)


@pytest.mark.parametrize(
    "word", ["", "receiver_disk", "sender", "peer_busy", "SENDER_DISK", "quux", "\x1b[31m"]
)
def test_words_that_a_sender_does_not_say_mean_nothing(word: str) -> None:
    assert told_by_sender(word) is None
    assert told_by_sender("sender_disk") is DISK


def test_time_is_shared_out_by_what_tasks_do() -> None:
    clock = Clock()
    sheet: Timesheet[str] = Timesheet(clock)
    clock.now += 1
    with sheet.task("read") as task:
        clock.now += 2
        with sheet.task("wait"):
            assert sheet.tasks == 2
            with task.doing("write"):
                clock.now += 6
        clock.now += 2
    clock.now += 5
    # of the ten seconds with tasks, these spent 4 reading, 6 waiting, 6 writing
    taken = sheet.take()
    assert taken == pytest.approx({None: 6.0, "read": 2.5, "wait": 3.75, "write": 3.75})
    assert sheet.take() == {None: 0.0}


def test_what_goes_on_is_counted_in_each_second() -> None:
    clock = Clock()
    sheet: Timesheet[str] = Timesheet(clock)
    with sheet.task("read"), sheet.task("wait") as task, task.doing("write"):
        sheet.take()
        for _ in range(3):
            clock.now += 1
            assert sheet.take() == {None: 0.0, "read": 0.5, "write": 0.5}


@given(st.lists(st.tuples(st.sampled_from(["begin", "end", "read", "write", "take"]), st.integers(1, 9))))
def test_no_second_is_lost_and_none_is_counted_twice(steps: list[tuple[str, int]]) -> None:
    clock = Clock()
    sheet: Timesheet[str] = Timesheet(clock)
    tasks: list[tuple[AbstractContextManager[Task[str]], Task[str]]] = []
    passed = counted = 0.0
    for step, seconds in steps:
        if step == "begin":
            manager = sheet.task("read")
            tasks.append((manager, manager.__enter__()))
        elif step == "end" and tasks:
            tasks.pop()[0].__exit__(None, None, None)
        elif step == "take":
            counted += sum(sheet.take().values())
        elif tasks:
            with tasks[-1][1].doing(step):
                clock.now += seconds
                passed += seconds
        clock.now += seconds
        passed += seconds
        assert sheet.tasks == len(tasks)
    assert counted + sum(sheet.take().values()) == pytest.approx(passed)
