"""`PacketNumbers` is a set of numbers, whatever order they come in, as long as there are not too many gaps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pnode.quic.packet_numbers import RANGES_MAX, PacketNumbers

runs = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=30)


@given(runs)
def test_it_is_a_set(added: list[tuple[int, int]]) -> None:
    numbers, model = PacketNumbers(), set()
    for start, size in added:
        numbers.add_run(start, start + size)
        model |= set(range(start, start + size))
        assert [number in numbers for number in range(80)] == [number in model for number in range(80)]
        assert numbers.lower == 0


@given(st.lists(st.integers(0, 40), max_size=40))
def test_single_packets_are_runs_of_one(added: list[int]) -> None:
    numbers = PacketNumbers()
    for number in added:
        numbers.add(number)
    assert [number in numbers for number in range(50)] == [number in added for number in range(50)]


@given(runs)
def test_ranges_stay_in_order_and_apart(added: list[tuple[int, int]]) -> None:
    numbers = PacketNumbers()
    for start, size in added:
        numbers.add_run(start, start + size)
    edges = [edge for pair in zip(numbers._starts, numbers._stops, strict=True) for edge in pair]
    assert edges == sorted(set(edges))


def test_beyond_so_many_gaps_the_oldest_numbers_count_as_received() -> None:
    numbers = PacketNumbers()
    for number in range(0, 2 * RANGES_MAX, 2):
        numbers.add(number)
    assert 1 not in numbers
    numbers.add(2 * RANGES_MAX)
    assert numbers.lower == 1
    assert 0 in numbers
    assert 1 not in numbers
    numbers.add(2 * RANGES_MAX + 2)
    assert numbers.lower == 3
    assert 1 in numbers
    assert 3 not in numbers


def test_what_was_forgotten_is_never_new_again() -> None:
    numbers = PacketNumbers()
    for number in range(0, 4 * RANGES_MAX, 2):
        numbers.add(number)
    lower = numbers.lower
    for number in [3, *range(4 * RANGES_MAX, 6 * RANGES_MAX, 2)]:
        numbers.add(number)
        assert numbers.lower >= lower
        assert all(number in numbers for number in range(lower))
