from __future__ import annotations

import pytest

from p2pnode import config
from p2pnode.quic.aioquic_internals import HardenedConnection
from p2pnode.quic.send_clock import SendClock, SendLimit
from tests.quic.engines import connected


def test_the_time_between_two_looks_goes_to_the_first_one() -> None:
    clock = SendClock()
    assert clock.seconds(SendLimit.APPLICATION, 5.0) == 0
    clock.switch(SendLimit.CONGESTION, 10.0)
    clock.switch(SendLimit.CONGESTION, 11.0)
    clock.switch(SendLimit.FLOW_CONTROL, 13.0)
    assert clock.seconds(SendLimit.CONGESTION, 20.0) == 3
    assert clock.seconds(SendLimit.FLOW_CONTROL, 20.0) == 7
    assert clock.seconds(SendLimit.APPLICATION, 20.0) == 0


def test_an_engine_with_nothing_to_send_waits_for_its_application() -> None:
    pair = connected(victim_is_client=True)
    stream_id = pair.victim.open_stream()
    pair.victim.send_stream_data(stream_id, bytes(3_000), end_stream=True)
    pair.exchange(1)
    assert pair.victim.send_limit is SendLimit.APPLICATION


def test_an_engine_that_sent_a_window_waits_for_its_congestion_control() -> None:
    pair = connected(victim_is_client=True)
    stream_id = pair.victim.open_stream()
    pair.victim.send_stream_data(stream_id, bytes(config.MIB))
    pair.victim.datagrams_to_send(pair.now)
    assert pair.victim.send_limit is SendLimit.CONGESTION
    pair.exchange(400)
    assert pair.victim.send_limit is SendLimit.APPLICATION


@pytest.mark.parametrize("streams", [1, 4])
def test_an_engine_without_credit_waits_for_flow_control(streams: int) -> None:
    """Of one stream, or of the whole connection."""
    pair = connected(victim_is_client=True, attacker_class=HardenedConnection)  # which nobody reads from
    for _ in range(streams):
        stream_id = pair.victim.open_stream()
        pair.victim.send_stream_data(stream_id, bytes(config.STREAM_RECEIVE_WINDOW + 1))
    pair.exchange(400)
    assert pair.closed is None
    assert pair.victim.send_limit is SendLimit.FLOW_CONTROL
