from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from p2pnode.tracker.turns import Turns

NODES = st.integers(0, 9).map(lambda number: bytes([number]))


def turns_of(*node_ids: bytes) -> Turns:
    turns = Turns()
    for node_id in node_ids:
        turns.add(node_id)
    return turns


def test_each_question_goes_on_where_the_last_one_ended() -> None:
    turns = turns_of(b"a", b"b", b"c")
    assert turns.take(2) == [b"a", b"b"]
    assert turns.take(2) == [b"c", b"a"]
    assert turns.take(9) == [b"b", b"c", b"a"]
    assert turns.take(0) == []
    assert Turns().take(3) == []


def test_who_asks_is_not_named_and_costs_nobody_a_turn() -> None:
    turns = turns_of(b"a", b"b", b"c")
    assert turns.take(2, b"b") == [b"a", b"c"]
    assert turns.take(3, b"b") == [b"a", b"c"]
    assert turns.take(2) == [b"a", b"b"]
    assert turns.take(1, b"z") == [b"c"]
    assert turns_of(b"a").take(1, b"a") == []


def test_who_chooses_his_id_gets_no_more_turns() -> None:
    """However their ids lie beside those of others, all are named equally often."""
    turns = turns_of(*(bytes([number]) for number in (0, 1, 2, 3, 200)))
    named = [node_id for _ in range(100) for node_id in turns.take(1)]
    assert {named.count(node_id) for node_id in set(named)} == {20}


class Counted(list[bytes]):
    """Counts how many of its items are looked at, and is never walked through."""

    looked_at = 0

    def __getitem__(self, place: Any) -> Any:
        self.looked_at += 1
        return super().__getitem__(place)

    def __iter__(self) -> Any:
        raise AssertionError("every one of them was looked at")


def test_of_ten_thousand_only_those_are_looked_at_that_are_taken() -> None:
    turns = turns_of(*(number.to_bytes(4, "big") for number in range(10_000)))
    turns._node_ids = counted = Counted(turns._node_ids)
    for _ in range(100):
        assert len(turns.take(50, without=b"\0\0\0\7")) == 50
    assert counted.looked_at == 100 * 50 + 1


@given(st.lists(st.one_of(st.tuples(st.sampled_from(["add", "discard"]), NODES), st.integers(0, 12))))
def test_random_comings_and_goings_agree_with_a_set(operations: list[tuple[str, bytes] | int]) -> None:
    turns, model = Turns(), set[bytes]()
    for operation in operations:
        if isinstance(operation, int):
            taken = turns.take(operation)
            assert len(taken) == len(set(taken)) == min(operation, len(model))
            assert set(taken) <= model
        elif operation[0] == "add":
            turns.add(operation[1])
            model.add(operation[1])
        else:
            turns.discard(operation[1])
            model.discard(operation[1])
        assert len(turns) == len(model)
    assert set(turns.take(10)) == model
