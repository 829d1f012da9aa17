"""Slots, chains and rings beside what lists and dictionaries do."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from p2pnode.tracker.flat_tables import Chains, Rings, Slots, column, power_of_two

STEPS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 30)), max_size=100)


def test_powers_of_two() -> None:
    assert [power_of_two(count) for count in (0, 1, 2, 3, 4, 5, 1000)] == [1, 1, 2, 4, 4, 8, 1024]


def test_slots_that_were_given_back_are_taken_first_and_0_never() -> None:
    one, other = column(), column()
    slots = Slots(one, other)
    taken = [slots.take() for _ in range(3000)]
    assert taken == list(range(1, 3001))
    assert len(one) == len(other) >= 3001
    slots.give_back(7)
    slots.give_back(9)
    assert len(slots) == 2998
    assert {slots.take(), slots.take()} == {7, 9}
    assert slots.take() == 3001


@given(STEPS)
def test_a_chain_holds_what_was_put_in(steps: list[tuple[int, int, int]]) -> None:
    chains, model = Chains(4), defaultdict[int, set[int]](set)
    slots = Slots(chains.following)
    for _ in range(31):
        slots.take()
    number_of: dict[int, int] = {}
    for action, number, slot in steps:
        if not slot:
            continue
        if slot in number_of and action == 0:
            chains.remove(number_of[slot], slot)
            model[number_of.pop(slot) % 4].remove(slot)
        elif slot not in number_of:
            chains.add(number, slot)
            number_of[slot] = number
            model[number % 4].add(slot)
        for chain in range(4):
            assert set(walk(chains, chain)) == model[chain]


def walk(chains: Chains, number: int) -> list[int]:
    found, slot = [], chains.first(number)
    while slot:
        found.append(slot)
        slot = chains.following[slot]
    assert len(set(found)) == len(found)
    return found


@given(STEPS)
def test_a_ring_keeps_the_order_in_which_its_slots_came_or_were_renewed(
    steps: list[tuple[int, int, int]],
) -> None:
    rings, model = Rings(4), defaultdict[int, list[int]](list)
    slots = Slots(*rings.columns)
    for _ in range(31):
        slots.take()
    number_of: dict[int, int] = {}
    for action, number, slot in steps:
        if not slot:
            continue
        if slot not in number_of:
            rings.add(number, slot)
            number_of[slot] = number
            model[number % 4].append(slot)
        elif action == 0:
            rings.remove(number_of[slot], slot)
            model[number_of.pop(slot) % 4].remove(slot)
        else:
            rings.renew(number_of[slot], slot)
            ring = model[number_of[slot] % 4]
            ring.remove(slot)
            ring.append(slot)
        for ring_number in range(4):
            assert around(rings, ring_number) == model[ring_number]
            assert rings.size(ring_number) == len(model[ring_number])


def around(rings: Rings, number: int) -> list[int]:
    """From the oldest to the newest."""
    found, slot = [], rings.oldest(number)
    while slot and slot not in found:
        found.append(slot)
        slot = rings.newer[slot]
    return found
