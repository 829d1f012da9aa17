from __future__ import annotations

import pytest

from p2pnode.torrent.urls import tracker_tiers, web_seeds

BAD = [
    "", "file:///etc/passwd", "gopher://x/", "javascript:alert(1)", "http:/x", "http://", "udp://a b", "udp://a\n",
    "http://x/\x1b[2J", "http://x/\u202e", "ws://x", "HTTP//x", " http://x", "http://" + "x" * 2048,
]  # fmt: skip


@pytest.mark.parametrize("url", BAD)
def test_M11_what_is_no_address_of_a_tracker_or_web_seed(url: str) -> None:
    assert tracker_tiers([[url]]) == ()
    assert web_seeds([url]) == ()


def test_M11_only_trackers_speak_udp_and_bare_quic() -> None:
    assert tracker_tiers([["udp://x:1", "quic://x:7001", "HTTPS://x/a?b=c", "http://[::1]:80/"]]) == (
        ("udp://x:1", "quic://x:7001", "HTTPS://x/a?b=c", "http://[::1]:80/"),
    )
    assert web_seeds(["udp://x:1", "quic://x:1", "https://x"]) == ("https://x",)


def test_M11_a_hundred_thousand_trackers() -> None:
    taken = []

    def tiers():  # type: ignore[no-untyped-def]
        for number in range(100_000):
            taken.append(number)
            yield [f"http://x/{number}", "http://x/0"]

    kept = tracker_tiers(tiers())
    assert kept == tuple((f"http://x/{number}",) for number in range(32))
    assert len(taken) == 32
    assert len(web_seeds(f"http://x/{number}" for number in range(100_000))) == 32


def test_tiers_keep_their_order_and_lose_what_is_repeated() -> None:
    tiers = [["udp://b", "udp://a", "udp://b"], ["bad"], ["udp://a"], ["udp://c"]]
    assert tracker_tiers(tiers) == (("udp://b", "udp://a"), ("udp://c",))


def test_one_large_tier_is_cut() -> None:
    (tier,) = tracker_tiers([[f"udp://{number}" for number in range(40)]])
    assert len(tier) == 32
