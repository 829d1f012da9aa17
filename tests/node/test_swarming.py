"""Many fetch one file from each other: whole nodes that come, go, lie and return."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.node.events import FetchCompleted, FetchStarted, FileUnshared, NodeBanned
from p2pnode.storage import FileStore
from p2pnode.testing.disks import Lie, LyingDisk
from p2pnode.testing.network import HostProfile
from p2pnode.torrent import Bitfield
from p2pnode.torrent.merkle import block_hashes
from tests.node.conftest import SERVER, Swarm, Watched, write_random
from tests.node.hand_made import Content
from tests.node.test_transfers import listed

PIECE = 16 * 1024
SIZE = 128 * PIECE
SEED = "10.0.1.1"
RATE = 1_000_000.0  # bytes a second that every peer sends and receives


async def seeded(swarm: Swarm, size: int = SIZE) -> tuple[Watched, Content]:
    """A server, and one peer that has the whole file."""
    await swarm.start_server()
    write_random(swarm.root / SEED / "a.bin", size)
    seed = await start(swarm)
    await listed(swarm, "a.bin")
    return seed, Content.of(seed.files_dir / "a.bin")


async def start(swarm: Swarm, **options: object) -> Watched:
    """The next peer, on a link like everybody's."""
    peer = await swarm.start_peer(**options)
    swarm.network.set_host(peer.node.listen_address[0], HostProfile(RATE, RATE))
    return peer


def pieces(peer: Watched, content: Content) -> Bitfield:
    """What a peer has of it."""
    return peer.node.pieces(content.file_id) or Bitfield(content.metainfo.piece_count)


async def until_share(peer: Watched, content: Content, share: float) -> None:
    """Wait until a peer has so much of it."""
    while len(pieces(peer, content)) < share * content.metainfo.piece_count:  # noqa: ASYNC110
        await trio.sleep(0.01)


class Race:
    """Peers that fetch the same file."""

    def __init__(self, nursery: trio.Nursery, content: Content) -> None:
        self.completed: list[FetchCompleted] = []
        self._nursery = nursery
        self._content = content

    def fetch(self, *peers: Watched) -> None:
        for peer in peers:
            self._nursery.start_soon(self._fetch, peer)

    async def _fetch(self, peer: Watched) -> None:
        done = await peer.node.fetch(self._content.file_id, to=peer.files_dir)
        assert done.target.read_bytes() == self._content.data
        self.completed.append(done)


def duplicate_share(peers: Sequence[Watched]) -> float:
    return sum(peer.node.statistics["duplicate_bytes"] for peer in peers) / (len(peers) * SIZE)


async def test_leechers_give_each_other_what_they_have(autojump_clock: MockClock, swarm: Swarm) -> None:
    seed, content = await seeded(swarm)
    leechers = [await start(swarm) for _ in range(4)]
    began_at = trio.current_time()
    async with trio.open_nursery() as nursery:
        race = Race(nursery, content)
        race.fetch(*leechers)
    assert len(race.completed) == 4
    for done in race.completed:
        assert done.bytes_fetched == SIZE
        assert len(done.sources) >= 3
    from_seed = sum(done.sources.get(seed.node.node_id, 0) for done in race.completed)
    assert from_seed < 2.5 * SIZE  # alone it would have given four, in four times as long
    assert trio.current_time() - began_at < 3 * SIZE / RATE
    assert duplicate_share(leechers) <= 0.02


async def test_one_who_joins_late_gets_it_from_all(autojump_clock: MockClock, swarm: Swarm) -> None:
    _, content = await seeded(swarm)
    leechers = [await start(swarm) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        race = Race(nursery, content)
        race.fetch(*leechers[:2])
        await until_share(leechers[0], content, 0.9)
        race.fetch(leechers[2])
    assert len(race.completed) == 3
    assert len(race.completed[-1].sources) == 3


async def test_a_seed_may_go_as_soon_as_the_leechers_have_all_of_it_together(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    seed, content = await seeded(swarm)
    swarm.network.set_host(
        SEED, HostProfile(4 * RATE, RATE)
    )  # so that none of them has it when all together do
    leechers = [await start(swarm) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        race = Race(nursery, content)
        race.fetch(*leechers)
        union = Bitfield(content.metainfo.piece_count)
        while not union.is_complete:
            await trio.sleep(0.01)
            for leecher in leechers:
                union |= pieces(leecher, content)
        assert not any(pieces(leecher, content).is_complete for leecher in leechers)
        swarm.network.kill(SEED)
    assert len(race.completed) == 3
    await seed.stop()


@pytest.mark.parametrize("away_s", [1, 10])
async def test_a_source_that_withdrew_it_and_shares_it_again_is_asked_again(
    autojump_clock: MockClock, swarm: Swarm, away_s: float
) -> None:
    seed, content = await seeded(swarm)
    leecher = await start(swarm)
    shared, aside = seed.files_dir / "a.bin", swarm.root / "aside.bin"
    async with trio.open_nursery() as nursery:
        race = Race(nursery, content)
        race.fetch(leecher)
        await until_share(leecher, content, 0.3)
        shared.rename(aside)
        await seed.wait_for(FileUnshared)
        await trio.sleep(away_s)
        assert not race.completed
        aside.rename(shared)
    assert len(race.completed) == 1


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
async def test_the_server_may_go(autojump_clock: MockClock, swarm: Swarm, share: float) -> None:
    _, content = await seeded(swarm)
    leechers = [await start(swarm) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        race = Race(nursery, content)
        race.fetch(*leechers)
        await until_share(leechers[0], content, share)
        swarm.network.kill(SERVER)
    assert len(race.completed) == 3


async def test_a_fetch_that_was_paused_goes_on_where_it_was(autojump_clock: MockClock, swarm: Swarm) -> None:
    _, content = await seeded(swarm)
    paused, other = [await start(swarm) for _ in range(2)]
    async with trio.open_nursery() as nursery:
        race = Race(nursery, content)
        race.fetch(other)
        with trio.CancelScope() as pause:
            nursery.start_soon(cancel_at_share, pause, paused, content, 0.4)
            await paused.node.fetch(content.file_id, to=paused.files_dir)
        assert pause.cancelled_caught
        await trio.sleep(0.3)
        race.fetch(paused)
    resumed = paused.all(FetchStarted)[1].bytes_resumed
    done = next(done for done in race.completed if done.target.parent == paused.files_dir)
    assert resumed >= 0.4 * SIZE
    assert done.bytes_fetched == SIZE - resumed
    assert len(race.completed) == 2


async def cancel_at_share(scope: trio.CancelScope, peer: Watched, content: Content, share: float) -> None:
    await until_share(peer, content, share)
    scope.cancel()


async def test_one_who_dies_and_returns_goes_on_where_it_was(autojump_clock: MockClock, swarm: Swarm) -> None:
    _, content = await seeded(swarm)
    dying, other = [await start(swarm) for _ in range(2)]
    async with trio.open_nursery() as nursery:
        race = Race(nursery, content)
        race.fetch(other)
        with trio.CancelScope() as death:
            nursery.start_soon(cancel_at_share, death, dying, content, 0.4)
            await dying.node.fetch(content.file_id, to=dying.files_dir)
        swarm.network.kill(dying.node.listen_address[0])
        await dying.stop()
        returned = await start(swarm, files_dir=dying.files_dir)
        race.fetch(returned)
    assert len(race.completed) == 2
    assert (await returned.wait_for(FetchStarted)).bytes_resumed >= 0.4 * SIZE


def put(content: Content, target: Path, wanted: range) -> None:
    """What an earlier fetch left there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    store = FileStore.download(content.metainfo, target)
    for piece in wanted:
        data = content.data[piece * PIECE : (piece + 1) * PIECE]
        store.begin_piece(piece, block_hashes(data))
        store.write_blocks(piece, 0, data)
    store.close()


async def test_partial_sources_that_have_all_of_it_together_are_enough(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    await swarm.start_server()
    write_random(swarm.root / "original" / "a.bin", SIZE)
    content = Content.of(swarm.root / "original" / "a.bin")
    for number, wanted in enumerate((range(50), range(40, 90), range(80, 128)), start=1):
        put(content, swarm.root / f"10.0.1.{number}" / "a.bin", wanted)
    leechers = [await start(swarm) for _ in range(4)]  # the last one has nothing
    async with trio.open_nursery() as nursery:
        for leecher in leechers:
            nursery.start_soon(fetch_metainfo_known, leecher, content)
    assert duplicate_share(leechers) <= 0.02


async def fetch_metainfo_known(peer: Watched, content: Content) -> None:
    done = await peer.node.fetch(content.metainfo, to=peer.files_dir)
    assert done.target.read_bytes() == content.data


async def test_a_last_piece_of_one_byte_is_fetched_like_all(autojump_clock: MockClock, swarm: Swarm) -> None:
    _, content = await seeded(swarm, 20 * PIECE + 1)
    leechers = [await start(swarm) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        race = Race(nursery, content)
        race.fetch(*leechers)
    assert [done.bytes_fetched for done in race.completed] == 3 * [20 * PIECE + 1]


@pytest.mark.parametrize("lie", Lie)
@pytest.mark.parametrize("liars", [1, 3, 7])
async def test_S7_liars_among_the_sources_are_banned_after_two_pieces(
    autojump_clock: MockClock, swarm: Swarm, liars: int, lie: Lie
) -> None:
    _, content = await seeded(swarm)
    lying = []
    for number in range(2, 9):
        write_random(swarm.root / f"10.0.1.{number}" / "a.bin", SIZE)
        disk = {"run_blocking": LyingDisk(lie).run_blocking} if number - 2 < liars else {}
        source = await start(swarm, **disk)
        if disk:
            lying.append(source.node.node_id)
    await listed(swarm, "a.bin", sources=8)
    leecher = await start(swarm)
    done = await leecher.node.fetch(content.file_id, to=leecher.files_dir)
    assert done.target.read_bytes() == content.data
    assert done.bytes_fetched == SIZE
    banned = {event.node_id for event in leecher.all(NodeBanned)}
    assert banned <= set(lying) and (banned or liars < 7)
    assert leecher.node.statistics["nodes_banned"] == len(banned)


async def test_a_banned_node_gets_no_link_any_more(autojump_clock: MockClock, swarm: Swarm) -> None:
    await swarm.start_server()
    write_random(swarm.root / SEED / "a.bin", SIZE)
    liar = await start(swarm, run_blocking=LyingDisk(Lie.BLOCKS).run_blocking)
    await listed(swarm, "a.bin")
    content = Content.of(liar.files_dir / "a.bin")
    leecher = await start(swarm)
    async with trio.open_nursery() as nursery:

        async def fetch_from_liar() -> None:
            await leecher.node.fetch(content.file_id, to=leecher.files_dir)

        nursery.start_soon(fetch_from_liar)
        assert (await leecher.wait_for(NodeBanned)).node_id == liar.node.node_id
        nursery.cancel_scope.cancel()
    links = leecher.node.statistics["links"]
    write_random(leecher.files_dir / "b.bin", PIECE)
    await leecher.node.share(leecher.files_dir / "b.bin")
    await listed(swarm, "b.bin")
    with suppress(Exception), trio.move_on_after(10):
        await liar.node.fetch("b.bin", to=liar.files_dir)
    assert not (liar.files_dir / "b.bin").exists()
    assert leecher.node.statistics["links"] == links


async def test_in_order_the_first_pieces_come_first(autojump_clock: MockClock, swarm: Swarm) -> None:
    _, content = await seeded(swarm)
    leecher = await start(swarm)
    async with trio.open_nursery() as nursery:

        async def fetch() -> None:
            await leecher.node.fetch(content.file_id, to=leecher.files_dir, sequential=True)

        nursery.start_soon(fetch)
        await until_share(leecher, content, 0.5)
        have = pieces(leecher, content)
        (first, count), *rest = have.ranges()
        assert first == 0
        assert count >= 0.8 * len(have)
        assert sum(length for _, length in rest) <= config.REQUESTS_PER_SOURCE * config.REQUEST_BYTES / PIECE
