"""The tracker as its front ends see it."""

from __future__ import annotations

import time
from dataclasses import replace
from random import Random

import pytest
import trio
import trio.testing

from p2pnode import config
from p2pnode.errors import Busy, Refused
from p2pnode.services.tracker import Language, Tracker, TrackerOptions
from p2pnode.tracker.announces import Announce, AnnounceEvent, SwarmCounts
from p2pnode.tracker.policy import PaceLimits

HASH, OTHER = b"h" * 20, b"o" * 20
A = Announce(HASH, b"a" * 20, ("8.8.4.4", 1024), 6881, left=1)
B = Announce(HASH, b"b" * 20, ("9.9.9.9", 1024), 6882)


def tracker_of(**options: object) -> Tracker:
    return Tracker(TrackerOptions(**options), rng=Random(1), clock=lambda: 0.0)  # type: ignore[arg-type]


def ask(tracker: Tracker, announce: Announce, passkey: str | None = None, language: Language = Language.HTTP):
    return tracker.announce(announce, passkey=passkey, language=language)


def test_two_peers_find_each_other() -> None:
    tracker = tracker_of()
    assert len(ask(tracker, A).peers) == 0
    answer = ask(tracker, B)
    assert [(peer.host, peer.port, peer.peer_id) for peer in answer.peers] == [("8.8.4.4", 6881, b"a" * 20)]
    assert answer.counts == SwarmCounts(1, 1, 0)


@pytest.mark.parametrize(
    ("language", "interval_s"), [(Language.JSON, 60), (Language.HTTP, 1200), (Language.UDP, 1200)]
)
def test_each_language_has_its_interval(language: Language, interval_s: int) -> None:
    answer = ask(tracker_of(interval_s=1200), A, language=language)
    assert (answer.interval_s, answer.interval_min_s) == (interval_s, interval_s // 2)


def test_a_private_tracker_knows_its_passkeys() -> None:
    tracker = tracker_of(passkeys=frozenset({"secret"}))
    assert ask(tracker, A, "secret").counts.incomplete == 1
    for passkey in (None, "", "Secret"):
        with pytest.raises(Refused, match="passkey"):
            ask(tracker, B, passkey)
        with pytest.raises(Refused, match="passkey"):
            tracker.scrape([HASH], passkey=passkey, language=Language.UDP)
    assert tracker.statistics["peers"] == 1
    assert tracker.statistics["announces_refused"] == 3


@pytest.mark.parametrize("options", [{"allowed": frozenset({HASH})}, {"denied": frozenset({OTHER})}])
def test_a_torrent_that_is_not_tracked_is_refused_and_left_out_of_scrapes(options: dict[str, object]) -> None:
    tracker = tracker_of(**options)
    ask(tracker, A)
    with pytest.raises(Refused, match="not tracked"):
        ask(tracker, replace(A, info_hash=OTHER))
    scraped = tracker.scrape([HASH, OTHER], passkey=None, language=Language.HTTP)
    assert scraped == {HASH: SwarmCounts(0, 1, 0)}


def test_T8_who_announces_too_often_gets_no_peers_and_then_nothing() -> None:
    tracker = tracker_of(pace=PaceLimits(peer_burst=2, peer_regained_s=30.0))
    ask(tracker, B)
    assert [len(ask(tracker, A).peers) for _ in range(4)] == [1, 1, 0, 0]
    with pytest.raises(Busy) as caught:
        ask(tracker, A, language=Language.UDP)
    assert caught.value.retry_after_s > 0
    for _ in range(3):  # in JSON there is always an answer
        assert len(ask(tracker, A, language=Language.JSON).peers) == 0
    assert ask(tracker, replace(A, event=AnnounceEvent.STOPPED)).counts == SwarmCounts(1, 0, 0)
    assert tracker.statistics["announces_flooding"] == 1


async def test_peers_that_do_not_come_back_are_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    tracker = Tracker()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tracker.run)
        ask(tracker, A, language=Language.JSON)
        ask(tracker, B, language=Language.HTTP)
        lasts_s = config.TRACKER_JSON_INTERVAL_S + config.TRACKER_GRACE_S
        await trio.sleep(lasts_s - 1)
        assert tracker.statistics["peers"] == 2
        await trio.sleep(1 + config.TRACKER_EXPIRY_INTERVAL_S)
        assert tracker.statistics["peers"] == 1
        await trio.sleep(config.TRACKER_INTERVAL_S)
        assert tracker.statistics["peers"] == tracker.statistics["torrents"] == 0
        nursery.cancel_scope.cancel()


def test_T12_the_wall_clock_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    tracker = Tracker(rng=Random(1), clock=lambda: now)
    for jump_s in (86_400.0, -86_400.0, 86_400.0 * 365 * 50):
        real = time.time()
        monkeypatch.setattr(time, "time", lambda real=real, jump_s=jump_s: real + jump_s)
        now += 900.0
        ask(tracker, A)
        assert tracker.expire() > 0
        assert len(ask(tracker, B).peers) == 1
    now += config.TRACKER_INTERVAL_S + config.TRACKER_GRACE_S + 1
    tracker.expire()
    assert tracker.statistics["peers"] == 0
