"""The codec: what goes in comes out, and nothing else than a message comes out of hostile bytes."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.codec import decode, encode, rows_that_fit
from p2pnode.wire.communication import (
    Error,
    FileAnnounce,
    FileChunk,
    FileChunkAck,
    FileItem,
    FileList,
    FileRequest,
    FindSources,
    Have,
    Message,
    NodeItem,
    NodeProof,
    PeerList,
    PeerReport,
    PresenceAnnounce,
    PushRequest,
    Sources,
    UnknownMessage,
)

from .strategies import MESSAGE_TYPES, messages, of_struct

ID = bytes(range(32))


def packed(**fields: Any) -> bytes:
    return msgpack.packb(fields)


# -- what goes in comes out --------------------------------------------------------------------------------


@given(messages)
def test_decoding_what_was_encoded_gives_the_same_message(message: Message) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize("cls", MESSAGE_TYPES, ids=lambda cls: cls.__name__)
def test_every_message_type_is_encoded_with_its_name(cls: type[Message]) -> None:
    @given(of_struct(cls))
    def check(message: Message) -> None:
        fields = msgpack.unpackb(encode(message))
        assert fields["type"] == cls.__name__
        assert type(decode(encode(message))) is cls

    check()


def test_defaults_are_left_out() -> None:
    assert msgpack.unpackb(encode(FileRequest(file_id=ID))) == {"type": "FileRequest", "file_id": ID}


def test_the_order_of_keys_is_free() -> None:
    assert decode(packed(bytes_written=5, type="FileChunkAck")) == FileChunkAck(bytes_written=5)


# -- what a later version may send -------------------------------------------------------------------------


@given(messages)
def test_unknown_keys_are_ignored(message: Message) -> None:
    fields = msgpack.unpackb(encode(message))
    fields["a_key_of_tomorrow"] = {"nested": [1, b"bytes", None]}
    assert decode(msgpack.packb(fields)) == message


@pytest.mark.parametrize("name", ["Ping", "x", "A" * 64])
def test_an_unknown_type_is_told_apart_from_malformed_bytes(name: str) -> None:
    assert decode(packed(type=name, anything=1)) == UnknownMessage(name)


# -- malformed ---------------------------------------------------------------------------------------------

MALFORMED = {
    "empty": b"",
    "no map": b"\x01",
    "array": packed()[:0] + b"\x90",
    "empty map": packed(),
    "type missing": packed(file_id=ID),
    "type of the wrong type": packed(type=7),
    "type of bytes": packed(type=b"Bye"),
    "type empty": packed(type=""),
    "type too long": packed(type="A" * 65),
    "type with an escape sequence": packed(type="Bye\x1b[2J"),
    "type with a trailing newline": packed(type="Bye\n"),
    "truncated": packed(type="Bye")[:-1],
    "trailing byte": packed(type="Bye") + b"\x00",
    "two values": packed(type="Bye") * 2,
    "reserved byte": b"\xc1",
    "integer key": b"\x82\xa4type\xa3Bye\x01\x01",
    "bytes key": b"\x82\xa4type\xa3Bye\xc4\x01a\x01",
    "array key": b"\x82\xa4type\xa3Bye\x90\x01",
    "duplicate key": b"\x82\xa4type\xa3Bye\xa4type\xa3Bye",
    "duplicate key inside": b"\x82\xa4type\xa3Bye\xa1x\x82\xa1a\x01\xa1a\x01",
    "key that is not UTF-8": b"\x82\xa4type\xa3Bye\xa2\xff\xfe\x01",
    "text that is not UTF-8": b"\x82\xa4type\xa3Bye\xa6reason\xa2\xff\xfe",
    "surrogate": b"\x82\xa4type\xa3Bye\xa6reason\xa3\xed\xa0\x80",
    "bytes for text": packed(type="Bye", reason=b"x"),
    "text for bytes": packed(type="Have", file_id="A" * 32, ranges=[]),
    "base64 for bytes": packed(type="Have", file_id="QUFB" * 8, ranges=[]),
    "none for text": packed(type="Bye", reason=None),
    "missing field": packed(type="Have", ranges=[]),
    "float for integer": packed(type="FileChunkAck", bytes_written=1.0),
    "bool for integer": packed(type="FileChunkAck", bytes_written=True),
    "integer for bool": packed(type="FileAcknowledge", file_id=ID, accepted=1),
    "text for integer": packed(type="FileChunkAck", bytes_written="1"),
    "negative": packed(type="FileChunkAck", bytes_written=-1),
    "2**63": packed(type="FileChunkAck", bytes_written=2**63),
    "2**64 - 1": packed(type="FileChunkAck", bytes_written=2**64 - 1),
    "map for array": packed(type="Have", file_id=ID, ranges={}),
    "range of one": packed(type="Have", file_id=ID, ranges=[[1]]),
    "range of three": packed(type="Have", file_id=ID, ranges=[[1, 1, 1]]),
    "range of none": packed(type="Have", file_id=ID, ranges=[[1, 0]]),
    "ranges out of order": packed(type="Have", file_id=ID, ranges=[[5, 1], [1, 1]]),
    "ranges overlap": packed(type="Have", file_id=ID, ranges=[[1, 3], [3, 1]]),
    "range repeated": packed(type="FileRequest", file_id=ID, ranges=[[1, 1], [1, 1]]),
    "too many ranges": packed(type="Have", file_id=ID, ranges=[[2 * i, 1] for i in range(1025)]),
    "file id of 19": packed(type="FileRequest", file_id=ID[:19]),
    "file id of 21": packed(type="FileRequest", file_id=ID[:21]),
    "file id of 31": packed(type="FileRequest", file_id=ID[:31]),
    "file id of 33": packed(type="FileRequest", file_id=ID + b"x"),
    "chunk of nothing": packed(type="FileChunk", piece=0, offset=0, length=0),
    "chunk too long": packed(type="FileChunk", piece=0, offset=0, length=config.CHUNK_SIZE_MAX + 1),
    "chunk not at a block": packed(type="FileChunk", piece=0, offset=1, length=1),
    "metainfo too long": packed(
        type="FileResponse", file_id=ID, available=True, metainfo_length=config.METAINFO_SIZE_MAX + 1
    ),
    "name too long": packed(type="FileList", prefix="x" * (config.NAME_LENGTH_MAX + 1)),
    "port too high": packed(type="PresenceAnnounce", version=1, listen_port=65536),
    "version zero": packed(type="PresenceAnnounce", version=0),
    "sources of nothing": packed(type="FindSources"),
    "bad id in a list": packed(type="FileList", files=[{"file_id": ID[:21], "name": "", "size": 0}]),
    "bad range in a source": packed(
        type="Sources",
        sources=[{"node_id": ID, "addresses": [], "file_id": ID, "have": [[1, 2], [2, 1]]}],
    ),
    "timestamp": packed(type="Bye", reason=msgpack.Timestamp(1)),
    "malformed timestamp": b"\x82\xa4type\xa3Bye\xa1x\xc7\x03\xffabc",
    "huge array": b"\x82\xa4type\xa3Bye\xa1x\xdd\xff\xff\xff\xff",
    "huge map": b"\x82\xa4type\xa3Bye\xa1x\xdf\xff\xff\xff\xff",
    "huge text": b"\x82\xa4type\xa3Bye\xa1x\xdb\xff\xff\xff\xff",
    "huge bytes": b"\x82\xa4type\xa3Bye\xa1x\xc6\xff\xff\xff\xff",
    "huge extension": b"\x82\xa4type\xa3Bye\xa1x\xc9\xff\xff\xff\xff\x05",
    "array longer than allowed": packed(type="Bye", x=list(range(1025))),
    "map longer than allowed": packed(type="Bye", x={str(i): 0 for i in range(65)}),
    "nesting bomb": b"\x91" * config.FRAME_SIZE_MAX,
    "nesting bomb under an unknown key": b"\x82\xa4type\xa3Bye\xa1x" + b"\x91" * 60_000,
    "nested maps": b"\x82\xa4type\xa3Bye" + b"\xa1x\x81" * 20_000,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_bytes_are_the_remotes_fault_and_the_text_is_safe_to_show(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(body)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) <= config.ERROR_TEXT_LENGTH_MAX


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, -1.0, 1e300])
@pytest.mark.parametrize(
    "fields",
    [
        {"type": "Error", "code": "BUSY", "retry_after_s": None},
        {"type": "PushStatus", "state": "fetching", "seconds": None},
    ],
    ids=lambda fields: fields["type"],
)
def test_seconds_are_finite_and_not_negative(fields: dict[str, Any], seconds: float) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(msgpack.packb({key: seconds if value is None else value for key, value in fields.items()}))


def test_whole_seconds_may_come_as_an_integer() -> None:
    assert decode(packed(type="Error", code="BUSY", retry_after_s=3)) == Error("BUSY", retry_after_s=3.0)


@given(st.binary(max_size=200))
@example(b"\x81\xa4type\xa3Bye")
def test_random_bytes_give_a_message_or_a_remote_error(body: bytes) -> None:
    try:
        message = decode(body)
    except RemoteProtocolError:
        return
    assert isinstance(message, (*MESSAGE_TYPES, UnknownMessage))


_plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(messages, st.data())
def test_a_message_with_one_field_replaced_gives_a_message_or_a_remote_error(
    message: Message, data: st.DataObject
) -> None:
    fields = msgpack.unpackb(encode(message))
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(_plain)
    try:
        decode(msgpack.packb(fields))
    except RemoteProtocolError as error:
        assert str(error).isprintable()


@given(messages, st.data())
def test_a_message_with_one_byte_changed_gives_a_message_or_a_remote_error(
    message: Message, data: st.DataObject
) -> None:
    body = bytearray(encode(message))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(body))
    except RemoteProtocolError as error:
        assert str(error).isprintable()


# -- what we may not send ----------------------------------------------------------------------------------

OUR_FAULTS: list[Message] = [
    Have(file_id=ID[:21], ranges=()),
    Have(file_id=ID, ranges=((3, 1), (0, 1))),
    Have(file_id=ID, ranges=tuple((2 * i, 1) for i in range(config.RANGES_PER_MESSAGE_MAX + 1))),
    FileAnnounce(file_id=ID, name="x", size=-1, piece_length=config.PIECE_LENGTH_MIN),
    FileAnnounce(file_id=ID, name="\udcff", size=1, piece_length=config.PIECE_LENGTH_MIN),
    FileChunk(piece=0, offset=5, length=1),
    FindSources(),
    NodeProof(spki=b"", signature=b""),
    PresenceAnnounce(version=2**16),
    Error("INTERNAL", text="x" * (config.ERROR_TEXT_LENGTH_MAX + 1)),
    Error("BUSY", retry_after_s=math.nan),
    FileList(files=(FileItem(ID, "\U0001f980" * config.NAME_LENGTH_MAX, 0),) * config.LIST_PAGE_MAX),
]


@pytest.mark.parametrize("message", OUR_FAULTS, ids=lambda message: type(message).__name__)
def test_encoding_over_a_limit_is_our_fault(message: Message) -> None:
    with pytest.raises(LocalProtocolError, match=type(message).__name__):
        encode(message)


def test_a_body_of_exactly_the_limit_is_encoded_and_one_byte_more_is_not() -> None:
    def listing(size: int) -> FileList:
        rows = (FileItem(ID, "é" * 600, 1),) * config.LIST_PAGE_MAX
        return FileList(after=b"a" * size, files=rows, next=b"n" * 3000)

    size = 300 + config.FRAME_SIZE_MAX - len(encode(listing(300)))
    assert len(encode(listing(size))) == config.FRAME_SIZE_MAX
    assert decode(encode(listing(size))) == listing(size)
    with pytest.raises(LocalProtocolError, match="does not fit"):
        encode(listing(size + 1))


# -- rows that fit a frame ---------------------------------------------------------------------------------

LONGEST_NAME = "\U0001f980" * config.NAME_LENGTH_MAX
LONGEST_WORD = "\U0001f980" * 64
MOST_ADDRESSES = (("\U0001f980" * 255, 65535),) * config.ADDRESSES_PER_NODE_MAX
MOST_RANGES = tuple((2**62 + 2 * i, 1) for i in range(config.RANGES_PER_MESSAGE_MAX))
LONGEST_CURSOR = b"x" * (4 * config.NAME_LENGTH_MAX + 64)


def test_a_page_of_the_longest_rows_is_cut_so_that_it_fits() -> None:
    item = FileItem(ID, LONGEST_NAME, 2**63 - 1, 2**63 - 1, True)
    rows = rows_that_fit([item] * config.LIST_PAGE_MAX, config.LIST_PAGE_MAX)
    assert 1 < len(rows) < config.LIST_PAGE_MAX
    page = FileList(prefix=LONGEST_NAME, after=LONGEST_CURSOR, files=rows, next=LONGEST_CURSOR)
    assert decode(encode(page)) == page


def test_the_longest_sources_are_cut_so_that_they_fit() -> None:
    item = NodeItem(ID, MOST_ADDRESSES, ID, MOST_RANGES, LONGEST_WORD)
    rows = rows_that_fit([item] * config.SOURCES_PER_MESSAGE_MAX, config.SOURCES_PER_MESSAGE_MAX)
    assert 1 <= len(rows) < config.SOURCES_PER_MESSAGE_MAX
    assert decode(encode(Sources(rows))) == Sources(rows)
    push = PushRequest(ID, LONGEST_NAME, 2**63 - 1, rows)
    assert decode(encode(push)) == push


def test_the_longest_peer_reports_are_cut_so_that_they_fit() -> None:
    row = PeerReport(ID, LONGEST_WORD, LONGEST_WORD, MOST_ADDRESSES, 2**62, LONGEST_WORD, LONGEST_WORD, 1e8)
    rows = rows_that_fit([row] * config.PEERS_PER_MESSAGE_MAX, config.PEERS_PER_MESSAGE_MAX)
    assert 1 <= len(rows) < config.PEERS_PER_MESSAGE_MAX
    assert decode(encode(PeerList(rows))) == PeerList(rows)


def test_rows_that_fit_takes_no_more_than_asked_and_all_that_there_are() -> None:
    items = [FileItem(ID, str(i), i) for i in range(5)]
    assert rows_that_fit(items, 3) == tuple(items[:3])
    assert rows_that_fit(items, 10) == tuple(items)
    assert rows_that_fit(iter(items), 0) == ()
    assert rows_that_fit([], 3) == ()
