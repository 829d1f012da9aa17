"""HTTP/3 for an ASGI application, asked by a client that others wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from aioquic.h3.connection import H3Connection, Setting
from aioquic.quic.connection import QuicConnection
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import LocalProtocolError
from p2pnode.quic import Address
from p2pnode.quic.aioquic_http3 import ErrorCode
from p2pnode.services.asgi import Application, Receive, Scope, Send
from p2pnode.services.h3_door import H3Door
from p2pnode.testing.network import Network
from tests.quic.endpoints import DIALER
from tests.quic.engines import varints
from tests.services.conftest import served
from tests.services.http3_client import AUTHORITY, Http3Client, http3_client

pytestmark = pytest.mark.usefixtures("both_ways")


async def refuse_json(request: bytes | None, address: Address, send: object) -> None:
    pytest.fail("nobody speaks JSON here")


@asynccontextmanager
async def client_of(application: Application, **options: bool) -> AsyncIterator[Http3Client]:
    """A client, and an application behind the door."""
    async with (
        Network() as network,
        served(network, [H3Door(refuse_json, application)]),
        http3_client(network, **options) as client,
    ):
        yield client


async def read_body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        if not message["more_body"]:
            return body


async def respond(send: Send, *parts: bytes, status: int = 200, headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body"})


class Seen:
    """An application that remembers what it is asked, and answers with the body it was sent."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        await respond(send, b"you said: ", await read_body(receive), headers=[(b"X-Kind", b"echo")])


async def test_a_request_becomes_a_scope_and_its_answer_a_response(autojump_clock: MockClock) -> None:
    seen = Seen()
    async with client_of(seen) as client:
        response = await client.fetch("/a%20b/%C3%BC?x=%20&y", headers={"accept": "*/*"})
        assert response.status == 200
        assert bytes(response.body) == b"you said: "
        assert (b"x-kind", b"echo") in response.headers
        assert b"date" in dict(response.headers)
    [scope] = seen.scopes
    assert scope["type"] == "http"
    assert scope["http_version"] == "3"
    assert scope["method"] == "GET"
    assert scope["scheme"] == "https"
    assert scope["path"] == "/a b/ü"
    assert scope["raw_path"] == b"/a%20b/%C3%BC"
    assert scope["query_string"] == b"x=%20&y"
    assert scope["headers"] == [(b"host", AUTHORITY.encode()), (b"accept", b"*/*")]
    assert scope["client"] == DIALER


async def test_a_client_that_offers_datagrams_is_served_without(autojump_clock: MockClock) -> None:
    """As browsers are: they send `SETTINGS_H3_DATAGRAM` (RFC 9297 §2.1.1) whatever they ask for."""
    async with client_of(Seen(), begun=False) as client:
        client.h3 = H3Connection(client.engine, enable_webtransport=True)
        assert client.h3.sent_settings is not None
        assert client.h3.sent_settings[Setting.H3_DATAGRAM] == 1
        await client.live_for(0.3)
        assert (await client.fetch()).status == 200
        assert client.h3.received_settings is not None
        assert Setting.H3_DATAGRAM not in client.h3.received_settings


async def test_many_requests_on_one_connection(autojump_clock: MockClock) -> None:
    async with client_of(Seen()) as client:
        for _ in range(3):
            asked = [client.ask("/", method="POST", body=b"%d" % number) for number in range(60)]
            await client.live_for(2)
            assert all(response.is_ended for response in asked)
            assert [bytes(response.body) for response in asked] == [b"you said: %d" % n for n in range(60)]


async def test_bodies_come_and_go_in_parts(autojump_clock: MockClock) -> None:
    body = bytes(range(256)) * 200
    async with client_of(Seen()) as client:
        assert client.h3 is not None
        response = client.ask("/", method="PUT", end=False)
        [stream_id] = client.responses
        for at in range(0, len(body), 1000):
            client.h3.send_data(stream_id, body[at : at + 1000], end_stream=False)
            await client.live_for(0.05)
        client.h3.send_data(stream_id, b"", end_stream=True)
        await client.live_for(1)
        assert bytes(response.body) == b"you said: " + body


async def test_head_and_statuses_without_a_body_have_none(autojump_clock: MockClock) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        status = 204 if scope["path"] == "/204" else 200
        await respond(send, b"not to be seen", status=status)

    async with client_of(application) as client:
        head = await client.fetch("/", method="HEAD")
        assert (head.status, head.body) == (200, b"")
        nothing = await client.fetch("/204")
        assert (nothing.status, nothing.body) == (204, b"")


async def test_what_belongs_to_connections_is_not_passed_on(autojump_clock: MockClock) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(
            send, headers=[(b"Connection", b"close"), (b"transfer-encoding", b"chunked"), (b"a", b"b")]
        )

    async with client_of(application) as client:
        response = await client.fetch()
        assert {name for name, _ in response.headers} == {b":status", b"a", b"date"}


# -- back-pressure -----------------------------------------------------------------------------------------


async def test_Q13_a_response_goes_no_faster_than_the_client_takes_it(autojump_clock: MockClock) -> None:
    sent = 0

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(100):
            await send({"type": "http.response.body", "body": bytes(200_000), "more_body": True})
            sent += 200_000
        await send({"type": "http.response.body"})

    async with client_of(application) as client:
        response = client.ask()
        await client.remote.send()
        await trio.sleep(5)  # the client reads nothing at all
        held = config.SEND_BUFFER
        assert sent <= held + 200_000
        with trio.fail_after(60):
            while not response.is_ended:
                await client.live_for(0.1)
        assert len(response.body) == sent == 20_000_000


async def test_Q13_a_client_that_takes_nothing_for_long_loses_its_stream(autojump_clock: MockClock) -> None:
    outcome = ""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal outcome
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(200_000), "more_body": True})
        except trio.Cancelled:
            outcome = "cancelled"
            raise

    async with client_of(application) as client:
        # Its flow control is never opened: what comes is acknowledged, and not read.
        client.engine._write_connection_limits = lambda **_: None  # type: ignore[method-assign]
        client.engine._write_stream_limits = lambda **_: None  # type: ignore[method-assign]
        response = client.ask()
        await client.live_for(config.DOOR_SEND_STALL_S + 5)
        assert outcome == "cancelled"
        assert response.reset_with == ErrorCode.H3_REQUEST_CANCELLED


async def test_a_body_that_nobody_reads_is_not_taken_in(autojump_clock: MockClock) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await trio.sleep(3)
        await respond(send, b"no, thanks", status=403)

    async with client_of(application) as client:
        response = client.ask("/", method="PUT", body=bytes(6_000_000), end=False)
        [stream_id] = client.responses
        await client.live_for(2)
        acknowledged = client.engine._streams[stream_id].sender._buffer_start
        assert acknowledged <= config.STREAM_RECEIVE_WINDOW
        await client.live_for(3)
        assert (response.status, response.is_ended) == (403, True)
        assert response.stopped_with == ErrorCode.H3_NO_ERROR


# -- ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("while_it", ["waits", "sends"])
async def test_Q10_a_client_that_gives_up_is_a_disconnect(autojump_clock: MockClock, while_it: str) -> None:
    told: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        if while_it == "waits":
            told.append((await receive())["type"])
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            try:
                while True:
                    await send({"type": "http.response.body", "body": bytes(1000), "more_body": True})
                    await trio.sleep(0.1)
            except trio.Cancelled:
                told.append("cancelled")
                raise

    async with client_of(application) as client:
        client.ask()
        [stream_id] = client.responses
        await client.live_for(1)
        assert told == []
        client.engine.stop_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
        await client.live_for(1)
        assert told == ["http.disconnect" if while_it == "waits" else "cancelled"]
        client.responses.clear()
        assert client.remote.closed_with is None


async def test_a_client_that_resets_its_body_is_a_disconnect(autojump_clock: MockClock) -> None:
    told: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            told.append(message["type"])
            if message["type"] == "http.disconnect":
                return

    async with client_of(application) as client:
        response = client.ask("/", method="PUT", body=b"abc", end=False)
        [stream_id] = client.responses
        await client.live_for(1)
        client.engine.reset_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
        await client.live_for(1)
        assert told == ["http.request", "http.disconnect"]
        assert response.reset_with == ErrorCode.H3_REQUEST_CANCELLED


async def test_an_application_that_answers_half_resets_the_stream(autojump_clock: MockClock) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/half":
            await send({"type": "http.response.start", "status": 200, "headers": []})

    async with client_of(application) as client:
        for path in ("/half", "/nothing"):
            assert (await client.fetch(path)).reset_with == ErrorCode.H3_INTERNAL_ERROR


async def test_an_application_out_of_step_is_a_defect(autojump_clock: MockClock) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(LocalProtocolError):
            await send({"type": "http.response.body", "body": b""})
        await respond(send)
        with pytest.raises(LocalProtocolError):
            await send({"type": "http.response.start", "status": 200})
        assert (await receive())["type"] == "http.disconnect"

    async with client_of(application) as client:
        assert (await client.fetch()).status == 200


# -- what clients do wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({":method": "GET", ":scheme": "https", ":authority": "a", ":path": "nowhere"}, 400),
        ({":method": "GET", ":scheme": "https", ":authority": "a", ":path": "/\xfc"}, 400),
        ({":method": "GET", ":scheme": "https", ":authority": "a", ":path": "/", "host": "b"}, 400),
        ({":method": "CONNECT", ":authority": "a:1"}, 501),
        ({":method": "CONNECT", ":protocol": "websocket", ":scheme": "https", ":authority": "a", ":path": "/"}, 501),
        ({":method": "GET", ":scheme": "https", ":authority": "a", ":path": "/" + "a" * 50_000}, 431),
    ],
)  # fmt: skip
async def test_T9_requests_that_are_refused(
    autojump_clock: MockClock, headers: dict[str, str], status: int
) -> None:
    async with client_of(Seen()) as client:
        response = client.ask_with(headers)
        await client.live_for(1)
        assert response.status == status
        assert response.is_ended
        assert (await client.fetch()).status == 200


@pytest.mark.parametrize("begun", [b"", b"\x21\x00"])
async def test_a_request_without_headers_is_incomplete(autojump_clock: MockClock, begun: bytes) -> None:
    async with client_of(Seen()) as client:
        stream_id, response = client.open()
        client.engine.send_stream_data(stream_id, begun, end_stream=True)
        await client.live_for(1)
        assert response.reset_with == ErrorCode.H3_REQUEST_INCOMPLETE
        assert (await client.fetch()).status == 200


@pytest.mark.parametrize("size", [config.HTTP3_BODY_SIZE_MAX + 1, 5_000_000])
async def test_T9_a_body_that_is_too_large_is_refused(autojump_clock: MockClock, size: int) -> None:
    async with client_of(Seen()) as client:
        response = await client.fetch("/", method="PUT", body=bytes(size))
        assert response.status == 413
        assert (await client.fetch()).status == 200


@pytest.mark.parametrize("part", ["headers", "body"])
async def test_Q11_a_request_that_does_not_go_on_is_ended(autojump_clock: MockClock, part: str) -> None:
    async with client_of(Seen()) as client:
        if part == "body":
            response = client.ask("/", method="PUT", body=b"a", end=False)
        else:
            stream_id, response = client.open()
            client.engine.send_stream_data(stream_id, b"\x01\x20")  # a frame of 32 bytes, of which none comes
        await client.live_for(config.HTTP3_REQUEST_TIMEOUT_S + 1)
        assert response.status == 408
        assert (await client.fetch()).status == 200


GREASE = 0x1F * 7 + 0x21  # a type that means nothing (RFC 9114 §7.2.8)
REQUEST = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/")]


async def test_unknown_frames_streams_and_settings_are_ignored(autojump_clock: MockClock) -> None:
    async with client_of(Seen()) as client:
        assert client.h3 is not None
        for _ in range(20):  # more than may be open at a time
            uni = client.engine.get_next_available_stream_id(is_unidirectional=True)
            client.engine.send_stream_data(uni, varints(GREASE) + b"whatever", end_stream=True)
        control = client.h3._local_control_stream_id
        assert control is not None
        client.engine.send_stream_data(control, varints(GREASE, 3) + b"abc")
        stream_id, response = client.open()
        client.engine.send_stream_data(stream_id, varints(GREASE, 5) + b"hello")
        client.h3.send_headers(stream_id, REQUEST)
        client.engine.send_stream_data(stream_id, varints(GREASE, 0), end_stream=True)
        await client.live_for(2)
        assert (response.status, response.is_ended) == (200, True)


@pytest.mark.parametrize(
    ("kind", "data", "code"),
    [
        ("control", varints(0x04, 0), ErrorCode.H3_FRAME_UNEXPECTED),  # SETTINGS again
        ("control", varints(0x00, 1) + b"x", ErrorCode.H3_FRAME_UNEXPECTED),
        ("control", varints(0x0D, 1 << 40) + bytes(40_000), ErrorCode.H3_EXCESSIVE_LOAD),
        ("request", varints(0x00, 1) + b"x", ErrorCode.H3_FRAME_UNEXPECTED),
        ("request", varints(0x01, 4) + b"\xff\xff\xff\xff", ErrorCode.QPACK_DECOMPRESSION_FAILED),
        ("request", varints(0x04, 0), ErrorCode.H3_FRAME_UNEXPECTED),
        ("another control", varints(0x00, 0x04, 0), ErrorCode.H3_STREAM_CREATION_ERROR),
        ("push", varints(0x01, 0), ErrorCode.H3_STREAM_CREATION_ERROR),
        ("encoder", b"\x3f\xff\xff\xff\x7f", ErrorCode.QPACK_ENCODER_STREAM_ERROR),
    ],
)
async def test_what_breaks_the_rules_ends_the_connection(
    autojump_clock: MockClock, kind: str, data: bytes, code: ErrorCode
) -> None:
    async with client_of(Seen()) as client:
        assert client.h3 is not None
        where = {
            "control": client.h3._local_control_stream_id,
            "encoder": client.h3._local_encoder_stream_id,
            "request": client.engine.get_next_available_stream_id(),
        }.get(kind, client.engine.get_next_available_stream_id(is_unidirectional=True))
        assert where is not None
        client.engine.send_stream_data(where, data)
        await client.live_for(1)
        assert client.remote.closed_with == code


@pytest.mark.parametrize("end", ["FIN", "reset"])
async def test_the_control_stream_must_stay_open(autojump_clock: MockClock, end: str) -> None:
    async with client_of(Seen()) as client:
        assert client.h3 is not None
        control = client.h3._local_control_stream_id
        assert control is not None
        if end == "FIN":
            client.engine.send_stream_data(control, b"", end_stream=True)
        else:
            client.engine.reset_stream(control, 0)
        await client.live_for(1)
        assert client.remote.closed_with == ErrorCode.H3_CLOSED_CRITICAL_STREAM


async def test_a_client_that_allows_us_no_streams_is_left(autojump_clock: MockClock) -> None:
    def allow_none(engine: QuicConnection) -> None:
        engine._local_max_streams_uni.value = engine._local_max_streams_uni.sent = 0

    async with Network() as network, served(network, [H3Door(refuse_json, Seen())]):
        async with http3_client(network, prepare=allow_none) as client:
            await client.live_for(1)
            assert client.remote.closed_with == 0
        async with http3_client(network) as client:
            assert (await client.fetch()).status == 200
