"""One request from the responder's side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import StreamReset
from p2pnode.node.events import UploadFinished
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.peer_link import CloseCode, PeerLink
from p2pnode.node.upload_parts import SMALL_PART, batches, chunk_parts, joined, memory_of
from p2pnode.storage import PieceData
from p2pnode.testing.nodes import PORT
from p2pnode.torrent.merkle import block_hashes
from p2pnode.wire.communication import (
    Bye,
    Error,
    ErrorCode,
    FileChunk,
    FileChunkAck,
    FileRequest,
    FileResponse,
    FileTransferComplete,
)
from p2pnode.wire.framing import FrameDecoder, frame
from tests.node.conftest import SERVER, Swarm, Watched, write_random
from tests.node.hand_made import Content, hand_made
from tests.node.test_transfer import described

BLOCK = config.BLOCK_SIZE


def parts_of(content: bytes) -> tuple[bytes, ...]:
    """As a store gives a piece."""
    starts = range(0, len(content), config.CHUNK_SIZE)
    return tuple(content[start : start + config.CHUNK_SIZE] for start in starts)


@given(st.integers(0, 40), st.data())
def test_chunks_of_a_piece_are_whole_blocks_in_order_with_the_hashes_first(
    extra: int, data: st.DataObject
) -> None:
    size = data.draw(st.sampled_from([1, BLOCK, 3 * BLOCK, config.CHUNK_SIZE, 3 * config.CHUNK_SIZE])) + extra
    content = bytes(size)
    blocks = -(-size // BLOCK)
    first_block = data.draw(st.integers(0, blocks - 1))
    decoder = FrameDecoder()
    expected = first_block * BLOCK
    parts = list(chunk_parts(7, PieceData(block_hashes(content), parts_of(content)), first_block))
    assert sum(of_file for _, of_file in parts) == size - expected
    decoder.feed(b"".join(data for data, _ in parts))
    hashes = block_hashes(content)
    while header := decoder.next_message():
        assert isinstance(header, FileChunk)
        assert (header.piece, header.offset) == (7, expected)
        assert header.hashes == len(hashes) // 32
        decoder.expect_raw(32 * header.hashes + header.length)
        assert decoder.read_raw() == hashes + content[expected : expected + header.length]
        expected += header.length
        hashes = b""
    assert expected == size
    decoder.end()


@given(st.lists(st.tuples(st.integers(0, 2 * SMALL_PART), st.booleans()), max_size=20))
def test_parts_that_are_joined_are_the_same_bytes_and_large_ones_are_not_copied(
    sizes: list[tuple[int, bool]],
) -> None:
    parts = [
        (bytes([number]) * size, size if is_of_file else 0) for number, (size, is_of_file) in enumerate(sizes)
    ]
    made = list(joined(parts))
    assert b"".join(data for data, _ in made) == b"".join(data for data, _ in parts)
    assert sum(of_file for _, of_file in made) == sum(of_file for _, of_file in parts)
    large = [data for data, _ in parts if len(data) > SMALL_PART]
    assert [data for data, _ in made if len(data) > SMALL_PART] == large
    small = [len(data) for data, _ in made if len(data) <= SMALL_PART]
    assert len(small) <= len(large) + 1 + 2 * sum(small) // SMALL_PART


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 200)), max_size=5), st.integers(14, 24))
def test_batches_hold_all_pieces_in_order_and_about_a_read_ahead(
    gaps: list[tuple[int, int]], exponent: int
) -> None:
    ranges, end = [], 0
    for gap, count in gaps:
        ranges.append((end + gap, count))
        end += gap + count
    made = list(batches(tuple(ranges), 1 << exponent))
    expected = [piece for first, count in ranges for piece in range(first, first + count)]
    assert [piece for batch in made for piece in batch] == expected
    assert all(batch for batch in made)
    assert all(len(batch) << exponent <= max(config.UPLOAD_READ_AHEAD, 1 << exponent) for batch in made)


@asynccontextmanager
async def asking(swarm: Swarm, size: int) -> AsyncIterator[tuple[Watched, PeerLink, Content]]:
    """A server that shares a file, and the link of a hand-made requester."""
    server = await swarm.start_server()
    write_random(server.files_dir / "a.bin", size)
    content = Content.of(server.files_dir / "a.bin")
    await server.node.share(server.files_dir / "a.bin")
    async with hand_made(swarm.network, "10.0.2.1") as node:
        yield server, await node.dial((SERVER, PORT)), content


async def taken(stream: MessageStream) -> bytes:
    """The data of all chunks up to the end of the transfer."""
    data = b""
    while isinstance(message := await stream.receive(), FileChunk):
        await stream.receive_raw(32 * message.hashes)
        data += await stream.receive_raw(message.length)
    assert message == FileTransferComplete(len(data))
    return data


async def test_pieces_are_sent_as_asked_with_the_metainfo_before_them(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with asking(swarm, 10 * BLOCK) as (server, link, content):
        stream = await link.request()
        await stream.send(FileRequest(content.file_id, ((1, 2), (9, 1)), metainfo=True))
        response = await stream.receive_as(FileResponse)
        assert (response.available, response.size) == (True, 10 * BLOCK)
        assert await stream.receive_raw(response.metainfo_length) == content.metainfo.encode()
        assert await taken(stream) == content.data[BLOCK : 3 * BLOCK] + content.data[9 * BLOCK :]
        assert await stream.receive() is None
        await stream.send(FileChunkAck(3 * BLOCK))
        await stream.send_eof()
        finished = await server.wait_for(UploadFinished)
        assert (finished.bytes_sent, finished.name) == (3 * BLOCK, "a.bin")
        assert server.node.statistics["bytes_sent"] == 3 * BLOCK


async def test_metainfo_alone_ends_with_it(autojump_clock: MockClock, swarm: Swarm) -> None:
    async with asking(swarm, 10 * BLOCK) as (server, link, content):
        stream = await link.request()
        await stream.send(FileRequest(content.file_id, metainfo=True))
        response = await stream.receive_as(FileResponse)
        await stream.receive_raw(response.metainfo_length)
        assert await stream.receive() is None
        assert server.node.statistics["bytes_sent"] == 0


async def test_what_is_no_acknowledgement_ends_the_request_alone(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with asking(swarm, 400 * BLOCK) as (server, link, content):
        stream = await link.request()
        await stream.send(FileRequest(content.file_id, ((0, 400),)))
        await stream.receive_as(FileResponse)
        await stream.send(Bye())
        with pytest.raises(StreamReset) as reset:
            while await stream.stream.receive_some():
                pass
        assert reset.value.code == CloseCode.PROTOCOL_ERROR
        again = await link.request()
        await again.send(FileRequest(content.file_id, ((0, 1),)))
        await again.receive_as(FileResponse)
        assert await taken(again) == content.data[:BLOCK]
        assert server.node.statistics["links"] == 1


@pytest.mark.parametrize("babble", [frame(Bye()), b"\x00\x00"])
async def test_Q10_a_requester_that_babbles_after_the_end_harms_itself_alone(
    autojump_clock: MockClock, swarm: Swarm, babble: bytes
) -> None:
    """There is no side left on which an error could be said, and nothing of it may reach the node."""
    async with asking(swarm, 4 * BLOCK) as (_, link, content):
        stream = await link.request()
        await stream.send(FileRequest(content.file_id, ((0, 4),)))
        await stream.receive_as(FileResponse)
        assert await taken(stream) == content.data
        assert await stream.receive() is None  # the responder's FIN
        await stream.send_bytes(babble)
        await stream.send_eof()
        await trio.sleep(1)
        again = await link.request()
        await again.send(FileRequest(content.file_id, ((0, 1),)))
        await again.receive_as(FileResponse)
        assert await taken(again) == content.data[:BLOCK]


async def test_a_requester_that_never_ends_his_side_is_not_waited_for(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with asking(swarm, 4 * BLOCK) as (server, link, content):
        stream = await link.request()
        await stream.send(FileRequest(content.file_id, ((0, 4),)))
        await stream.receive_as(FileResponse)
        assert await taken(stream) == content.data
        began = trio.current_time()
        await server.wait_for(UploadFinished)
        assert trio.current_time() - began <= config.SEND_STALL_TIMEOUT_S + 1


async def test_the_urgent_ones_of_twenty_requests_are_complete_first(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    order: list[int] = []
    async with asking(swarm, 100 * BLOCK) as (_, link, content):
        streams = [await link.request() for _ in range(20)]

        async def take(number: int) -> None:
            await streams[number].receive_as(FileResponse)
            assert await taken(streams[number]) == content.data
            order.append(number)

        for number, stream in enumerate(streams):
            await stream.send(FileRequest(content.file_id, ((0, 100),), priority=number // 10))
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(take, number)
    assert len(order) == 20
    assert sum(number < 10 for number in order[:10]) <= 2  # what was begun before the urgent ones came


async def test_Q13_one_node_cannot_make_us_hold_more_than_its_share(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Twenty requests, of which nothing is taken."""
    async with asking(swarm, 400 * BLOCK) as (server, link, content):
        streams = [await link.request() for _ in range(20)]
        for stream in streams:
            await stream.send(FileRequest(content.file_id, ((0, 400),)))
        held = server.node._uploader._memory
        most = 0
        for _ in range(100):
            await trio.sleep(1)
            most = max(most, held._total)
        assert 3 * config.UPLOAD_READ_AHEAD < most <= config.UPLOAD_MEMORY_PER_NODE_MAX
        for stream in streams:
            await stream.aclose()
        await trio.sleep(1)
        assert held._total == 0 and not held._of_node and not held._of_network


@pytest.mark.parametrize("give_up", ["close", "reset"])
async def test_Q10_a_request_that_is_given_up_frees_everything_at_once(
    autojump_clock: MockClock, swarm: Swarm, give_up: str
) -> None:
    """One that is being sent, one that was read ahead, and one that waits; the next is served within a round trip."""
    async with asking(swarm, 400 * BLOCK) as (server, link, content):
        streams = [await link.request() for _ in range(4)]
        for stream in streams:
            await stream.send(FileRequest(content.file_id, ((0, 400),)))
            await trio.sleep(0.1)
        uploader = server.node._uploader
        for stream in streams[:3]:
            if give_up == "close":
                await stream.aclose()
            else:
                stream.reset(CloseCode.CANCELLED)
        await streams[3].receive_as(FileResponse)
        await streams[3].receive_as(FileChunk)
        [line] = uploader._turns._lines.values()
        assert line.places == 1
        assert uploader._memory._total <= 3 * config.UPLOAD_READ_AHEAD


@pytest.mark.parametrize("claims", [(8 * config.MIB,), (2 * BLOCK, BLOCK)])
async def test_Q13_a_requester_that_invents_progress_loses_its_stream(
    autojump_clock: MockClock, swarm: Swarm, claims: tuple[int, ...]
) -> None:
    """It says that it has stored what was never sent, or less than it said before, so that we hold its pieces."""
    async with asking(swarm, 600 * BLOCK) as (_, link, content):
        stream = await link.request()
        await stream.send(FileRequest(content.file_id, ((0, 600),)))
        await stream.receive_as(FileResponse)
        await stream.receive_as(FileChunk)
        for claim in claims:
            await stream.send(FileChunkAck(claim))
        with pytest.raises(StreamReset) as reset, trio.fail_after(1):
            while await stream.stream.receive_some():
                pass
        assert reset.value.code == CloseCode.PROTOCOL_ERROR


async def test_a_requester_may_say_the_same_progress_again(autojump_clock: MockClock, swarm: Swarm) -> None:
    async with asking(swarm, 4 * BLOCK) as (server, link, content):
        stream = await link.request()
        await stream.send(FileRequest(content.file_id, ((0, 4),)))
        await stream.receive_as(FileResponse)
        assert await taken(stream) == content.data
        for claim in (0, BLOCK, BLOCK, 4 * BLOCK):
            await stream.send(FileChunkAck(claim))
        await stream.send_eof()
        assert (await server.wait_for(UploadFinished)).bytes_sent == 4 * BLOCK


def test_a_request_is_set_down_for_what_it_can_hold_and_a_download_has_room_for_its_requests() -> None:
    largest = described(bytes(2 * config.PIECE_LENGTH_MAX + 5 * BLOCK), config.PIECE_LENGTH_MAX)
    assert memory_of((), largest) == 0
    assert memory_of(((2, 1),), largest) == 5 * BLOCK
    assert memory_of(((0, 1),), largest) == config.PIECE_LENGTH_MAX
    assert memory_of(((0, 3),), largest) == 2 * config.PIECE_LENGTH_MAX + 5 * BLOCK
    small = described(bytes(config.MIB), BLOCK)
    assert memory_of(((0, 4), (5, 1)), small) == 5 * BLOCK
    assert memory_of(((0, 64),), small) == config.MIB
    at_once = config.REQUESTS_PER_SOURCE * memory_of(((0, 1),), largest)
    assert at_once <= config.UPLOAD_MEMORY_PER_NODE_MAX


async def test_the_next_request_is_not_busy_because_the_last_one_was_not_ended_yet(
    autojump_clock: MockClock, swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it was sent: its pieces are held no more, only the last part of each."""
    for limit in ("UPLOAD_MEMORY_MAX", "UPLOAD_MEMORY_PER_NODE_MAX"):
        monkeypatch.setattr(config, limit, 2 * config.UPLOAD_READ_AHEAD + 3 * config.CHUNK_SIZE)
    async with asking(swarm, 200 * BLOCK) as (_, link, content):
        for _ in range(3):
            stream = await link.request()
            await stream.send(FileRequest(content.file_id, ((0, 200),)))
            assert isinstance(await stream.receive(), FileResponse)
            assert await taken(stream) == content.data
        stream = await link.request()
        await stream.send(FileRequest(content.file_id, ((0, 200),)))
        assert isinstance(await stream.receive(), Error)


async def test_a_file_that_is_withdrawn_in_the_middle_is_not_found(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with asking(swarm, 400 * BLOCK) as (server, link, content):
        stream = await link.request()
        await stream.send(FileRequest(content.file_id, ((0, 400),)))
        await stream.receive_as(FileResponse)
        (server.files_dir / "a.bin").unlink()
        await trio.sleep(2 * config.RESCAN_INTERVAL_S)
        data = b""
        while isinstance(message := await stream.receive(), FileChunk):
            await stream.receive_raw(32 * message.hashes)
            data += await stream.receive_raw(message.length)
        assert isinstance(message, Error)
        assert message.code in (ErrorCode.NOT_FOUND, ErrorCode.SOURCE_CHANGED)
        assert content.data.startswith(data)


async def test_a_change_is_told_between_two_chunks_after_all_that_was_read_before(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """It is noticed while a chunk is half sent to a requester who is slow to read."""
    mib = config.UPLOAD_READ_AHEAD
    async with asking(swarm, 6 * mib) as (server, link, content):
        path = server.files_dir / "a.bin"
        path.write_bytes(content.data[: 3 * mib] + b"?" + content.data[3 * mib + 1 :])
        stream = await link.request()
        await stream.send(FileRequest(content.file_id, ((0, content.metainfo.piece_count),)))
        await trio.sleep(1)
        await stream.receive_as(FileResponse)
        data = b""
        while isinstance(message := await stream.receive(), FileChunk):
            await stream.receive_raw(32 * message.hashes)
            data += await stream.receive_raw(message.length)
        assert isinstance(message, Error) and message.code == ErrorCode.SOURCE_CHANGED
        assert data == content.data[: 3 * mib]
