"""The watch over a shared directory: what comes, changes, goes, and cannot be read."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import NotFound, StorageError
from p2pnode.node.events import FileShared, FileUnshared, HashingProgress, NodeWarning
from p2pnode.storage import hash_path, list_items
from p2pnode.testing.nodes import simulated_node
from p2pnode.wire.communication import FileList
from tests.node.conftest import Swarm, Watched, write_random
from tests.node.hand_made import ask, hand_made

TWO_SCANS_S = 2 * config.RESCAN_INTERVAL_S


@pytest.fixture
async def sharing(swarm: Swarm) -> AsyncIterator[Watched]:
    yield await swarm.start("10.0.1.1")


def offered(node: Watched) -> list[str]:
    return sorted(shared.name for shared in node.node._shares)


async def test_what_comes_and_goes_is_noticed(autojump_clock: MockClock, sharing: Watched) -> None:
    write_random(sharing.files_dir / "a.bin", 100)
    write_random(sharing.files_dir / "tree" / "b.bin", 100)
    await trio.sleep(TWO_SCANS_S)
    assert offered(sharing) == ["a.bin", "tree"]
    (sharing.files_dir / "a.bin").unlink()
    await trio.sleep(TWO_SCANS_S)
    assert offered(sharing) == ["tree"]
    [gone] = sharing.all(FileUnshared)
    assert (gone.name, gone.reason) == ("a.bin", "it is gone")


async def test_what_changes_is_offered_anew(autojump_clock: MockClock, sharing: Watched) -> None:
    path = sharing.files_dir / "a.bin"
    write_random(path, 100)
    first = await sharing.wait_for(FileShared)
    path.write_bytes(b"other bytes")
    await trio.sleep(TWO_SCANS_S)
    assert [event.reason for event in sharing.all(FileUnshared)] == ["it changed"]
    second = sharing.all(FileShared)[-1]
    assert (second.name, second.size) == ("a.bin", 11)
    assert second.file_id != first.file_id


async def test_what_is_still_being_written_waits(autojump_clock: MockClock, swarm: Swarm) -> None:
    now = 0.0
    sharing = await swarm.start("10.0.1.1", wall_clock=lambda: now)
    (sharing.files_dir / "a.bin").write_bytes(b"half of it")
    now = time.time() + config.SETTLE_S / 2
    await trio.sleep(TWO_SCANS_S)
    assert offered(sharing) == []
    now += config.SETTLE_S
    await trio.sleep(TWO_SCANS_S)
    assert offered(sharing) == ["a.bin"]


async def test_hidden_and_partial_files_are_never_offered(
    autojump_clock: MockClock, sharing: Watched
) -> None:
    for name in (".hidden", f".a.bin{config.PARTIAL_SUFFIX}", f".a.bin{config.JOURNAL_SUFFIX}"):
        write_random(sharing.files_dir / name, 100)
    write_random(sharing.files_dir / "tree" / ".git" / "config", 100)
    write_random(sharing.files_dir / "tree" / "b.bin", 100)
    await trio.sleep(TWO_SCANS_S)
    [tree] = sharing.all(FileShared)
    assert (tree.name, tree.size) == ("tree", 100)


async def test_what_cannot_be_shared_is_named_once_and_tried_when_it_changes(
    autojump_clock: MockClock, sharing: Watched
) -> None:
    """A directory that holds nothing but a file of its own name is the same torrent as that file."""
    write_random(sharing.files_dir / "same" / "same", 100)
    write_random(sharing.files_dir / "a.bin", 100)
    await trio.sleep(10 * TWO_SCANS_S)
    [warning] = sharing.all(NodeWarning)
    assert "not shared" in warning.text
    assert offered(sharing) == ["a.bin"]
    write_random(sharing.files_dir / "same" / "another", 100)
    await trio.sleep(TWO_SCANS_S)
    assert offered(sharing) == ["a.bin", "same"]


async def test_the_same_bytes_under_the_same_name_are_one_file(
    autojump_clock: MockClock, sharing: Watched, swarm: Swarm
) -> None:
    write_random(sharing.files_dir / "a.bin", 100)
    write_random(swarm.root / "elsewhere" / "a.bin", 100)
    here = await sharing.node.share(sharing.files_dir / "a.bin")
    assert await sharing.node.share(swarm.root / "elsewhere" / "a.bin") is here
    assert len(sharing.all(FileShared)) == 1
    (sharing.files_dir / "a.bin").unlink()
    await trio.sleep(TWO_SCANS_S)
    again = sharing.node._shares.by_id(here.file_id)
    assert again is not None and again.path == swarm.root / "elsewhere" / "a.bin"


async def test_what_is_not_there_cannot_be_shared(autojump_clock: MockClock, sharing: Watched) -> None:
    with pytest.raises(NotFound):
        await sharing.node.share(sharing.files_dir / "nothing")
    os.mkfifo(sharing.files_dir / "pipe")
    with pytest.raises(StorageError):
        await sharing.node.share(sharing.files_dir / "pipe")


async def test_a_directory_that_vanishes_takes_its_files_with_it_and_nothing_else(
    autojump_clock: MockClock, sharing: Watched, swarm: Swarm
) -> None:
    write_random(sharing.files_dir / "a.bin", 100)
    write_random(swarm.root / "elsewhere" / "b.bin", 100)
    await sharing.wait_for(FileShared)
    await sharing.node.share(swarm.root / "elsewhere" / "b.bin")
    shutil.rmtree(sharing.files_dir)
    await trio.sleep(5 * TWO_SCANS_S)
    assert offered(sharing) == ["b.bin"]
    assert len(sharing.all(NodeWarning)) == 1  # said once, not each time
    write_random(sharing.files_dir / "a.bin", 100)
    await trio.sleep(TWO_SCANS_S)
    assert offered(sharing) == ["a.bin", "b.bin"]


async def test_hashes_are_remembered_between_runs(autojump_clock: MockClock, swarm: Swarm) -> None:
    called: Counter[str] = Counter()

    async def run_blocking(function, *arguments):  # type: ignore[no-untyped-def]
        await trio.lowlevel.checkpoint()
        called[getattr(function, "__name__", "")] += 1
        return function(*arguments)

    state = swarm.root / "state"
    write_random(swarm.root / "10.0.1.1" / "a.bin", 100)
    for _ in range(3):
        sharing = await swarm.start("10.0.1.1", state_dir=state, run_blocking=run_blocking)
        await sharing.wait_for(FileShared)
        await sharing.stop()
    assert called["remember"] == 1
    assert called["decode_canonical"] == 2  # which takes seconds for a large tree: never in the event loop


async def test_long_hashing_shows_progress(autojump_clock: MockClock, swarm: Swarm) -> None:
    async def run_blocking(function, *arguments):  # type: ignore[no-untyped-def]
        await trio.sleep(1.0)
        return function(*arguments)

    sharing = await swarm.start("10.0.1.1", run_blocking=run_blocking)
    write_random(sharing.files_dir / "a.bin", 100)
    await sharing.node.share(sharing.files_dir / "a.bin")
    assert {event.path.name for event in sharing.all(HashingProgress)} == {"a.bin"}


async def test_a_peer_lists_what_it_offers(autojump_clock: MockClock, sharing: Watched, swarm: Swarm) -> None:
    write_random(sharing.files_dir / "a.bin", 100)
    write_random(sharing.files_dir / "empty", 0)
    await sharing.wait_for(FileShared, 2)
    async with hand_made(swarm.network, "10.0.2.1") as node:
        answer = await ask(await node.dial(sharing.node.listen_address), FileList())
    assert isinstance(answer, FileList)
    assert [(item.name, item.size, item.sources) for item in answer.files] == [
        ("a.bin", 100, 1),
        ("empty", 0, 1),
    ]


async def test_what_comes_while_the_directory_is_read_is_not_taken_for_gone(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    listed = trio.Event()
    adopted = trio.Event()

    async def run_blocking(function, *arguments):  # type: ignore[no-untyped-def]
        await trio.lowlevel.checkpoint()
        result = function(*arguments)
        if function is list_items and not listed.is_set():
            listed.set()
            await adopted.wait()
        return result

    sharing = await swarm.start("10.0.1.1", run_blocking=run_blocking)
    await listed.wait()
    path = sharing.files_dir / "a.bin"
    write_random(path, 100)
    await sharing.node._shares.adopt(hash_path(path), path)
    adopted.set()
    await trio.sleep(TWO_SCANS_S)
    assert sharing.all(FileUnshared) == []
    assert len(sharing.all(FileShared)) == 1


async def test_what_was_shared_by_its_path_is_watched_wherever_it_lies(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    path = swarm.root / "elsewhere" / "a.bin"
    write_random(path, 100)
    async with simulated_node(swarm.network, "10.0.1.1") as node, node.events() as events:
        first = await node.share(path)
        await trio.sleep(TWO_SCANS_S)
        write_random(path, 200)
        await trio.sleep(TWO_SCANS_S)
        assert not node.offers(first.file_id)
        [second] = node._shares
        path.unlink()
        await trio.sleep(TWO_SCANS_S)
        assert list(node._shares) == []
        seen = [events.receive_nowait() for _ in range(events.statistics().current_buffer_used)]
    assert second.size == 200
    reasons = [event.reason for event in seen if isinstance(event, FileUnshared)]
    assert reasons == ["it changed", "it is gone"]


async def test_what_is_found_changed_is_withdrawn_once_and_hashed_anew(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Bytes that rot change neither size nor times: what was remembered of them is not to be believed."""
    remembered = 0

    async def run_blocking(function, *arguments):  # type: ignore[no-untyped-def]
        nonlocal remembered
        await trio.lowlevel.checkpoint()
        remembered += getattr(function, "__name__", "") == "remember"
        return function(*arguments)

    sharing = await swarm.start("10.0.1.1", run_blocking=run_blocking)
    write_random(sharing.files_dir / "a.bin", 100)
    shared = await sharing.node.share(sharing.files_dir / "a.bin")
    await trio.sleep(TWO_SCANS_S)
    before = remembered
    for _ in range(2):
        sharing.node._shares.withdraw(shared, "it changed")
    assert not sharing.node.offers(shared.file_id)
    await trio.sleep(TWO_SCANS_S)
    assert len(sharing.all(FileUnshared)) == 1
    assert remembered == before + 1
    again = sharing.node._shares.by_id(shared.file_id)
    assert again is not None and again is not shared
    sharing.node._shares.withdraw(shared, "it changed")  # an old one takes no new one with it
    assert sharing.node.offers(shared.file_id)
    assert list(map(len, again.store.read_piece(0).parts)) == [100]


async def test_what_is_left_out_of_a_tree_is_said_once(autojump_clock: MockClock, sharing: Watched) -> None:
    write_random(sharing.files_dir / "tree" / "b.bin", 100)
    for name in "pqrs":
        os.mkfifo(sharing.files_dir / "tree" / name)
    await trio.sleep(5 * TWO_SCANS_S)
    [warning] = sharing.all(NodeWarning)
    assert warning.text == (
        f"4 left out of {sharing.files_dir / 'tree'}:"
        " 'p' is not a regular file; 'q' is not a regular file; 'r' is not a regular file; …"
    )
    assert offered(sharing) == ["tree"]
