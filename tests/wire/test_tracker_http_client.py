from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.errors import Refused, RemoteProtocolError
from p2pnode.wire.bencoding import Value, encode
from p2pnode.wire.tracker_http import (
    compact_peers,
    encode_announce,
    encode_failure,
    encode_scrape,
    parse_announce,
    peer_dictionaries,
)
from p2pnode.wire.tracker_http_client import encode_query, read_announce, read_scrape

FOUR, SIX = ip_address("192.0.2.1").packed, ip_address("2001:db8::1").packed


def answer(**fields: Value) -> bytes:
    return encode({name.replace("_", " ").encode(): value for name, value in fields.items()})


# -- queries -----------------------------------------------------------------------------------------------


@given(st.binary(min_size=20, max_size=20), st.binary(min_size=20, max_size=20))
def test_any_hash_and_id_reach_the_tracker_as_they_are(info_hash: bytes, peer_id: bytes) -> None:
    text = encode_query(
        [("info_hash", info_hash), ("peer_id", peer_id), ("port", 6881), ("event", "started")]
    )
    assert text.isascii()
    read = parse_announce(text.encode())
    assert (read.info_hash, read.peer_id, read.port, read.event) == (info_hash, peer_id, 6881, "started")


def test_nothing_in_a_field_ends_it() -> None:
    assert encode_query([("a", b"&=+ %/?#\r\n\0"), ("b", -1)]) == "a=%26%3D%2B%20%25%2F%3F%23%0D%0A%00&b=-1"


# -- answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_ids", [None, False, True])
def test_our_own_trackers_answers_are_read(with_ids: bool | None) -> None:
    peers = [(b"A" * 20, "192.0.2.1", 6881), (b"B" * 20, "2001:db8::1", 6882)]
    if with_ids is None:
        packed = compact_peers(FOUR + b"\x1a\xe1", SIX + b"\x1a\xe2")
    else:
        packed = peer_dictionaries(peers, with_ids=with_ids)
    read = read_announce(encode_announce((3, 4, 5), packed, interval_s=1800, interval_min_s=900))
    assert (read.interval_s, read.interval_min_s, read.complete, read.incomplete) == (1800, 900, 3, 4)
    assert read.peers == tuple((peer_id if with_ids else b"", host, port) for peer_id, host, port in peers)
    assert read.warning == ""


def test_keys_may_come_in_any_order() -> None:
    read = read_announce(b"d5:peers6:\xc0\x00\x02\x01\x1a\xe18:intervali60e8:completei1ee")
    assert read.interval_s == 60
    assert read.peers == ((b"", "192.0.2.1", 6881),)


def test_what_a_tracker_need_not_say() -> None:
    read = read_announce(b"de")
    assert (read.interval_s, read.interval_min_s, read.complete, read.peers) == (1800, None, None, ())
    read = read_announce(answer(warning_message=b"soon down", tracker_id=b"\xff1", peers=b""))
    assert (read.warning, read.tracker_id) == ("soon down", b"\xff1")


def test_a_failure_is_a_refusal_with_the_trackers_words() -> None:
    with pytest.raises(Refused, match="unregistered torrent"):
        read_announce(encode_failure("unregistered torrent"))
    with pytest.raises(Refused, match="does not say why"):
        read_announce(answer(failure_reason=[]))
    with pytest.raises(Refused) as caught:
        read_scrape(answer(failure_reason=b"x" * 10_000))
    assert len(str(caught.value)) == config.ERROR_TEXT_LENGTH_MAX


def test_T11_a_million_peers_are_a_thousand() -> None:
    many = answer(interval=60, peers=(FOUR + b"\1\2") * 9_000)
    assert len(read_announce(many).peers) == config.TRACKER_ANSWER_PEERS_MAX
    with pytest.raises(RemoteProtocolError):  # and no such answer is ever held
        read_announce(answer(interval=60, peers=(FOUR + b"\1\2") * 10**6))


@pytest.mark.parametrize("size", [0, 1, 5])
def test_T11_a_part_of_a_compact_peer_is_left_out(size: int) -> None:
    read = read_announce(
        answer(peers=FOUR + b"\x1a\xe1" + FOUR[:size], peers6=SIX + b"\x1a\xe1" + SIX[:size])
    )
    assert read.peers == ((b"", "192.0.2.1", 6881), (b"", "2001:db8::1", 6881))


@pytest.mark.parametrize("interval_s", [0, -1, 2**31, 2**63 - 1, -(2**62)])
def test_T11_intervals_are_told_as_they_are(interval_s: int) -> None:
    assert read_announce(answer(interval=interval_s)).interval_s == interval_s


@pytest.mark.parametrize(
    "peer",
    [
        {b"ip": b"tracker.example", b"port": 1},
        {b"ip": b"fe80::1%eth0", b"port": 1},
        {b"ip": b"127.1", b"port": 1},
        {b"ip": b"192.0.2.1", b"port": 0},
        {b"ip": b"192.0.2.1", b"port": -1},
        {b"ip": b"192.0.2.1", b"port": 65_536},
        {b"ip": b"192.0.2.1", b"port": b"80"},
        {b"ip": b"192.0.2.1"},
        {b"port": 80},
        {b"ip": [], b"port": 80},
        b"192.0.2.1:80",
        [],
    ],
)
def test_T11_a_peer_that_can_be_none_is_left_out_and_the_others_count(peer: Value) -> None:
    good: Value = {b"ip": b"192.0.2.1", b"port": 80, b"peer id": 7}
    assert read_announce(answer(peers=[peer, good])).peers == ((b"", "192.0.2.1", 80),)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"i1e", b"le", b"d", b"de ", b"d5:peersi1ee", b"d5:peersdee", b"d8:interval1:xe",
        b"d8:intervali1e8:intervali2ee", b"d" * 100_000, b"l" * 60_000, b"d8:interval" + b"i" + b"9" * 30 + b"ee",
    ],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
def test_T11_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_announce(body)


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: b"d5:peers" + tail))
def test_T11_whatever_the_bytes_there_is_an_answer_or_one_error(body: bytes) -> None:
    for read in (read_announce, read_scrape):
        with suppress(RemoteProtocolError, Refused):
            read(body)


def test_scrapes() -> None:
    one, two = b"1" * 20, b"2" * 20
    assert read_scrape(encode_scrape({one: (1, 2, 3), two: (4, 5, 6)})) == {one: (1, 2, 3), two: (4, 5, 6)}
    odd = {b"files": {one: {b"complete": -1, b"downloaded": b"x"}, two: 5}}
    assert read_scrape(encode(odd)) == {one: (0, 0, 0)}
    for body in (b"de", b"d5:files0:e", b"d5:filesle"):
        with pytest.raises(RemoteProtocolError):
            read_scrape(body)
