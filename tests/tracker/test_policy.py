"""Who may announce, and how often."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.errors import Refused
from p2pnode.tracker.policy import Admission, Haste, Pace, PaceLimits

HASH, OTHER = b"h" * 20, b"o" * 20
ME, YOU = b"me", b"you"
FLOOD_FACTOR = config.TRACKER_FLOOD_FACTOR


def test_by_default_everybody_may_announce_everything() -> None:
    Admission().check_passkey(None)
    Admission().check_passkey("whatever")
    Admission().check_torrent(HASH)


@pytest.mark.parametrize("passkey", [None, "", "no", "YES"])
def test_a_private_tracker_refuses_strangers(passkey: str | None) -> None:
    admission = Admission(passkeys=frozenset({"yes", "yes, too"}))
    admission.check_passkey("yes")
    admission.check_passkey("yes, too")
    with pytest.raises(Refused, match="passkey"):
        admission.check_passkey(passkey)


def test_denied_goes_before_allowed() -> None:
    admission = Admission(allowed={HASH, OTHER}, denied={OTHER})
    assert admission.allows(HASH)
    assert not admission.allows(OTHER)
    assert not admission.allows(b"x" * 20)
    with pytest.raises(Refused, match="not tracked"):
        admission.check_torrent(OTHER)


def test_T8_a_flood_is_first_told_of_nobody_and_then_not_heard() -> None:
    pace = Pace(PaceLimits(peer_burst=3, peer_regained_s=10.0))
    came = [pace.note(HASH, ME, ME, 0.0) for _ in range(9)]
    assert came == [Haste.NONE] * 3 + [Haste.NO_PEERS] * 3 * (FLOOD_FACTOR - 1) + [Haste.FLOOD] * 3
    assert pace.note(HASH, YOU, ME, 0.0) is Haste.NONE
    assert pace.note(OTHER, ME, ME, 0.0) is Haste.NONE
    assert pace.note(HASH, ME, YOU, 0.0) is Haste.NONE


def test_T8_who_keeps_the_interval_is_never_hasty() -> None:
    pace = Pace()
    for number in range(100):
        assert pace.note(HASH, ME, ME, number * config.TRACKER_ANNOUNCE_REGAINED_S) is Haste.NONE


def test_T8_who_was_not_heard_is_heard_again_in_time() -> None:
    pace = Pace(PaceLimits(peer_burst=2, peer_regained_s=10.0))
    for _ in range(1000):
        last = pace.note(HASH, ME, ME, 0.0)
    assert last is Haste.FLOOD
    assert pace.note(HASH, ME, ME, 10.0) is Haste.NO_PEERS
    assert pace.note(HASH, ME, ME, 50.0) is Haste.NONE


def test_T8_a_flood_under_ever_new_ids_is_one_network() -> None:
    pace = Pace(PaceLimits(network_burst=10, network_regained_s=1.0))
    came = [pace.note(HASH, number.to_bytes(20), ME, 0.0) for number in range(50)]
    assert came.count(Haste.NONE) == 10
    assert came[-1] is Haste.FLOOD
    assert pace.note(HASH, YOU, YOU, 0.0) is Haste.NONE


@given(st.lists(st.floats(0, 20), max_size=50))
def test_T8_of_any_rhythm_no_more_is_heard_than_the_burst_and_what_was_regained(pauses: list[float]) -> None:
    pace, now, heard, free = Pace(PaceLimits(peer_burst=3, peer_regained_s=10.0)), 0.0, 0, 0
    for pause in pauses:
        now += pause
        haste = pace.note(HASH, ME, ME, now)
        heard += haste is not Haste.FLOOD
        free += haste is Haste.NONE
    assert heard <= 3 * FLOOD_FACTOR + now / 10.0 + 1e-6
    assert free <= 3 + now / 10.0 + 1e-6
