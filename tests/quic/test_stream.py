"""Streams: back-pressure, both sides' ends, and what tasks may do."""

from __future__ import annotations

import os

import pytest
import trio

from p2pnode import config
from p2pnode.errors import StreamReset
from p2pnode.quic import Stream
from p2pnode.quic.stream import CHUNK_SIZE_LARGE, SEND_STEP
from p2pnode.testing.network import Network
from tests.quic.endpoints import connected, open_and_accept, receive_all, send_and_finish, streams

pytestmark = pytest.mark.usefixtures("both_ways")

Clock = trio.testing.MockClock


def held(stream: Stream) -> int:
    return stream._engine.send_buffered(stream.stream_id)


async def test_Q2_a_reader_that_stalls_a_minute_stops_the_sender_and_loses_nothing(
    autojump_clock: Clock,
) -> None:
    data = os.urandom(8 * config.MIB)
    async with Network() as network, streams(network) as (ours, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(send_and_finish, ours, data)
        await trio.sleep(config.CONGESTION_IDLE_S)  # later on the window is found anew
        stream_max, _ = ours.connection._send_limits()
        assert config.SEND_BUFFER <= stream_max <= config.SEND_BUFFER * config.SEND_BUFFER_GROWTH_MAX
        assert stream_max - SEND_STEP < held(ours) <= stream_max
        held_at_once = held(ours)
        await trio.sleep(60)
        assert held(ours) == held_at_once
        assert theirs._unread == config.STREAM_RECEIVE_WINDOW - len(b"?")
        assert await receive_all(theirs) == data


async def test_Q13_what_a_peer_never_reads_is_held_up_to_a_limit(autojump_clock: Clock) -> None:
    async with Network() as network, connected(network) as (dialled, accepted):
        pairs = [await open_and_accept(dialled, accepted) for _ in range(8)]
        async with trio.open_nursery() as nursery:
            for ours, _theirs in pairs:
                nursery.start_soon(ours.send_all, bytes(4 * config.MIB))
            await trio.sleep(config.CONGESTION_IDLE_S)  # later on the window is found anew
            total = dialled._engine.send_buffered_total
            stream_max, room = dialled._send_limits()
            total_max = total + room
            assert total_max <= config.CONNECTION_SEND_BUFFER * config.SEND_BUFFER_GROWTH_MAX
            assert all(held(ours) <= stream_max for ours, _ in pairs)
            assert total_max - stream_max < total <= total_max + len(pairs) * config.SEND_BUFFER_MIN
            await trio.sleep(60)
            assert dialled._engine.send_buffered_total == total
            assert sum(theirs._unread for _, theirs in pairs) == config.CONNECTION_RECEIVE_WINDOW - 8 * len(
                b"?"
            )
            nursery.cancel_scope.cancel()
        assert not dialled.waiting_senders


async def test_what_is_held_for_streams_that_nobody_reads_does_not_silence_another(
    autojump_clock: Clock,
) -> None:
    async with (
        Network() as network,
        connected(network, stream_receive_window=16 * config.KIB) as (dialled, accepted),
    ):
        stuck = [await open_and_accept(dialled, accepted) for _ in range(3)]
        ours, theirs = await open_and_accept(dialled, accepted)
        data = os.urandom(200_000)
        async with trio.open_nursery() as nursery:
            for stream, _unread in stuck:
                nursery.start_soon(stream.send_all, bytes(4 * config.MIB))
            await trio.sleep(10)
            assert dialled._engine.send_buffered_total >= config.CONNECTION_SEND_BUFFER
            nursery.start_soon(send_and_finish, ours, data)
            assert await receive_all(theirs) == data
            nursery.cancel_scope.cancel()


async def test_a_smaller_window_is_kept_to_whatever_is_consumed(autojump_clock: Clock) -> None:
    window = 16 * config.KIB
    async with Network() as network, connected(network, stream_receive_window=window) as (dialled, accepted):
        ours, theirs = await open_and_accept(dialled, accepted)
        data = os.urandom(10 * window)
        taken = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_finish, ours, data)
            while len(taken) < len(data):
                await trio.sleep(1)
                assert theirs._unread <= window
                taken += await theirs.receive_some(5000)
        assert taken == data


async def test_one_stream_that_nobody_reads_does_not_stop_another(autojump_clock: Clock) -> None:
    async with Network() as network, connected(network) as (dialled, accepted):
        stuck, _unread = await open_and_accept(dialled, accepted)
        ours, theirs = await open_and_accept(dialled, accepted)
        data = os.urandom(6 * config.MIB)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stuck.send_all, bytes(8 * config.MIB))
            await trio.sleep(10)
            nursery.start_soon(send_and_finish, ours, data)
            assert await receive_all(theirs) == data
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
async def test_receive_some_gives_at_most_what_was_asked_for(autojump_clock: Clock, size: int) -> None:
    data = os.urandom(20_000)
    async with Network() as network, streams(network) as (ours, theirs):
        await send_and_finish(ours, data)
        await trio.sleep(1)
        received = bytearray()
        while chunk := await theirs.receive_some(size):
            assert len(chunk) <= size
            received += chunk
        assert received == data
        assert await theirs.receive_some() == b""
        with pytest.raises(ValueError, match="at least 1"):
            await theirs.receive_some(0)


async def test_a_large_chunk_is_handed_on_as_it_came_where_it_fits(autojump_clock: Clock) -> None:
    async with Network() as network, streams(network) as (_, theirs):
        large = os.urandom(CHUNK_SIZE_LARGE + 5)
        for _ in range(3):
            theirs.on_data(large, end=False)
        assert await theirs.receive_some() is large
        assert await theirs.receive_some(len(large)) is large
        assert await theirs.receive_some(100) == large[:100]
        assert await theirs.receive_some() == large[100:]
        assert theirs._unread == 0


async def test_tiny_frames_take_little_more_memory_than_their_bytes(autojump_clock: Clock) -> None:
    async with Network() as network, streams(network) as (_ours, theirs):
        data = os.urandom(60_000)
        for at in range(0, len(data), 3):
            theirs.on_data(data[at : at + 3], end=False)
        assert len(theirs._chunks) == 1
        assert await theirs.receive_some(7) == data[:7]
        theirs.on_data(b"abc" * 1000, end=False)
        theirs.on_data(b"tiny", end=True)
        assert await receive_all(theirs) == data[7:] + b"abc" * 1000 + b"tiny"


async def test_credit_is_returned_for_exactly_what_was_taken(autojump_clock: Clock) -> None:
    async with Network() as network, streams(network) as (ours, theirs):
        consumed_before = theirs._engine._consumed_bytes
        await ours.send_all(bytes(10_000))
        await trio.sleep(1)
        assert theirs._engine._consumed_bytes == consumed_before
        await theirs.receive_some(4_000)
        assert theirs._engine._consumed_bytes == consumed_before + 4_000
        await theirs.aclose()
        assert theirs._engine._consumed_bytes == consumed_before + 10_000


# -- ends --------------------------------------------------------------------------------------------------


async def test_Q10_a_remote_reset_ends_both_sides_here(autojump_clock: Clock) -> None:
    async with Network() as network, streams(network) as (ours, theirs):
        await ours.send_all(b"never read")
        await trio.sleep(1)
        ours.reset(77)
        await trio.sleep(1)
        with pytest.raises(StreamReset) as receiving:
            await theirs.receive_some()
        with pytest.raises(StreamReset) as sending:
            await theirs.send_all(b"x")
        with pytest.raises(StreamReset):
            await theirs.send_eof()
        assert receiving.value.code == sending.value.code == 77
        assert receiving.value.by_remote
        assert theirs._unread == 0
        for _ in range(2):
            with pytest.raises(trio.ClosedResourceError):
                await ours.receive_some()
            with pytest.raises(trio.ClosedResourceError):
                await ours.send_all(b"x")
            ours.reset(78)
        assert ours.connection.is_open


async def test_Q10_a_reset_in_the_middle_of_a_chunk(autojump_clock: Clock) -> None:
    async with Network() as network, streams(network) as (ours, theirs):
        outcomes = []

        async def send_for_ever() -> None:
            try:
                while True:
                    await ours.send_all(bytes(config.CHUNK_SIZE))
            except StreamReset as reset:
                outcomes.append(reset.code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_for_ever)
            await theirs.receive_some()
            await trio.sleep(0.5)
            theirs.reset(5)
        assert outcomes == [5]
        assert held(ours) == 0
        again, other = await open_and_accept(ours.connection, theirs.connection)
        assert again.connection.is_open
        assert other.connection.is_open


async def test_Q10_writing_to_what_the_engine_has_forgotten_is_a_reset(autojump_clock: Clock) -> None:
    async with Network() as network, streams(network) as (ours, _theirs):
        ours._engine.reset_stream(ours.stream_id, 1)
        with pytest.raises(StreamReset):
            await ours.send_all(b"x")


async def test_a_reset_that_crosses_a_reset(autojump_clock: Clock) -> None:
    async with Network() as network, streams(network) as (ours, theirs):
        ours.reset(1)
        theirs.reset(2)
        await trio.sleep(1)
        for stream in (ours, theirs):
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()
            assert not stream._engine.has_stream(stream.stream_id)


async def test_what_comes_after_we_stopped_reading_returns_its_credit(autojump_clock: Clock) -> None:
    async with Network() as network, connected(network) as (dialled, accepted):
        for _ in range(8):  # 8 MiB, twice the connection's window
            ours, theirs = await open_and_accept(dialled, accepted)
            await ours.send_all(bytes(config.MIB))
            theirs.reset(0)
            await trio.sleep(1)
        ours, theirs = await open_and_accept(dialled, accepted)
        await send_and_finish(ours, b"still here")
        assert await receive_all(theirs) == b"still here"
        assert accepted._engine._consumed_bytes == accepted._engine._local_max_data.used > 0


async def test_one_side_alone_is_stopped_and_what_nobody_takes_is_counted(autojump_clock: Clock) -> None:
    async with Network() as network, streams(network) as (ours, theirs):
        counted: list[int] = []
        theirs.on_unwanted = counted.append
        await ours.send_all(bytes(1000))
        await trio.sleep(1)
        await ours.send_all(bytes(500))  # on its way when the other side stops
        theirs.stop_receiving()
        assert counted == [1000]
        await trio.sleep(1)
        assert sum(counted) == 1500
        with pytest.raises(StreamReset):
            await ours.send_all(b"nobody listens")
        await theirs.send_all(b"still open")
        assert await ours.receive_some() == b"still open"


async def test_aclose_finishes_what_was_handed_over_and_stops_the_rest(autojump_clock: Clock) -> None:
    async with Network() as network, streams(network) as (ours, theirs):
        async with ours:
            await ours.send_all(b"all of this")
        assert await receive_all(theirs) == b"all of this"
        await trio.sleep(1)
        with pytest.raises(StreamReset):
            await theirs.send_all(b"nobody listens")
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive_some()
        await ours.aclose()


async def test_fin_may_be_sent_twice_and_nothing_after_it(autojump_clock: Clock) -> None:
    async with Network() as network, streams(network) as (ours, theirs):
        await ours.send_eof()
        await ours.send_eof()
        assert await receive_all(theirs) == b""
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"x")
        await theirs.send_all(b"the other way is open")
        assert await ours.receive_some() == b"the other way is open"


async def test_an_end_here_wakes_our_own_tasks(autojump_clock: Clock) -> None:
    async with Network() as network, streams(network) as (ours, _theirs):
        ended = []

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ours.receive_some()
            ended.append("receive")

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ours.send_all(bytes(8 * config.MIB))
            ended.append("send")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(send)
            await trio.sleep(10)
            ours.reset()
        assert sorted(ended) == ["receive", "send"]


# -- tasks -------------------------------------------------------------------------------------------------


async def test_one_task_sends_and_one_receives(autojump_clock: Clock) -> None:
    async with (
        Network() as network,
        streams(network) as (ours, _theirs),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ours.receive_some)
        nursery.start_soon(ours.send_all, bytes(8 * config.MIB))
        await trio.sleep(10)
        for second in (ours.send_eof, ours.receive_some, ours.wait_send_all_might_not_block):
            with pytest.raises(trio.BusyResourceError):
                await second()
        nursery.cancel_scope.cancel()


async def test_cancelled_tasks_leave_the_stream_usable(autojump_clock: Clock) -> None:
    async with Network() as network, streams(network) as (ours, theirs):
        with trio.move_on_after(1):
            await ours.receive_some()
        with trio.move_on_after(1):
            await ours.wait_send_all_might_not_block()
        await theirs.send_all(b"late")
        assert await ours.receive_some() == b"late"
        with trio.move_on_after(1) as too_long:
            await ours.send_all(bytes(8 * config.MIB))
        assert too_long.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send_eof)
            received = await receive_all(theirs)
        assert received == bytes(len(received))


async def test_waiting_for_room(autojump_clock: Clock) -> None:
    async with Network() as network, streams(network) as (ours, theirs), trio.open_nursery() as nursery:
        with trio.move_on_after(20):
            await ours.send_all(bytes(8 * config.MIB))
        with trio.move_on_after(1) as no_room:
            await ours.wait_send_all_might_not_block()
        assert no_room.cancelled_caught
        nursery.start_soon(receive_all, theirs)
        await ours.wait_send_all_might_not_block()
        await ours.send_eof()
