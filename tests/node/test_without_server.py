"""The server dies in the middle, or was never there: what goes on, who joins, and what it knows when it is back."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.node.events import FetchCompleted
from p2pnode.node.references import Reference
from p2pnode.testing.network import HostProfile, LinkProfile
from p2pnode.torrent import Bitfield
from p2pnode.wire.communication import NodeItem
from tests.node.conftest import RecordingNetwork, Swarm, Watched, eventually, write_random
from tests.node.hand_made import Content

SIZE = 500_000
RATE = 125_000  # bytes a second, up and down, unless a test says otherwise


@dataclass
class Fetching:
    """Leechers of one file, which a seed has."""

    swarm: Swarm
    nursery: trio.Nursery
    content: Content
    seed: Watched
    leechers: list[Watched]
    completed: dict[str, FetchCompleted] = field(default_factory=dict)

    def tell(self, leecher: Watched, reference: Reference) -> None:
        self.nursery.start_soon(self._fetch, leecher, reference)

    async def _fetch(self, leecher: Watched, reference: Reference) -> None:
        completed = await leecher.node.fetch(reference, to=leecher.files_dir)
        assert completed.target.read_bytes() == self.content.data
        self.completed[leecher.files_dir.name] = completed

    async def wait_median(self, share: float) -> None:
        """Wait until the median leecher has this much."""
        metainfo = self.content.metainfo

        async def has_come() -> bool:
            have = [leecher.node.pieces(metainfo.file_id) for leecher in self.leechers]
            counts = [0 if pieces is None else len(pieces) for pieces in have]
            return statistics.median(counts) >= share * metainfo.piece_count

        await eventually(has_come, within_s=100)


def connect(swarm: Swarm, host: str, rate: float = RATE) -> None:
    swarm.network.set_host(host, HostProfile(up_bytes_per_s=rate, down_bytes_per_s=rate))


async def begin(swarm: Swarm, nursery: trio.Nursery, count: int, rate: float = RATE) -> Fetching:
    """All are registered, and told in one moment."""
    server = await swarm.start_server()
    seed = await swarm.start_peer()
    write_random(seed.files_dir / "a.bin", SIZE)
    shared = await seed.node.share(seed.files_dir / "a.bin")
    leechers = [await swarm.start_peer() for _ in range(count)]
    for watched in (seed, *leechers):
        connect(swarm, watched.node.listen_address[0], rate)

    async def is_listed() -> bool:
        return bool(await server.node.list_files())

    await eventually(is_listed)
    content = Content(shared.metainfo, (seed.files_dir / "a.bin").read_bytes())
    fetching = Fetching(swarm, nursery, content, seed, leechers)
    for leecher in leechers:
        fetching.tell(leecher, shared.file_id)
    return fetching


async def power_cut(swarm: Swarm, watched: Watched) -> None:
    """A node is gone without a word."""
    swarm.network.kill(watched.node.listen_address[0])
    await watched.stop()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
async def test_transfers_go_on_without_the_server_and_others_join_through_any_peer(
    autojump_clock: MockClock, swarm: Swarm, share: float
) -> None:
    async with trio.open_nursery() as nursery:
        fetching = await begin(swarm, nursery, 3)
        await fetching.wait_median(share)
        assert swarm.server is not None
        reference = swarm.reference()
        await power_cut(swarm, swarm.server)
        host = "10.0.3.1"
        connect(swarm, host)
        joiner = await swarm.start(host, server=reference)
        leecher = fetching.leechers[0]
        ticket = await leecher.node.ticket(fetching.content.file_id)
        assert [node.node_id for node in ticket.nodes] == [leecher.node.node_id]
        fetching.tell(joiner, ticket)
    assert len(fetching.completed) == 4
    sources = fetching.completed[host].sources
    assert leecher.node.node_id in sources
    assert len(sources) >= 2, "it drew from nodes that the one in the ticket told of"


async def test_who_joins_with_a_ticket_of_one_who_only_fetches_finds_the_seed_through_him(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with trio.open_nursery() as nursery:
        fetching = await begin(swarm, nursery, 1)
        await fetching.wait_median(0.1)
        assert swarm.server is not None
        await power_cut(swarm, swarm.server)
        joiner = await swarm.start("10.0.3.1")  # knows no server at all
        fetching.tell(joiner, await fetching.leechers[0].node.ticket(fetching.content.file_id))
    sources = fetching.completed["10.0.3.1"].sources
    assert fetching.seed.node.node_id in sources


# -- when it is back ---------------------------------------------------------------------------------------


def knowledge(server: Watched, file_ids: list[bytes]) -> Any:
    """All that a server knows of others."""
    registry = server.node._presence._registry
    peers = {
        report.node_id: (report.name, report.role, report.addresses, report.files)
        for report in registry.peers(trio.current_time())
        if report.node_id != server.node.node_id
    }
    sources: dict[bytes, dict[bytes, NodeItem]] = {
        file_id: {item.node_id: item for item in server.node._presence.known_sources(file_id, None)}
        for file_id in file_ids
    }
    return peers, sources, server.node._presence.all_files()


async def test_a_server_that_is_back_knows_what_it_knew(autojump_clock: MockClock, swarm: Swarm) -> None:
    state = swarm.root / "server_state"
    server = await swarm.start_server(state_dir=state)
    contents = []
    for name in ("a.bin", "b.bin"):
        write_random(swarm.root / "elsewhere" / name, SIZE)
        contents.append(Content.of(swarm.root / "elsewhere" / name))
    file_ids = [content.file_id for content in contents]
    count = contents[0].metainfo.piece_count
    sharing, fetching, other = [await swarm.start_peer() for _ in range(3)]
    client = await swarm.start_peer(role="client")
    await sharing.node.share(swarm.root / "elsewhere" / "a.bin")
    for number, peer in enumerate((fetching, other, client)):
        for content in contents:
            have = Bitfield(count).adding(5 * number, 8)
            peer.node._swarm_changed(content.metainfo, have, fetching=True)
    await trio.sleep(1)
    before = knowledge(server, file_ids)
    assert len(before[0]) == 4
    assert [len(sources) for sources in before[1].values()] == [4, 3]
    assert [item.name for item in before[2]] == ["a.bin"]
    await power_cut(swarm, server)
    await trio.sleep(60)
    fetching.node._swarm_changed(contents[0].metainfo, None, fetching=False)
    del before[1][file_ids[0]][fetching.node.node_id]
    again = await swarm.start_server(state_dir=state)
    assert again.node.node_id == server.node.node_id

    async def knows_all() -> bool:
        peers, sources, files = knowledge(again, file_ids)
        return (peers.keys(), sources) == (before[0].keys(), before[1]) and len(files) == len(before[2])

    await eventually(knows_all, within_s=config.RECONNECT_MAX_S + 2)


# -- how soon they find each other -------------------------------------------------------------------------


async def test_all_who_are_told_at_once_are_linked_to_all_in_a_moment(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """At 20 ms one way: found, linked to the seed, metainfo, announced, found, linked to all others."""
    async with (
        RecordingNetwork(seed=7, profile=LinkProfile(delay_s=0.02)) as network,
        trio.open_nursery() as nursery,
    ):
        fetching = await begin(Swarm(network, tmp_path, nursery), nursery, 16, rate=12_500_000)
        began = trio.current_time()
        nodes = [fetching.seed.node, *(leecher.node for leecher in fetching.leechers)]

        async def all_are_linked() -> bool:
            return all(
                node._link_service.links.best(other.node_id) is not None
                for node in nodes
                for other in nodes
                if node is not other
            )

        await eventually(all_are_linked)
        assert trio.current_time() - began <= 0.6
        nursery.cancel_scope.cancel()
