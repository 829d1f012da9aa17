from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.errors import ErrorAnswer, NotFound, RemoteProtocolError
from p2pnode.wire.tracker_answers import (
    encode_request,
    file_in,
    peers_in,
    read_answer,
    reply_in,
)

REMOTE_FAULTS = (RemoteProtocolError, ErrorAnswer, NotFound)


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none(), max_size=5))
def test_any_text_can_be_sent(request_: dict[str, Any]) -> None:
    assert json.loads(encode_request(request_)) == request_


def test_bytes_of_a_name_that_are_no_text_can_be_sent() -> None:
    assert encode_request({"file": "a\udcff"}) == b'{"file":"a\\udcff"}'


@given(st.binary(max_size=200))
def test_random_bytes_are_an_object_or_a_fault_of_the_tracker(data: bytes) -> None:
    try:
        answer = read_answer(data)
    except REMOTE_FAULTS:
        return
    assert isinstance(answer, dict)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
KEYS = (
    "interval",
    "peers",
    "complete",
    "incomplete",
    "ip",
    "port",
    "data",
    "size",
    "answer",
    "error",
    "code",
)


@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_T11_any_object_is_understood_or_a_fault_of_the_tracker(answer: dict[str, Any]) -> None:
    for reader in (peers_in, file_in, reply_in):
        with suppress(*REMOTE_FAULTS):
            reader(read_answer(json.dumps(answer).encode()))


@pytest.mark.parametrize(
    "digits",
    ["1" * 5000, "-" + "9" * 30, "1e999", "NaN", "Infinity", "-Infinity"],
    ids=lambda text: text[:12],
)
def test_T11_an_interval_that_is_no_number_of_ours_is_refused_or_bounded(digits: str) -> None:
    try:
        interval = peers_in(read_answer(b'{"peers":[],"interval":%s}' % digits.encode())).interval_s
    except RemoteProtocolError:
        return
    assert config.TRACKER_INTERVAL_MIN_S <= interval <= config.TRACKER_INTERVAL_MAX_S


@pytest.mark.parametrize(("said", "meant"), [(0, 30), (-1, 30), (60, 60), (2**31, 3600), (59.5, 59.5)])
def test_T11_an_interval_is_bounded(said: float, meant: float) -> None:
    assert peers_in({"peers": [], "interval": said}).interval_s == meant


def test_T11_peers_that_can_be_none_are_left_out_and_others_bounded() -> None:
    good = {"ip": "2001:db8::1", "port": 6881}
    bad: list[object] = [None, 7, {}, {"ip": "192.0.2.1"}, {"ip": 7, "port": 7}, {"ip": "", "port": 7}]
    bad += [{"ip": "192.0.2.1", "port": port} for port in (0, -1, 65_536, 2**64, "80", 1.5, None)]
    bad += [{"ip": "x" * 1000, "port": 80}]
    assert peers_in({"peers": [*bad, good], "interval": 60}).peers == (("2001:db8::1", 6881),)
    many = peers_in({"peers": [good] * 100_000, "interval": 60})
    assert len(many.peers) == config.TRACKER_ANSWER_PEERS_MAX


def test_a_file_is_its_bytes() -> None:
    assert file_in({"data": [72, 101, 108, 108, 111], "filename": "hello.txt", "size": 5}) == b"Hello"
    assert file_in({"data": []}) == b""


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"data": None},
        {"data": "SGVsbG8="},
        {"data": [256], "size": 1},
        {"data": [-1], "size": 1},
        {"data": [1.5], "size": 1},
        {"data": ["1"], "size": 1},
        {"data": [1, 2], "size": 3},
        {"data": [1, 2], "size": 1},
        {"data": [1, 2], "size": -2},
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        file_in(answer)


def test_an_error_is_raised_as_what_it_means() -> None:
    with pytest.raises(NotFound, match="the tracker says: File not found: x"):
        read_answer(b'{"error":"File not found: x","code":"FILE_NOT_FOUND"}')
    with pytest.raises(ErrorAnswer) as caught:
        read_answer(b'{"error":"AI processing not available","code":"AI_UNAVAILABLE"}')
    assert caught.value.code == "AI_UNAVAILABLE"
    with pytest.raises(ErrorAnswer) as caught:
        read_answer(json.dumps({"error": "x" * 10_000, "code": None}).encode())
    assert caught.value.code == ""
    assert len(str(caught.value)) < 600


def test_a_reply_is_its_text() -> None:
    assert reply_in({"answer": "42", "metadata": {}}) == "42"
    with pytest.raises(RemoteProtocolError):
        reply_in({"answer": 42})
