"""Who is asked for a metainfo, in which order, for how long, and when nobody is left to ask."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import ConnectFailed, NoSource
from p2pnode.node.metainfo_search import MetainfoSearch
from p2pnode.node.patience import Patience
from p2pnode.storage import hash_path
from p2pnode.torrent import Metainfo
from p2pnode.wire.communication import NodeItem
from tests.node.conftest import Swarm
from tests.node.hand_made import HandMadeNode, hand_made
from tests.node.test_hostile import Hostile, metainfo_without_end


def source(number: int) -> NodeItem:
    return NodeItem(bytes([number]) * 32, (), bytes(32))


class Sources:
    """Sources that hang, fail, or give the metainfo after a while; numbers below `hanging` hang."""

    def __init__(
        self, path: Path, count: int, *, hanging: int = 0, gives_after_s: float | None = None
    ) -> None:
        path.write_bytes(b"content")
        self.metainfo = hash_path(path)
        self.items = [source(number) for number in range(count)]
        self.hanging = {item.node_id for item in self.items[:hanging]}
        self.gives_after_s = gives_after_s
        self.asked: Counter[int] = Counter()
        self.at_once = self.at_once_max = 0

    async def find(self) -> list[NodeItem]:
        return self.items

    async def ask(self, item: NodeItem) -> Metainfo:
        self.asked[item.node_id[0]] += 1
        self.at_once += 1
        self.at_once_max = max(self.at_once, self.at_once_max)
        try:
            if item.node_id in self.hanging:
                await trio.sleep_forever()
            if self.gives_after_s is None:
                raise ConnectFailed("nobody answers")
            await trio.sleep(self.gives_after_s)
            return self.metainfo
        finally:
            self.at_once -= 1

    async def search(self, *, endless: bool = False) -> Metainfo:
        return await MetainfoSearch(self.find, self.ask, Patience(endless)).run("a.bin")


async def test_who_was_never_asked_gets_the_place_of_one_who_hangs(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    sources = Sources(tmp_path / "a", 10, hanging=9, gives_after_s=1)
    with trio.fail_after(4 * config.METAINFO_ALONE_S):
        assert await sources.search() is sources.metainfo
    assert sources.asked.total() == 10  # nobody twice before everybody once
    assert sources.at_once_max == config.METAINFO_AT_ONCE


async def test_a_lone_source_has_its_full_time(autojump_clock: MockClock, tmp_path: Path) -> None:
    sources = Sources(tmp_path / "a", 1, gives_after_s=config.METAINFO_TIMEOUT_S - 1)
    await sources.search()
    assert sources.asked.total() == 1


async def test_who_made_room_has_its_full_time_later(autojump_clock: MockClock, tmp_path: Path) -> None:
    sources = Sources(tmp_path / "a", 5, gives_after_s=config.METAINFO_TIMEOUT_S - 1)
    sources.hanging = {source(number).node_id for number in range(1, 5)}
    await sources.search(endless=True)
    assert sources.asked[0] == 2


async def test_sources_that_hang_are_no_source_in_the_end(autojump_clock: MockClock, tmp_path: Path) -> None:
    sources = Sources(tmp_path / "a", 5, hanging=5)
    with trio.fail_after(2 * config.METAINFO_TIMEOUT_S), pytest.raises(NoSource, match="takes too long"):
        await sources.search()


async def test_who_failed_is_asked_again_later_and_later(autojump_clock: MockClock, tmp_path: Path) -> None:
    sources = Sources(tmp_path / "a", 1)
    with pytest.raises(NoSource, match="nobody answers"):
        await sources.search()
    assert 3 <= sources.asked.total() <= 6


async def test_S7_tricklers_in_all_places_do_not_keep_an_honest_source_away(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    await swarm.start_server()
    hostile = Hostile(swarm)
    async with trio.open_nursery() as nursery:
        for number in range(2 * config.METAINFO_AT_ONCE):
            host = f"10.0.2.{number + 1}"
            node = await nursery.start(_run_trickler, swarm, host, hostile)
            await hostile.register(node)
        fetching = await swarm.start_peer()
        await hostile.start_honest()
        with trio.fail_after(config.METAINFO_TIMEOUT_S):
            await fetching.node.fetch(hostile.content.file_id, to=fetching.files_dir)
        assert (fetching.files_dir / "a.bin").read_bytes() == hostile.data
        nursery.cancel_scope.cancel()


async def _run_trickler(
    swarm: Swarm, host: str, hostile: Hostile, *, task_status: trio.TaskStatus[HandMadeNode]
) -> None:
    async with hand_made(swarm.network, host, metainfo_without_end(hostile)) as node:
        task_status.started(node)
        await trio.sleep_forever()
