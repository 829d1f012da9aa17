from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.torrent.outer_reading import read_creation_date, read_text, read_trackers, read_web_seeds
from p2pnode.wire.bencoding import Value

values = st.recursive(
    st.integers(-5, 5) | st.binary(max_size=5) | st.just(b"http://x"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.binary(max_size=3), inner, max_size=2),
    max_leaves=8,
)


@given(values)
def test_whatever_stands_there_is_no_reason_to_refuse_a_torrent(value: Value) -> None:
    keys = (b"announce", b"announce-list", b"url-list", b"comment", b"creation date")
    outer: dict[bytes, Value] = dict.fromkeys(keys, value)
    assert all(url.startswith("http://") for tier in read_trackers(outer) for url in tier)
    assert all(url.startswith("http://") for url in read_web_seeds(outer))
    assert isinstance(read_text(outer, b"comment"), str)
    date = read_creation_date(outer)
    assert date is None or date >= 0


@pytest.mark.parametrize(
    ("outer", "tiers"),
    [
        ({}, ()),
        ({b"announce": b"udp://a"}, (("udp://a",),)),
        (
            {b"announce": b"udp://a", b"announce-list": [[b"udp://b"], [b"udp://c"]]},
            (("udp://b",), ("udp://c",)),
        ),
        ({b"announce": b"udp://a", b"announce-list": [[b"file:///b"], 1]}, (("udp://a",),)),
        (
            {b"announce-list": [b"udp://b", [b"udp://c", 1, b"udp://d"]]},
            (("udp://b",), ("udp://c", "udp://d")),
        ),
        ({b"announce": b"http://127.0.0.1:7000/announce"}, (("http://127.0.0.1:7000/announce",),)),
    ],
)
def test_trackers(outer: dict[bytes, Value], tiers: object) -> None:
    assert read_trackers(outer) == tiers


def test_web_seeds_are_a_string_or_a_list() -> None:
    assert read_web_seeds({b"url-list": b"http://s/"}) == ("http://s/",)
    assert read_web_seeds({b"url-list": [b"http://s/", b"ftp://s/", b"http://t/"]}) == (
        "http://s/",
        "http://t/",
    )
    assert read_web_seeds({}) == ()


def test_texts_and_dates() -> None:
    assert read_text({b"comment": "ü".encode() + b"\xff"}, b"comment") == "ü\ufffd"
    assert read_text({}, b"comment") == ""
    assert read_creation_date({b"creation date": 17}) == 17
    assert read_creation_date({b"creation date": -1}) is None
    assert read_creation_date({b"creation date": b"x"}) is None
