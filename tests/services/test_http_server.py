"""HTTP/1.1 and HTTP/2 over loopback: what clients may do, and what they may not."""

from __future__ import annotations

import socket
import ssl
from random import Random

import h2.config
import h2.connection
import httpx2
import pytest
import trio

from p2pnode import config
from p2pnode.errors import AddressError, AddressInUse
from p2pnode.quic import Credentials, NodeKey
from p2pnode.services.asgi import Receive, Scope, Send
from p2pnode.services.http_server import serve_http
from tests.services.http_clients import Address, read_all, serving, speak, statuses

REQUEST = b"GET /%b HTTP/1.1\r\nHost: tracker\r\n\r\n"
LAST_REQUEST = b"GET /%b HTTP/1.1\r\nHost: tracker\r\nConnection: close\r\n\r\n"


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what was asked for, by whom, and in which version."""
    assert scope["type"] == "http"
    body = " ".join((scope["raw_path"].decode(), scope["client"][0], scope["http_version"])).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def assert_others_are_served(address: Address) -> None:
    assert statuses(await speak(address, LAST_REQUEST % b"")) == [200]


# -- what clients may do -----------------------------------------------------------------------------------


async def test_many_requests_over_one_connection() -> None:
    async with serving(tell) as (host, port), httpx2.AsyncClient() as client:
        for number in range(3):
            answer = await client.get(f"http://{host}:{port}/{number}")
            assert answer.text == f"/{number} 127.0.0.1 1.1"
            assert "server" not in answer.headers
            assert "date" in answer.headers


async def test_T9_pipelined_requests_are_answered_in_their_order() -> None:
    async with serving(tell) as address:
        answers = await speak(address, REQUEST % b"a" + REQUEST % b"b" + LAST_REQUEST % b"c")
    assert statuses(answers) == [200] * 3
    assert answers.index(b"/a ") < answers.index(b"/b ") < answers.index(b"/c ")


async def test_a_request_in_many_pieces() -> None:
    async with serving(tell) as address:
        answer = await speak(address, *(bytes([byte]) for byte in LAST_REQUEST % b"x"))
    assert answer.endswith(b"/x 127.0.0.1 1.1")


async def test_a_client_that_says_no_more_gets_its_answer() -> None:
    async with serving(tell) as address, await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(REQUEST % b"x")
        await stream.send_eof()
        assert statuses(await read_all(stream)) == [200]


async def test_http2_without_tls() -> None:
    async with serving(tell) as (host, port), httpx2.AsyncClient(http1=False, http2=True) as client:
        answers = [await client.get(f"http://{host}:{port}/{number}") for number in range(3)]
    assert [answer.text for answer in answers] == [f"/{number} 127.0.0.1 2" for number in range(3)]


@pytest.mark.parametrize(("http2", "version"), [(True, "2"), (False, "1.1")])
async def test_tls(http2: bool, version: str) -> None:
    trust = ssl.create_default_context()
    trust.check_hostname = False
    trust.verify_mode = ssl.CERT_NONE
    credentials = Credentials.from_node_key(NodeKey.generate())
    async with (
        serving(tell, credentials=credentials) as (host, port),
        httpx2.AsyncClient(http2=http2, verify=trust) as client,
    ):
        assert (await client.get(f"https://{host}:{port}/x")).text == f"/x 127.0.0.1 {version}"


async def test_v4_is_v4_on_a_socket_for_both() -> None:
    async with serving(tell, host="::") as (host, port):
        assert host == "::"
        assert (await speak(("127.0.0.1", port), LAST_REQUEST % b"")).endswith(b"/ 127.0.0.1 1.1")
        assert (await speak(("::1", port), LAST_REQUEST % b"")).endswith(b"/ ::1 1.1")


async def test_a_body_that_is_sent_and_one_that_comes() -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    body = Random(1).randbytes(300_000)
    async with serving(echo) as (host, port), httpx2.AsyncClient() as client:
        assert (await client.post(f"http://{host}:{port}/", content=body)).content == body


@pytest.mark.parametrize("http2", [True, False])
async def test_a_body_that_nobody_wants(http2: bool) -> None:
    async with serving(tell) as (host, port), httpx2.AsyncClient(http1=not http2, http2=http2) as client:
        for _ in range(2):
            answer = await client.post(f"http://{host}:{port}/", content=bytes(300_000))
            assert answer.status_code == 200


async def test_a_body_that_does_not_end_is_not_waited_for(autojump_clock: trio.abc.Clock) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: tracker\r\nContent-Length: 100000000\r\n\r\n"
    async with serving(tell) as address:
        before = trio.current_time()
        assert statuses(await speak(address, head + bytes(1000))) == [200]
        assert trio.current_time() - before < config.HTTP_STALL_TIMEOUT_S / 2


async def test_a_whole_address_is_asked_for_and_its_host_counts() -> None:
    async def tell_host(scope: Scope, receive: Receive, send: Send) -> None:
        hosts = b" ".join(value for name, value in scope["headers"] if name == b"host")
        body = b"%b %b %b" % (scope["path"].encode(), scope["query_string"], hosts)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    request = b"GET %b HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n"
    async with serving(tell_host) as address:
        assert b"/a b q=1 tracker:7000" in await speak(address, request % b"http://tracker:7000/a%20b?q=1")
        assert b"/  tracker" in await speak(address, request % b"HTTP://tracker")


async def test_the_application_is_told_that_the_client_left() -> None:
    left = trio.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    async with serving(wait) as address:
        protocol = h2.connection.H2Connection(h2.config.H2Configuration())
        protocol.initiate_connection()
        protocol.send_headers(
            1, [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a")]
        )
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(protocol.data_to_send())
            protocol.reset_stream(1)
            await stream.send_all(protocol.data_to_send())
            await left.wait()


# -- how long, how large, how many -------------------------------------------------------------------------


@pytest.mark.parametrize("said", [b"G", b"GET / HTTP/1.1\r\nHost: a\r\n", REQUEST % b"a" + b"GET /"])
async def test_T9_a_head_that_does_not_end_is_waited_for_no_longer(
    said: bytes, autojump_clock: trio.abc.Clock
) -> None:
    async with serving(tell) as address:
        begun = trio.current_time()
        answers = await speak(address, said)
        assert statuses(answers)[-1:] in ([408], [200])
        assert trio.current_time() - begun <= config.HTTP_KEEP_ALIVE_S + config.HTTP_LINGER_S
        await assert_others_are_served(address)


async def test_T9_a_head_that_comes_byte_by_byte_has_one_deadline(autojump_clock: trio.abc.Clock) -> None:
    async with serving(tell) as address, await trio.open_tcp_stream(*address) as stream:
        begun = trio.current_time()
        received = b""

        async def listen() -> None:
            nonlocal received
            received = await read_all(stream)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for byte in LAST_REQUEST % bytes(b"a" * 1000):
                await stream.send_all(bytes([byte]))
                await trio.sleep(1)
        assert statuses(received) == [408]
        assert trio.current_time() - begun <= config.HTTP_HEAD_TIMEOUT_S + config.HTTP_LINGER_S + 1


@pytest.mark.parametrize("said", [b"", REQUEST % b"a"])
async def test_a_connection_without_requests_ends(said: bytes, autojump_clock: trio.abc.Clock) -> None:
    async with serving(tell) as address:
        assert statuses(await speak(address, said)) == [200] * bool(said)
        assert trio.current_time() <= config.HTTP_KEEP_ALIVE_S + config.HTTP_LINGER_S + 1


async def test_T9_a_tls_handshake_that_does_not_come_is_waited_for_no_longer(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with serving(tell, credentials=Credentials.from_node_key(NodeKey.generate())) as address:
        assert await speak(address, b"\x16\x03") == b""
        assert trio.current_time() <= config.HTTP_HEAD_TIMEOUT_S + 1


@pytest.mark.parametrize("http2", [True, False])
async def test_T9_an_answer_that_is_not_taken_is_given_up(
    http2: bool, autojump_clock: trio.abc.Clock
) -> None:
    ended = trio.Event()
    taken = 0

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal taken
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while taken < 1000:
                await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
                taken += 1
        finally:
            ended.set()

    protocol = h2.connection.H2Connection(h2.config.H2Configuration())
    protocol.initiate_connection()
    protocol.send_headers(1, [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a")])
    async with serving(flood) as address, await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(protocol.data_to_send() if http2 else REQUEST % b"")
        await ended.wait()
        assert taken < 200  # what the kernel keeps, not what we would
        assert trio.current_time() <= config.HTTP_STALL_TIMEOUT_S + 1


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 2**20 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 2**17,
    ],
)
async def test_T9_a_head_of_a_megabyte_is_refused_and_not_read(head: bytes) -> None:
    async with serving(tell) as address:
        assert statuses(await speak(address, head)) == [431]
        await assert_others_are_served(address)


@pytest.mark.parametrize(
    "said",
    [
        b"GET /\r\n\r\n",  # HTTP/0.9
        b"GET / HTTP/1.1\r\n\r\n",  # no host
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS where there is none
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\nGET",
    ],
)
async def test_T9_what_is_no_request_is_refused(said: bytes) -> None:
    async with serving(tell) as address:
        assert statuses(await speak(address, said)) == [400]
        await assert_others_are_served(address)


async def test_T9_what_follows_the_last_request_is_answered_with_it_or_refused() -> None:
    async with serving(tell) as address:
        for _ in range(20):  # the reader and the answer meet in any order
            answers = await speak(address, LAST_REQUEST % b"" + b"\xff\r\n\r\n")
            assert statuses(answers) in ([200], [400])


async def test_T9_who_still_sends_when_he_is_refused_can_read_why() -> None:
    async with serving(tell) as address, await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(b"GET /" + b"a" * 100_000)
        assert statuses(await read_all(stream)) == [431]
        for _ in range(3):
            await stream.send_all(b"a" * 100_000)


async def test_T9_http_0_9_is_not_waited_for(autojump_clock: trio.abc.Clock) -> None:
    async with serving(tell) as address:
        assert statuses(await speak(address, b"GET /\r\n")) == [408]


async def test_too_many_connections_of_one_network_are_closed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(config, "HTTP_CONNECTIONS_PER_NETWORK_MAX", 2)
    async with serving(tell) as address:
        async with await trio.open_tcp_stream(*address) as first, await trio.open_tcp_stream(*address):
            await first.send_all(REQUEST % b"")
            await first.receive_some()  # both are there now
            assert await speak(address, b"") == b""
        await trio.testing.wait_all_tasks_blocked()
        await assert_others_are_served(address)


# -- hostile HTTP/2, and other languages -------------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream_id.to_bytes(4) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field as HPACK's literal without indexing."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def head_of(*fields: tuple[bytes, bytes]) -> bytes:
    return b"".join(literal(*field) for field in fields)


GOOD = ((b":method", b"GET"), (b":path", b"/"), (b":scheme", b"http"), (b":authority", b"a"))
END_STREAM, END_HEADERS = 1, 4


@pytest.mark.parametrize(
    "frames",
    [
        frame(1, 5, 1, head_of((b":method", b"GET"), (b":path", b"/\xff"), *GOOD[2:])),
        frame(1, 5, 1, head_of((b":method", b"G\xff"), *GOOD[1:])),
        frame(1, 5, 1, head_of(*GOOD[:1], *GOOD[2:])),
        frame(1, 5, 1, head_of((b":method", b"CONNECT"), (b":authority", b"a"))),
        frame(1, 5, 1, head_of((b":method", b"CONNECT"), (b":protocol", b"websocket"), *GOOD[1:])),
        frame(1, 5, 1, b"\xff" * 50),
        frame(1, 4, 1, head_of(*GOOD))
        + frame(0, 0, 1, b"x") * 20
        + frame(0, 1, 1, b"")
        + frame(0, 0, 1, b"x"),
        frame(0, 0, 1, b"x"),
        frame(8, 0, 0, b"\x7f\xff\xff\xff") * 2,
        frame(2, 0, 3, b"\0\0\0\x03\x10"),
        frame(2, 0, 3, b"\x80\0\0\x05\x10")
        + frame(2, 0, 5, b"\x80\0\0\x03\x10")
        + frame(1, 5, 3, head_of(*GOOD)),
        frame(2, 0, 0, b"\0\0\0\x03\x10"),
        b"".join(frame(2, 0, number, b"\0\0\0\0\x10") for number in range(1, 3000, 2)),
        frame(4, 0, 0, b"\0\x04\xff\xff\xff\xff"),
        frame(4, 0, 0, b"\0\x05\0\0\0\x01"),
        frame(1, 0, 1, head_of(*GOOD)) + frame(9, 0, 1, head_of((b"x", b"y" * 100))) * 200,
        frame(1, 4, 1, head_of(*GOOD)) + frame(3, 0, 1, b"\0\0\0\x08") + frame(0, 1, 1, b"x"),
        b"".join(frame(1, 5, n, head_of(*GOOD)) + frame(3, 0, n, b"\0\0\0\x08") for n in range(1, 999, 2)),
        b"".join(frame(1, 4, n, head_of(*GOOD)) for n in range(1, 999, 2)),
        frame(1, 5, 2, head_of(*GOOD)),
        frame(5, 4, 1, b"\0\0\0\x02" + head_of(*GOOD)),
        frame(7, 0, 0, bytes(8)),
        frame(6, 0, 0, bytes(7)),
        b"\xff" * 100,
    ],
)
async def test_T9_broken_http2_ends_that_connection_alone(frames: bytes) -> None:
    async with serving(tell) as address:
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(PREFACE + frames)
            await stream.send_eof()
            await read_all(stream)
        await assert_others_are_served(address)


@pytest.mark.parametrize("seed", range(4))
async def test_T9_frames_at_random_end_their_connection_alone(seed: int) -> None:
    rng = Random(seed)

    def anything() -> bytes:
        kind, stream_id = rng.randrange(11), rng.choice([0, 1, 1, 3, 5, 2**31 - 1])
        payload = (
            head_of(*GOOD)
            if kind == 1 and rng.random() < 0.8
            else rng.randbytes(rng.choice([0, 4, 5, 8, 40]))
        )
        return frame(kind, rng.choice([0, 1, 4, 5, 5, 8, 0x20, 0xFF]), stream_id, payload)

    async with serving(tell) as address:
        for _ in range(100):
            async with await trio.open_tcp_stream(*address) as stream:
                await stream.send_all(PREFACE + b"".join(anything() for _ in range(8)))
                await stream.send_eof()
                await read_all(stream)
        await assert_others_are_served(address)


@pytest.mark.parametrize("settings", [b"***", b"AAAAAAAA", b"////", b""])
async def test_T9_an_upgrade_to_http2_is_left_unheard(settings: bytes) -> None:
    """RFC 9113 §3.1 dropped it; what stands in its settings is of no consequence."""
    fields = (
        b"Upgrade: h2c\r\nConnection: close, Upgrade, HTTP2-Settings\r\nHTTP2-Settings: %b\r\n" % settings
    )
    async with serving(tell) as address:
        said = b"GET / HTTP/1.1\r\nHost: tracker\r\n%b\r\n" % fields
        assert statuses(await speak(address, said)) == [200]
        await assert_others_are_served(address)


@pytest.mark.parametrize(
    "fields",
    [
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n",
        b"Upgrade: \xff\r\nConnection: \xff\r\nExpect: 100-continue\r\n",
    ],
)
async def test_T9_upgrades_that_make_no_sense(fields: bytes, autojump_clock: trio.abc.Clock) -> None:
    async with serving(tell) as address:
        answers = await speak(address, b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n\xff\xff\0\0")
        assert not {*statuses(answers)} - {100, 101, 200, 400}
        await assert_others_are_served(address)


# -- our own faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [REQUEST % b"", PREFACE + frame(1, 5, 1, head_of(*GOOD))])
async def test_what_the_application_raises_comes_out(said: bytes) -> None:
    async def break_down(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError("ours")

    with pytest.RaisesGroup(pytest.RaisesExc(ZeroDivisionError, match="ours"), flatten_subgroups=True):
        async with serving(break_down) as address:
            await speak(address, said)
            await trio.sleep_forever()


@pytest.mark.parametrize("http2", [True, False])
async def test_an_answer_that_is_not_finished_is_seen_to_be_cut_short(http2: bool) -> None:
    async def leave_off(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"12345", "more_body": True})

    async with serving(leave_off) as (host, port), httpx2.AsyncClient(http1=not http2, http2=http2) as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get(f"http://{host}:{port}/")


async def test_an_application_that_says_nothing_is_an_error_of_the_server() -> None:
    async def say_nothing(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    async with serving(say_nothing) as address:
        assert statuses(await speak(address, LAST_REQUEST % b"")) == [500]


# -- addresses ---------------------------------------------------------------------------------------------


async def test_a_port_that_is_taken_is_one_line() -> None:
    async with serving(tell) as address:
        with pytest.raises(AddressInUse, match=f"TCP port {address[1]} on 127.0.0.1 is in use"):
            await serve_http(tell, [address])


async def test_an_address_that_is_not_ours_is_one_line() -> None:
    with pytest.raises(AddressError, match=r"cannot listen on 192\.0\.2\.1:80"):
        await serve_http(tell, [("192.0.2.1", 80)])


async def test_all_addresses_are_listened_on_and_free_again_when_it_ends() -> None:
    async with trio.open_nursery() as nursery:
        wanted = [("127.0.0.1", 0), ("::1", 0)]
        addresses = await nursery.start(serve_http, tell, wanted)
        for address in addresses:
            await assert_others_are_served(address)
        kept = await trio.open_tcp_stream(*addresses[0])
        await kept.send_all(REQUEST % b"")
        await kept.receive_some()
        nursery.cancel_scope.cancel()
    async with kept:
        assert await read_all(kept) == b""
    for host, port in addresses:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind((host, port))
