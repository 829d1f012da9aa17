"""HTTP/3's frames without any stream: what it wants of a connection, what it promises, what it holds."""

from __future__ import annotations

import ast
import inspect

import aioquic.h3.connection
import pytest
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import Setting, encode_frame, encode_settings, parse_settings

from p2pnode import config
from p2pnode.quic.aioquic_http3 import ErrorCode, HeadersReceived, Http3Framing
from tests.quic.engines import varints

CONTROL, ENCODER = 2, 6  # of the client
REQUEST = 0
GET = (
    b"\x00\x00\xd1\xd7\x50\x01a\xc1"  # :method GET, :scheme https, :authority a, :path /, of the static table
)


class Port:
    """Remembers what is done to streams."""

    def __init__(self) -> None:
        self.sent: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.closed: int | None = None

    def open_unidirectional(self) -> int:
        stream_id = 3 + 4 * len(self.sent)
        self.sent[stream_id] = b""
        return stream_id

    def send(self, stream_id: int, data: bytes, end: bool) -> None:
        self.sent[stream_id] = self.sent.get(stream_id, b"") + data
        if end:
            self.ended.add(stream_id)

    def close(self, code: int, reason: str) -> None:
        self.closed = code


@pytest.fixture
def port() -> Port:
    return Port()


@pytest.fixture
def framing(port: Port) -> Http3Framing:
    return Http3Framing(port)


def settings(**values: int) -> bytes:
    return varints(0) + encode_frame(4, encode_settings({Setting[name]: n for name, n in values.items()}))


def test_the_connection_that_is_shown_has_all_that_is_asked_of_one(framing: Http3Framing) -> None:
    """But for datagrams, of which we say that there are none."""
    tree = ast.parse(inspect.getsource(aioquic.h3.connection))
    wanted = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "_quic"
    }
    assert "send_stream_data" in wanted
    assert {name for name in wanted if not hasattr(framing._quic, name)} == {"send_datagram_frame"}


def test_it_promises_no_table_and_no_websockets(framing: Http3Framing, port: Port) -> None:
    control, encoder, decoder = port.sent.values()
    assert (encoder, decoder) == (b"\x02", b"\x03")
    said = parse_settings(control[3:])
    assert said[Setting.QPACK_MAX_TABLE_CAPACITY] == 0
    assert said[Setting.QPACK_BLOCKED_STREAMS] == 0
    assert said[Setting.MAX_FIELD_SECTION_SIZE] == config.HTTP3_FRAME_SIZE_MAX
    assert Setting.ENABLE_CONNECT_PROTOCOL not in said


def test_a_table_that_the_client_offers_is_not_used(framing: Http3Framing, port: Port) -> None:
    framing.receive(CONTROL, settings(QPACK_MAX_TABLE_CAPACITY=1 << 30, QPACK_BLOCKED_STREAMS=100), False)
    for number in range(10):
        framing.receive(4 * number, encode_frame(1, GET), True)
        framing.send_headers(
            4 * number, [(b":status", b"200"), (b"x-new", b"%d" % number * 99)], end_stream=True
        )
    framing.receive(40, encode_frame(1, GET)[:3], False)
    framing.forget(40)
    assert (port.sent[7], port.sent[11]) == (b"\x02", b"\x03")  # nothing is ever said on QPACK's streams
    assert port.closed is None


def test_headers_that_refer_to_a_table_end_the_connection(framing: Http3Framing, port: Port) -> None:
    framing.receive(ENCODER, b"\x02" + b"\x3f\xe1\x1f", False)  # a capacity of 4096
    assert port.closed == ErrorCode.QPACK_ENCODER_STREAM_ERROR


def test_a_block_that_waits_for_a_table_is_malformed(framing: Http3Framing, port: Port) -> None:
    framing.receive(REQUEST, encode_frame(1, b"\x02\x00\x80"), True)
    assert port.closed == ErrorCode.QPACK_DECOMPRESSION_FAILED


@pytest.mark.parametrize("kind", [0x04, 0x0D])
def test_a_control_frame_that_is_large_is_not_held(framing: Http3Framing, port: Port, kind: int) -> None:
    begun = settings() if kind != 4 else varints(0)
    framing.receive(CONTROL, begun + varints(kind, 1 << 50), False)
    for _ in range(100):
        framing.receive(CONTROL, bytes(1000), False)
        if port.closed is not None:
            break
    assert port.closed == ErrorCode.H3_EXCESSIVE_LOAD
    assert framing.held(CONTROL) <= config.HTTP3_FRAME_SIZE_MAX + 1000


def test_what_is_skipped_is_not_held(framing: Http3Framing, port: Port) -> None:
    framing.receive(CONTROL, settings() + varints(0x21, 1 << 50), False)
    framing.receive(REQUEST, varints(0x21, 1 << 50), False)
    framing.receive(10, varints(0x21), False)
    for _ in range(100):
        for stream_id in (CONTROL, REQUEST, 10):
            framing.receive(stream_id, bytes(10_000), False)
            assert framing.held(stream_id) == 0
    assert port.closed is None


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("asked", ["nothing", "half", "headers", "all"])
def test_a_request_that_is_forgotten_leaves_nothing(
    framing: Http3Framing, port: Port, asked: str, answered: bool
) -> None:
    frame = encode_frame(1, GET)
    data = {"nothing": b"", "half": frame[:4], "headers": frame, "all": frame}[asked]
    events = framing.receive(REQUEST, data, asked == "all")
    assert any(isinstance(event, HeadersReceived) for event in events) is (asked in ("headers", "all"))
    if answered:
        framing.send_headers(REQUEST, [(b":status", b"400")], end_stream=True)
    framing.forget(REQUEST)
    assert REQUEST not in framing._stream
    assert (REQUEST in port.ended) is answered
    assert port.closed is None


def test_what_escapes_ends_the_connection(
    framing: Http3Framing, port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise IndexError("nobody thought of this")

    monkeypatch.setattr(framing, "_decode_headers", fail)
    framing.receive(REQUEST, encode_frame(1, GET) + encode_uint_var(0), True)
    assert port.closed == ErrorCode.H3_INTERNAL_ERROR
