"""What the tracker reads as JSON and what it writes: the documented bytes, and nothing raised for any others."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.wire.tracker_json import (
    AnnounceRequest,
    CapabilityFrame,
    ContextMessage,
    ErrorCode,
    ErrorReply,
    FileAnswer,
    FileQuery,
    Query,
    QueryAnswer,
    QueryMetadata,
    QueryParameters,
    Request,
    ScrapeRequest,
    announce_answer,
    capability_answer,
    parse_request,
    scrape_answer,
)

INFO_HASH = "0123456789abcdef0123456789ABCDEF01234567"
ANNOUNCE: dict[str, Any] = {
    "info_hash": INFO_HASH,
    "peer_id": "-QC0001-1234567890123456",
    "port": 6881,
    "uploaded": 1,
    "downloaded": 2,
    "left": 1024,
    "event": "started",
    "ip": "192.168.1.100",
}


def parse(value: object) -> Request | ErrorReply:
    return parse_request(json.dumps(value).encode())


def code_of(body: bytes) -> ErrorCode:
    answer = parse_request(body)
    assert isinstance(answer, ErrorReply), answer
    assert len(answer.encode()) <= 1000
    return answer.code


def code_of_value(value: object) -> ErrorCode:
    return code_of(json.dumps(value).encode())


def announce_with(**changed: object) -> dict[str, object]:
    return {**ANNOUNCE, **changed}


# -- requests ----------------------------------------------------------------------------------------------


def test_the_documented_announce() -> None:
    body = (
        b'{"info_hash":"0123456789abcdef0123456789ABCDEF01234567","peer_id":"-QC0001-1234567890123456",'
        b'"port":6881,"uploaded":1,"downloaded":2,"left":1024,"event":"started","ip":"192.168.1.100"}'
    )
    assert parse_request(body) == AnnounceRequest(
        bytes.fromhex(INFO_HASH),
        b"-QC0001-1234567890123456",
        6881,
        1,
        2,
        1024,
        "started",
        "192.168.1.100",
        None,
    )


def test_what_is_absent_and_what_is_null_are_the_same() -> None:
    needed = {key: ANNOUNCE[key] for key in ("info_hash", "peer_id", "port")}
    optional = ("uploaded", "downloaded", "left", "event", "ip", "passkey", "file", "query", "scrape")
    found = parse(needed)
    assert found == parse(needed | dict.fromkeys(optional))
    assert found == AnnounceRequest(
        bytes.fromhex(INFO_HASH), b"-QC0001-1234567890123456", 6881, 0, 0, 0, "", None, None
    )
    assert parse({"file": "x", "info_hash": None}) == FileQuery("x")


@pytest.mark.parametrize("missing", ["peer_id", "port"])
def test_an_announce_without_what_it_needs(missing: str) -> None:
    assert code_of_value({key: value for key, value in ANNOUNCE.items() if key != missing}) is (
        ErrorCode.UNKNOWN_REQUEST
    )
    assert code_of_value(announce_with(**{missing: None})) is ErrorCode.UNKNOWN_REQUEST


@pytest.mark.parametrize("peer_id", ["x", "-QC0001-", "ü" * 32, "y" * 64])
def test_a_peer_id_is_any_text_of_1_to_64_bytes(peer_id: str) -> None:
    found = parse(announce_with(peer_id=peer_id))
    assert isinstance(found, AnnounceRequest)
    assert found.peer_id == peer_id.encode()


@pytest.mark.parametrize("peer_id", ["", "y" * 65, "ü" * 33])
def test_other_peer_ids_are_refused(peer_id: str) -> None:
    assert code_of_value(announce_with(peer_id=peer_id)) is ErrorCode.UNKNOWN_REQUEST


@pytest.mark.parametrize("text", ["", "ab", INFO_HASH[1:], INFO_HASH + "0", " " + INFO_HASH[1:], "g" * 40])
def test_an_info_hash_is_40_hexadecimal_digits(text: str) -> None:
    assert code_of_value(announce_with(info_hash=text)) is ErrorCode.UNKNOWN_REQUEST
    assert code_of_value({"scrape": [text]}) is ErrorCode.UNKNOWN_REQUEST


def test_the_other_kinds() -> None:
    assert parse({"file": "hello_world.txt"}) == FileQuery("hello_world.txt")
    assert parse({"file": ""}) == FileQuery("")
    assert parse({"query": "why?"}) == Query("why?", (), QueryParameters(None, None, None))
    assert parse(
        {
            "query": "why?",
            "context": [{"role": "user", "content": "hello"}],
            "parameters": {"temperature": 0.7, "max_tokens": 100, "top_p": 1, "stream": False},
        }
    ) == Query("why?", (ContextMessage("user", "hello"),), QueryParameters(0.7, 100, 1.0))
    assert parse({"query": "why?", "context": None, "parameters": {"top_p": None}}) == Query("why?")
    assert parse({"scrape": [INFO_HASH], "passkey": "secret"}) == ScrapeRequest(
        {INFO_HASH: bytes.fromhex(INFO_HASH)}, "secret"
    )
    assert parse({"capabilities": ["tracker", "files"]}) == CapabilityFrame(("tracker", "files"))


def test_unknown_keys_are_ignored() -> None:
    assert parse({"file": "x", "compression": {"gzip": [1, 2.5, None]}}) == FileQuery("x")


@pytest.mark.parametrize(
    "value", [{}, {"type": "ping", "id": 1}, {"file": None}, {"peer_id": "x", "port": 1}]
)
def test_what_is_no_kind_of_request(value: object) -> None:
    assert code_of_value(value) is ErrorCode.UNKNOWN_REQUEST


WRONG: dict[str, list[object]] = {
    "info_hash": [1, ["a"], {}, True],
    "peer_id": [1, []],
    "event": [1, ["started"]],
    "ip": [2130706433, {}],
    "passkey": [1],
    "file": [1, ["x"], False],
    "query": [0, {}],
    "context": ["x", [1], [{"role": "user"}], [{"role": "user", "content": 1}]],
    "parameters": [[], 1, {"max_tokens": 1.5}, {"max_tokens": 0}, {"temperature": "hot"}],
    "scrape": [INFO_HASH, [1], {}],
    "capabilities": ["tracker", [1]],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in WRONG.items() for value in values]
)
def test_a_known_key_of_the_wrong_type(key: str, value: object) -> None:
    assert code_of_value(announce_with(**{key: value})) is ErrorCode.UNKNOWN_REQUEST
    assert code_of_value({key: value}) is ErrorCode.UNKNOWN_REQUEST


@pytest.mark.parametrize("value", [-1, 2**64, 2**63, 1.0, 0.5, 1e300, "1", True, [1], {}])
@pytest.mark.parametrize("key", ["port", "left", "uploaded", "downloaded"])
def test_T7_numbers_out_of_their_bounds_or_of_another_type(key: str, value: object) -> None:
    assert code_of_value(announce_with(**{key: value})) is ErrorCode.UNKNOWN_REQUEST


def test_T7_the_bounds_themselves() -> None:
    assert code_of_value(announce_with(port=65536)) is ErrorCode.UNKNOWN_REQUEST
    found = parse(announce_with(port=65535, left=2**63 - 1, uploaded=0))
    assert isinstance(found, AnnounceRequest)
    assert (found.port, found.left, found.uploaded) == (65535, 2**63 - 1, 0)


# -- bytes that are no request -----------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"\xff", b'{"file":"\xff"}', b'{"file":"\xed\xa0\x80"}', b"\x80{}"])
def test_what_is_not_utf8(body: bytes) -> None:
    assert code_of(body) is ErrorCode.INVALID_ENCODING


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"{", b"null", b"[]", b'"x"', b"12", b"{}x", b"{'file':1}", b'{"file":"a\nb"}', b"{},{}",
        b'\xef\xbb\xbf{"file":"x"}',
    ],
)  # fmt: skip
def test_what_is_no_json_object(body: bytes) -> None:
    assert code_of(body) is ErrorCode.INVALID_JSON


HOSTILE = {
    "deep array": b"[" * 60_000,
    "deep object": b'{"a":' * 12_000,
    "deep and closed": b'{"file":"x","a":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "long integer": b'{"file":"x","left":' + b"9" * 5000 + b"}",
    "long integer in an unknown key": b'{"file":"x","n":' + b"9" * 5000 + b"}",
    "NaN": b'{"file":"x","n":NaN}',
    "Infinity": b'{"file":"x","n":Infinity}',
    "minus Infinity": b'{"file":"x","n":-Infinity}',
    "number without end": b'{"file":"x","n":1e999}',
    "lone surrogate": rb'{"file":"\ud800"}',
    "lone low surrogate": rb'{"file":"\uDFFF"}',
    "lone surrogate in an unknown key": rb'{"file":"x","\udabc":1}',
    "surrogates the wrong way round": rb'{"file":"\udc00\ud800"}',
    "a key twice": b'{"file":"x","file":"y"}',
    "a key twice, spelt differently": rb'{"file":"x","fil\u0065":"y"}',
    "a key twice, deep inside": b'{"file":"x","n":[{"a":1,"a":1}]}',
}


@pytest.mark.parametrize("case", HOSTILE)
def test_T4_hostile_json_is_an_error_answer(case: str) -> None:
    assert code_of(HOSTILE[case]) is ErrorCode.INVALID_JSON


def test_T4_depth_of_a_hundred_thousand_and_64_mb_without_a_newline() -> None:
    assert code_of(b"[" * 100_000) is ErrorCode.INVALID_JSON
    assert code_of(b" " * 64_000_000) is ErrorCode.INVALID_JSON


def test_T4_true_is_no_integer() -> None:
    assert code_of_value(announce_with(port=True)) is ErrorCode.UNKNOWN_REQUEST


def test_surrogates_that_pair_up_are_text() -> None:
    assert parse_request(rb'{"file":"\ud83d\ude00"}') == FileQuery("\N{GRINNING FACE}")


def test_the_limit_is_64_kib() -> None:
    padded = json.dumps({"file": "x"}).encode().ljust(config.JSON_REQUEST_SIZE_MAX)
    assert parse_request(padded) == FileQuery("x")
    assert code_of(padded + b" ") is ErrorCode.INVALID_JSON


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_an_error_answer(body: bytes) -> None:
    found = parse_request(body)
    assert isinstance(found, Request | ErrorReply)
    if isinstance(found, ErrorReply):
        assert len(found.encode()) <= 1000


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*WRONG, "port", "left", "uploaded", "x"]), JSON_VALUES, max_size=6))
def test_any_json_is_a_request_or_an_error_answer(value: dict[str, object]) -> None:
    assert isinstance(parse_request(json.dumps(value).encode()), Request | ErrorReply)


@given(st.text(max_size=500), st.sampled_from(ErrorCode))
def test_an_error_answer_is_json_of_at_most_1_kb(text: str, code: ErrorCode) -> None:
    encoded = ErrorReply(text, code).encode()
    assert len(encoded) <= 1000
    assert json.loads(encoded)["code"] == code.value
    assert json.loads(encoded)["error"].isprintable()


def test_the_longest_error_answer() -> None:
    assert len(ErrorReply("\U0001f600" * 999, ErrorCode.SERIALIZATION_ERROR).encode()) <= 1000


# -- answers, byte for byte --------------------------------------------------------------------------------


def test_answers_are_the_documented_bytes() -> None:
    assert announce_answer(60, bytes([192, 168, 1, 100, 0x1A, 0xE1]), b"", 1, 0) == (
        b'{"interval":60,"peers":[{"ip":"192.168.1.100","port":6881}],"complete":1,"incomplete":0}'
    )
    assert announce_answer(60, bytes(6) * 2, bytes(15) + b"\x01\0\x05", 2, 3) == (
        b'{"interval":60,"peers":[{"ip":"0.0.0.0","port":0},{"ip":"0.0.0.0","port":0},{"ip":"::1","port":5}],'
        b'"complete":2,"incomplete":3}'
    )
    assert announce_answer(60, b"", b"", 0, 0) == b'{"interval":60,"peers":[],"complete":0,"incomplete":0}'
    assert scrape_answer({INFO_HASH: (1, 2, 3)}) == (
        b'{"files":{"%b":{"complete":1,"downloaded":2,"incomplete":3}}}' % INFO_HASH.encode()
    )
    assert capability_answer(["tracker"]) == b'{"capabilities":["tracker"]}'
    assert ErrorReply("File not found: x", ErrorCode.FILE_NOT_FOUND).encode() == (
        b'{"error":"File not found: x","code":"FILE_NOT_FOUND"}'
    )
    assert QueryAnswer("42", QueryMetadata(1, 2, 3, 4)).encode() == (
        b'{"answer":"42","metadata":{"input_tokens":1,"output_tokens":2,"total_tokens":3,"processing_time_ms":4}}'
    )


def file_answer(filename: str, data: bytes, step: int) -> bytes:
    answer = FileAnswer(filename, len(data))
    parts = [answer.part(data[offset : offset + step], offset) for offset in range(0, len(data), step)]
    return b"".join([answer.head, *parts, answer.tail])


def test_a_file_is_an_array_of_numbers() -> None:
    assert file_answer("hello_world.txt", b"Hello", 2) == (
        b'{"data":[72,101,108,108,111],"filename":"hello_world.txt","size":5}'
    )
    assert file_answer('a"b', b"", 2) == rb'{"data":[],"filename":"a\"b","size":0}'


@given(st.binary(max_size=600), st.integers(1, 100), st.text(st.characters(exclude_categories=["Cs"])))
def test_a_file_in_any_parts_is_the_same_answer(data: bytes, step: int, filename: str) -> None:
    found = json.loads(file_answer(filename, data, step))
    assert found == {"data": list(data), "filename": filename, "size": len(data)}


def test_an_answer_that_utf8_cannot_say_is_an_error() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        QueryAnswer("\ud800", QueryMetadata(0, 0, 0, 0)).encode()


# -- the document ------------------------------------------------------------------------------------------

DOCUMENT = (Path(__file__).parents[2] / "docs" / "PROTOCOL.md").read_text()
SECTION = DOCUMENT.partition("\n## 16. The tracker in JSON\n")[2].partition("\n## ")[0]


def test_the_document_has_every_code() -> None:
    assert re.findall(r"^\| `([A-Z_]+)` \|", SECTION, re.MULTILINE) == [code.value for code in ErrorCode]


def test_the_documented_requests_are_requests() -> None:
    rows = re.findall(r"^\| `(\{.*?\})` \| `(\{.*\})` \|$", SECTION, re.MULTILINE)
    kinds = [type(parse_request(asked.replace("<40 hex>", INFO_HASH).encode())) for asked, _ in rows]
    assert kinds == [AnnounceRequest, FileQuery, Query, ScrapeRequest, CapabilityFrame]
    assert all(isinstance(json.loads(answer), dict) for _, answer in rows)
