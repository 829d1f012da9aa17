"""Who asked a moment ago."""

from __future__ import annotations

from p2pnode import config
from p2pnode.tracker import RecentAskers

FILE, OTHER = b"f" * 32, b"g" * 32


def test_the_latest_comes_first_and_each_once() -> None:
    askers = RecentAskers()
    for when, node in enumerate([b"a", b"b", b"a", b"c"]):
        askers.note(FILE, node, float(when))
    askers.note(OTHER, b"d", 3.0)
    assert list(askers.recent(FILE, 3.0)) == [b"c", b"a", b"b"]
    assert list(askers.recent(b"h" * 32, 3.0)) == []


def test_what_is_long_ago_is_forgotten() -> None:
    askers = RecentAskers()
    askers.note(FILE, b"a", 0.0)
    askers.note(FILE, b"b", 1.0)
    assert list(askers.recent(FILE, config.RECENT_ASKER_S + 0.5)) == [b"b"]
    assert list(askers.recent(FILE, config.RECENT_ASKER_S + 1.5)) == []


def test_it_never_holds_more_than_it_may() -> None:
    askers = RecentAskers()
    for number in range(config.RECENT_ASKERS_MAX + 10):
        askers.note(FILE, str(number).encode(), 0.0)
    assert len(list(askers.recent(FILE, 0.0))) == config.RECENT_ASKERS_MAX
    assert next(askers.recent(FILE, 0.0)) == str(config.RECENT_ASKERS_MAX + 9).encode()
    for number in range(config.SEARCHES_MAX):
        askers.note(number.to_bytes(32), b"a", 0.0)
    assert list(askers.recent(FILE, 0.0)) == []
