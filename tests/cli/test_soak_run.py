"""The loop of a soak test, in virtual time, against clients that do what they are told."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import trio
from trio.testing import MockClock

from p2pnode.cli.soak_result import Download, Status
from p2pnode.cli.soak_run import Client, Plan, Soak
from p2pnode.errors import ConnectFailed
from p2pnode.testing.nodes import inline_blocking

CONTENT = b"what is fetched"
SIZES = {name: len(CONTENT) for name in ("a.txt", "b.txt", "c.txt")}


class Told:
    """Fetches as it is told for each number of a download, else well, in a second."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.asked_at: list[float] = []
        self.clients = 0
        self.at_once = 0
        self.at_once_max = 0
        self.acts: dict[int, Callable[[Path], None]] = {}
        self.seconds = 1.0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Client]:
        self.clients += 1
        yield self

    async def download(self, name: str, target: Path) -> None:
        self.asked.append(name)
        self.asked_at.append(trio.current_time())
        act = self.acts.get(len(self.asked), lambda path: (path.write_bytes(CONTENT), None)[1])
        self.at_once += 1
        self.at_once_max = max(self.at_once, self.at_once_max)
        try:
            await trio.sleep(self.seconds)
            act(target)
        finally:
            self.at_once -= 1


def refuse(_target: Path) -> None:
    raise ConnectFailed("nobody answers")


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    references = dict.fromkeys(SIZES, hashlib.sha256(CONTENT).hexdigest())
    return Plan(sizes=SIZES, references=references, directory=tmp_path, count=5)


async def run(plan: Plan, told: Told) -> list[Download]:
    open_client: Callable[[], AbstractAsyncContextManager[Client]] = told.open
    reported: list[Download] = []
    soak = Soak(plan, open_client, reported.append, Random(1), inline_blocking())
    await soak.run()
    assert plan.seconds is not None or soak.share_done == 1.0
    return reported


async def test_ends_after_so_many_and_leaves_nothing(
    plan: Plan, told: Told, autojump_clock: MockClock
) -> None:
    downloads = await run(plan, told)
    assert [download.iteration for download in downloads] == [1, 2, 3, 4, 5]
    assert {download.status for download in downloads} == {Status.OK}
    assert not [path for path in plan.directory.rglob("*") if path.is_file()]


async def test_once_takes_each_file_once_in_order(plan: Plan, told: Told, autojump_clock: MockClock) -> None:
    await run(replace(plan, once=True, count=None), told)
    assert told.asked == list(SIZES)


async def test_chance_picks_from_the_whole_set(plan: Plan, told: Told, autojump_clock: MockClock) -> None:
    await run(replace(plan, count=60), told)
    assert set(told.asked) == set(SIZES)


async def test_pauses_longer_after_a_retry(plan: Plan, told: Told, autojump_clock: MockClock) -> None:
    told.acts[2] = refuse
    downloads = await run(replace(plan, count=4), told)
    assert [download.status for download in downloads] == [Status.OK, Status.RETRY, Status.OK, Status.OK]
    starts = [at - told.asked_at[0] for at in told.asked_at]
    assert starts == pytest.approx([0, 3, 9, 12]), "a second each, then 2 s, after the retry 5 s"


async def test_ends_in_time(plan: Plan, told: Told, autojump_clock: MockClock) -> None:
    downloads = await run(replace(plan, count=None, seconds=10.0), told)
    assert len(downloads) == 4, "at 0, 3, 6 and 9 s; the last is finished, not cut"


async def test_clients_download_at_once_and_none_twice(
    plan: Plan, told: Told, autojump_clock: MockClock
) -> None:
    downloads = await run(replace(plan, count=40, clients=8), told)
    assert (told.clients, told.at_once_max) == (8, 8)
    assert sorted(download.iteration for download in downloads) == list(range(1, 41))


async def test_who_says_nothing_for_too_long_is_tried_again(
    plan: Plan, told: Told, autojump_clock: MockClock
) -> None:
    told.seconds = 1e6
    (download,) = await run(replace(plan, count=1), told)
    assert download.status is Status.RETRY
    assert "not done within" in download.reason


async def test_wrong_bytes_are_reported_and_do_not_stay(
    plan: Plan, told: Told, autojump_clock: MockClock
) -> None:
    told.acts[1] = lambda path: (path.write_bytes(b"other bytes"), None)[1]
    downloads = await run(replace(plan, count=3, sizes={"a.txt": len(CONTENT)}), told)
    assert [download.status for download in downloads] == [Status.FAIL, Status.OK, Status.OK]
