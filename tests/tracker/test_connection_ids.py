"""A connection id is good for one host and two minutes, and cannot be guessed."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.tracker.connection_ids import ConnectionIds

SECRET = bytes(range(32))
HERE = "192.0.2.1"
LASTS_S = config.UDP_CONNECTION_LASTS_S
FORGED = 20_000

times = st.floats(0, 10**9)


@given(times, st.floats(0, LASTS_S - 1, exclude_max=True))
def test_an_id_is_good_for_two_minutes_whatever_the_window(now: float, age_s: float) -> None:
    ids = ConnectionIds(SECRET)
    connection_id = ids.issue(HERE, now)
    assert len(connection_id) == 8
    assert ids.accepts(connection_id, HERE, now + age_s)


@given(times, st.floats(LASTS_S, 100 * LASTS_S))
def test_T2_an_id_is_not_good_for_longer(now: float, age_s: float) -> None:
    ids = ConnectionIds(SECRET)
    assert not ids.accepts(ids.issue(HERE, now), HERE, now + age_s)


@given(times, st.floats(1, LASTS_S))
def test_T2_an_id_of_the_future_is_none(now: float, ahead_s: float) -> None:
    ids = ConnectionIds(SECRET)
    assert not ids.accepts(ids.issue(HERE, now + ahead_s), HERE, now)


@pytest.mark.parametrize("other", ["192.0.2.2", "192.0.2.10", "2.0.2.1", "::1", "::ffff:192.0.2.1"])
def test_T2_an_id_is_good_for_nobody_else(other: str) -> None:
    ids = ConnectionIds(SECRET)
    assert not ids.accepts(ids.issue(HERE, 1000.0), other, 1000.0)


def test_T2_an_id_of_another_tracker_is_none() -> None:
    assert not ConnectionIds(SECRET).accepts(ConnectionIds(bytes(32)).issue(HERE, 1000.0), HERE, 1000.0)


def test_T2_guessed_ids_are_not_accepted() -> None:
    ids = ConnectionIds(SECRET)
    rng = Random(15)
    guesses = [rng.randbytes(8) for _ in range(FORGED)]
    # Near misses: of a good id, one bit is another, or the second within the window.
    good = ids.issue(HERE, 1000.0)
    guesses += [(int.from_bytes(good) ^ (1 << bit)).to_bytes(8) for bit in range(64)]
    guesses += [bytes((second,)) + good[1:] for second in range(256) if second != good[0]]
    assert ids.accepts(good, HERE, 1000.0)
    assert not any(ids.accepts(guess, HERE, 1000.0) for guess in guesses)


def test_ids_are_the_same_while_nothing_changes() -> None:
    """So an answer that was lost and asked for again makes nobody an id the poorer."""
    ids = ConnectionIds(SECRET)
    assert ids.issue(HERE, 1000.25) == ids.issue(HERE, 1000.75)
    assert ids.issue(HERE, 1000.25) != ids.issue(HERE, 1001.0)
