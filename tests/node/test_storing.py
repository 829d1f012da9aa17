"""From a stream to the store: runs that wait, hops that take them, and what becomes of both when something ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, wait_all_tasks_blocked

from p2pnode import config
from p2pnode.errors import DiskFull, P2PNodeError, RemoteProtocolError
from p2pnode.node.blocking import RunBlocking, in_threads
from p2pnode.node.diagnosis import FetchDiagnosis
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.rate_limits import Throttle
from p2pnode.node.storing import PieceMismatch, Run, RunQueue, Stored, Storing
from p2pnode.node.transfer import Transfer, pieces_in, requests_for
from p2pnode.storage import FileStore
from p2pnode.testing.nodes import inline_blocking
from p2pnode.torrent import Metainfo
from p2pnode.torrent.merkle import block_hashes
from p2pnode.wire.communication import FileChunk, FileRequest, FileResponse, FileTransferComplete
from tests.node.test_transfer import described

BLOCK = config.BLOCK_SIZE
PIECE = config.MIB
DATA = Random(2).randbytes(6 * PIECE)
METAINFO: Metainfo = described(DATA, PIECE)
RUNS_PER_PIECE = PIECE // config.RUN_SIZE


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore.download(METAINFO, tmp_path / "a.bin")


def runs_of(piece: int) -> list[Run]:
    data = DATA[piece * PIECE : (piece + 1) * PIECE]
    return [
        Run(piece, at, data[at : at + config.RUN_SIZE], b"" if at else block_hashes(data))
        for at in range(0, PIECE, config.RUN_SIZE)
    ]


def spoiled(run: Run) -> Run:
    return Run(run.piece, run.offset, bytes(len(run.data)), run.hashes)


# -- the queue ---------------------------------------------------------------------------------------------


async def test_what_came_before_an_error_is_taken_before_it_is_raised() -> None:
    queue = RunQueue()
    first, second, *_ = runs_of(0)
    await queue.put(first)
    await queue.put(second)
    await queue.end(RemoteProtocolError("nonsense"))
    assert await queue.take() == [first, second]
    with pytest.raises(RemoteProtocolError, match="nonsense"):
        await queue.take()


async def test_the_end_is_no_runs() -> None:
    queue = RunQueue()
    run, *_ = runs_of(0)
    await queue.put(run)
    await queue.end()
    assert await queue.take() == [run]
    assert await queue.take() == []


async def test_who_puts_waits_while_enough_is_waiting(autojump_clock: MockClock) -> None:
    queue = RunQueue()
    waiting = 0

    async def put_all() -> None:
        nonlocal waiting
        for run in runs_of(0) + runs_of(1):
            await queue.put(run)
            waiting += len(run.data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put_all)
        await wait_all_tasks_blocked()
        assert config.STORE_AHEAD <= waiting < config.STORE_AHEAD + config.RUN_SIZE
        assert sum(len(run.data) for run in await queue.take()) == waiting
        await wait_all_tasks_blocked()
        assert waiting == 2 * PIECE


# -- one hop -----------------------------------------------------------------------------------------------


async def test_runs_that_touch_are_stored_as_one(store: FileStore) -> None:
    first, second, third, fourth = runs_of(0)
    storing = Storing(store, inline_blocking())
    stored, error = await storing.write([first, second, fourth, *runs_of(1)])
    assert error is None
    assert stored == [
        Stored(0, 2 * config.RUN_SIZE, False, 2 * config.RUN_SIZE),
        Stored(0, config.RUN_SIZE, False, config.RUN_SIZE),
        Stored(1, PIECE, True, PIECE),
    ]
    assert (await storing.write([third]))[0] == [Stored(0, config.RUN_SIZE, True, config.RUN_SIZE)]
    assert list(store.have()) == [0, 1]


async def test_S7_a_corrupt_run_spoils_neither_what_came_before_nor_the_file(store: FileStore) -> None:
    good, (bad, *rest) = runs_of(0), runs_of(1)
    stored, error = await Storing(store, inline_blocking()).write([*good, spoiled(bad), *rest])
    assert isinstance(error, PieceMismatch)
    assert error.piece == 1
    assert stored == [Stored(0, PIECE, True, PIECE)]
    assert store.bytes_stored == PIECE


async def test_one_thread_at_a_time_works_on_a_store(store: FileStore) -> None:
    at_work = most = 0
    guard = threading.Lock()
    threads = in_threads()

    async def run_blocking(function: Callable[..., Any], *arguments: Any) -> Any:
        def counted() -> Any:
            nonlocal at_work, most
            with guard:
                at_work += 1
                most = max(most, at_work)
            try:
                return function(*arguments)
            finally:
                with guard:
                    at_work -= 1

        return await threads(counted)

    storing = Storing(store, run_blocking)
    async with trio.open_nursery() as nursery:
        for piece in range(6):
            nursery.start_soon(storing.write, runs_of(piece))
    assert most == 1
    assert store.have().is_complete


# -- while the next bytes arrive ---------------------------------------------------------------------------


class SlowDisk:
    """A `run_blocking` whose calls wait until they are let go, one after the other."""

    def __init__(self) -> None:
        self.sizes: list[int] = []  # bytes of each hop so far
        self._let_go, self._wait = trio.open_memory_channel[None](100)

    def let_go(self) -> None:
        self._let_go.send_nowait(None)

    async def run_blocking(self, function: Callable[..., Any], *arguments: Any) -> Any:
        _, runs = arguments
        self.sizes.append(sum(len(run.data) for run in runs))
        await self._wait.receive()
        return function(*arguments)


class Source:
    """Sends pieces over a stream whose sender waits until each byte is taken, so that `taken` says what was."""

    def __init__(self, stream: trio.abc.Stream, spoil: Callable[[int, bytes], bytes] | None = None) -> None:
        self._stream = stream
        self._spoil = spoil or (lambda piece, data: data)
        self.taken = 0

    async def serve(self) -> None:
        messages = MessageStream(self._stream)
        request = await messages.receive_as(FileRequest)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_acks, messages)
            await self._send(messages, request)

    async def _read_acks(self, messages: MessageStream) -> None:
        while await messages.receive() is not None:
            pass

    async def _send(self, messages: MessageStream, request: FileRequest) -> None:
        await messages.send(FileResponse(request.file_id, True, len(DATA)))
        offset = request.first_block * BLOCK
        for piece in pieces_in(request.ranges):
            whole = DATA[piece * PIECE : (piece + 1) * PIECE]
            hashes = block_hashes(whole)
            data = self._spoil(piece, whole[offset:])
            await messages.send(FileChunk(piece, offset, len(data), len(hashes) // 32), hashes)
            offset = 0
            for at in range(0, len(data), BLOCK):
                await messages.send_bytes(data[at : at + BLOCK])
                self.taken += BLOCK
        await messages.send(FileTransferComplete(self.taken))


async def fetch(stream: trio.abc.Stream, store: FileStore, run_blocking: RunBlocking) -> None:
    def ignore(_: object) -> None:
        """Only the outcome counts."""

    storing = Storing(store, run_blocking)
    with FetchDiagnosis(store.times, lambda: 0.0).request(b"source") as task:
        for request in requests_for(store, ((0, METAINFO.piece_count),)):
            transfer = Transfer(MessageStream(stream), storing, ignore, ignore, Throttle(), task)
            await transfer.fetch(request)


async def test_the_next_bytes_are_read_while_a_thread_works_and_no_more_than_a_bounded_number(
    store: FileStore,
) -> None:
    ours, theirs = lockstep_stream_pair()
    source, disk = Source(theirs), SlowDisk()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.serve)
        nursery.start_soon(fetch, ours, store, disk.run_blocking)
        await wait_all_tasks_blocked()
        assert len(disk.sizes) == 1
        assert source.taken > disk.sizes[0]
        assert source.taken <= disk.sizes[0] + config.STORE_AHEAD + 2 * config.RUN_SIZE
        disk.let_go()
        await wait_all_tasks_blocked()
        assert disk.sizes[1] >= config.STORE_AHEAD  # all that came meanwhile, in one hop
        assert source.taken <= sum(disk.sizes) + config.STORE_AHEAD + 2 * config.RUN_SIZE
        nursery.cancel_scope.cancel()


async def test_S7_a_corrupt_chunk_is_found_while_the_next_arrives_and_nothing_after_it_is_stored(
    store: FileStore,
) -> None:
    ours, theirs = lockstep_stream_pair()
    source = Source(theirs, lambda piece, data: bytes(len(data)) if piece == 1 else data)
    disk = SlowDisk()
    for _ in range(20):
        disk.let_go()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.serve)
        with pytest.raises(PieceMismatch) as caught:
            await fetch(ours, store, disk.run_blocking)
        nursery.cancel_scope.cancel()
    assert caught.value.piece == 1
    assert list(store.have()) == [0]
    assert store.bytes_stored == PIECE


async def test_cancelled_in_the_middle_of_a_write_what_was_written_counts_and_the_rest_is_asked_again(
    store: FileStore, tmp_path: Path
) -> None:
    ours, theirs = lockstep_stream_pair()
    in_thread, may_go_on = trio.Event(), threading.Event()

    async def run_blocking(function: Callable[..., Any], *arguments: Any) -> Any:
        def held_back() -> Any:
            trio.from_thread.run_sync(in_thread.set)
            may_go_on.wait()
            return function(*arguments)

        return await trio.to_thread.run_sync(held_back)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Source(theirs).serve)
        nursery.start_soon(fetch, ours, store, run_blocking)
        await in_thread.wait()
        nursery.cancel_scope.cancel()
        may_go_on.set()
    written = store.bytes_stored
    assert written > 0
    store.close()
    resumed = FileStore.download(METAINFO, tmp_path / "a.bin")
    assert resumed.bytes_stored == written
    ours, theirs = lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Source(theirs).serve)
        await fetch(ours, resumed, in_threads())
    assert resumed.publish().read_bytes() == DATA


async def test_a_full_disk_ends_the_request_with_its_own_words(store: FileStore) -> None:
    ours, theirs = lockstep_stream_pair()

    async def run_blocking(function: Callable[..., Any], *arguments: Any) -> Any:
        failure: P2PNodeError = DiskFull("no room is left")
        return [], failure

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Source(theirs).serve)
        with pytest.raises(DiskFull, match="no room"):
            await fetch(ours, store, run_blocking)
        nursery.cancel_scope.cancel()
