"""The tracker's words over HTTP: what a query string says, and answers that are canonical bencode."""

from __future__ import annotations

from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.errors import RemoteProtocolError
from p2pnode.wire import bencoding
from p2pnode.wire.tracker_http import (
    AnnounceQuery,
    compact_peers,
    encode_announce,
    encode_failure,
    encode_scrape,
    parse_announce,
    parse_scrape,
    peer_dictionaries,
)

INFO_HASH = bytes(range(0x1D, 0x31))  # with what a query has a meaning for: `&`, `%`, `+`, `#` and a space
PEER_ID = b"-TR3000-0123456789ab"
LEAST = b"info_hash=%b&peer_id=%b&port=6881" % (quote_from_bytes(INFO_HASH).encode(), PEER_ID)
NUMBERS = ["port", "uploaded", "downloaded", "left", "numwant"]


def with_field(name: str, value: str) -> bytes:
    """The least announce, with one more field, or with that one in place of what it says."""
    kept = [part for part in LEAST.split(b"&") if not part.startswith(name.encode() + b"=")]
    return b"&".join([*kept, f"{name}={value}".encode()])


def test_an_announce_says_at_least_who_and_what() -> None:
    assert parse_announce(LEAST) == AnnounceQuery(
        info_hash=INFO_HASH,
        peer_id=PEER_ID,
        port=6881,
        left=0,
        event="",
        numwant=None,
        claimed_host=None,
        key="",
        is_compact=True,
        wants_peer_ids=True,
    )


def test_an_announce_as_a_client_sends_it() -> None:
    query = parse_announce(
        LEAST + b"&uploaded=0&downloaded=77&left=1024&corrupt=0&key=5D1C64C7&event=started&numwant=200"
        b"&compact=0&no_peer_id=1&supportcrypto=1&redundant=0&ip=192.0.2.7&trackerid=abc"
    )
    assert (query.left, query.event, query.numwant, query.key) == (1024, "started", 200, "5D1C64C7")
    assert (query.is_compact, query.wants_peer_ids, query.claimed_host) == (False, False, "192.0.2.7")


@given(st.binary(min_size=20, max_size=20), st.binary(min_size=20, max_size=20), st.booleans())
def test_binary_comes_through_whatever_is_escaped(info_hash: bytes, peer_id: bytes, everything: bool) -> None:
    def escaped(value: bytes) -> str:
        return "".join(f"%{byte:02x}" for byte in value) if everything else quote_from_bytes(value, safe="+")

    query = parse_announce(f"info_hash={escaped(info_hash)}&peer_id={escaped(peer_id)}&port=1".encode())
    assert (query.info_hash, query.peer_id) == (info_hash, peer_id)


def test_a_plus_is_a_plus() -> None:
    assert parse_announce(LEAST.replace(PEER_ID, b"+" * 20)).peer_id == b"+" * 20


@pytest.mark.parametrize("name", ["info_hash", "peer_id", "port"])
def test_what_must_be_said_is_missed(name: str) -> None:
    rest = [part for part in LEAST.split(b"&") if not part.startswith(name.encode())]
    with pytest.raises(RemoteProtocolError, match=f"{name} is missing"):
        parse_announce(b"&".join(rest))


@pytest.mark.parametrize("name", ["info_hash", "peer_id"])
@pytest.mark.parametrize("value", ["", "a" * 19, "a" * 21, "%61" * 21])
def test_ids_have_their_size(name: str, value: str) -> None:
    with pytest.raises(RemoteProtocolError, match=f"{name} has"):
        parse_announce(with_field(name, value))


@pytest.mark.parametrize("value", ["a" * 17 + "%zz", "a" * 18 + "%4", "a" * 19 + "%"])
def test_a_percent_sign_that_escapes_nothing_is_no_percent_sign(value: str) -> None:
    with pytest.raises(RemoteProtocolError, match="not percent-encoded"):
        parse_announce(with_field("info_hash", value))


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value",
    ["-1", str(2**63), str(2**64), "1.0", "1e3", "ten", "+1", " 1", "%31", "0x1", "1_0", "١", "9" * 5000],
)
def test_T7_what_is_no_number_is_a_failure(name: str, value: str) -> None:
    with pytest.raises(RemoteProtocolError, match=f"{name} is not a whole number"):
        parse_announce(with_field(name, value))


def test_T7_a_port_is_a_port() -> None:
    assert parse_announce(with_field("port", "65535")).port == 65_535
    with pytest.raises(RemoteProtocolError, match="port is not a whole number from 0 to 65535"):
        parse_announce(with_field("port", "65536"))


def test_T7_the_largest_number() -> None:
    assert parse_announce(with_field("left", str(2**63 - 1))).left == 2**63 - 1


@pytest.mark.parametrize("name", ["info_hash", "peer_id", "port", "left", "event", "ip"])
def test_T9_what_is_said_twice_is_refused(name: str) -> None:
    twice = with_field(name, "a") + f"&{name}=a".encode()
    with pytest.raises(RemoteProtocolError, match=f"{name} is said twice"):
        parse_announce(twice)


def test_what_is_unknown_may_be_said_as_often_as_one_likes() -> None:
    assert parse_announce(b"&&x&x=1&x=2&=&" + LEAST + b"&trackerid=a&trackerid=b&event=eaten").event == ""


@pytest.mark.parametrize(
    ("fields", "host"),
    [
        ("ip=192.0.2.7", "192.0.2.7"),
        ("ip=2001%3Adb8%3A%3A1", "2001:db8::1"),
        ("ip=tracker.example", None),
        ("ip=tracker.example&ipv6=2001:db8::2", "2001:db8::2"),
        ("ipv6=[2001:db8::3]:6881", "2001:db8::3"),
        ("ipv4=192.0.2.8:6881", "192.0.2.8"),
        ("ipv6=fe80::1%25eth0", None),
        ("ip=2130706433", None),
        ("ip=127.1", None),
        ("ip=", None),
        ("ip=[]:1", None),
    ],
)
def test_a_claimed_host_is_in_digits(fields: str, host: str | None) -> None:
    assert parse_announce(LEAST + f"&{fields}".encode()).claimed_host == host


def test_a_long_key_is_cut() -> None:
    assert parse_announce(with_field("key", "%ff" * 1000)).key == "ÿ" * config.WORD_LENGTH_MAX


@given(st.binary(max_size=300))
def test_any_bytes_are_a_query_or_an_error(query: bytes) -> None:
    for parse in (parse_announce, parse_scrape):
        try:
            parse(query)
        except RemoteProtocolError as error:
            assert str(error).isprintable()


# -- scrape ------------------------------------------------------------------------------------------------


def test_a_scrape_names_one_torrent_or_several() -> None:
    other = b"b" * 20
    query = b"info_hash=%b&x=1&info_hash=%b" % (quote_from_bytes(INFO_HASH).encode(), other)
    assert parse_scrape(query) == [INFO_HASH, other]


@pytest.mark.parametrize("query", [b"", b"info_hash", b"x=1"])
def test_a_scrape_of_everything_is_refused(query: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="info_hash is missing"):
        parse_scrape(query)


def test_a_scrape_names_no_more_than_allowed() -> None:
    one = b"info_hash=" + b"a" * 20
    most = config.HTTP_SCRAPE_HASHES_MAX
    assert len(parse_scrape(b"&".join([one] * most))) == most
    with pytest.raises(RemoteProtocolError, match="more than"):
        parse_scrape(b"&".join([one] * (most + 1)))


# -- answers -----------------------------------------------------------------------------------------------

counts = st.tuples(*[st.integers(0, 2**40)] * 3)


@given(counts, st.binary(max_size=60), st.binary(max_size=60))
def test_a_compact_answer_is_canonical(found: tuple[int, int, int], v4: bytes, v6: bytes) -> None:
    data = encode_announce(found, compact_peers(v4, v6), interval_s=1800, interval_min_s=900)
    assert bencoding.decode(data) == {
        b"interval": 1800,
        b"min interval": 900,
        b"complete": found[0],
        b"incomplete": found[1],
        b"downloaded": found[2],
        b"peers": v4,
    } | ({b"peers6": v6} if v6 else {})


@pytest.mark.parametrize("with_ids", [True, False])
def test_peers_as_dictionaries(with_ids: bool) -> None:
    peers = [(PEER_ID, "192.0.2.7", 6881), (b"b" * 20, "2001:db8::1", 1)]
    data = encode_announce(
        (1, 2, 3), peer_dictionaries(peers, with_ids=with_ids), interval_s=60, interval_min_s=30
    )
    answer = bencoding.decode(data)
    assert isinstance(answer, dict)
    assert answer[b"peers"] == [
        {b"ip": host.encode(), b"port": port} | ({b"peer id": peer_id} if with_ids else {})
        for peer_id, host, port in peers
    ]


@given(st.dictionaries(st.binary(min_size=20, max_size=20), counts, max_size=5))
def test_a_scrape_answer_is_canonical(found: dict[bytes, tuple[int, int, int]]) -> None:
    assert bencoding.decode(encode_scrape(found)) == {
        b"files": {
            info_hash: {b"complete": complete, b"incomplete": incomplete, b"downloaded": downloaded}
            for info_hash, (complete, incomplete, downloaded) in found.items()
        }
    }


@given(st.text())
def test_a_failure_is_canonical_whatever_it_says(reason: str) -> None:
    assert bencoding.decode(encode_failure(reason)) == {b"failure reason": reason.encode("utf-8", "replace")}
