"""Streams with one side: who may open them, and that all limits hold for them as for the others."""

from __future__ import annotations

import os

import pytest
import trio
from aioquic.quic.packet import QuicErrorCode

from p2pnode import config
from p2pnode.errors import ConnectionClosed, Refused, StreamReset
from p2pnode.quic import Connection
from p2pnode.quic.stream_table import EXCESSIVE_LOAD
from p2pnode.testing.network import Network
from tests.quic.endpoints import (
    DIALER,
    LISTENER,
    Remote,
    connect,
    connected,
    endpoint_at,
    receive_all,
    send_and_finish,
)
from tests.quic.engines import Pair, stream_frame
from tests.quic.engines import connected as connected_engines

pytestmark = pytest.mark.usefixtures("both_ways")

Clock = trio.testing.MockClock

AT_ONCE = 3
ALLOWED = {"unidirectional_streams": {config.ALPN: AT_ONCE}}
FIRST = 2  # the dialer's first


def pair() -> Pair:
    return connected_engines(**ALLOWED)


@pytest.mark.parametrize("by_listener", [False, True])
async def test_bytes_go_one_way(autojump_clock: Clock, by_listener: bool) -> None:
    data = os.urandom(5_000_000)
    async with (
        Network() as network,
        endpoint_at(network, DIALER, **ALLOWED) as dialer,
        endpoint_at(network, LISTENER, **ALLOWED) as listener,
    ):
        dialled, accepted = await connect(dialer, listener)
        opener, other = (accepted, dialled) if by_listener else (dialled, accepted)
        ours = opener.open_unidirectional_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_finish, ours, data)
            theirs = await other.accept_unidirectional_stream()
            assert other.unidirectional_streams_received == 1
            assert await receive_all(theirs) == data
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await theirs.send_all(b"x")
        await ours.aclose()
        await theirs.aclose()
        assert opener.is_open
        assert opener.unidirectional_streams_received == 0


async def test_no_more_are_opened_than_the_remote_allows(autojump_clock: Clock) -> None:
    async with Network() as network, connected(network, **ALLOWED) as (dialled, accepted):
        opened = [dialled.open_unidirectional_stream() for _ in range(AT_ONCE)]
        with pytest.raises(Refused):
            dialled.open_unidirectional_stream()
        for _ in range(50):
            stream = opened.pop(0)
            await send_and_finish(stream, b"x")
            assert await receive_all(await accepted.accept_unidirectional_stream()) == b"x"
            await trio.sleep(1)  # it is done, and another may be opened; that is told for several at once
            if len(opened) < AT_ONCE - 1:
                opened.append(dialled.open_unidirectional_stream())
        assert accepted.unidirectional_streams_received == 50


async def test_each_side_may_end_it(autojump_clock: Clock) -> None:
    async with Network() as network, connected(network, **ALLOWED) as (dialled, accepted):
        given_up, refused, last = (dialled.open_unidirectional_stream() for _ in range(AT_ONCE))
        for stream in (given_up, refused, last):
            await stream.send_all(b"x")
        received = [await accepted.accept_unidirectional_stream() for _ in range(AT_ONCE)]
        given_up.reset(7)
        received[1].reset(8)  # its own side is all there is to give up
        await trio.sleep(1)
        with pytest.raises(StreamReset) as by_sender:
            await receive_all(received[0])
        with pytest.raises(StreamReset) as by_receiver:
            await refused.send_all(b"x")
        assert (by_sender.value.code, by_receiver.value.code) == (7, 8)
        accepted.close()
        with pytest.raises(ConnectionClosed):
            await dialled.accept_unidirectional_stream()
        with pytest.raises(ConnectionClosed):
            dialled.open_unidirectional_stream()


def test_one_too_many_ends_the_connection() -> None:
    engines = pair()
    for number in range(AT_ONCE):
        engines.inject(stream_frame(FIRST + 4 * number, 0, b"x"))
    assert engines.closed is None
    engines.inject(stream_frame(FIRST + 4 * AT_ONCE, 0, b"x"))
    assert engines.closed is not None
    assert engines.closed.error_code == QuicErrorCode.STREAM_LIMIT_ERROR


def test_Q1_sparse_data_never_holds_more_than_the_window() -> None:
    engines = pair()
    for _ in range(9):
        engines.inject(stream_frame(FIRST, config.STREAM_RECEIVE_WINDOW - 1, b"x"))
        engines.exchange(1)
    assert engines.closed is None
    assert len(engines.victim._streams[FIRST].receiver._buffer) == config.STREAM_RECEIVE_WINDOW
    engines.inject(stream_frame(FIRST, config.STREAM_RECEIVE_WINDOW, b"x"))
    assert engines.closed is not None
    assert engines.closed.error_code == QuicErrorCode.FLOW_CONTROL_ERROR


async def test_Q2_a_reader_that_stalls_stops_the_sender(autojump_clock: Clock) -> None:
    async with Network() as network, connected(network, **ALLOWED) as (dialled, accepted):
        ours = dialled.open_unidirectional_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send_all, bytes(9_000_000))
            theirs = await accepted.accept_unidirectional_stream()
            await trio.sleep(30)
            assert theirs.unread == config.STREAM_RECEIVE_WINDOW
            assert ours.unacknowledged <= config.SEND_BUFFER * config.SEND_BUFFER_GROWTH_MAX
            nursery.cancel_scope.cancel()


async def test_Q12_opening_and_resetting_them_too_fast_ends_the_connection(autojump_clock: Clock) -> None:
    many = {"unidirectional_streams": {config.ALPN: 200}}
    async with Network() as network, endpoint_at(network, LISTENER, **many) as listener:
        remote = Remote(network)
        await remote.dial(LISTENER)
        await remote.live_for(0.5)
        accepted: Connection = await listener.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(remote.live)
            while accepted.is_open:
                stream_id = remote.engine.get_next_available_stream_id(is_unidirectional=True)
                if stream_id // 4 < remote.engine._remote_max_streams_uni:
                    remote.engine.send_stream_data(stream_id, b"x")
                    remote.engine.reset_stream(stream_id, 1)
                else:
                    await trio.sleep(0.05)
                    assert trio.current_time() < 200
            nursery.cancel_scope.cancel()
        assert (await accepted.wait_closed()).code == EXCESSIVE_LOAD
        assert accepted.unidirectional_streams_received < 2 * config.STREAM_RESETS_BURST
