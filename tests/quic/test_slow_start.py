from __future__ import annotations

from p2pnode.quic.round_trips import SAMPLES_MIN, RoundTrips
from p2pnode.quic.slow_start import CAUTIOUS_ROUNDS, SlowStart


class Playbook:
    def __init__(self) -> None:
        self.rounds = RoundTrips(1200)
        self.slow_start = SlowStart()
        self.now = 0.0

    def round(self, *rtts: float) -> bool:
        """A round trip with these measurements; whether slow start is over after it."""
        for rtt in rtts:
            self.rounds.add_rtt(rtt)
            self.slow_start.on_rtt(self.rounds)
        self.now += 0.1
        self.rounds.begin(self.now)
        return self.slow_start.is_over()


def test_equal_round_trips_never_end_it() -> None:
    play = Playbook()
    assert not any(play.round(*[0.05] * 20) for _ in range(20))
    assert play.slow_start.divisor == 1


def test_a_longer_round_trip_makes_it_cautious_and_five_end_it() -> None:
    play = Playbook()
    play.round(*[0.05] * 20)
    results = [play.round(*[0.05 + 0.01 * more] * 20) for more in range(1, CAUTIOUS_ROUNDS + 1)]
    assert play.slow_start.divisor == 4
    assert results == [False] * (CAUTIOUS_ROUNDS - 1) + [True]


def test_a_quick_round_trip_shows_that_it_was_noise() -> None:
    play = Playbook()
    play.round(*[0.05] * 20)
    play.round(*[0.06] * 20)
    assert play.slow_start.divisor == 4
    assert not any(play.round(*[0.05] * 20) for _ in range(20))
    assert play.slow_start.divisor == 1


def test_the_noise_of_loopback_does_not_count() -> None:
    play = Playbook()
    play.round(*[0.0001] * 20)
    for _ in range(20):
        assert not play.round(*[0.003, 0.0007, 0.002] * 10)
    assert play.slow_start.divisor == 1


def test_few_measurements_do_not_count() -> None:
    play = Playbook()
    play.round(*[0.05] * 20)
    assert not any(play.round(*[0.2] * (SAMPLES_MIN - 1)) for _ in range(20))
