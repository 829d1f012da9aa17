"""BEP 15 packets: what is said is read, any bytes are a packet or an error, and the bytes are those of the BEP."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.tracker_udp import (
    PROTOCOL_ID,
    Action,
    AnnounceRequest,
    AnnounceResponse,
    ConnectRequest,
    ConnectResponse,
    ErrorResponse,
    Event,
    RequestHeader,
    ScrapeCounts,
    ScrapeRequest,
    ScrapeResponse,
    decode_request,
    decode_response,
)

ID = b"\x01\x02\x03\x04\x05\x06\x07\x08"
HASH = bytes(range(20))
PEER_ID = b"-QC0001-123456789012"

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
PORTS = st.integers(0, 65_535)
IDS = st.binary(min_size=8, max_size=8)
HASHES = st.binary(min_size=20, max_size=20)
COUNTS = st.builds(ScrapeCounts, U32, U32, U32)

ANNOUNCES = st.builds(
    AnnounceRequest,
    IDS,
    U32,
    HASHES,
    HASHES,
    U64,
    U64,
    U64,
    st.sampled_from(Event).map(int) | U32,
    U32,
    U32,
    st.integers(-(2**31), 2**31 - 1),
    PORTS,
    st.binary(max_size=600),
)
SCRAPES = st.builds(
    ScrapeRequest,
    IDS,
    U32,
    st.lists(HASHES, min_size=1, max_size=config.UDP_SCRAPE_HASHES_MAX).map(tuple),
)
REQUESTS = st.builds(ConnectRequest, U32) | ANNOUNCES | SCRAPES
RESPONSES = (
    st.builds(ConnectResponse, U32, IDS)
    | st.builds(AnnounceResponse, U32, U32, U32, U32, st.binary(max_size=300))
    | st.builds(ScrapeResponse, U32, st.lists(COUNTS, max_size=config.UDP_SCRAPE_HASHES_MAX).map(tuple))
    | st.builds(ErrorResponse, U32, st.text(max_size=100))
)


def an_announce(**changes: Any) -> AnnounceRequest:
    request = AnnounceRequest(ID, 7, HASH, PEER_ID, 1, 2, 3, Event.STARTED, 0x7F000001, 9, -1, 6881)
    return request._replace(**changes)


# -- the bytes of the BEP ----------------------------------------------------------------------------------


def test_a_connect_is_what_the_bep_shows() -> None:
    assert ConnectRequest(0x01020304).encode().hex() == "0000041727101980" + "00000000" + "01020304"
    assert ConnectResponse(0x01020304, ID).encode().hex() == "00000000" + "01020304" + ID.hex()


def test_an_announce_is_what_the_bep_shows() -> None:
    encoded = an_announce().encode()
    assert len(encoded) == 98
    fields = [
        ID.hex(),
        "00000001",  # action
        "00000007",  # transaction id
        HASH.hex(),
        PEER_ID.hex(),
        "0000000000000001",  # downloaded
        "0000000000000002",  # left
        "0000000000000003",  # uploaded
        "00000002",  # started
        "7f000001",
        "00000009",  # key
        "ffffffff",  # numwant
        "1ae1",  # port
    ]
    assert encoded.hex() == "".join(fields)


def test_answers_are_what_the_bep_shows() -> None:
    peers = bytes.fromhex("c00002011ae1" "c63364ff0001")  # fmt: skip
    announced = AnnounceResponse(7, 1800, 2, 3, peers)
    assert announced.encode().hex() == (
        "00000001" "00000007" "00000708" "00000002" "00000003" "c00002011ae1" "c63364ff0001"
    )  # fmt: skip
    scraped = ScrapeResponse(7, (ScrapeCounts(1, 2, 3), ScrapeCounts(4, 5, 6)))
    assert scraped.encode().hex() == "0000000200000007" + "".join(f"{count:08x}" for count in range(1, 7))
    assert ErrorResponse(7, "no").encode().hex() == "0000000300000007" + b"no".hex()


# -- what is said is read ----------------------------------------------------------------------------------


@given(REQUESTS)
def test_requests_are_read_as_they_were_said(request: Any) -> None:
    assert decode_request(request.encode()) == request


@given(RESPONSES)
def test_answers_are_read_as_they_were_said(response: Any) -> None:
    assert decode_response(response.encode()) == response


# -- any bytes are a packet or an error --------------------------------------------------------------------

FRONTS = (
    b"",
    PROTOCOL_ID + bytes(8),
    ID + struct.pack(">II", Action.ANNOUNCE, 1),
    an_announce().encode(),
    ID + struct.pack(">II", Action.SCRAPE, 1),
)


@given(st.sampled_from(FRONTS), st.binary(max_size=300))
def test_any_bytes_are_a_request_or_an_error(front: bytes, rest: bytes) -> None:
    try:
        request = decode_request(front + rest)
    except RemoteProtocolError as error:
        assert str(error)
    else:
        # What is read can be said again; the rest was options that mean nothing to us, or nothing at all.
        assert decode_request(request.encode()) == request


@given(st.integers(0, 4), st.binary(max_size=300))
def test_any_bytes_are_an_answer_or_an_error(action: int, rest: bytes) -> None:
    for datagram in (rest, struct.pack(">I", action) + rest):
        try:
            response = decode_response(datagram)
        except RemoteProtocolError as error:
            assert str(error)
        else:
            assert decode_response(response.encode()) == response or isinstance(response, ErrorResponse)


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "0 bytes"),
        (PROTOCOL_ID + bytes(7), "15 bytes"),
        (an_announce().encode() + bytes(config.UDP_REQUEST_SIZE_MAX - 97), "2049 bytes"),
        (ID + bytes(8), "neither"),  # a connect that does not name the protocol
        (PROTOCOL_ID + struct.pack(">II", Action.ERROR, 1), "neither"),
        (PROTOCOL_ID + struct.pack(">II", 2**32 - 1, 1), "neither"),
        (an_announce().encode()[:-1], "at least 98"),
        (ID + struct.pack(">II", Action.SCRAPE, 1), "1 to 74"),
        (ID + struct.pack(">II", Action.SCRAPE, 1) + bytes(19), "1 to 74"),
        (ID + struct.pack(">II", Action.SCRAPE, 1) + bytes(41), "1 to 74"),
        (ID + struct.pack(">II", Action.SCRAPE, 1) + bytes(20 * 75), "1 to 74"),
    ],
)
def test_what_is_no_request_has_a_reason(datagram: bytes, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        decode_request(datagram)


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        bytes(7),
        struct.pack(">II", Action.CONNECT, 1) + bytes(7),
        struct.pack(">II", Action.ANNOUNCE, 1) + bytes(11),
        struct.pack(">II", 4, 1) + bytes(20),
    ],
)
def test_what_is_no_answer_is_an_error(datagram: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_response(datagram)


def test_the_largest_scrape_is_read() -> None:
    hashes = tuple(number.to_bytes(20) for number in range(config.UDP_SCRAPE_HASHES_MAX))
    assert decode_request(ScrapeRequest(ID, 1, hashes).encode()) == ScrapeRequest(ID, 1, hashes)


def test_the_header_is_read_of_what_is_no_request_otherwise() -> None:
    assert RequestHeader.decode(ID + struct.pack(">II", 9, 5) + b"?") == RequestHeader(ID, 9, 5)


# -- tolerance ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "url_data"),
    [
        (b"\x02\x05/path\x00", b"/path"),
        (b"\x01\x01\x02\x05/path\x01", b"/path"),  # nothing, nothing, a URL, nothing
        (b"\x02\x03/pa\x02\x02th\x00\x02\x04more", b"/path"),  # joined, and nothing behind the end counts
        (b"\x07\x02??\x02\x05/path", b"/path"),  # an unknown option
        (b"\x02\x05/path\x02\x09cut", b"/path"),  # broken behind it
        (b"\x02", b""),
        (b"\x02\x00", b""),
        (b"\x09", b""),
        (b"\x02\xff/path", b""),
        (b"\x00\x00\x00\x00", b""),  # some clients fill up
    ],
)
def test_options_are_read_as_far_as_they_are_any(options: bytes, url_data: bytes) -> None:
    request = decode_request(an_announce().encode() + options)
    assert isinstance(request, AnnounceRequest)
    assert request == an_announce(url_data=url_data)


def test_a_long_url_takes_several_options() -> None:
    encoded = an_announce(url_data=b"/" * 600).encode()
    assert len(encoded) == 98 + 600 + 3 * 2
    assert decode_request(encoded) == an_announce(url_data=b"/" * 600)


def test_T11_parts_of_counts_are_left_out() -> None:
    scraped = ScrapeResponse(7, (ScrapeCounts(1, 2, 3),))
    assert decode_response(scraped.encode() + bytes(11)) == scraped


def test_an_error_that_is_no_text_is_shown_as_far_as_it_is() -> None:
    datagram = struct.pack(">II", Action.ERROR, 7) + b"no\xff"
    assert decode_response(datagram) == ErrorResponse(7, "no�")


# -- our own mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "packet",
    [
        ConnectRequest(-1),
        an_announce(port=65_536),
        an_announce(left=-1),
        an_announce(connection_id=b"short"),
        an_announce(info_hash=bytes(32)),
        an_announce(peer_id=b"short"),
        ScrapeRequest(ID, 1, ()),
        ScrapeRequest(ID, 1, (HASH,) * 75),
        ScrapeRequest(ID, 1, (bytes(32),)),
        ScrapeRequest(bytes(9), 1, (HASH,)),
        ConnectResponse(1, bytes(9)),
        AnnounceResponse(1, -1, 0, 0, b""),
        ScrapeResponse(1, (ScrapeCounts(2**32, 0, 0),)),
    ],
)
def test_what_does_not_fit_is_our_fault(packet: Any) -> None:
    with pytest.raises(LocalProtocolError):
        packet.encode()
