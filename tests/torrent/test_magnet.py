from __future__ import annotations

from base64 import b32encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.errors import InvalidData
from p2pnode.torrent.magnet import Magnet

V1 = "c12fe1c06bba254a9dc9f519b335aa7c1367a88a"
V2 = "ab" * 32
urls = st.from_regex(r"https?://[a-z0-9]{1,9}(:[0-9]{1,4})?/[a-z?=&%+#;]{0,9}", fullmatch=True)
hosts = st.sampled_from(["10.0.0.1", "::1", "2001:db8::1", "peer.example.org"])


@st.composite
def magnets(draw: st.DrawFn) -> Magnet:
    v1 = draw(st.none() | st.binary(min_size=20, max_size=20))
    v2 = draw((st.none() if v1 else st.nothing()) | st.binary(min_size=32, max_size=32))
    return Magnet(
        info_hash_v1=v1,
        info_hash_v2=v2,
        name=draw(st.text(max_size=20)),
        trackers=tuple(draw(st.lists(urls, max_size=3, unique=True))),
        web_seeds=tuple(draw(st.lists(urls, max_size=3, unique=True))),
        peers=tuple(draw(st.lists(st.tuples(hosts, st.integers(1, 65535)), max_size=3))),
    )


@given(magnets())
def test_a_link_leads_back(magnet: Magnet) -> None:
    link = str(magnet)
    assert Magnet.parse(link) == magnet
    assert link.isascii()
    assert " " not in link
    assert magnet.file_id == magnet.info_hash_v2 or magnet.file_id == magnet.info_hash_v1


@given(st.text(max_size=100))
def test_any_text_is_a_magnet_or_invalid(text: str) -> None:
    for link in (text, "magnet:?" + text, f"magnet:?xt=urn:btih:{text}", f"magnet:?xt=urn:btmh:1220{text}"):
        try:
            magnet = Magnet.parse(link)
        except InvalidData:
            continue
        assert magnet.file_id


def test_the_forms_that_others_write() -> None:
    base32 = b32encode(bytes.fromhex(V1)).decode()
    for topic in (
        f"urn:btih:{V1}",
        f"urn:btih:{V1.upper()}",
        f"urn:btih:{base32}",
        f"urn:btih:{base32.lower()}",
    ):
        assert Magnet.parse(f"magnet:?xt={topic}") == Magnet(info_hash_v1=bytes.fromhex(V1))
    hybrid = Magnet.parse(
        f"MAGNET:?xt.1=urn%3Abtih%3A{V1}&xt.2=urn:btmh:1220{V2}&xt=urn:sha1:x&dn=a+b%2Fc&so=1"
    )
    assert hybrid == Magnet(info_hash_v1=bytes.fromhex(V1), info_hash_v2=bytes.fromhex(V2), name="a b/c")
    assert hybrid.file_id == bytes.fromhex(V2)


@pytest.mark.parametrize(
    "link",
    [
        "",
        "magnet:",
        f"http://x/?xt=urn:btih:{V1}",
        "magnet:?dn=nothing",
        "magnet:?xt=urn:btih:",
        f"magnet:?xt=urn:btih:{V1[:-1]}",
        f"magnet:?xt=urn:btih:{V1[:-1]}x",
        f"magnet:?xt=urn:btih:{V1}&xt=urn:btih:{V1[::-1]}",
        f"magnet:?xt=urn:btmh:{V2}",
        f"magnet:?xt=urn:btmh:1114{V1}",
        f"magnet:?xt=urn:btmh:1220{V2}00",
        f"magnet:?xt=urn:btmh:1220{V2[:-1]}x",
        f"magnet:?xt=urn:btih:{V1}" + "&a=b" * 1000,
        f"magnet:?xt=urn:btih:{V1}&dn=" + "x" * 2**16,
    ],
)
def test_what_is_no_magnet_link(link: str) -> None:
    with pytest.raises(InvalidData):
        Magnet.parse(link)


def test_M11_only_addresses_of_known_kinds_and_not_too_many() -> None:
    bad = [
        "file:///etc/passwd",
        "gopher://x/",
        "javascript:1",
        "udp://x y",
        "http://",
        "http://x\x1b",
        "http://" + "x" * 3000,
    ]
    trackers = [
        *bad,
        "udp://t:1",
        "http://t/announce",
        "udp://t:1",
        *(f"udp://t{number}:1" for number in range(100)),
    ]
    fields = "".join(f"&tr={url}&ws={url}" for url in trackers)
    peers = "".join(
        f"&x.pe={peer}"
        for peer in [
            "h:0",
            "h:65536",
            "h",
            ":1",
            "[::1]",
            "a b:1",
            "[::1]:1",
            *(f"h:{n}" for n in range(1, 100)),
        ]
    )
    magnet = Magnet.parse(f"magnet:?xt=urn:btih:{V1}{fields}{peers}")
    assert len(magnet.trackers) == 32
    assert magnet.trackers[:3] == ("udp://t:1", "http://t/announce", "udp://t0:1")
    assert magnet.web_seeds == ("http://t/announce",)
    assert len(magnet.peers) == 32
    assert magnet.peers[:2] == (("::1", 1), ("h", 1))
