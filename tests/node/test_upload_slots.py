"""Upload slots between whole nodes: who has none is asked to come back, and gets one in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import Random

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import Busy, ConfigError
from p2pnode.node.rate_limits import RateLimits
from p2pnode.node.upload_slots import UploadSlots
from p2pnode.swarm.choker import OPTIMISTIC_ROUNDS, RECHOKE_INTERVAL_S
from p2pnode.wire.communication import Error, ErrorCode, FileRequest, FileResponse
from tests.node.conftest import SERVER, Swarm, write_random
from tests.node.hand_made import Content, ask, hand_made

OPTIMISTIC_S = OPTIMISTIC_ROUNDS * RECHOKE_INTERVAL_S


def is_served(slots: UploadSlots, node_id: bytes) -> bool:
    try:
        with slots.serving(node_id):
            slots.count(node_id, 1000)
            return True
    except Busy as busy:
        assert 0 < busy.retry_after_s <= RECHOKE_INTERVAL_S
        return False


async def test_without_a_number_of_slots_everybody_is_served(autojump_clock: MockClock) -> None:
    slots = UploadSlots(None, Random(1), lambda: None)
    assert all(is_served(slots, bytes([number])) for number in range(100))


async def test_everybody_who_comes_back_as_told_is_served_in_time(autojump_clock: MockClock) -> None:
    slots = UploadSlots(2, Random(1), lambda: None)
    served: Counter[bytes] = Counter()

    async def come_again(node_id: bytes) -> None:
        while True:
            try:
                with slots.serving(node_id):
                    served[node_id] += 1
                    await trio.sleep(1)
            except Busy as busy:
                await trio.sleep(busy.retry_after_s)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.run)
        for number in range(9):
            nursery.start_soon(come_again, bytes([number]))
        await trio.sleep(9 * OPTIMISTIC_S)
        nursery.cancel_scope.cancel()
    assert len(served) == 9
    assert min(served.values()) >= RECHOKE_INTERVAL_S / 2


async def test_who_gives_to_us_while_we_fetch_has_the_slot(autojump_clock: MockClock) -> None:
    given: dict[bytes, int] = {}
    ours: list[Mapping[bytes, int] | None] = [given]
    slots = UploadSlots(1, Random(1), lambda: ours[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.run)
        for _ in range(20):
            given[b"c"] = given.get(b"c", 0) + 1_000_000
            for node_id in (b"a", b"b", b"c"):
                is_served(slots, node_id)
            await trio.sleep(RECHOKE_INTERVAL_S / 2)
        for _ in range(8):
            given[b"c"] += 1_000_000
            assert is_served(slots, b"c")
            await trio.sleep(RECHOKE_INTERVAL_S / 2)
        ours[0] = None  # complete: what it gave is no merit any more
        turns: Counter[bytes] = Counter()
        for _ in range(40):
            turns.update(node_id for node_id in (b"a", b"b", b"c") if is_served(slots, node_id))
            await trio.sleep(RECHOKE_INTERVAL_S)
        assert min(turns[node_id] for node_id in (b"a", b"b", b"c")) > 5
        nursery.cancel_scope.cancel()


async def test_a_slot_is_free_again_when_its_node_asks_no_more_and_nothing_is_kept_of_it(
    autojump_clock: MockClock,
) -> None:
    slots = UploadSlots(1, Random(1), lambda: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.run)
        assert is_served(slots, b"a") and not is_served(slots, b"b")
        until = trio.current_time() + config.UPLOAD_INTEREST_LASTS_S + 2 * RECHOKE_INTERVAL_S
        while trio.current_time() < until:
            is_served(slots, b"b")
            await trio.sleep(1)
        assert is_served(slots, b"b") and slots._unchoked == {b"b"}
        until = trio.current_time() + config.UPLOAD_REMEMBERED_S
        while trio.current_time() < until:
            is_served(slots, b"b")
            await trio.sleep(10)
        assert slots._asked_at.keys() == {b"b"} == slots._choker._served  # type: ignore[union-attr]
        nursery.cancel_scope.cancel()


async def test_a_node_with_one_slot_answers_the_others_busy_until_the_next_rechoke(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server(limits=RateLimits(upload_slots=1))
    write_random(server.files_dir / "a.bin", 100_000)
    content = Content.of(server.files_dir / "a.bin")
    await server.node.share(server.files_dir / "a.bin")
    request = FileRequest(content.file_id, ((0, 1),))
    async with hand_made(swarm.network, "10.0.2.1") as one, hand_made(swarm.network, "10.0.2.2") as two:
        first, second = await one.dial((SERVER, 4433)), await two.dial((SERVER, 4433))
        assert isinstance(await ask(first, request), FileResponse)
        answer = await ask(second, request)
        assert isinstance(answer, Error) and answer.code == ErrorCode.BUSY and answer.retryable
        assert 0 < answer.retry_after_s <= RECHOKE_INTERVAL_S
        assert isinstance(await ask(second, FileRequest(content.file_id, metainfo=True)), FileResponse)
        await trio.sleep(answer.retry_after_s)
        assert isinstance(await ask(second, request), FileResponse)  # as the optimistic one


async def test_fetches_of_several_end_though_one_slot_is_all_there_is(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server(limits=RateLimits(upload_slots=1))
    data = write_random(server.files_dir / "a.bin", 300_000)
    await server.node.share(server.files_dir / "a.bin")
    peers = [await swarm.start_peer() for _ in range(4)]
    async with trio.open_nursery() as nursery:
        for peer in peers:
            nursery.start_soon(lambda peer=peer: peer.node.fetch("a.bin", to=peer.files_dir))
    assert all((peer.files_dir / "a.bin").read_bytes() == data for peer in peers)


def test_no_slot_at_all_is_no_setting() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        RateLimits(upload_slots=0)
