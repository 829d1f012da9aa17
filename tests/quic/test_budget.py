from __future__ import annotations

from p2pnode.quic.budget import Budget


def test_a_budget_is_full_at_first_and_refills_with_time() -> None:
    budget = Budget(per_s=10, burst=3)
    assert [budget.spend(100.0) for _ in range(5)] == [True, True, True, False, False]
    assert [budget.spend(100.125) for _ in range(2)] == [True, False]
    assert [budget.spend(200.0) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_goes_back_gives_nothing() -> None:
    budget = Budget(per_s=10, burst=1)
    assert budget.spend(100.0)
    assert not budget.spend(50.0)


def test_what_costs_more_takes_more() -> None:
    budget = Budget(per_s=10, burst=10)
    assert [budget.spend(100.0, 4.5) for _ in range(3)] == [True, True, False]
    assert budget.spend(100.0)
