from __future__ import annotations

from p2pnode.swarm.peer import Peer
from p2pnode.swarm.zone import PATIENCE_S, Zone

NEAR = Peer(b"near", 1, is_complete=True, is_near=True)
FAR = Peer(b"far", 1, is_complete=True, is_near=False)


def looked(zone: Zone, seconds: float, near_rate: int) -> float:
    """Time passes, and near peers give so many bytes a second."""
    now = 0.0
    while now < seconds:
        now += 0.1
        if near_rate:
            zone.stored(NEAR, near_rate // 10, now)
        zone.look([NEAR, FAR], now)
    return now


def begun() -> Zone:
    zone = Zone()
    zone.joined(NEAR, 0.0)
    return zone


def test_who_knows_nobody_near_asks_everybody() -> None:
    zone = Zone()
    zone.joined(FAR, 0.0)
    assert not zone.has_near
    assert zone.may_ask(FAR, 0.0)


def test_near_peers_are_waited_for_but_not_for_ever() -> None:
    zone = begun()
    assert not zone.may_ask(FAR, 1.0)
    assert zone.may_ask(NEAR, 1.0)
    now = looked(zone, PATIENCE_S, near_rate=0)
    assert zone.may_ask(FAR, now)


def test_while_near_peers_give_a_far_one_is_only_tried_now_and_then() -> None:
    zone = begun()
    now = looked(zone, 4 * PATIENCE_S, near_rate=1000)
    assert [zone.may_ask(FAR, now) for _ in range(3)] == [True, False, False]
    assert zone.may_ask(FAR, now + PATIENCE_S)


def test_far_peers_that_are_much_faster_are_asked_for_anything() -> None:
    zone = begun()
    FAR.pace.rate = 100_000.0
    now = looked(zone, 2 * PATIENCE_S, near_rate=1000)
    FAR.pace.rate = 0.0
    assert all(zone.may_ask(FAR, now) for _ in range(3))
