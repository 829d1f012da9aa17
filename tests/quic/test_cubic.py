from __future__ import annotations

from p2pnode.quic.cubic import STEP_MAX, Cubic

DATAGRAM = 1200


def grow(cubic: Cubic, window: float, begin: float, rtt: float, rounds: int) -> list[float]:
    """The window after each of so many round trips in which all of it was acknowledged."""
    windows = []
    for index in range(rounds):
        for part in range(10):
            window = cubic.grown(begin + (index + part / 10) * rtt, window, int(window / 10))
        windows.append(window)
    return windows


def test_it_rises_to_the_plateau_lingers_and_goes_on() -> None:
    cubic = Cubic(DATAGRAM)
    cubic.follow(0.1, in_a_hurry=True)
    plateau = 1000 * DATAGRAM
    cubic.begin(5.0, 700 * DATAGRAM, plateau)
    windows = grow(cubic, 700 * DATAGRAM, 5.0, 0.1, 200)
    assert windows == sorted(windows)
    assert (
        windows[45] > 0.95 * plateau
    )  # K = (300 / 0.4) ** (1 / 3) = 9.1 s; half of it brings 7 / 8 of the way
    assert abs(windows[90] - plateau) < 2 * DATAGRAM
    assert 1.2 * plateau < windows[180] < 1.4 * plateau  # as far above as it was below


def test_on_short_round_trips_it_grows_as_reno() -> None:
    cubic = Cubic(DATAGRAM)
    cubic.follow(0.001, in_a_hurry=True)
    cubic.begin(5.0, 10 * DATAGRAM, 100 * DATAGRAM)
    windows = grow(cubic, 10 * DATAGRAM, 5.0, 0.001, 100)
    assert 0.9 * 100 * 9 / 17 < windows[-1] / DATAGRAM - 10 < 1.1 * 100 * 9 / 17


def test_without_hurry_it_never_outgrows_reno() -> None:
    cubic = Cubic(DATAGRAM)
    cubic.begin(5.0, 700 * DATAGRAM, 1000 * DATAGRAM)
    cubic.follow(0.1, in_a_hurry=False)
    windows = grow(cubic, 700 * DATAGRAM, 5.0, 0.1, 100)
    assert windows[-1] <= (700 + 100) * DATAGRAM


def test_time_in_which_the_window_was_not_used_does_not_count() -> None:
    used, paused = Cubic(DATAGRAM), Cubic(DATAGRAM)
    for cubic in (used, paused):
        cubic.begin(5.0, 700 * DATAGRAM, 1000 * DATAGRAM)
    paused.pause(1005.0)
    assert used.grown(5.1, 700 * DATAGRAM, DATAGRAM) == paused.grown(1005.1, 700 * DATAGRAM, DATAGRAM)


def test_no_round_trip_grows_the_window_by_more_than_half() -> None:
    cubic = Cubic(DATAGRAM)
    cubic.begin(5.0, 10 * DATAGRAM, 10 * DATAGRAM)
    assert cubic.grown(1000.0, 10 * DATAGRAM, 10 * DATAGRAM) == STEP_MAX * 10 * DATAGRAM
