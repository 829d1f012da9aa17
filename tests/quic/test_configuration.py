from __future__ import annotations

import ssl

import pytest

from p2pnode import config
from p2pnode.quic.configuration import CONNECTION_ID_LENGTH, Pacer, make_configuration


def test_both_roles_speak_alike() -> None:
    for is_client in (True, False):
        made = make_configuration(is_client=is_client, alpns=("p2pnode/1",))
        assert made.alpn_protocols == ["p2pnode/1"]
        assert made.supported_versions == [1]
        assert made.connection_id_length == CONNECTION_ID_LENGTH
        assert made.verify_mode == ssl.CERT_NONE
        assert (made.max_data, made.max_stream_data) == (
            config.CONNECTION_RECEIVE_WINDOW,
            config.STREAM_RECEIVE_WINDOW,
        )


@pytest.mark.parametrize(("window", "rtt_s"), [(12_000, 0.1), (500_000, 0.05), (16 * config.MIB, 0.001)])
def test_a_pacer_lets_bursts_go_and_keeps_its_rate(window: int, rtt_s: float) -> None:
    pacer = Pacer(max_datagram_size=1200)
    pacer.update_rate(window, rtt_s)
    assert pacer.packet_time is not None
    now, sent, bursts = 100.0, 0, []
    while now < 101.0:
        burst = 0
        while pacer.next_send_time(now) is None:
            pacer.update_after_send(now)
            burst += 1
        bursts.append(burst)
        sent += burst
        now += 0.001
    assert max(bursts) <= config.PACING_BURST_PACKETS + 2
    fastest = min(1.25 * window / 1200 / rtt_s, 1000 * (config.PACING_BURST_PACKETS + 1))
    assert 0.95 * fastest <= sent <= fastest + len(bursts)  # a burst may end with one packet more
