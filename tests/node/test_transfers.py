"""Files move between whole nodes: from any to any, over bad networks, past dying and lying sources."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import MockClock

from p2pnode.errors import NotFound, Refused
from p2pnode.node.events import FetchProgress, FileShared
from p2pnode.testing.network import LinkProfile
from tests.node.conftest import Swarm, eventually, write_random

pytestmark = pytest.mark.usefixtures("both_ways")

MIB = 1024 * 1024


async def listed(swarm: Swarm, name: str, sources: int = 1) -> None:
    """Wait until the server lists a file with so many sources."""
    assert swarm.server is not None
    server = swarm.server.node

    async def is_listed() -> bool:
        return any(item.name == name and item.sources >= sources for item in await server.list_files(name))

    await eventually(is_listed)


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 100_000, 3 * MIB + 17])
async def test_a_peer_fetches_from_a_peer_by_name(autojump_clock: MockClock, swarm: Swarm, size: int) -> None:
    await swarm.start_server()
    data = write_random(swarm.root / "10.0.1.1" / "a.bin", size)
    await swarm.start_peer()
    fetching = await swarm.start_peer()
    await listed(swarm, "a.bin")
    done = await fetching.node.fetch("a.bin", to=fetching.files_dir)
    assert (fetching.files_dir / "a.bin").read_bytes() == data
    assert done.bytes_fetched == size
    assert sorted(path.name for path in fetching.files_dir.iterdir()) == ["a.bin"]


async def test_a_peer_fetches_from_the_server_and_the_server_from_a_peer(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The same request, once over a link that the requester dialed, once over one that it accepted."""
    server = await swarm.start_server()
    from_server = write_random(server.files_dir / "s.bin", 300_000)
    from_peer = write_random(swarm.root / "10.0.1.1" / "p.bin", 300_000)
    peer = await swarm.start_peer()
    await listed(swarm, "p.bin")
    await listed(swarm, "s.bin")
    await peer.node.fetch("s.bin", to=peer.files_dir)
    await server.node.fetch("p.bin", to=server.files_dir)
    assert (peer.files_dir / "s.bin").read_bytes() == from_server
    assert (server.files_dir / "p.bin").read_bytes() == from_peer


async def test_a_directory_is_fetched_as_one_tree(autojump_clock: MockClock, swarm: Swarm) -> None:
    await swarm.start_server()
    source = swarm.root / "10.0.1.1" / "tree"
    files = {"a.txt": 10, "empty": 0, "sub/b.bin": 70_000, "sub/deep/c.bin": 16384}
    contents = {name: write_random(source / name, size) for name, size in files.items()}
    await swarm.start_peer()
    fetching = await swarm.start_peer()
    await listed(swarm, "tree")
    await fetching.node.fetch("tree", to=fetching.files_dir)
    for name, data in contents.items():
        assert (fetching.files_dir / "tree" / name).read_bytes() == data


async def test_what_was_fetched_is_offered_in_turn(autojump_clock: MockClock, swarm: Swarm) -> None:
    await swarm.start_server()
    write_random(swarm.root / "10.0.1.1" / "a.bin", 100_000)
    await swarm.start_peer()
    fetching = await swarm.start_peer()
    await listed(swarm, "a.bin")
    await fetching.node.fetch("a.bin", to=fetching.files_dir)
    await listed(swarm, "a.bin", sources=2)
    assert len(fetching.all(FileShared)) == 1


BAD_NETWORKS = {
    "loss": LinkProfile(delay_s=0.02, loss=0.3),
    "reordering": LinkProfile(delay_s=0.02, reorder=0.3, reorder_delay_s=0.05),
    "duplication": LinkProfile(delay_s=0.02, duplicate=0.5),
    "long_round_trip": LinkProfile(delay_s=0.75),
}


@pytest.mark.parametrize("fault", BAD_NETWORKS)
async def test_a_file_crosses_a_bad_network(autojump_clock: MockClock, swarm: Swarm, fault: str) -> None:
    await swarm.start_server()
    data = write_random(swarm.root / "10.0.1.1" / "a.bin", 1 * MIB)
    await swarm.start_peer()
    fetching = await swarm.start_peer()
    await listed(swarm, "a.bin")
    swarm.network.set_profile("10.0.1.1", "10.0.1.2", BAD_NETWORKS[fault])
    swarm.network.set_profile("10.0.1.2", "10.0.1.1", BAD_NETWORKS[fault])
    done = await fetching.node.fetch("a.bin", to=fetching.files_dir)
    assert done.target.read_bytes() == data


async def test_everything_at_once_is_survived_by_reconnecting_and_resuming(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    worst = LinkProfile(delay_s=0.75, loss=0.3, reorder=0.2, reorder_delay_s=0.3, duplicate=0.2)
    await swarm.start_server()
    data = write_random(swarm.root / "10.0.1.1" / "a.bin", 128 * 1024)  # hardly 1 kB/s gets through
    await swarm.start_peer()
    fetching = await swarm.start_peer()
    await listed(swarm, "a.bin")
    swarm.network.set_profile("10.0.1.1", "10.0.1.2", worst)
    swarm.network.set_profile("10.0.1.2", "10.0.1.1", worst)
    done = await fetching.node.fetch("a.bin", to=fetching.files_dir, wait=True)
    assert done.target.read_bytes() == data
    assert done.bytes_fetched == len(data)


async def test_a_server_lists_what_one_peer_offers(autojump_clock: MockClock, swarm: Swarm) -> None:
    server = await swarm.start_server()
    write_random(server.files_dir / "of-server.bin", 10)
    write_random(swarm.root / "10.0.1.1" / "of-peer.bin", 10)
    peer = await swarm.start_peer()
    await listed(swarm, "of-peer.bin")
    await listed(swarm, "of-server.bin")
    for reference in (peer.node.node_id.hex()[:12], "10.0.1.1"):
        assert [item.name for item in await server.node.list_files(peer=reference)] == ["of-peer.bin"]
    with pytest.raises(NotFound, match="no peer 'nobody'"):
        await server.node.list_files(peer="nobody")


async def test_only_an_operator_lists_a_peer_through_the_server(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    await swarm.start_server()
    write_random(swarm.root / "10.0.1.1" / "of-peer.bin", 10)
    await swarm.start_peer()
    other = await swarm.start_peer()
    await listed(swarm, "of-peer.bin")
    with pytest.raises(Refused, match="operator"):
        await other.node.list_files(peer="10.0.1.1")


async def test_a_node_tells_which_pieces_are_here(swarm: Swarm, autojump_clock: MockClock) -> None:
    await swarm.start_server()
    giver, taker = await swarm.start_peer(), await swarm.start_peer()
    write_random(swarm.root / "model.bin", 5_000_000)
    shared = await giver.node.share(swarm.root / "model.bin")
    assert taker.node.pieces(shared.file_id) is None
    swarm.network.set_profile("10.0.1.1", "10.0.1.2", LinkProfile(rate_bytes_per_s=1e6))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(taker.node.fetch, shared.metainfo, to=taker.files_dir))
        await taker.wait_for(FetchProgress, 12)
        here = taker.node.pieces(shared.file_id)
        assert here is not None
        assert 0 < len(here) < shared.metainfo.piece_count
    complete = taker.node.pieces(shared.file_id)
    assert complete is not None
    assert complete.is_complete
