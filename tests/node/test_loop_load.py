from __future__ import annotations

import time

import trio

from p2pnode.node.loop_load import LoopLoad, measured_loop


class Clock:
    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now


def test_only_waiting_is_not_work() -> None:
    clock = Clock()
    load = LoopLoad(clock)
    clock.now += 1
    load.before_io_wait(10.0)
    clock.now += 2
    load.after_io_wait(10.0)
    clock.now += 4
    load.before_io_wait(0.0)  # a look in passing
    clock.now += 8
    load.after_io_wait(0.0)
    assert load.busy_s() == 1 + 4 + 8


async def test_a_loop_that_works_is_told_from_one_that_waits() -> None:
    with measured_loop() as busy_s:
        await trio.sleep(0.2)
        waited_s = busy_s()
        until = time.perf_counter() + 0.2
        while time.perf_counter() < until:
            await trio.lowlevel.checkpoint()
        worked_s = busy_s() - waited_s
    assert worked_s > 0.15
    assert worked_s > 2 * waited_s
