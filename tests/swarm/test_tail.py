from __future__ import annotations

from p2pnode.swarm.ledger import Ledger
from p2pnode.swarm.peer import Peer, Request
from p2pnode.swarm.tail import Budget, PieceTimes, find_hedge, find_steal
from p2pnode.torrent.bitfield import Bitfield

COUNT = 10
SIZE = 1000
ALL = (1 << COUNT) - 1
NOW = 100.0


def peer(name: bytes, rate: float) -> Peer:
    one = Peer(name, ALL, is_complete=True, is_near=True)
    one.pace.rate, one.pace.latency_s = rate, 0.01
    return one


class Ending:
    """A slow peer that was asked for some pieces, and an idle one."""

    def __init__(self, pieces: list[int], *, slow: float = 100.0, idle: float = 900.0) -> None:
        self.ledger = Ledger([SIZE] * COUNT, Bitfield(COUNT), None)
        self.slow, self.idle = peer(b"slow", slow), peer(b"idle", idle)
        self.request: Request = self.ledger.open(self.slow, pieces, NOW)
        self.times = PieceTimes()

    def steal(self, offered: int = ALL, size_max: int = 100 * SIZE) -> list[int]:
        found = find_steal(self.idle, offered, self.ledger, rate_else=100.0, size_max=size_max, now=NOW)
        return [] if found is None else self.request.pieces[found.cut :]

    def hedge(self, offered: int = ALL, now: float = NOW + 1) -> int | None:
        found = find_hedge(self.idle, offered, self.ledger, self.times, rate_else=100.0, now=now)
        return None if found is None else found.piece


def test_so_much_is_stolen_from_the_rear_that_both_end_together() -> None:
    assert Ending(list(range(10))).steal() == list(range(1, 10))
    assert Ending(list(range(10)), idle=100.0).steal() == [5, 6, 7, 8, 9]


def test_what_has_begun_is_not_stolen() -> None:
    ending = Ending([0, 1])
    ending.ledger.stored(b"slow", 0, 10, NOW)
    ending.ledger.stored(b"slow", 1, 10, NOW)
    assert ending.steal() == []


def test_only_what_the_idle_one_offers_is_stolen_and_not_more_than_a_request() -> None:
    assert Ending(list(range(10))).steal(ALL & ~(1 << 7)) == [8, 9]
    assert Ending(list(range(10))).steal(ALL & ~(1 << 9)) == []
    assert Ending(list(range(10))).steal(size_max=3 * SIZE) == [7, 8, 9]


def test_nothing_is_stolen_for_no_gain() -> None:
    assert Ending([0], idle=100.0).steal() == []
    assert Ending(list(range(10)), slow=1_000_000.0, idle=1_000_000.0).steal() == []


def test_what_may_be_on_the_wire_is_at_risk_and_what_is_far_behind_is_not() -> None:
    near, far = Ending([0]), Ending(list(range(10)))
    found = find_steal(near.idle, ALL, near.ledger, rate_else=1.0, size_max=10 * SIZE, now=NOW)
    assert found is not None and found.at_risk == SIZE
    found = find_steal(far.idle, ALL, far.ledger, rate_else=1.0, size_max=SIZE, now=NOW)
    assert found is not None and found.at_risk == 0


def test_the_last_piece_of_a_request_is_hedged_when_it_takes_longer_than_usual() -> None:
    ending = Ending([3])
    for _ in range(20):
        ending.times.add(0.5)
    assert ending.hedge(now=NOW + 0.4) is None
    assert ending.hedge(now=NOW + 0.6) == 3
    assert ending.hedge(ALL ^ 1 << 3) is None
    assert Ending([3, 4]).hedge() is None


def test_no_piece_is_hedged_twice_nor_while_it_is_hashed() -> None:
    ending = Ending([3])
    ending.times.add(0.5)
    ending.ledger.open(peer(b"other", 100.0), [3], NOW, is_hedge=True)
    ending.ledger.stored(b"other", 3, 1, NOW + 0.9)
    assert ending.hedge() is None
    ending.ledger.stored(b"other", 3, SIZE - 1, NOW + 0.9)
    assert ending.hedge() is None


def test_a_second_one_that_gives_nothing_is_replaced_by_a_third() -> None:
    ending = Ending([3])
    ending.times.add(0.5)
    second = ending.ledger.open(peer(b"other", 100.0), [3], NOW, is_hedge=True)
    found = find_hedge(ending.idle, ALL, ending.ledger, ending.times, rate_else=100.0, now=NOW + 20)
    assert found is not None and found.instead is second
    again = find_hedge(ending.slow, ALL, ending.ledger, ending.times, rate_else=100.0, now=NOW + 20)
    assert again is None  # it is asked for it already


def test_the_budget_is_two_percent_with_all_that_may_still_come() -> None:
    budget = Budget(100_000)
    assert budget.left(NOW) == 2000
    budget.hedge(3, 800)
    budget.hold(500, NOW)
    assert budget.left(NOW) == 700
    budget.spend(300)  # it was held
    assert budget.left(NOW) == 700
    budget.end_hedge(3, NOW)
    assert budget.left(NOW) == 700
    assert budget.left(NOW + 2) == 1700
    assert budget.spent == 300


def test_one_in_twenty_pieces_takes_longer_than_usual() -> None:
    times = PieceTimes()
    assert times.usual_max_s == 0
    for number in range(20):
        times.add(number)
    assert times.usual_max_s == 19
    for _ in range(100):
        times.add(1)
    assert times.usual_max_s == 1
