"""The streams of a connection: those that are done are forgotten, those that only make work are refused."""

from __future__ import annotations

import trio

from p2pnode import config
from p2pnode.quic.stream_table import EXCESSIVE_LOAD
from p2pnode.testing.network import Network
from tests.quic.endpoints import LISTENER, Remote, connected, endpoint_at, receive_all, send_and_finish

Clock = trio.testing.MockClock


async def test_opening_waits_for_the_remote_to_allow_more_streams(
    autojump_clock: Clock,
) -> None:
    async with Network() as network, connected(network) as (dialled, accepted):
        opened = 0

        async def serve() -> None:
            while True:
                stream = await accepted.accept_stream()
                await receive_all(stream)
                await stream.aclose()

        async with trio.open_nursery() as nursery:
            with trio.move_on_after(5):
                while True:
                    stream = await dialled.open_stream()
                    await stream.send_all(b"x")
                    await stream.send_eof()
                    opened += 1
            assert opened == 128
            nursery.start_soon(serve)
            for _ in range(1000):  # and the bookkeeping does not grow for ever
                stream = await dialled.open_stream()
                await send_and_finish(stream, b"x")
                assert await receive_all(stream) == b""
                await stream.aclose()
            assert len(dialled._streams) < 400
            assert len(accepted._streams) < 400
            nursery.cancel_scope.cancel()


async def test_Q12_opening_and_resetting_streams_too_fast_ends_the_connection(
    autojump_clock: Clock,
) -> None:
    async with Network() as network, endpoint_at(network, LISTENER) as listener:
        remote = Remote(network)
        await remote.dial(LISTENER)
        await remote.live_for(0.5)
        accepted = await listener.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(remote.live)
            opened = 0
            while accepted.is_open and opened < 100_000:
                limit = remote.engine._remote_max_streams_bidi
                while opened < limit:
                    stream_id = 4 * opened
                    remote.engine.send_stream_data(stream_id, b"x")
                    remote.engine.reset_stream(stream_id, 1)
                    remote.engine.stop_stream(stream_id, 1)
                    opened += 1
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
        closed = await accepted.wait_closed()
        assert closed.code == EXCESSIVE_LOAD
        assert opened < 2 * config.STREAM_RESETS_BURST


async def test_streams_that_nobody_accepts_are_refused_and_cost_little(
    autojump_clock: Clock,
) -> None:
    async with Network() as network, connected(network) as (dialled, accepted):
        for _ in range(128):
            stream = await dialled.open_stream()
            await stream.send_all(b"x")
            await stream.send_eof()
        await trio.sleep(1)
        accepted_count = 0
        with trio.move_on_after(1):
            while True:
                await accepted.accept_stream()
                accepted_count += 1
        assert accepted_count == 128
