from __future__ import annotations

import pytest

from p2pnode import config
from p2pnode.quic.congestion import CongestionControl, Pacer


def pacer_at(window: int, rtt_s: float) -> Pacer:
    control = CongestionControl(max_datagram_size=1200)
    control.ssthresh = 0  # past slow start
    pacer = Pacer(control)
    pacer.update_rate(window, rtt_s)
    return pacer


@pytest.mark.parametrize(("window", "rtt_s"), [(12_000, 0.1), (500_000, 0.05), (4 * config.MIB, 0.1)])
def test_a_pacer_lets_bursts_go_and_keeps_its_rate(window: int, rtt_s: float) -> None:
    pacer = pacer_at(window, rtt_s)
    now, sent, bursts = 100.0, 0, []
    while now < 101.0:
        burst = 0
        while pacer.next_send_time(now) is None:
            pacer.update_after_send(now)
            burst += 1
        if burst:
            bursts.append(burst)
        sent += burst
        now += 0.001
    fastest = 1.25 * window / 1200 / rtt_s
    assert 0.95 * fastest <= sent <= fastest + bursts[0]
    assert max(bursts[1:]) <= max(2, window // 4800, fastest * config.PACING_CATCH_UP_S)
