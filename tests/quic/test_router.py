"""The router: nothing that is not authenticated makes state, and no answer is larger than its question."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicErrorCode, QuicProtocolVersion
from aioquic.quic.retry import TOKEN_LIFETIME
from hypothesis import given
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.quic.router import (
    TOKENS_REMEMBERED_MAX,
    Drop,
    NewConnection,
    Reply,
    Router,
    runs_to_one_id_untrusted,
)
from tests.quic.engines import CLIENT, SERVER, dialer_configuration

NOW = 100.0
OTHER = ("198.51.100.9", 9)


def dialer(version: int | None = None) -> QuicConnection:
    configuration = dialer_configuration()
    if version is not None:
        configuration.supported_versions = [version]
    engine = QuicConnection(configuration=configuration)
    engine.connect(SERVER, NOW)
    return engine


def initial(engine: QuicConnection) -> bytes:
    [(datagram, _)] = engine.datagrams_to_send(NOW)
    return datagram


def retried(router: Router[object], address: tuple[str, int] = CLIENT) -> tuple[QuicConnection, bytes]:
    """A dialer that was sent a Retry, and its second Initial."""
    engine = dialer()
    reply = router.answer_untrusted(initial(engine), address, NOW)
    assert isinstance(reply, Reply)
    engine.receive_datagram(reply.datagram, SERVER, NOW)
    return engine, initial(engine)


def test_datagrams_are_found_by_their_destination_id() -> None:
    router: Router[str] = Router()
    router.add(b"12345678", "here")
    assert router.find_untrusted(b"\x40" + b"12345678" + b"payload") == "here"
    assert router.find_untrusted(b"\xe0\x00\x00\x00\x01\x08" + b"12345678" + b"payload") == "here"
    assert router.find_untrusted(b"\x40" + b"87654321" + b"payload") is None
    assert router.find_untrusted(b"\xe0\x00\x00\x00\x01\x07" + b"12345678") is None
    assert router.find_untrusted(b"") is None
    assert len(router) == 1
    router.remove(b"12345678")
    router.remove(b"12345678")
    assert router.find_untrusted(b"\x40" + b"12345678") is None


SHORT = [b"\x40" + connection_id for connection_id in (b"12345678", b"87654321")]
LONG = [b"\xe0\x00\x00\x00\x01\x08" + connection_id for connection_id in (b"12345678", b"12387654")]
KINDS = [b"", b"\x40", b"\xe0", *SHORT, *LONG]


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.binary(max_size=3)), min_size=1))
def test_a_burst_is_split_where_the_route_changes_and_nowhere_else(parts: list[tuple[bytes, bytes]]) -> None:
    router: Router[bytes] = Router()
    for connection_id in (b"12345678", b"87654321", b"12387654"):
        router.add(connection_id, connection_id)
    burst = [b"".join(part) for part in parts]
    runs = runs_to_one_id_untrusted(burst)
    assert [data for run in runs for data in run] == burst
    assert all(len({router.find_untrusted(data) for data in run}) == 1 for run in runs)
    for run, after in pairwise(runs):
        if (route := router.find_untrusted(run[0])) is not None:
            assert route != router.find_untrusted(after[0])


def test_a_burst_of_a_transfer_is_one_run() -> None:
    burst = [SHORT[0] + bytes([number]) for number in range(64)]
    assert runs_to_one_id_untrusted(burst) == [burst]
    mixed = [*burst, SHORT[1], *burst]
    assert runs_to_one_id_untrusted(mixed) == [burst, [SHORT[1]], burst]


def test_W3_an_initial_without_a_token_gets_a_retry_and_leaves_nothing() -> None:
    router: Router[object] = Router()
    for number in range(1000):
        datagram = initial(dialer())
        reply = router.answer_untrusted(datagram, (f"10.1.{number // 250}.{number % 250}", 5), NOW)
        assert isinstance(reply, Reply)
        assert len(reply.datagram) <= len(datagram) / 8
    assert len(router) == 0
    assert router._used_tokens == {}


def test_a_retry_leads_to_a_connection() -> None:
    router: Router[object] = Router()
    engine, second = retried(router)
    new = router.answer_untrusted(second, CLIENT, NOW)
    assert isinstance(new, NewConnection)
    assert new.original_destination_cid == engine.original_destination_connection_id
    assert new.retry_source_cid == engine._peer_cid.cid


def test_W4_a_token_that_was_used_makes_no_second_connection() -> None:
    router: Router[object] = Router()
    _, second = retried(router)
    new = router.answer_untrusted(second, CLIENT, NOW)
    assert isinstance(new, NewConnection)
    router.use_token(new, NOW)
    assert router.answer_untrusted(second, CLIENT, NOW + 1) == Drop("token used before")


@pytest.mark.parametrize("how", ["stale", "forged", "of another address", "of another port"])
def test_W4_a_bad_token_is_refused_within_a_rate_and_never_makes_state(how: str) -> None:
    router: Router[object] = Router()
    engine, second = retried(router)
    address, now = CLIENT, NOW + 1
    if how == "stale":
        now = NOW + TOKEN_LIFETIME + 1
    elif how == "forged":
        at = second.index(engine._peer_token) + 20
        second = second[:at] + bytes([second[at] ^ 1]) + second[at + 1 :]
    elif how == "of another address":
        address = OTHER
    else:
        address = (CLIENT[0], CLIENT[1] + 1)
    answers = [router.answer_untrusted(second, address, now) for _ in range(1000)]
    replies = [answer for answer in answers if isinstance(answer, Reply)]
    assert len(replies) == config.UNVERIFIED_REPLIES_PER_S
    assert answers[-1] == Drop("too many to answer")
    assert all(len(reply.datagram) < 100 for reply in replies)
    engine.receive_datagram(replies[0].datagram, SERVER, NOW)
    assert engine._close_event is not None
    assert engine._close_event.error_code == QuicErrorCode.INVALID_TOKEN


def test_used_tokens_are_remembered_for_their_lifetime_and_bounded() -> None:
    router: Router[object] = Router()
    for number in range(TOKENS_REMEMBERED_MAX + 10):
        router.use_token(NewConnection(b"", number.to_bytes(8, "big")), NOW)
    assert len(router._used_tokens) == TOKENS_REMEMBERED_MAX
    router.use_token(NewConnection(b"", b"later"), NOW + TOKEN_LIFETIME + 1)
    assert list(router._used_tokens) == [b"later"]


# -- what is never answered --------------------------------------------------------------------------------


@given(st.binary(max_size=2000))
def test_W1_random_datagrams_make_nothing(data: bytes) -> None:
    router: Router[object] = Router()
    assert router.find_untrusted(data) is None
    answer = router.answer_untrusted(data, CLIENT, NOW)
    assert isinstance(answer, Drop) or (isinstance(answer, Reply) and len(answer.datagram) < len(data))


def test_W1_flipped_initials_make_nothing() -> None:
    rng = random.Random(1)
    router: Router[object] = Router()
    _, second = retried(router)
    for _ in range(2000):
        datagram = bytearray(second)
        for _ in range(rng.randrange(1, 4)):
            datagram[rng.randrange(60)] = rng.randrange(256)
        answer = router.answer_untrusted(bytes(datagram), CLIENT, NOW)
        assert not isinstance(answer, Reply) or len(answer.datagram) < len(datagram)


@pytest.mark.parametrize("size", [0, 1, 20, 1199])
def test_W2_a_small_initial_is_dropped(size: int) -> None:
    router: Router[object] = Router()
    assert router.answer_untrusted(initial(dialer())[:size], CLIENT, NOW) == Drop("too small to answer")


def test_W8_version_negotiation_is_never_answered() -> None:
    router: Router[object] = Router()
    negotiation = b"\x80\x00\x00\x00\x00\x08" + bytes(8) + b"\x08" + bytes(8)
    negotiation += b"\x00\x00\x00\x01" * 400
    assert router.answer_untrusted(negotiation, CLIENT, NOW) == Drop("unknown connection")


@pytest.mark.parametrize("size", [20, 1199, 1200, 9000])
@pytest.mark.parametrize("cid_size", [0, 8, 20, 255])
def test_W8_no_version_negotiation_of_any_shape_is_answered(size: int, cid_size: int) -> None:
    router: Router[object] = Router()
    cid = bytes([cid_size]) + bytes(cid_size)
    for first in (0x80, 0xC0, 0xFF):
        negotiation = (bytes([first]) + bytes(4) + cid + cid).ljust(size, b"\x1a")
        assert isinstance(router.answer_untrusted(negotiation, CLIENT, NOW), Drop)


def unknown_version(size: int, cid_size: int = 8) -> bytes:
    """A long header of no version that exists; of such even the ids may be of any length (RFC 8999 §5.1)."""
    cid = bytes([cid_size]) + bytes(cid_size)
    return (b"\xc0\x1a\x2a\x3a\x4a" + cid + cid).ljust(size, b"\x00")


@pytest.mark.parametrize("cid_size", [0, 8, 20, 255])
def test_W9_a_reply_to_an_unknown_version_is_one_and_smaller_than_what_it_answers(cid_size: int) -> None:
    router: Router[object] = Router()
    asked = unknown_version(1200, cid_size)
    answer = router.answer_untrusted(asked, CLIENT, NOW)
    if isinstance(answer, Reply):
        assert len(answer.datagram) < len(asked) // 2
        assert answer.datagram[1:5] == bytes(4)
        assert isinstance(router.answer_untrusted(answer.datagram.ljust(1200), CLIENT, NOW), Drop)
    else:
        assert cid_size > 20  # ids that no version we know of allows
    assert len(router) == 0


@pytest.mark.parametrize("size", [1, 7, 100, 1199])
def test_W9_a_small_datagram_of_an_unknown_version_gets_no_reply(size: int) -> None:
    router: Router[object] = Router()
    assert isinstance(router.answer_untrusted(unknown_version(1200)[:size], CLIENT, NOW), Drop)


def test_W9_an_unknown_version_is_negotiated_within_a_rate() -> None:
    router: Router[object] = Router()
    datagram = bytearray(initial(dialer()))
    datagram[1:5] = b"\x1a\x2a\x3a\x4a"
    answers = [router.answer_untrusted(bytes(datagram), CLIENT, NOW) for _ in range(1000)]
    replies = [answer for answer in answers if isinstance(answer, Reply)]
    assert len(replies) == config.UNVERIFIED_REPLIES_PER_S
    assert all(len(reply.datagram) < 50 for reply in replies)
    assert isinstance(router.answer_untrusted(bytes(datagram), CLIENT, NOW + 1), Reply)


def test_version_2_is_told_that_we_speak_version_1() -> None:
    router: Router[object] = Router()
    reply = router.answer_untrusted(initial(dialer(QuicProtocolVersion.VERSION_2)), CLIENT, NOW)
    assert isinstance(reply, Reply)
    assert reply.datagram.endswith(b"\x00\x00\x00\x01")


def long_header(destination_cid: bytes, *, first: int = 0xC0) -> bytes:
    header = bytes([first]) + b"\x00\x00\x00\x01" + bytes([len(destination_cid)]) + destination_cid
    return header + b"\x08" + bytes(8) + b"\x00\x44\xb0" + bytes(1200)


@pytest.mark.parametrize("size", [0, 1, 7, 21, 255])
def test_W10_a_destination_id_of_a_forbidden_length_is_dropped(size: int) -> None:
    router: Router[object] = Router()
    assert router.find_untrusted(long_header(bytes(size))) is None
    assert router.answer_untrusted(long_header(bytes(size)), CLIENT, NOW) == Drop("malformed")


@pytest.mark.parametrize("first", [0xD0, 0xE0, 0xF0])
def test_long_headers_that_begin_nothing_are_dropped(first: int) -> None:
    router: Router[object] = Router()
    assert isinstance(router.answer_untrusted(long_header(bytes(8), first=first), CLIENT, NOW), Drop)


def test_a_short_header_for_nobody_is_dropped() -> None:
    router: Router[object] = Router()
    assert router.answer_untrusted(b"\x40" + bytes(1300), CLIENT, NOW) == Drop("unknown connection")
