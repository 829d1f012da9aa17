"""Places, and who gets them."""

from __future__ import annotations

from contextlib import ExitStack

from p2pnode.services.network_shares import NetworkShares


def test_a_network_has_its_share_and_all_have_theirs() -> None:
    shares = NetworkShares(total_max=4, per_network_max=2)
    with ExitStack() as stack:

        def take(host: str) -> bool:
            return stack.enter_context(shares.place(host))

        assert [take("192.0.2.1") for _ in range(3)] == [True, True, False]
        assert [take("2001:db8::1"), take("2001:db8::2"), take("2001:db8::3")] == [True, True, False]
        assert not take("192.0.2.2")
    with shares.place("192.0.2.1") as again:
        assert again


def test_a_place_is_free_again_whatever_happens() -> None:
    shares = NetworkShares(total_max=1, per_network_max=1)
    for _ in range(3):
        try:
            with shares.place("192.0.2.1") as has_place:
                assert has_place
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
