"""Whose pieces go out now: turns between links, order within one, and what the slow may cost others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pnode import config
from p2pnode.node.upload_turns import UploadTurns

MIB = config.MIB
LONGEST_S = config.UPLOAD_TURN_MAX_S + config.UPLOAD_TURN_CHECK_S


class Requests:
    """Requests for turns, each a task that sends its batches when it is let."""

    def __init__(self, nursery: trio.Nursery, at_once: int) -> None:
        self.turns = UploadTurns(at_once)
        self.nursery = nursery
        self.begun: list[str] = []
        self.sent: list[str] = []
        self.let_go: dict[str, trio.Event] = {}  # set: its batches leave
        self.scopes: dict[str, trio.CancelScope] = {}

    async def ask(
        self, name: str, link: str, *, priority: int = 0, batches: int = 1, size: int = MIB
    ) -> None:
        """Request something, and wait until that is in line."""
        self.let_go[name] = trio.Event()
        self.scopes[name] = trio.CancelScope()
        self.nursery.start_soon(self._request, name, link, priority, batches, size)
        await wait_all_tasks_blocked()

    async def finish(self, *names: str) -> None:
        for name in names:
            self.let_go[name].set()
            await wait_all_tasks_blocked()

    async def cancel(self, name: str) -> None:
        self.scopes[name].cancel()
        await wait_all_tasks_blocked()

    async def _request(self, name: str, link: str, priority: int, batches: int, size: int) -> None:
        with self.scopes[name], self.turns.place(link, priority) as place:
            for number in range(batches):
                await place.begin_turn(size)
                if not number:
                    self.begun.append(name)
                    await place.wait_in_line()
                self.sent.append(name)
                if number == batches - 1:
                    place.handed_over()
                await self.let_go[name].wait()
                place.end_turn()


@asynccontextmanager
async def requests(at_once: int) -> AsyncIterator[Requests]:
    async with trio.open_nursery() as nursery:
        made = Requests(nursery, at_once)
        nursery.start_soon(made.turns.run)
        yield made
        nursery.cancel_scope.cancel()


async def test_so_many_at_a_time_and_then_who_came_first(autojump_clock: MockClock) -> None:
    async with requests(2) as asked:
        for name in "abcd":
            await asked.ask(name, name)
        assert asked.sent == ["a", "b"]
        await asked.finish("b")
        assert asked.sent == ["a", "b", "c"]
        await asked.finish("a")
        assert asked.sent == ["a", "b", "c", "d"]


async def test_links_take_turns_batch_by_batch(autojump_clock: MockClock) -> None:
    async with requests(1) as asked:
        await asked.ask("first", "first")
        for name in "abc":
            await asked.ask(name, name, batches=3)
            asked.let_go[name].set()
        await asked.finish("first")
        assert asked.sent == ["first", *"abcabcabc"]


async def test_one_link_alone_is_read_ahead_and_sends_one_after_the_other(autojump_clock: MockClock) -> None:
    async with requests(8) as asked:
        for name in "abc":
            await asked.ask(name, "link")
        assert asked.begun == ["a", "b"]  # the next is read while the one before it leaves, and no more
        assert asked.sent == ["a"]
        await asked.finish("a")
        assert (asked.begun, asked.sent) == (["a", "b", "c"], ["a", "b"])


async def test_small_requests_of_a_link_are_read_together(autojump_clock: MockClock) -> None:
    async with requests(8) as asked:
        for name in "abcdef":
            await asked.ask(name, "link", size=MIB // 4)
        assert asked.begun == ["a", "b", "c", "d", "e"]  # a MiB beside the one that leaves
        assert asked.sent == ["a"]


async def test_a_link_gets_no_second_turn_while_another_waits_for_one(autojump_clock: MockClock) -> None:
    async with requests(2) as asked:
        await asked.ask("a", "one")
        await asked.ask("busy", "two")
        await asked.ask("b", "one")
        await asked.ask("c", "three")
        await asked.finish("busy")
        assert asked.sent == ["a", "busy", "c"]


async def test_the_more_urgent_requests_of_a_link_come_first(autojump_clock: MockClock) -> None:
    async with requests(8) as asked:
        await asked.ask("begun", "link", batches=2)
        for name, priority in {"low": -3, "usual": 0, "also": 0, "high": 5}.items():
            await asked.ask(name, "link", priority=priority)
        await asked.finish("begun", "high", "usual", "also", "low")
        assert asked.sent == ["begun", "begun", "high", "usual", "also", "low"]


async def test_Q13_who_takes_nothing_holds_up_others_no_longer_than_stated(autojump_clock: MockClock) -> None:
    async with requests(2) as asked:
        began = trio.current_time()
        for number in range(6):
            await asked.ask(f"dead {number}", f"dead {number}")
        await asked.ask("alive", "alive", batches=20)
        asked.let_go["alive"].set()
        while asked.sent.count("alive") < 20:  # noqa: ASYNC110 - the clock jumps
            await trio.sleep(0.01)
        assert trio.current_time() - began <= 3 * LONGEST_S + 0.02  # six, two at a time


async def test_Q13_requests_that_are_passed_take_no_turns_of_others(autojump_clock: MockClock) -> None:
    """A link that takes nothing, with many requests, is not given one turn after the other for them."""
    async with requests(1) as asked:
        for number in range(20):
            await asked.ask(f"dead {number}", "dead")
        await trio.sleep(LONGEST_S)
        began = trio.current_time()
        for number in range(100):
            await asked.ask(f"alive {number}", "alive")
            await asked.finish(f"alive {number}")
            assert asked.sent[-1] == f"alive {number}"  # at once
            await trio.sleep(0.29)
        assert trio.current_time() - began < 30
        assert 8 <= sum(name.startswith("dead") for name in asked.sent) <= 12  # but each gets its chance


async def test_nothing_is_read_beside_what_leaves_slowly(autojump_clock: MockClock) -> None:
    async with requests(8) as asked:
        await asked.ask("slow", "link")
        await asked.ask("other", "other")
        for name in "abcdefgh":  # somebody waits, so the clock is looked at
            await asked.ask(name, name)
        await trio.sleep(LONGEST_S)
        await asked.ask("next", "link")
        assert "next" not in asked.begun


async def test_a_request_that_takes_long_does_not_silence_the_next_of_its_link(
    autojump_clock: MockClock,
) -> None:
    async with requests(8) as asked:
        await asked.ask("slow", "link")
        await asked.ask("next", "link")
        await asked.ask("third", "link")
        await trio.sleep(config.UPLOAD_ORDER_PATIENCE_S - 0.1)
        assert asked.sent == ["slow"]
        await trio.sleep(0.2)
        assert asked.sent == ["slow", "next"]


@pytest.mark.parametrize("state", ["waiting", "read ahead", "sending"])
async def test_Q12_a_cancelled_request_frees_its_turn_and_its_place_at_once(
    autojump_clock: MockClock, state: str
) -> None:
    async with requests(2) as asked:
        await asked.ask("sending", "link")
        await asked.ask("read ahead", "link")
        await asked.ask("waiting", "link")
        await asked.ask("behind", "link")
        await asked.ask("other", "other")
        await asked.cancel(state)
        await asked.finish(*asked.let_go)
        await trio.lowlevel.checkpoint()
        assert asked.sent.count(state) == (state == "sending")
        assert set(asked.sent) | {state} == {"sending", "read ahead", "waiting", "behind", "other"}
        assert asked.turns._lines == {} and asked.turns._in_turn == set()
        assert asked.turns._counting == 0 and not asked.turns._idle and not asked.turns._more


async def test_Q12_a_flood_of_requests_cancelled_at_once_leaves_nothing_behind(
    autojump_clock: MockClock,
) -> None:
    async with requests(1) as asked:
        await asked.ask("long", "link")
        for number in range(200):
            await asked.ask(f"{number}", "link")
            await asked.cancel(f"{number}")
        assert asked.sent == ["long"]
        assert len(asked.turns._lines["link"].waiting) == 0
