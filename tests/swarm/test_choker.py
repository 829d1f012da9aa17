"""Upload slots: who gets one, who keeps it, and that everybody gets a chance."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.swarm.choker import (
    OPTIMISTIC_ROUNDS,
    RECHOKE_INTERVAL_S,
    SEED_TURN_S,
    SNUBBED_S,
    BytesGiven,
    BytesTaken,
    Choke,
    Choker,
    ChokerEvent,
    FetchingChanged,
    InterestChanged,
    Unchoke,
)
from p2pnode.swarm.events import DeadlinePassed, PeerId, PeerLeft

ROUND = RECHOKE_INTERVAL_S
OPTIMISTIC_S = OPTIMISTIC_ROUNDS * ROUND


def peers(count: int) -> list[PeerId]:
    return [bytes([65 + number]) for number in range(count)]


class Played:
    """A choker, and who is unchoked by its commands."""

    def __init__(self, slots: int, *, fetching: bool = True, seed: int = 1) -> None:
        self.choker = Choker(slots, rng=Random(seed))
        self.now = 0.0
        self.unchoked: set[PeerId] = set()
        self.first_at: dict[PeerId, float] = {}  # unchoked
        self.play(FetchingChanged(fetching))

    def play(self, *events: ChokerEvent) -> None:
        for event in events:
            self.choker.receive(event, self.now)
            for command in self.choker.commands():
                match command:
                    case Choke(peer):
                        self.unchoked.remove(peer)  # it was unchoked
                    case Unchoke(peer):
                        assert peer not in self.unchoked
                        self.unchoked.add(peer)
                        self.first_at.setdefault(peer, self.now)
            assert self.unchoked == self.choker.unchoked

    def interested(self, *them: PeerId) -> None:
        self.play(*(InterestChanged(peer, True) for peer in them))

    def rounds(self, count: int, *events: ChokerEvent) -> None:
        """So many re-chokes; in each the same happens before."""
        for _ in range(count):
            self.play(*events)
            deadline = self.choker.next_deadline()
            assert deadline is not None
            self.now = deadline
            self.play(DeadlinePassed())


def test_free_slots_are_given_at_once_and_no_more_than_there_are() -> None:
    a, b, c = peers(3)
    game = Played(2)
    game.interested(a, b, c)
    assert game.unchoked == {a, b}
    game.play(InterestChanged(a, False))
    assert game.unchoked == {b, c}


def test_one_more_is_unchoked_at_the_first_rechoke() -> None:
    everybody = peers(4)
    game = Played(2)
    game.interested(*everybody)
    game.rounds(1)
    assert len(game.unchoked) == 3


def test_those_who_give_most_get_the_slots_of_who_fetches() -> None:
    a, b, c, d, e = peers(5)
    game = Played(2)
    game.interested(a, b, c, d, e)
    game.rounds(1, BytesGiven(e, 100), BytesGiven(d, 90), BytesGiven(a, 10), BytesTaken(a, 1000))
    assert {d, e} <= game.unchoked
    game.rounds(4, BytesGiven(e, 10), BytesGiven(b, 90), BytesGiven(c, 80))
    assert {b, c} <= game.unchoked


def test_to_give_is_no_merit_with_who_has_everything_but_to_take_fast_is() -> None:
    a, b, c, d = peers(4)
    game = Played(1, fetching=False)
    game.interested(a, b, c, d)
    game.rounds(1, BytesGiven(b, 10_000), BytesTaken(c, 100))
    assert c in game.unchoked


def test_a_slot_of_a_seed_goes_round() -> None:
    everybody = peers(6)
    game = Played(2, fetching=False)
    game.interested(*everybody)
    game.rounds(int(6 * SEED_TURN_S / ROUND), BytesTaken(everybody[0], 1000))
    assert game.first_at.keys() == set(everybody)


def test_who_snubs_us_loses_its_slot_to_who_only_waits() -> None:
    a, b = peers(2)
    game = Played(1)
    game.interested(a, b)
    game.rounds(1, BytesGiven(a, 10**9))  # so much that it would count for hours
    assert game.unchoked == {a, b}  # b is the optimistic one
    for _ in range(int(SNUBBED_S / ROUND) - 2):
        game.rounds(1)
        assert game.unchoked - {game.choker._optimistic} == {a}
    game.rounds(1)
    assert game.unchoked - {game.choker._optimistic} == {b}


def test_the_optimistic_one_stays_for_three_rounds_and_new_ones_are_favoured() -> None:
    a, b, c, d = peers(4)
    game = Played(1)
    game.interested(a, b, c)
    giving = BytesGiven(a, 100)
    game.rounds(1, giving)
    [first] = game.unchoked - {a}
    for _ in range(OPTIMISTIC_ROUNDS - 1):
        game.rounds(1, giving)
        assert game.unchoked == {a, first}
    game.rounds(1, giving)
    [second] = game.unchoked - {a}
    assert second == ({b, c} - {first}).pop()
    game.rounds(1, giving)
    game.interested(d)
    game.rounds(OPTIMISTIC_ROUNDS - 1, giving)
    assert game.unchoked == {a, d}  # it waited less long than `first` did, but was never unchoked


def test_no_one_is_new_again_by_losing_interest() -> None:
    a, b, c = peers(3)
    game = Played(1)
    game.interested(a, b, c)
    giving = BytesGiven(a, 100)
    game.rounds(1, giving)
    [first] = game.unchoked - {a}
    [other] = {b, c} - {first}
    game.play(InterestChanged(first, False), InterestChanged(first, True))
    assert first not in game.unchoked
    assert not game.choker._peers[first].is_new
    game.play(PeerLeft(first), InterestChanged(first, True))
    assert game.choker._peers[first].is_new
    game.rounds(1, giving)
    assert other in game.unchoked


def test_nothing_is_due_while_nobody_is_interested() -> None:
    game = Played(3)
    assert game.choker.next_deadline() is None
    game.interested(*peers(1))
    assert game.choker.next_deadline() == ROUND
    game.play(PeerLeft(peers(1)[0]))
    assert game.choker.next_deadline() is None and game.unchoked == set()
    game.play(PeerLeft(b"stranger"), BytesGiven(b"stranger", 1), BytesTaken(b"stranger", 1))


def test_a_node_without_slots_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Choker(0, rng=Random(1))


who = st.sampled_from(peers(8))
happenings = st.one_of(
    st.builds(InterestChanged, who, st.booleans()),
    st.builds(BytesGiven, who, st.integers(0, 10**7)),
    st.builds(BytesTaken, who, st.integers(0, 10**7)),
    st.builds(PeerLeft, who),
    st.builds(FetchingChanged, st.booleans()),
    st.just(DeadlinePassed()),
)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 4), st.lists(st.tuples(st.floats(0, 15), happenings), max_size=80), st.integers(0, 9))
def test_never_more_than_the_slots_and_one_and_no_slot_idle(
    slots: int, steps: list[tuple[float, ChokerEvent]], seed: int
) -> None:
    game = Played(slots, seed=seed)
    interested: set[PeerId] = set()
    for wait_s, event in steps:
        game.now += wait_s
        match event:
            case InterestChanged(peer, True):
                interested.add(peer)
            case InterestChanged(peer, False) | PeerLeft(peer):
                interested.discard(peer)
        game.play(event)
        assert game.unchoked <= interested
        assert min(slots, len(interested)) <= len(game.unchoked) <= slots + 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(2, 9), st.booleans(), st.integers(0, 99), st.data())
def test_everybody_who_stays_interested_is_unchoked_before_everybody_else_was_twice(
    slots: int, count: int, fetching: bool, seed: int, data: st.DataObject
) -> None:
    """Whatever is given and taken: within as many turns of the optimistic one as there are peers."""
    everybody = peers(count)
    game = Played(slots, fetching=fetching, seed=seed)
    came_at = {}
    for peer in everybody:
        game.now += data.draw(st.floats(0, 20))
        came_at[peer] = game.now
        game.play(InterestChanged(peer, True))
    sizes = st.integers(0, 10**6)
    for _ in range((count + 1) * OPTIMISTIC_ROUNDS):
        events = [
            kind(peer, data.draw(sizes))
            for peer in everybody[: slots + 1]
            for kind in (BytesGiven, BytesTaken)
        ]
        game.rounds(1, *events)
    assert game.first_at.keys() == set(everybody)
    for peer in everybody:
        assert game.first_at[peer] - max(came_at.values()) <= count * OPTIMISTIC_S + ROUND
