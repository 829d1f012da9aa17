"""From reference to file: what is here already, what somebody else fetches now, what stands in the way."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import AlreadyInProgress, NetworkError, NoSource, NotFound, StorageError, TargetExists
from p2pnode.node.events import FetchCompleted, FetchFailed, FetchStarted, FileShared
from p2pnode.node.fetching import target_path
from p2pnode.node.message_stream import MessageStream
from p2pnode.testing.network import LinkProfile
from p2pnode.testing.nodes import PORT
from p2pnode.wire.communication import Error, ErrorCode
from tests.node.conftest import SERVER, Swarm, Watched, write_random
from tests.node.hand_made import Content, Request, announce, hand_made

KIB = 1024
SIZE = 300 * KIB


async def ready(swarm: Swarm) -> tuple[Watched, Watched, bytes]:
    """A sharing peer, a peer that will fetch slowly, and the content of `a.bin`."""
    await swarm.start_server()
    data = write_random(swarm.root / "10.0.1.1" / "a.bin", SIZE)
    sharing = await swarm.start_peer()
    fetching = await swarm.start_peer()
    await sharing.wait_for(FileShared)
    await trio.sleep(1)
    swarm.network.set_profile("10.0.1.1", "10.0.1.2", LinkProfile(rate_bytes_per_s=100_000))
    return sharing, fetching, data


@pytest.mark.parametrize(
    ("to", "name", "expected"),
    [(".", "a.bin", "a.bin"), ("new", "a.bin", "new"), (".", "../x", "_._x"), (".", ".ssh", "_ssh")],
)
def test_a_target_is_a_directory_or_the_path_itself(
    tmp_path: Path, to: str, name: str, expected: str
) -> None:
    assert target_path(tmp_path / to, name).resolve() == tmp_path / expected


async def test_the_same_fetch_twice_is_one(autojump_clock: MockClock, swarm: Swarm) -> None:
    _, fetching, data = await ready(swarm)
    done: list[FetchCompleted] = []

    async def fetch() -> None:
        done.append(await fetching.node.fetch("a.bin", to=fetching.files_dir))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(fetch)
    assert done[0] is done[1] is done[2]
    assert len(fetching.all(FetchStarted)) == 1
    assert done[0].bytes_fetched == len(data)


async def test_who_joined_a_fetch_that_fails_or_is_cancelled_is_told(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    _, fetching, _ = await ready(swarm)
    first = trio.CancelScope()

    async def fetch_first() -> None:
        with first:
            await fetching.node.fetch("a.bin", to=fetching.files_dir)

    async def cancel_later() -> None:
        await fetching.wait_for(FetchStarted)
        await trio.sleep(1)
        first.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetch_first)
        nursery.start_soon(cancel_later)
        await fetching.wait_for(FetchStarted)
        with pytest.raises(AlreadyInProgress, match="cancelled"):
            await fetching.node.fetch("a.bin", to=fetching.files_dir)
    done = await fetching.node.fetch("a.bin", to=fetching.files_dir)  # nothing is left in its way
    assert done.bytes_fetched < SIZE


async def test_a_fetch_that_is_cancelled_as_its_store_opens_leaves_nothing_locked(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    scope = trio.CancelScope()

    async def run_blocking(function, *arguments):  # type: ignore[no-untyped-def]
        """As a thread does: it ends, although nobody waits for it any more."""
        await trio.lowlevel.checkpoint()
        result = function(*arguments)
        if list((swarm.root / "10.0.1.3").glob(f".a.bin*{config.JOURNAL_SUFFIX}")):
            scope.cancel()
        return result

    *_, data = await ready(swarm)
    fetching = await swarm.start_peer(run_blocking=run_blocking)
    with scope:
        await fetching.node.fetch("a.bin", to=fetching.files_dir)
    assert scope.cancelled_caught
    assert fetching.all(FetchStarted) == []
    await fetching.node.fetch("a.bin", to=fetching.files_dir)
    assert (fetching.files_dir / "a.bin").read_bytes() == data


async def test_to_two_places_are_two_fetches(autojump_clock: MockClock, swarm: Swarm) -> None:
    _, fetching, data = await ready(swarm)
    async with trio.open_nursery() as nursery:
        for name in ("one", "two"):
            nursery.start_soon(lambda name=name: fetching.node.fetch("a.bin", to=swarm.root / name))
    assert (swarm.root / "one").read_bytes() == (swarm.root / "two").read_bytes() == data


@pytest.mark.parametrize("cancelled", [0, 1])
async def test_of_two_fetches_of_one_file_the_one_that_goes_on_stays_offered(
    autojump_clock: MockClock, swarm: Swarm, cancelled: int
) -> None:
    sharing, fetching, data = await ready(swarm)
    file_id = Content.of(sharing.files_dir / "a.bin").file_id
    scopes = [trio.CancelScope(), trio.CancelScope()]

    async def fetch(number: int) -> None:
        with scopes[number]:
            await fetching.node.fetch("a.bin", to=swarm.root / f"to {number}")

    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(fetch, number)
            await fetching.wait_for(FetchStarted, number + 1)
        await trio.sleep(0.5)
        scopes[cancelled].cancel()
        await trio.sleep(0.5)
        assert not fetching.all(FetchCompleted)
        assert fetching.node._offers.get(file_id) is not None
        assert fetching.node.pieces(file_id) is not None
    assert (swarm.root / f"to {1 - cancelled}").read_bytes() == data
    assert fetching.node._offers.get(file_id) is None


async def test_a_fetch_whose_disk_fails_in_the_end_is_over_for_everybody(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    write_random(swarm.root / "a.bin", SIZE)
    content = Content.of(swarm.root / "a.bin")
    await swarm.start_server()
    peer = await swarm.start_peer()

    async def spoil() -> None:
        await peer.wait_for(FetchStarted)
        await trio.sleep(1)
        assert peer.node._offers.get(content.file_id) is not None
        [partial] = peer.files_dir.glob(".a.bin*part*")
        partial.unlink()
        partial.mkdir()  # it cannot be removed as a file is

    async with trio.open_nursery() as nursery:
        nursery.start_soon(spoil)
        with pytest.raises(StorageError, match="remove"), trio.move_on_after(3):
            await peer.node.fetch(content.metainfo, to=peer.files_dir, wait=True)
    assert peer.node._offers.get(content.file_id) is None
    assert peer.node.pieces(content.file_id) is None
    assert peer.node._news._followings == {}


async def test_what_is_here_already_is_not_fetched_again(autojump_clock: MockClock, swarm: Swarm) -> None:
    sharing, fetching, data = await ready(swarm)
    await fetching.node.fetch("a.bin", to=fetching.files_dir)
    sent = sharing.node.statistics["bytes_sent"]
    await sharing.stop()
    again = await fetching.node.fetch("a.bin", to=fetching.files_dir)
    assert (again.bytes_fetched, again.sources) == (0, {})
    assert sent == len(data)


async def test_what_we_share_is_copied_without_any_peer_for_the_metainfo(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    alone = await swarm.start("10.0.1.1")
    write_random(alone.files_dir / "a.bin", 100)
    shared = await alone.node.share(alone.files_dir / "a.bin")
    done = await alone.node.fetch(shared.file_id, to=alone.files_dir)
    assert done.target == alone.files_dir / "a.bin"


async def test_another_file_of_that_name_is_left_alone(autojump_clock: MockClock, swarm: Swarm) -> None:
    _, fetching, _ = await ready(swarm)
    (fetching.files_dir / "a.bin").write_bytes(b"mine")
    with pytest.raises(TargetExists):
        await fetching.node.fetch("a.bin", to=fetching.files_dir)
    assert (fetching.files_dir / "a.bin").read_bytes() == b"mine"
    assert (await fetching.wait_for(FetchFailed)).exit_code == TargetExists.exit_code


async def test_a_journal_beside_the_target_spares_the_question_for_the_metainfo(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    sharing, fetching, _ = await ready(swarm)
    with trio.move_on_after(2):
        await fetching.node.fetch("a.bin", to=fetching.files_dir)
    ticket = await sharing.node.ticket(Content.of(sharing.files_dir / "a.bin").file_id)
    swarm.network.block("10.0.1.1", "10.0.1.2")
    with pytest.raises(NoSource, match=r"nobody gives 'a\.bin'"):
        await fetching.node.fetch(ticket, to=fetching.files_dir)
    assert len(fetching.all(FetchStarted)) == 2  # it knew what it fetches though nobody was there


async def test_a_journal_of_another_file_is_not_taken_for_this_one(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    _, fetching, data = await ready(swarm)
    journal = fetching.files_dir / f".a.bin{config.JOURNAL_SUFFIX}"
    with trio.move_on_after(2):
        await fetching.node.fetch("a.bin", to=fetching.files_dir)
    broken = bytearray(journal.read_bytes())
    for place in range(0, len(broken), 50):
        broken[place] ^= 0xFF
    journal.write_bytes(broken)
    done = await fetching.node.fetch("a.bin", to=fetching.files_dir)
    assert done.target.read_bytes() == data


async def test_without_a_server_a_name_means_nothing(autojump_clock: MockClock, swarm: Swarm) -> None:
    alone = await swarm.start("10.0.1.1")
    with pytest.raises(NotFound):
        await alone.node.fetch("a.bin", to=alone.files_dir)


async def test_with_the_server_away_a_name_cannot_be_looked_up(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server()
    peer = await swarm.start_peer()
    await server.stop()
    await trio.sleep(1)
    with pytest.raises(NetworkError, match="cannot be reached"):
        await peer.node.fetch("a.bin", to=peer.files_dir)


async def test_nobody_who_has_it_is_no_source_after_a_while(autojump_clock: MockClock, swarm: Swarm) -> None:
    await swarm.start_server()
    peer = await swarm.start_peer()
    began = trio.current_time()
    with pytest.raises(NoSource):
        await peer.node.fetch(bytes(32), to=peer.files_dir)
    assert trio.current_time() - began <= config.NO_SOURCE_TIMEOUT_S + 2 * config.SOURCES_RETRY_S


async def test_with_patience_it_waits_for_a_source(autojump_clock: MockClock, swarm: Swarm) -> None:
    sharing, fetching, data = await ready(swarm)
    content = Content.of(sharing.files_dir / "a.bin")
    await sharing.stop()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: fetching.node.fetch(content.metainfo, to=fetching.files_dir, wait=True))
        await trio.sleep(200)
        await swarm.start("10.0.1.1", server=swarm.reference())
    assert (fetching.files_dir / "a.bin").read_bytes() == data


async def test_with_patience_it_waits_for_a_server_that_is_away(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    state = swarm.root / "server state"
    server = await swarm.start_server(state_dir=state)
    peer = await swarm.start_peer()
    await server.stop()
    await trio.sleep(60)
    data = write_random(server.files_dir / "a.bin", SIZE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: peer.node.fetch("a.bin", to=peer.files_dir, wait=True))
        await trio.sleep(200)
        await swarm.start_server(state_dir=state)
    assert (peer.files_dir / "a.bin").read_bytes() == data


@pytest.mark.parametrize("asked_for", ["metainfo", "pieces"])
async def test_a_lone_source_that_is_busy_for_long_is_waited_for(
    autojump_clock: MockClock, swarm: Swarm, asked_for: str
) -> None:
    await swarm.start_server()
    write_random(swarm.root / "a.bin", SIZE)
    content = Content.of(swarm.root / "a.bin")
    began = trio.current_time()
    seconds_busy = 3 * config.NO_SOURCE_TIMEOUT_S
    honestly = content.serving()

    async def serve(stream: MessageStream, request: Request) -> None:
        if trio.current_time() < began + seconds_busy:
            await stream.send(Error(ErrorCode.BUSY, "busy", retryable=True, retry_after_s=86_400))
        else:
            await honestly(stream, request)

    async with hand_made(swarm.network, "10.0.2.1", serve) as busy:
        link = await busy.dial((SERVER, PORT))
        await announce(link, content.offer())
        peer = await swarm.start_peer()
        with trio.fail_after(seconds_busy + 4 * config.RETRY_AFTER_MAX_S):
            reference = content.file_id if asked_for == "metainfo" else content.metainfo
            done = await peer.node.fetch(reference, to=peer.files_dir)
    assert done.bytes_fetched == SIZE
