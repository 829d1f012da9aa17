"""JSON under the ALPN `h3`, and how it is told from HTTP/3."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import StreamDataReceived
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import StorageError, StreamReset
from p2pnode.quic import Address
from p2pnode.quic.aioquic_http3 import ErrorCode
from p2pnode.services.asgi import Receive, Scope
from p2pnode.services.asgi import Send as AsgiSend
from p2pnode.services.h3_door import H3Door, Send
from p2pnode.testing.network import Network
from tests.quic.endpoints import DIALER, LISTENER, Remote, receive_all
from tests.quic.engines import dialer_configuration
from tests.services.conftest import ask, dialed, served
from tests.services.http3_client import http3_client

pytestmark = pytest.mark.usefixtures("both_ways")


class Answers:
    """Answers with what it was asked, and remembers it."""

    def __init__(self, *, seconds: float = 0.0, size: int = 0, fault: StorageError | None = None) -> None:
        self.asked: list[bytes | None] = []
        self.askers: set[Address] = set()
        self.at_once = self.at_once_max = 0
        self._seconds = seconds
        self._size = size
        self._fault = fault

    async def __call__(self, request: bytes | None, address: Address, send: Send) -> None:
        self.asked.append(request)
        self.askers.add(address)
        self.at_once += 1
        self.at_once_max = max(self.at_once, self.at_once_max)
        await trio.sleep(self._seconds)
        self.at_once -= 1
        await send(b"answer to ")
        await send((b"too much" if request is None else request) + bytes(self._size))
        if self._fault is not None:
            raise self._fault


async def refuse(scope: object, receive: object, send: object) -> None:
    pytest.fail("nobody speaks HTTP/3 here")


def door(answers: Answers) -> H3Door:
    return H3Door(answers, refuse)


async def test_a_request_is_answered_and_the_stream_ended(autojump_clock: MockClock) -> None:
    answers = Answers()
    async with Network() as network, served(network, [door(answers)]), dialed(network, "h3") as connection:
        for request in (b'{"capabilities":[]}', b"", b"\x00\xff", b"x" * config.JSON_REQUEST_SIZE_MAX):
            assert await ask(connection, request) == b"answer to " + request
            assert answers.asked.pop() == request
        assert answers.askers == {DIALER}


async def test_an_answer_that_cannot_be_finished_is_reset(autojump_clock: MockClock) -> None:
    answers = Answers(size=200_000, fault=StorageError("the disk is gone"))
    async with Network() as network, served(network, [door(answers)]), dialed(network, "h3") as connection:
        for _ in range(2):  # the connection lives
            with pytest.raises(StreamReset) as reset:
                await ask(connection, b"{}")
            assert reset.value.code == ErrorCode.H3_REQUEST_CANCELLED


@pytest.mark.parametrize("size", [config.JSON_REQUEST_SIZE_MAX + 1, 3_000_000])
async def test_T4_an_oversized_request_is_read_to_its_end_and_then_answered(
    autojump_clock: MockClock, size: int
) -> None:
    answers = Answers()
    async with Network() as network, served(network, [door(answers)]), dialed(network, "h3") as connection:
        stream = await connection.open_stream()
        await stream.send_all(bytes(size))
        await trio.sleep(1)
        await stream.send_all(b"and this")  # nobody told us to stop
        await stream.send_eof()
        assert await receive_all(stream) == b"answer to too much"
        assert answers.asked == [None]


async def test_many_requests_at_once_are_answered_each_on_its_stream(autojump_clock: MockClock) -> None:
    answers = Answers(seconds=0.1)
    async with Network() as network, served(network, [door(answers)]), dialed(network, "h3") as connection:
        got: set[bytes] = set()

        async def one(request: bytes) -> None:
            got.add(await ask(connection, request))

        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(one, b"%d" % number)
        assert got == {b"answer to %d" % number for number in range(300)}
        assert answers.at_once_max == config.JSON_ANSWERS_AT_ONCE


@pytest.mark.parametrize("begun", [b"", b'{"info_hash":', bytes(config.JSON_REQUEST_SIZE_MAX + 1)])
async def test_Q11_a_request_that_is_never_finished_loses_its_stream_and_no_more(
    autojump_clock: MockClock, begun: bytes
) -> None:
    answers = Answers()
    async with Network() as network, served(network, [door(answers)]), dialed(network, "h3") as connection:
        stream = await connection.open_stream()
        await stream.send_all(begun or b"{")
        with trio.fail_after(2 * config.JSON_REQUEST_TIMEOUT_S + 1), pytest.raises(StreamReset) as caught:
            await receive_all(stream)
        assert caught.value.code == ErrorCode.H3_REQUEST_CANCELLED
        assert answers.asked == []
        assert await ask(connection, b"{}") == b"answer to {}"


async def test_a_request_that_is_taken_back_disturbs_nobody(autojump_clock: MockClock) -> None:
    answers = Answers()
    async with Network() as network, served(network, [door(answers)]), dialed(network, "h3") as connection:
        stream = await connection.open_stream()
        await stream.send_all(b"{")
        await trio.sleep(1)
        stream.reset(1)
        assert await ask(connection, b"{}") == b"answer to {}"
        assert answers.asked == [b"{}"]


async def test_a_large_answer_comes_as_it_is_read(autojump_clock: MockClock) -> None:
    answers = Answers(size=20_000_000)
    async with Network() as network, served(network, [door(answers)]), dialed(network, "h3") as connection:
        assert await ask(connection, b"{}") == b"answer to {}" + bytes(20_000_000)


async def test_Q13_a_client_that_takes_nothing_of_an_answer_loses_its_stream(
    autojump_clock: MockClock,
) -> None:
    answers = Answers(size=20_000_000)
    async with (
        Network() as network,
        served(network, [door(answers)]) as listener,
        dialed(network, "h3") as connection,
    ):
        stream = await connection.open_stream()
        await stream.send_all(b"{}")
        await stream.send_eof()
        await trio.sleep(5)
        [accepted] = listener.connections
        assert accepted._engine.send_buffered_total <= config.SEND_BUFFER * config.SEND_BUFFER_GROWTH_MAX
        await trio.sleep(config.DOOR_SEND_STALL_S)
        assert accepted._engine.send_buffered_total == 0
        with pytest.raises(StreamReset):
            await receive_all(stream)


async def test_a_client_with_a_short_idle_timeout_is_kept_while_an_answer_takes_long(
    autojump_clock: MockClock,
) -> None:
    """A client that sends nothing by itself, as quinn's, and drops a connection on which nothing comes for 10 s."""
    answers = Answers(seconds=95)
    async with Network() as network, served(network, [door(answers)]):
        configuration = dialer_configuration()
        configuration.alpn_protocols = ["h3", "h2", "http/1.1", "doq"]
        remote = Remote(network, engine=QuicConnection(configuration=configuration))
        await remote.dial(LISTENER)
        await remote.live_for(0.5)
        remote.engine.send_stream_data(0, b"{}", end_stream=True)
        await remote.live_for(90)
        assert remote.closed_with is None
        await remote.live_for(10)
        assert b"".join(data_received(remote.engine)) == b"answer to {}"


def data_received(engine: QuicConnection) -> Iterator[bytes]:
    while (event := engine.next_event()) is not None:
        if isinstance(event, StreamDataReceived):
            yield event.data


# -- JSON or HTTP/3 ----------------------------------------------------------------------------------------

HTTP3_LIKE = b"\x01\x02{}"  # as a HEADERS frame begins


async def hello(scope: Scope, receive: object, send: AsgiSend) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello over HTTP/3"})


async def test_both_languages_are_spoken_under_one_name(autojump_clock: MockClock) -> None:
    answers = Answers()
    async with (
        Network() as network,
        served(network, [H3Door(answers, hello)]),
        dialed(network, "h3") as json,
        http3_client(network, address=("10.0.0.3", 1)) as http3,
    ):
        assert await ask(json, b"{}") == b"answer to {}"
        assert bytes((await http3.fetch()).body) == b"hello over HTTP/3"
        assert await ask(json, b"{}") == b"answer to {}"
        assert answers.asked == [b"{}", b"{}"]


async def test_json_may_begin_with_anything_where_no_other_stream_was_opened(
    autojump_clock: MockClock,
) -> None:
    answers = Answers()
    async with Network() as network, served(network, [door(answers)]), dialed(network, "h3") as connection:
        began = trio.current_time()
        assert await ask(connection, HTTP3_LIKE) == b"answer to " + HTTP3_LIKE
        waited = trio.current_time() - began
        assert config.DOOR_LANGUAGE_WAIT_S <= waited < config.DOOR_LANGUAGE_WAIT_S + 0.5
        began = trio.current_time()
        assert await ask(connection, b"{}") == b"answer to {}"
        assert trio.current_time() - began < 0.5


@pytest.mark.parametrize("late_s", [0.0, 0.05, 0.9])
@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_control_stream_that_is_overtaken_by_a_request_is_waited_for(
    autojump_clock: MockClock, late_s: float, is_whole: bool
) -> None:
    async with (
        Network() as network,
        served(network, [H3Door(Answers(), hello)]),
        http3_client(network, begun=False) as client,
    ):
        client.begin_http3()
        control = client.engine._streams_queue.copy()
        client.engine._streams_queue.clear()  # what is said there waits
        response = client.ask(end=is_whole)
        await client.live_for(late_s)
        assert response.headers == []
        client.engine._streams_queue += control
        await client.live_for(1)
        assert bytes(response.body) == b"hello over HTTP/3"


async def test_a_request_without_an_end_becomes_http3_when_the_control_stream_comes(
    autojump_clock: MockClock,
) -> None:
    """Whatever came of it until then is still there: nothing was taken."""
    seen = []

    async def upload(scope: Scope, receive: Receive, send: AsgiSend) -> None:
        seen.append((await receive())["body"])
        await hello(scope, receive, send)

    async with (
        Network() as network,
        served(network, [H3Door(Answers(), upload)]),
        http3_client(network, begun=False) as client,
    ):
        client.begin_http3()
        control = client.engine._streams_queue.copy()
        client.engine._streams_queue.clear()
        response = client.ask(method="PUT", body=bytes(40_000), end=False)
        await client.live_for(5)
        client.engine._streams_queue += control
        await client.live_for(1)
        assert bytes(response.body) == b"hello over HTTP/3"
        assert len(seen[0]) > 0


async def test_a_connection_on_which_nothing_is_asked_is_ended(autojump_clock: MockClock) -> None:
    answers = Answers(seconds=config.DOOR_IDLE_TIMEOUT_S * 3)
    async with Network() as network, served(network, [door(answers)]), dialed(network, "h3") as connection:
        answer = await ask(connection, b"{}")  # while it is answered, it is in use
        assert answer == b"answer to {}"
        with trio.fail_after(2 * config.DOOR_IDLE_TIMEOUT_S + 1):
            closed = await connection.wait_closed()
        assert (closed.code, closed.by_remote) == (ErrorCode.H3_NO_ERROR, True)
