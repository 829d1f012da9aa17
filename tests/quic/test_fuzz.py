"""A short run of the fuzzer; `python -m tests.quic.fuzz` is the long one."""

from __future__ import annotations

import logging

import pytest

from p2pnode import config
from tests.quic.fuzz import fuzz

SESSIONS = 60


@pytest.mark.parametrize("seed", [1, 2])
def test_G1_almost_legal_frames_make_nothing_escape(seed: int) -> None:
    logging.disable(logging.WARNING)
    try:
        counts = fuzz(seed, lambda counts: counts["sessions"] >= SESSIONS)
    finally:
        logging.disable(logging.NOTSET)
    assert counts["escapes"] == 0, counts
    assert counts["datagrams"] > 10 * SESSIONS
    assert counts["held at most"] <= config.CONNECTION_RECEIVE_WINDOW
    assert counts["handshakes broken"] < SESSIONS / 2
