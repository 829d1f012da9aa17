from __future__ import annotations

from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.tracker.announces import AnnounceEvent
from p2pnode.tracker.schedule import (
    AnnounceFailed,
    AnnounceSucceeded,
    DeadlinePassed,
    PeersNeeded,
    Schedule,
    TrackerState,
    TransferCompleted,
    TransferStopped,
)

A, B, C, D = (f"http://{name}/announce" for name in "abcd")
STARTED, COMPLETED = AnnounceEvent.STARTED, AnnounceEvent.COMPLETED
STOPPED, REGULAR = AnnounceEvent.STOPPED, AnnounceEvent.NONE


class Play:
    """One schedule, and a clock that the test moves."""

    def __init__(self, *tiers: list[str], is_complete: bool = False, seed: int = 0) -> None:
        self.schedule = Schedule(tiers, rng=Random(seed), is_complete=is_complete)
        self.now = 1000.0

    def sent(self) -> list[tuple[str, AnnounceEvent]]:
        """What is to be announced by now, and nothing else is to be done."""
        return [(command.url, command.event) for command in self.schedule.commands()]

    def wait(self) -> float:
        """Let the clock run to the deadline; gives how long that took."""
        deadline = self.schedule.next_deadline()
        assert deadline is not None
        waited_s = max(deadline - self.now, 0.0)
        self.now += waited_s
        self.schedule.receive(DeadlinePassed(), self.now)
        return waited_s

    def answer(self, url: str, interval_s: int = 1800, min_s: int | None = None, peers: int = 1) -> None:
        self.schedule.receive(AnnounceSucceeded(url, interval_s, min_s, peers), self.now)

    def fail(self, url: str) -> None:
        self.schedule.receive(AnnounceFailed(url, "nobody answers"), self.now)

    def tell(self, event: PeersNeeded | TransferCompleted | TransferStopped) -> None:
        self.schedule.receive(event, self.now)

    def started(self, url: str, **answer: int) -> None:
        """The first announce, to this tracker, and its answer."""
        self.wait()
        assert self.sent() == [(url, STARTED)]
        self.answer(url, **answer)


# -- tiers (BEP 12) ----------------------------------------------------------------------------------------


def test_the_next_tier_is_asked_when_all_of_a_tier_failed() -> None:
    play = Play([A, B], [C], [D])
    play.wait()
    ((first, _),) = play.sent()
    play.fail(first)
    ((second, _),) = play.sent()
    assert {first, second} == {A, B}
    play.fail(second)
    assert play.sent() == [(C, STARTED)]
    play.answer(C)
    assert play.sent() == []
    assert play.wait() == 1800


def test_who_answers_moves_to_the_front_of_its_tier_and_each_round_begins_with_the_first_tier() -> None:
    play = Play([A, B], [C, D])
    play.wait()
    ((dead, _),) = play.sent()
    play.fail(dead)
    ((alive, _),) = play.sent()
    play.answer(alive)
    play.wait()
    assert play.sent() == [(alive, REGULAR)]
    play.fail(alive)
    assert play.sent() == [(dead, STARTED)]
    play.fail(dead)
    ((third, event),) = play.sent()
    assert third in (C, D)
    assert event is STARTED
    play.answer(third)
    assert play.wait() == 1800
    assert play.sent()[0][0] == alive  # of the first tier, and the last that answered there


def test_a_tier_is_shuffled_and_tiers_are_not() -> None:
    tier = [f"udp://{number}" for number in range(8)]
    orders = {
        tuple(status.url for status in Play(tier, [A], seed=seed).schedule.trackers) for seed in range(20)
    }
    assert len(orders) > 10
    assert {order[-1] for order in orders} == {A}
    assert all(sorted(order[:8]) == tier for order in orders)


def test_M11_only_32_trackers_of_schemes_that_we_speak_are_asked() -> None:
    bad = ["file:///etc/passwd", "gopher://x/", "ftp://x/", ""]
    play = Play(bad, [f"http://x/{number}" for number in range(100_000)])
    urls = {status.url for status in play.schedule.trackers}
    assert len(urls) == 32
    assert not urls & set(bad)


def test_without_trackers_there_is_nothing_to_do() -> None:
    play = Play(["file:///x"])
    play.tell(PeersNeeded())
    play.tell(TransferCompleted())
    assert play.schedule.next_deadline() is None
    play.tell(TransferStopped())
    assert play.sent() == []


def test_while_we_fetch_a_tracker_that_knows_nobody_is_not_the_last_one_asked() -> None:
    play = Play([A, B], [C])
    play.wait()
    ((first, _),) = play.sent()
    play.answer(first, interval_s=600, peers=0)
    assert play.sent() == [(C, STARTED)]
    play.answer(C)
    assert play.wait() == 600
    assert play.sent() == [(first, REGULAR)]


def test_a_seed_needs_nobody_and_stays_with_the_tracker_that_answers() -> None:
    play = Play([A], [B], is_complete=True)
    play.started(A, peers=0)
    assert play.sent() == []
    assert play.wait() == 1800


def test_a_tracker_behind_one_that_recovered_is_left_alone() -> None:
    play = Play([A], [B])
    play.wait()
    play.sent()
    play.fail(A)
    assert play.sent() == [(B, STARTED)]
    play.answer(B, interval_s=600)
    for _ in range(5):
        play.wait()
        ((url, _),) = play.sent()
        assert url == A
        play.answer(A, interval_s=600)


# -- times -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval_s", "waited_s"),
    [(0, 30), (-1, 30), (2**31, 3600), (-(2**63), 30), (10**19, 3600), (60, 60), (29, 30), (1800, 1800)],
)
def test_T11_an_interval_is_between_half_a_minute_and_an_hour(interval_s: int, waited_s: int) -> None:
    play = Play([A])
    play.started(A, interval_s=interval_s)
    assert play.wait() == waited_s


@pytest.mark.parametrize(("min_s", "waited_s"), [(0, 30), (-1, 30), (120, 120), (2**31, 1800), (900, 900)])
def test_T11_who_needs_peers_asks_sooner_but_not_before_a_tracker_allows_it(
    min_s: int, waited_s: int
) -> None:
    play = Play([A])
    play.started(A, min_s=min_s)
    play.tell(PeersNeeded())
    assert play.wait() == waited_s
    assert play.sent() == [(A, REGULAR)]


def test_who_needs_peers_asks_who_was_not_asked_yet_and_stops_when_somebody_gives_some() -> None:
    play = Play([A], [B])
    play.started(A)
    play.now += 10
    play.tell(PeersNeeded())
    assert play.sent() == [(B, STARTED)]
    play.answer(B, peers=0)
    assert play.wait() == 290  # no minimum was named: the default, since A was asked
    assert play.sent() == [(A, REGULAR)]
    play.answer(A, interval_s=1800, peers=3)
    assert play.wait() == 1800


def test_T13_when_all_are_dead_they_are_asked_after_times_that_double_up_to_an_hour() -> None:
    play = Play([A])
    play.wait()
    waits = []
    for _ in range(12):
        assert play.sent() == [(A, STARTED)]
        play.fail(A)
        waits.append(play.wait())
    for number, waited_s in enumerate(waits):
        longest_s = min(60 * 2**number, 3600)
        assert longest_s / 2 <= waited_s <= longest_s
    assert len(set(waits)) == len(waits)


def test_T13_those_who_lost_a_tracker_together_do_not_come_back_together() -> None:
    times = set()
    for seed in range(50):
        play = Play([A], seed=seed)
        play.wait()
        play.fail(A)
        times.add(play.wait())
    assert len(times) == 50


def test_T13_a_tracker_that_failed_for_years_is_still_asked_and_one_answer_makes_it_whole() -> None:
    play = Play([A])
    play.wait()
    for _ in range(3000):
        play.fail(A)
        assert play.wait() <= 3600
    play.answer(A)
    assert play.wait() == 1800
    play.fail(A)
    assert play.wait() <= 60


def test_T13_two_that_disagree_are_each_asked_at_their_own_time() -> None:
    play = Play([A], [B])
    play.started(A, interval_s=60, peers=0)
    assert play.sent() == [(B, STARTED)]
    play.answer(B, interval_s=1800, min_s=600, peers=5)
    asked = []
    while play.now < 1000 + 1800:
        play.wait()
        while sent := play.sent():
            ((url, _),) = sent
            asked.append(url)
            play.answer(url, interval_s=60 if url == A else 1800, min_s=600 if url == B else None, peers=0)
    assert asked.count(A) == 30
    assert 1 <= asked.count(B) <= 3


def test_T13_a_tracker_behind_a_dead_one_is_not_left_for_it() -> None:
    play = Play([A], [B])
    play.wait()
    play.sent()
    play.fail(A)
    play.answer(B)
    assert play.wait() == 1800  # and not when A may be tried again


# -- what is told ------------------------------------------------------------------------------------------


def test_started_regular_completed_stopped() -> None:
    play = Play([A])
    play.started(A)
    play.wait()
    assert play.sent() == [(A, REGULAR)]
    play.answer(A)
    play.now += 1
    play.tell(TransferCompleted())
    assert play.sent() == [(A, COMPLETED)]  # at once, whatever the minimum
    play.answer(A)
    assert play.wait() == 1800
    assert play.sent() == [(A, REGULAR)]
    play.answer(A)
    play.tell(TransferStopped())
    assert play.sent() == [(A, STOPPED)]
    play.answer(A, peers=0)
    assert play.sent() == []
    assert play.schedule.next_deadline() is None


def test_started_is_said_to_each_tracker_until_it_answers() -> None:
    play = Play([A], [B])
    play.wait()
    assert play.sent() == [(A, STARTED)]
    play.fail(A)
    assert play.sent() == [(B, STARTED)]
    play.fail(B)
    play.wait()
    ((_, event),) = play.sent()
    assert event is STARTED


def test_who_has_everything_from_the_start_never_completes() -> None:
    play = Play([A], is_complete=True)
    play.started(A)
    play.tell(TransferCompleted())
    assert play.sent() == []
    play.wait()
    assert play.sent() == [(A, REGULAR)]


def test_completion_while_an_announce_is_under_way_is_told_after_it() -> None:
    play = Play([A])
    play.wait()
    assert play.sent() == [(A, STARTED)]
    play.tell(TransferCompleted())
    assert play.sent() == []
    play.answer(A)
    assert play.sent() == [(A, COMPLETED)]
    play.answer(A)
    assert play.wait() == 1800


def test_completion_before_the_first_announce_is_no_news() -> None:
    play = Play([A])
    play.tell(TransferCompleted())
    play.wait()
    assert play.sent() == [(A, STARTED)]
    play.answer(A)
    assert play.wait() == 1800


def test_completion_is_told_to_who_knows_us_and_again_when_that_fails() -> None:
    play = Play([A], [B])
    play.wait()
    play.sent()
    play.fail(A)
    assert play.sent() == [(B, STARTED)]
    play.answer(B)
    play.now += 1000  # A could be tried again
    play.tell(TransferCompleted())
    assert play.sent() == [(B, COMPLETED)]
    play.fail(B)
    events = []
    for _ in range(6):
        ((url, event),) = play.sent()
        play.fail(url)
        events.append((url, event))
        if play.schedule.next_deadline() is not None:
            play.wait()
    assert set(events) == {(A, STARTED), (B, COMPLETED)}


def test_stopped_is_said_to_all_who_may_know_us_and_not_to_the_dead() -> None:
    play = Play([A], [B], [C])
    play.started(A, peers=0)
    play.fail(B)
    play.sent()
    play.tell(TransferStopped())
    assert play.sent() == [(A, STOPPED), (C, STOPPED)]
    play.fail(A)
    play.answer(C)
    assert play.sent() == []
    assert [status.state.name for status in play.schedule.trackers] == ["FAILING", "FAILING", "WORKING"]


def test_stopping_twice_is_stopping_once() -> None:
    play = Play([A])
    play.started(A)
    play.tell(TransferStopped())
    play.tell(TransferStopped())
    assert play.sent() == [(A, STOPPED)]


def test_a_dead_tracker_that_is_being_asked_is_not_waited_for_at_the_end() -> None:
    play = Play([A])
    play.wait()
    play.fail(A)
    play.wait()
    play.sent()
    play.tell(TransferStopped())
    assert play.sent() == []
    assert play.schedule.trackers[0].state is TrackerState.FAILING


def test_what_nobody_asked_for_changes_nothing() -> None:
    play = Play([A], [B])
    play.fail("http://elsewhere/")
    assert play.sent() == [(A, STARTED)]  # it was time for that anyway
    play.answer(B)
    play.answer(A)
    play.answer(B, interval_s=30)
    play.fail(A)
    assert play.sent() == []
    assert play.wait() == 1800


def test_people_are_shown_how_trackers_are_doing() -> None:
    play = Play([A], [B], [C])
    states = [status.state for status in play.schedule.trackers]
    assert states == [TrackerState.UNTRIED] * 3
    play.wait()
    play.fail(A)
    first, second, third = play.schedule.trackers
    assert (first.url, first.tier, first.state, first.failures) == (A, 0, TrackerState.FAILING, 1)
    assert first.reason == "nobody answers"
    assert (second.url, second.tier, second.state) == (B, 1, TrackerState.ASKED)
    assert third.state is TrackerState.UNTRIED
    play.answer(B)
    assert play.schedule.trackers[1].state is TrackerState.WORKING


# -- whatever happens --------------------------------------------------------------------------------------

INTERVALS = st.sampled_from([-1, 0, 30, 60, 1800, 2**31])
OUTCOMES = st.one_of(
    st.tuples(st.just("fail")),
    st.tuples(st.just("answer"), INTERVALS, st.none() | INTERVALS, st.integers(0, 2)),
    st.tuples(st.just("need")),
    st.tuples(st.just("complete")),
    st.tuples(st.just("wait"), st.floats(0, 4000)),
    st.tuples(st.just("stop")),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(OUTCOMES, max_size=60), st.integers(0, 3))
def test_no_tracker_is_ever_bothered_and_the_schedule_never_gets_stuck(
    outcomes: list[tuple[object, ...]], seed: int
) -> None:
    """One announce at a time; half a minute between two to one tracker, but for completed and stopped."""
    play = Play([A, B], [C], seed=seed)
    waiting: list[str] = []
    asked_at = dict.fromkeys((A, B, C), -inf)
    is_stopping = False
    for outcome in [*outcomes, ("stop",)]:
        match outcome:
            case ("fail",) if waiting:
                play.fail(waiting.pop(0))
            case ("answer", interval_s, min_s, peers) if waiting:
                play.schedule.receive(
                    AnnounceSucceeded(waiting.pop(0), interval_s, min_s, peers),
                    play.now,  # type: ignore[arg-type]
                )
            case ("need",):
                play.tell(PeersNeeded())
            case ("complete",):
                play.tell(TransferCompleted())
            case ("wait", seconds):
                play.now += seconds  # type: ignore[operator]
                play.schedule.receive(DeadlinePassed(), play.now)
            case ("stop",) if not is_stopping:
                waiting.clear()
                play.tell(TransferStopped())
                is_stopping = True
        for url, event in play.sent():
            waiting.append(url)
            if event in (STARTED, REGULAR):
                assert play.now - asked_at[url] >= 30
            asked_at[url] = play.now
        assert len(set(waiting)) == len(waiting)
        assert is_stopping or len(waiting) <= 1
        deadline = play.schedule.next_deadline()
        assert (deadline is None) == (bool(waiting) or is_stopping)
        assert deadline is None or deadline <= play.now + 3600
