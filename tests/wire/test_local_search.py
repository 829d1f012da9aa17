"""BEP 14 datagrams: what we say is what is read; whatever else comes is nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.wire.local_search import LocalSearch, decode, encode, short_hash

GROUP = "239.192.152.143:6771"
HASH = bytes(range(20))
NODE = bytes(range(32))

SEARCHES = st.builds(
    LocalSearch,
    st.integers(1, 65_535),
    st.lists(
        st.binary(min_size=20, max_size=20), min_size=1, max_size=config.LAN_HASHES_MAX, unique=True
    ).map(tuple),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=64),
    st.none() | st.binary(min_size=32, max_size=32),
)


def test_a_message_is_what_the_bep_shows_and_our_own_header() -> None:
    assert encode(LocalSearch(6881, (HASH,), "name", NODE), GROUP) == (
        b"BT-SEARCH * HTTP/1.1\r\n"
        b"Host: 239.192.152.143:6771\r\n"
        b"Port: 6881\r\n"
        b"Infohash: 000102030405060708090a0b0c0d0e0f10111213\r\n"
        b"cookie: name\r\n"
        b"Node-Id: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\r\n"
        b"\r\n\r\n"
    )


def test_a_v2_info_hash_is_cut_to_what_v1_has() -> None:
    assert short_hash(NODE) == HASH
    assert short_hash(HASH) == HASH


@given(SEARCHES)
def test_what_is_said_is_read(search: LocalSearch) -> None:
    datagram = encode(search, GROUP)
    assert len(datagram) <= config.LAN_DATAGRAM_SIZE_MAX
    assert decode(datagram) == search


@given(st.binary(max_size=2000))
def test_any_bytes_are_a_message_or_nothing(datagram: bytes) -> None:
    for data in (datagram, b"BT-SEARCH * HTTP/1.1\r\n" + datagram):
        search = decode(data)
        assert search is None or (0 < search.port <= 65_535 and search.info_hashes)


@given(SEARCHES, st.data())
def test_a_message_with_a_changed_byte_is_a_message_or_nothing(
    search: LocalSearch, data: st.DataObject
) -> None:
    datagram = bytearray(encode(search, GROUP))
    datagram[data.draw(st.integers(0, len(datagram) - 1))] = data.draw(st.integers(0, 255))
    changed = decode(bytes(datagram))
    assert changed is None or len(changed.info_hashes) <= config.LAN_HASHES_MAX


def message(*lines: str, request_line: str = "BT-SEARCH * HTTP/1.1") -> bytes:
    return "\r\n".join([request_line, *lines, "", ""]).encode("latin-1")


INFOHASH = "Infohash: " + "ab" * 20


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        message(INFOHASH, "Port: 7", request_line="NOTIFY * HTTP/1.1"),
        message(INFOHASH),
        message("Port: 7"),
        message(INFOHASH, "Port: 0"),
        message(INFOHASH, "Port: 65536"),
        message(INFOHASH, "Port: -1"),
        message(INFOHASH, "Port: ²"),
        message(INFOHASH, "Port: 7", "Port: 8"),
        message(INFOHASH + "0", "Port: 7"),
        message("Infohash: " + "zz" * 20, "Port: 7"),
        message(INFOHASH, "Port: 7") + b" " * config.LAN_DATAGRAM_SIZE_MAX,
    ],
)
def test_what_is_not_said_right_is_nothing(datagram: bytes) -> None:
    assert decode(datagram) is None


def test_other_programs_are_understood() -> None:
    datagram = message(
        "HOST: x", "port:7", INFOHASH.upper().replace("INFOHASH", "infoHASH"), "X-Other: 1", "junk"
    )
    assert decode(datagram) == LocalSearch(7, (b"\xab" * 20,))
    odd = message("Port: 7", INFOHASH, "cookie: " + "c" * 65, "Node-Id: 12", INFOHASH)
    assert decode(odd) == LocalSearch(7, (b"\xab" * 20,))


def test_T6_hashes_beyond_the_bound_are_left_out() -> None:
    lines = [f"Infohash: {number:040x}" for number in range(config.LAN_HASHES_MAX + 3)]
    search = decode(message("Port: 7", *lines))
    assert search is not None
    assert len(search.info_hashes) == config.LAN_HASHES_MAX
