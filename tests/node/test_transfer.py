"""One request from the requester's side, in pieces of many blocks: what is asked, taken, refused, acknowledged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair

from p2pnode import config
from p2pnode.errors import NotFound, P2PNodeError, RemoteProtocolError, TimedOut
from p2pnode.node.diagnosis import FetchDiagnosis
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.rate_limits import RateLimit, Throttle
from p2pnode.node.storing import PieceMismatch, Stored, Storing
from p2pnode.node.transfer import Transfer, fetch_metainfo, requests_for
from p2pnode.storage import FileStore
from p2pnode.testing.nodes import inline_blocking
from p2pnode.torrent import (
    Bitfield,
    FileHasher,
    HashedFile,
    Metainfo,
    TorrentVersion,
    canonical_metainfo,
    create_metainfo,
)
from p2pnode.torrent.merkle import block_hashes
from p2pnode.wire.communication import (
    Error,
    ErrorCode,
    FileChunk,
    FileChunkAck,
    FileRequest,
    FileResponse,
    FileTransferComplete,
)

BLOCK = config.BLOCK_SIZE
PIECE = 8 * BLOCK
DATA = Random(1).randbytes(3 * PIECE + 2 * BLOCK + 100)  # four pieces, the last of two blocks and a bit


def described(data: bytes = DATA, piece_length: int = PIECE) -> Metainfo:
    hasher = FileHasher(piece_length)
    hasher.update(data)
    return create_metainfo(
        "a.bin",
        [HashedFile(("a.bin",), hasher.finish())],
        is_directory=False,
        version=TorrentVersion.V2,
        piece_length=piece_length,
    )


METAINFO = described()


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore.download(METAINFO, tmp_path / "a.bin")


def piece_data(piece: int) -> bytes:
    return DATA[piece * PIECE : (piece + 1) * PIECE]


def put(store: FileStore, piece: int, first: int, count: int) -> None:
    """Blocks that an earlier request stored."""
    data = piece_data(piece)
    store.begin_piece(piece, block_hashes(data))
    store.write_blocks(piece, first, data[first * BLOCK : (first + count) * BLOCK])


def chunk(piece: int, first: int, count: int, *, hashes: bool) -> tuple[FileChunk, bytes]:
    """A chunk of whole blocks, or up to the end of the piece, with what follows it."""
    whole = piece_data(piece)
    data = whole[first * BLOCK : (first + count) * BLOCK]
    listed = block_hashes(whole) if hashes else b""
    return FileChunk(piece, first * BLOCK, len(data), len(listed) // 32), listed + data


class Source:
    """The responder's end of one stream."""

    def __init__(self, stream: MessageStream) -> None:
        self.stream = stream

    async def begin(self) -> FileRequest:
        request = await self.stream.receive_as(FileRequest)
        await self.stream.send(FileResponse(request.file_id, True, len(DATA)))
        return request

    async def send(self, *chunks: tuple[FileChunk, bytes]) -> None:
        for header, raw in chunks:
            await self.stream.send(header, raw)

    async def end(self, sent: int) -> int:
        """Say that this was all, and give what the requester acknowledged last."""
        await self.stream.send(FileTransferComplete(sent))
        await self.stream.send_eof()
        acknowledged = -1
        while (message := await self.stream.receive()) is not None:
            assert isinstance(message, FileChunkAck)
            assert message.bytes_written >= acknowledged
            acknowledged = message.bytes_written
        return acknowledged


@asynccontextmanager
async def transferring(
    store: FileStore,
    request: FileRequest,
    throttle: Throttle | None = None,
    wasted: list[int] | None = None,
    begun: Callable[[Transfer], None] = lambda transfer: None,
) -> AsyncIterator[tuple[Source, list[tuple[int, int, bool]]]]:
    """A transfer under way, its source, and what was stored. Its failure is raised at the end."""
    ours, theirs = memory_stream_pair()
    stored: list[tuple[int, int, bool]] = []
    count_wasted = ([] if wasted is None else wasted).append
    failure: list[P2PNodeError] = []

    def note(runs: list[Stored]) -> None:
        stored.extend((run.piece, run.size, run.is_complete) for run in runs)

    async def fetch() -> None:
        try:
            storing = Storing(store, inline_blocking())
            with FetchDiagnosis(store.times, lambda: 0.0).request(b"source") as task:
                transfer = Transfer(
                    MessageStream(ours), storing, note, count_wasted, throttle or Throttle(), task
                )
                begun(transfer)
                await transfer.fetch(request)
        except P2PNodeError as error:
            failure.append(error)
        await ours.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetch)
        yield Source(MessageStream(theirs)), stored
    if failure:
        raise failure[0]


def asked(*ranges: tuple[int, int], first_block: int = 0) -> FileRequest:
    return FileRequest(METAINFO.file_id, ranges, first_block=first_block)


async def test_pieces_come_in_chunks_of_any_number_of_blocks(
    autojump_clock: MockClock, store: FileStore
) -> None:
    async with transferring(store, asked((0, 4))) as (source, stored):
        assert await source.begin() == asked((0, 4))
        await source.send(chunk(0, 0, 3, hashes=True), chunk(0, 3, 5, hashes=False))
        await source.send(chunk(1, 0, 8, hashes=True), chunk(2, 0, 8, hashes=True))
        await source.send(chunk(3, 0, 1, hashes=True), chunk(3, 1, 2, hashes=False))
        assert await source.end(len(DATA)) == len(DATA)
    assert [piece for piece, _, complete in stored if complete] == [0, 1, 2, 3]
    assert sum(size for _, size, _ in stored) == len(DATA)
    assert store.publish().read_bytes() == DATA


async def test_a_shortened_transfer_ends_with_the_last_piece_that_is_wanted(
    autojump_clock: MockClock, store: FileStore
) -> None:
    begun: list[Transfer] = []
    wasted: list[int] = []
    async with transferring(store, asked((0, 4)), wasted=wasted, begun=begun.append) as (source, stored):
        await source.begin()
        await source.send(chunk(0, 0, 4, hashes=True))
        await trio.sleep(1)
        begun[0].shorten(Bitfield(4).adding(0, 2))
        await source.send(chunk(0, 4, 4, hashes=False), chunk(1, 0, 8, hashes=True))
    assert [piece for piece, _, complete in stored if complete] == [0, 1]
    assert wasted == []


async def test_a_transfer_is_shortened_in_the_middle_of_a_piece_that_is_not_wanted(
    autojump_clock: MockClock, store: FileStore
) -> None:
    begun: list[Transfer] = []
    wasted: list[int] = []
    async with transferring(store, asked((0, 4)), wasted=wasted, begun=begun.append) as (source, stored):
        await source.begin()
        header, raw = chunk(1, 0, 8, hashes=True)
        await source.send(chunk(0, 0, 8, hashes=True))
        await source.stream.send(header, raw[: len(raw) - 3 * BLOCK - 100])
        await trio.sleep(0.1)
        begun[0].shorten(Bitfield(4).adding(0))
    assert [piece for piece, _, complete in stored if complete] == [0]
    written = sum(size for _, size, _ in stored)
    assert wasted == [PIECE + 5 * BLOCK - 100 - written]


async def test_what_was_here_already_counts_as_wasted(autojump_clock: MockClock, store: FileStore) -> None:
    wasted: list[int] = []
    put(store, 0, 2, 3)
    put(store, 3, 0, 3)  # all of it: two blocks and a bit
    async with transferring(store, asked((0, 1), (3, 1)), wasted=wasted) as (source, _):
        await source.begin()
        await source.send(chunk(0, 0, 8, hashes=True), chunk(3, 0, 3, hashes=True))
        assert await source.end(PIECE + len(piece_data(3))) == PIECE + len(piece_data(3))
    assert wasted == [3 * BLOCK + len(piece_data(3))]


async def test_a_piece_that_is_wrong_was_wasted(autojump_clock: MockClock, store: FileStore) -> None:
    wasted: list[int] = []
    header, raw = chunk(0, 0, 8, hashes=True)
    with pytest.raises(PieceMismatch):
        async with transferring(store, asked((0, 1)), wasted=wasted) as (source, _):
            await source.begin()
            await source.stream.send(header, raw[:256] + bytes(PIECE))
    assert wasted == [PIECE]


async def test_a_begun_piece_is_continued_from_its_first_missing_block(
    autojump_clock: MockClock, store: FileStore
) -> None:
    put(store, 1, 0, 5)
    async with transferring(store, asked((1, 2), first_block=5)) as (source, stored):
        await source.begin()
        await source.send(chunk(1, 5, 3, hashes=True), chunk(2, 0, 8, hashes=True))
        assert await source.end(3 * BLOCK + PIECE) == 3 * BLOCK + PIECE
    assert stored == [(1, 3 * BLOCK, True), (2, PIECE, True)]


Spoil = Callable[[], tuple[FileChunk, bytes]]


def changed(header: FileChunk, raw: bytes, **fields: int) -> tuple[FileChunk, bytes]:
    values = {name: getattr(header, name) for name in header.__struct_fields__} | fields
    return FileChunk(**values), raw


SECOND_CHUNKS: dict[str, tuple[tuple[FileChunk, bytes], type[P2PNodeError]]] = {
    "the same again": (chunk(0, 0, 4, hashes=True), RemoteProtocolError),
    "a gap": (chunk(0, 5, 3, hashes=False), RemoteProtocolError),
    "the next piece too early": (chunk(1, 0, 8, hashes=True), RemoteProtocolError),
    "the hashes a second time": (chunk(0, 4, 4, hashes=True), RemoteProtocolError),
    "half a block": (
        changed(*chunk(0, 4, 1, hashes=False), length=100),
        RemoteProtocolError,
    ),
    "past the end": (
        (FileChunk(0, 4 * BLOCK, 5 * BLOCK), bytes(5 * BLOCK)),
        RemoteProtocolError,
    ),
    "other bytes": ((FileChunk(0, 4 * BLOCK, 4 * BLOCK), bytes(4 * BLOCK)), PieceMismatch),
}


@pytest.mark.parametrize("second", SECOND_CHUNKS)
async def test_S7_a_wrong_chunk_is_never_stored_and_what_came_before_stays(
    autojump_clock: MockClock, store: FileStore, second: str
) -> None:
    wrong, expected = SECOND_CHUNKS[second]
    with pytest.raises(expected) as caught:
        async with transferring(store, asked((0, 4))) as (source, stored):
            await source.begin()
            await source.send(chunk(0, 0, 4, hashes=True), wrong)
    assert stored == [(0, 4 * BLOCK, False)]
    assert store.blocks_stored(0) == 4
    assert store.bytes_stored == 4 * BLOCK
    if isinstance(caught.value, PieceMismatch):
        assert caught.value.piece == 0


async def test_S7_a_list_of_hashes_with_a_right_beginning_is_still_wrong(
    autojump_clock: MockClock, store: FileStore
) -> None:
    header, raw = chunk(0, 0, 4, hashes=True)
    last = 7 * 32
    with pytest.raises(PieceMismatch, match="do not fold"):
        async with transferring(store, asked((0, 1))) as (source, stored):
            await source.begin()
            await source.send((header, raw[:last] + bytes(32) + raw[last + 32 :]))
    assert stored == []
    assert store.bytes_stored == 0


async def test_S7_a_wrong_sum_at_the_end_is_a_broken_rule(
    autojump_clock: MockClock, store: FileStore
) -> None:
    with pytest.raises(RemoteProtocolError, match="5 bytes"):
        async with transferring(store, asked((2, 1))) as (source, _):
            await source.begin()
            await source.send(chunk(2, 0, 8, hashes=True))
            await source.stream.send(FileTransferComplete(5))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (FileResponse(METAINFO.file_id, False, reason="gone"), NotFound),
        (Error(ErrorCode.SOURCE_CHANGED, "changed"), NotFound),
        (FileTransferComplete(0), RemoteProtocolError),
    ],
)
async def test_a_source_that_has_it_no_longer_says_so(
    autojump_clock: MockClock, store: FileStore, answer: Error | FileResponse, expected: type[P2PNodeError]
) -> None:
    with pytest.raises(expected):
        async with transferring(store, asked((0, 1))) as (source, _):
            await source.stream.receive()
            await source.stream.send(answer)


async def test_an_error_between_two_chunks_is_heard(autojump_clock: MockClock, store: FileStore) -> None:
    with pytest.raises(NotFound, match="it changed"):
        async with transferring(store, asked((0, 2))) as (source, stored):
            await source.begin()
            await source.send(chunk(0, 0, 8, hashes=True))
            await source.stream.send(Error(ErrorCode.SOURCE_CHANGED, "it changed"))
    assert stored == [(0, PIECE, True)]


@pytest.mark.parametrize("silent_after", ["the request", "the response", "a header", "some bytes"])
async def test_Q11_silence_is_timed_out_wherever_it_begins(
    autojump_clock: MockClock, store: FileStore, silent_after: str
) -> None:
    with pytest.raises(TimedOut, match="the source sent"):
        async with transferring(store, asked((0, 1))) as (source, _):
            if silent_after == "the request":
                await source.stream.receive()
            else:
                await source.begin()
            header, raw = chunk(0, 0, 8, hashes=True)
            if silent_after == "a header":
                await source.stream.send(header)
            if silent_after == "some bytes":
                await source.stream.send(header, raw[:1000])
    assert trio.current_time() <= config.STALL_TIMEOUT_S + 0.1


async def test_blocks_of_a_chunk_that_comes_slowly_are_stored_as_they_come(
    autojump_clock: MockClock, store: FileStore
) -> None:
    async with transferring(store, asked((0, 1))) as (source, stored):
        await source.begin()
        header, raw = chunk(0, 0, 8, hashes=True)
        await source.stream.send(header, raw[: -len(piece_data(0))])
        for start in range(0, PIECE, BLOCK // 2):
            await trio.sleep(5)
            await source.stream.send_bytes(piece_data(0)[start : start + BLOCK // 2])
        assert await source.end(PIECE) == PIECE
    assert stored == [(0, BLOCK, block == 7) for block in range(8)]


async def test_a_cut_within_a_chunk_costs_only_the_block_under_way(
    autojump_clock: MockClock, store: FileStore
) -> None:
    with pytest.raises(TimedOut, match="the source sent 0 bytes"):
        async with transferring(store, asked((0, 1))) as (source, stored):
            await source.begin()
            header, raw = chunk(0, 0, 8, hashes=True)
            hashes = len(raw) - PIECE
            await source.stream.send(header, raw[: hashes + 100])
            for block in range(3):
                await trio.sleep(1)
                start = hashes + 100 + block * BLOCK
                await source.stream.send_bytes(raw[start : start + BLOCK])
    assert stored == [(0, BLOCK, False)] * 3
    assert store.blocks_stored(0) == 3


@pytest.mark.parametrize(("is_cut", "expected"), [(True, RemoteProtocolError), (False, TimedOut)])
async def test_whole_blocks_before_a_cut_or_a_silence_are_stored(
    autojump_clock: MockClock, store: FileStore, is_cut: bool, expected: type[P2PNodeError]
) -> None:
    """They are fewer than what goes to the store at once."""
    with pytest.raises(expected):
        async with transferring(store, asked((0, 1))) as (source, stored):
            await source.begin()
            header, raw = chunk(0, 0, 8, hashes=True)
            await source.stream.send(header, raw[: 8 * 32 + 3 * BLOCK + 100])
            if is_cut:
                await source.stream.send_eof()
    assert stored == [(0, 3 * BLOCK, False)]
    assert store.blocks_stored(0) == 3


async def test_a_limited_transfer_takes_little_at_once_from_its_source(
    autojump_clock: MockClock, store: FileStore
) -> None:
    limit = RateLimit(20_000)
    began_at = trio.current_time()
    async with transferring(store, asked((0, 1)), Throttle([limit])) as (source, stored):
        await source.begin()
        await source.send(chunk(0, 0, 8, hashes=True))
        assert await source.end(PIECE) == PIECE
    assert trio.current_time() - began_at == pytest.approx(PIECE / 20_000, rel=0.02)
    assert [size for _, size, _ in stored] == [BLOCK] * 8  # as they were taken, not all at the end


async def test_what_a_limit_holds_back_is_left_to_the_transport(
    autojump_clock: MockClock, store: FileStore
) -> None:
    """What was taken from it, the source may send anew."""
    taken: list[int] = []

    class Noting(trio.abc.ReceiveStream):
        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            data = await ours.receive_some(max_bytes)
            taken.append(len(data))
            return data

        async def aclose(self) -> None:
            await ours.aclose()

    ours, theirs = memory_stream_pair()
    stream = MessageStream(trio.StapledStream(ours.send_stream, Noting()))
    throttle = Throttle([RateLimit(20_000)])
    source = Source(MessageStream(theirs))
    with trio.move_on_after(2), FetchDiagnosis(store.times, lambda: 0.0).request(b"source") as task:
        transfer = Transfer(stream, Storing(store, inline_blocking()), ignore, ignore, throttle, task)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transfer.fetch, asked((0, 1)))
            await source.begin()
            await source.send(chunk(0, 0, 8, hashes=True))
    assert sum(taken) == pytest.approx(40_000, rel=0.1)


def ignore(_: object) -> None:
    """For transfers of which only the outcome counts."""


async def test_progress_is_acknowledged_now_and_then(autojump_clock: MockClock, store: FileStore) -> None:
    async with transferring(store, asked((0, 1))) as (source, _):
        await source.begin()
        acknowledged = []
        for block in range(8):
            await trio.sleep(config.ACK_INTERVAL_S / 3)
            await source.send(chunk(0, block, 1, hashes=not block))
            with trio.move_on_after(0.001):
                acknowledged.append((await source.stream.receive_as(FileChunkAck)).bytes_written)
        assert acknowledged == [3 * BLOCK, 6 * BLOCK]
        assert await source.end(PIECE) == PIECE


# -- which requests are made of what is missing ------------------------------------------------------------


@given(
    stored=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), max_size=4),
    ranges=st.sampled_from([((0, 4),), ((1, 2),), ((0, 1), (2, 2)), ((3, 1),)]),
)
def test_requests_cover_what_is_missing_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory,
    stored: list[tuple[int, int]],
    ranges: tuple[tuple[int, int], ...],
) -> None:
    store = FileStore.download(METAINFO, tmp_path_factory.mktemp("store") / "a.bin")
    for piece, count in stored:
        if count := min(count, METAINFO.piece(piece).block_count):
            put(store, piece, 0, count)
    wanted = {
        (piece, block)
        for first, count in ranges
        for piece in range(first, first + count)
        for block in range(store.blocks_stored(piece), METAINFO.piece(piece).block_count)
    }
    asked_for: list[tuple[int, int]] = []
    for request in requests_for(store, ranges):
        pieces = [piece for first, count in request.ranges for piece in range(first, first + count)]
        for piece in pieces:
            first_block = request.first_block if piece == pieces[0] else 0
            asked_for += [(piece, block) for block in range(first_block, METAINFO.piece(piece).block_count)]
    assert len(asked_for) == len(set(asked_for))
    assert set(asked_for) == wanted
    store.discard()


# -- metainfo ----------------------------------------------------------------------------------------------


async def test_metainfo_must_be_canonical_and_the_one_asked_for(autojump_clock: MockClock) -> None:
    hasher = FileHasher(BLOCK)
    hasher.update(b"bytes")
    right = canonical_metainfo("a", [HashedFile(("a",), hasher.finish())], is_directory=False)

    async def fetched(raw: bytes, file_id: bytes) -> Metainfo:
        ours, theirs = memory_stream_pair()
        source = MessageStream(theirs)
        await source.send(FileResponse(file_id, True, 5, len(raw)), raw)
        return await fetch_metainfo(MessageStream(ours), file_id, inline_blocking())

    assert await fetched(right.encode(), right.file_id) == right
    with pytest.raises(P2PNodeError, match="another file"):
        await fetched(right.encode(), bytes(32))
    with pytest.raises(P2PNodeError):
        await fetched(METAINFO.encode(), METAINFO.file_id)  # pieces of another length
    with pytest.raises(P2PNodeError):
        await fetched(right.encode() + b"e", right.file_id)
