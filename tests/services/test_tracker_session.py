"""The client's side of JSON over QUIC, against a tracker that does what a test wants."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import (
    ConnectFailed,
    ConnectionClosed,
    ErrorAnswer,
    NotFound,
    RemoteProtocolError,
    StreamReset,
    TimedOut,
    TrustError,
)
from p2pnode.quic import Credentials, NodeKey, PinTrust, Stream, SystemTrust
from p2pnode.services import tracker_session
from p2pnode.services.request_log import RequestLog
from p2pnode.testing.network import Network
from tests.services.hand_made_tracker import (
    TRACKER,
    Request,
    always,
    conversation,
    say,
    session_on,
    tracker_at,
)

INFO_HASH = bytes(range(20))
ANNOUNCED = {
    "interval": 60,
    "peers": [{"ip": "192.0.2.7", "port": 6881}],
    "complete": 1,
    "incomplete": 2,
}


async def test_many_requests_share_one_connection_and_no_unidirectional_stream(
    autojump_clock: MockClock,
) -> None:
    async def echo(stream: Stream, request: Request) -> None:
        await trio.sleep(1 - request["number"] / 100)  # in another order than they came
        await say(stream, {"number": request["number"]})

    answers = []

    async def ask(number: int) -> None:
        answers.append((number, await session.request({"number": number})))

    async with conversation(echo) as (tracker, session), trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(ask, number)
    assert sorted(answers) == [(number, {"number": number}) for number in range(100)]
    assert len(tracker.connections) == 1
    assert all(stream_id % 4 == 0 for stream_id in tracker.stream_ids)  # RFC 9000 §2.1
    assert session.statistics == tracker_session.SessionStatistics(100, 100, 0, 1)


async def test_a_connection_that_broke_before_the_answer_is_dialed_again_and_the_request_sent_again(
    autojump_clock: MockClock,
) -> None:
    async def break_once(stream: Stream, request: Request) -> None:
        if len(tracker.requests) == 1:
            await stream.send_all(b'{"half of')
            stream.connection.close(1, "killed")
        else:
            await say(stream, {"ok": len(tracker.requests)})

    async with conversation(break_once) as (tracker, session):
        assert await session.request({"file": "x"}) == {"ok": 2}
        assert await session.request({"file": "y"}) == {"ok": 3}  # and the new one is kept
    assert tracker.requests == [{"file": "x"}, {"file": "x"}, {"file": "y"}]
    assert len(tracker.connections) == 2
    assert session.statistics.retries == 1


async def test_a_tracker_that_was_restarted_is_found_again(autojump_clock: MockClock) -> None:
    async with Network(seed=1) as network, session_on(network) as session:
        for number in range(3):
            async with tracker_at(network, always({"number": number})):
                assert await session.request({}) == {"number": number}
    assert session.statistics.connections == 3


async def test_a_tracker_that_is_killed_without_a_word_is_asked_again_when_it_is_back(
    autojump_clock: MockClock,
) -> None:
    async def hang(stream: Stream, request: Request) -> None:
        await trio.sleep_forever()

    answers = []
    is_answered = trio.Event()

    async def ask() -> None:
        answers.append(await session.request({"file": "x"}))
        is_answered.set()

    async with Network(seed=1) as network, session_on(network) as session, trio.open_nursery() as nursery:
        async with tracker_at(network, hang) as tracker:
            nursery.start_soon(ask)
            await tracker.asked.wait()
            network.kill(TRACKER[0])
        async with tracker_at(network, always({"ok": 1})):
            with trio.fail_after(60):
                await is_answered.wait()
    assert answers == [{"ok": 1}]


async def test_a_stream_that_is_reset_is_tried_again_on_the_same_connection(
    autojump_clock: MockClock,
) -> None:
    async def reset_twice(stream: Stream, request: Request) -> None:
        if len(tracker.requests) <= 2:
            stream.reset(7)
        else:
            await say(stream, {})

    async with conversation(reset_twice) as (tracker, session):
        assert await session.request({}) == {}
    assert len(tracker.requests) == 3
    assert len(tracker.connections) == 1


async def test_it_gives_up_after_some_tries(autojump_clock: MockClock) -> None:
    async def reset(stream: Stream, request: Request) -> None:
        stream.reset(7)

    async with conversation(reset) as (tracker, session):
        with pytest.raises(StreamReset):
            await session.request({})
    assert len(tracker.requests) == config.TRACKER_TRIES


async def test_the_pauses_between_tries_grow(autojump_clock: MockClock) -> None:
    asked_at = []

    async def close(stream: Stream, request: Request) -> None:
        asked_at.append(trio.current_time())
        stream.connection.close(1, "no")

    async with conversation(close) as (_, session):
        with pytest.raises(ConnectionClosed):
            await session.request({})
    pauses = [after - before for before, after in pairwise(asked_at)]
    assert len(pauses) == config.TRACKER_TRIES - 1
    for doublings, pause in enumerate(pauses):
        whole = config.RECONNECT_MIN_S * 2**doublings
        assert whole / 2 <= pause <= whole + 0.2  # and a handshake


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", RemoteProtocolError),
        (b'{"data":[72,101', RemoteProtocolError),
        (b"[1,2]", RemoteProtocolError),
        (b'{"a":"\xff"}', RemoteProtocolError),
        (b"[" * 100_000, RemoteProtocolError),
        ({"error": "File not found: x", "code": "FILE_NOT_FOUND"}, NotFound),
        ({"error": "no"}, ErrorAnswer),
        ({"error": {"a": 1}}, RemoteProtocolError),
        ({"error": "x", "code": "X" * 1000}, RemoteProtocolError),
    ],
)
async def test_T11_whatever_was_answered_is_never_asked_for_again(
    autojump_clock: MockClock, answer: object, error: type[Exception]
) -> None:
    async with conversation(always(answer)) as (tracker, session):
        with pytest.raises(error):
            await session.request({})
    assert len(tracker.requests) == 1


async def test_an_error_keeps_its_code(autojump_clock: MockClock) -> None:
    answer = {"error": "File is too large", "code": "FILE_TOO_LARGE"}
    async with (
        Network(seed=1) as network,
        tracker_at(network, always(answer)),
        session_on(network) as session,
    ):
        with pytest.raises(ErrorAnswer, match=r"File is too large \(FILE_TOO_LARGE\)") as caught:
            await session.request({"file": "x"})
    assert caught.value.code == "FILE_TOO_LARGE"


async def test_T11_an_answer_that_is_too_large_is_cut_off(autojump_clock: MockClock) -> None:
    outcomes = []

    async def flood(stream: Stream, request: Request) -> None:
        try:
            while True:
                await stream.send_all(b" " * 65_536)
        except StreamReset as error:
            outcomes.append(error)

    async with conversation(flood) as (tracker, session):
        session.answer_size_max = 10_000
        with pytest.raises(RemoteProtocolError, match="larger than 10000 bytes"):
            await session.request({})
        await trio.sleep(1)
    assert len(tracker.requests) == len(outcomes) == 1


async def test_silence_is_waited_for_only_so_long(autojump_clock: MockClock) -> None:
    async def hang(stream: Stream, request: Request) -> None:
        await trio.sleep_forever()

    async with conversation(hang) as (tracker, session):
        began = trio.current_time()
        with pytest.raises(TimedOut, match="did not answer within 20 s"):
            await session.request({})
        assert trio.current_time() - began == pytest.approx(config.TRACKER_PATIENCE_S, abs=0.5)
        began = trio.current_time()
        with pytest.raises(TimedOut):
            await session.request({}, patience_s=60)
        assert trio.current_time() - began == pytest.approx(60, abs=0.5)
    assert len(tracker.connections) == 1


async def test_a_trickle_is_bounded_too(autojump_clock: MockClock) -> None:
    async def trickle(stream: Stream, request: Request) -> None:
        try:
            while True:
                await stream.send_all(b" ")
                await trio.sleep(15)
        except StreamReset:
            pass

    async with conversation(trickle) as (_, session):
        began = trio.current_time()
        with pytest.raises(TimedOut):
            await session.request({})
    assert trio.current_time() - began <= config.TRACKER_ANSWER_TIMEOUT_S + 1


async def test_who_speaks_another_language_is_not_asked_twice(autojump_clock: MockClock) -> None:
    async with conversation(always({}), alpn="p2pnode/1") as (_, session):
        began = trio.current_time()
        with pytest.raises(ConnectFailed, match="does not speak h3"):
            await session.request({})
    assert trio.current_time() - began < 1


async def test_that_nobody_is_there_is_said_after_one_dial(autojump_clock: MockClock) -> None:
    async with Network(seed=1) as network, session_on(network) as session:
        began = trio.current_time()
        with pytest.raises(ConnectFailed, match="nobody answers"):
            await session.request({})
        assert trio.current_time() - began == pytest.approx(config.DIAL_TIMEOUT_S, abs=1)


async def test_the_pin_of_the_certificate_is_what_counts(autojump_clock: MockClock) -> None:
    credentials = Credentials.from_node_key(NodeKey.generate())
    async with (
        Network(seed=1) as network,
        tracker_at(network, always({}), credentials=credentials) as tracker,
    ):
        async with session_on(network, PinTrust(credentials.pin.hex())) as session:
            assert await session.request({}) == {}
        async with session_on(network, PinTrust("ab" * 32)) as session:
            with pytest.raises(TrustError, match=credentials.pin.hex()):
                await session.request({})
        async with session_on(network, SystemTrust()) as session:
            with pytest.raises(TrustError):
                await session.request({})
    assert len(tracker.requests) == 1


async def test_a_list_of_peers_is_given_again_while_it_is_fresh(autojump_clock: MockClock) -> None:
    async with conversation(always(ANNOUNCED)) as (tracker, session):
        first = await session.announce(INFO_HASH, left=10, event="started")
        assert await session.announce(INFO_HASH, left=10) is first
        assert session.known_peers == {INFO_HASH: first}
        await session.announce(INFO_HASH, left=0, downloaded=10, event="completed")
        await trio.sleep(61)
        assert session.known_peers == {}
        await session.announce(INFO_HASH, left=0)
    assert first.peers == (("192.0.2.7", 6881),)
    assert (first.complete, first.incomplete, first.interval_s) == (1, 2, 60)
    assert [request.get("event") for request in tracker.requests] == ["started", "completed", None]
    assert tracker.requests[0] == {
        "info_hash": INFO_HASH.hex(),
        "peer_id": session.peer_id,
        "port": 6881,
        "uploaded": 0,
        "downloaded": 0,
        "left": 10,
        "event": "started",
    }
    assert len(session.peer_id) == 20


async def test_a_private_tracker_is_told_the_passkey(autojump_clock: MockClock) -> None:
    async with conversation(always(ANNOUNCED)) as (tracker, session):
        session.passkey = "secret"
        await session.announce(INFO_HASH, left=0)
    assert tracker.requests[0]["passkey"] == "secret"


async def test_a_query_takes_its_time_and_what_was_said_before(autojump_clock: MockClock) -> None:
    async def think(stream: Stream, request: Request) -> None:
        await trio.sleep(config.TRACKER_QUERY_PATIENCE_S - 1)
        await say(stream, {"answer": "42", "metadata": {"total_tokens": 1}})

    context = [{"role": "user", "content": "hello"}]
    async with conversation(think) as (tracker, session):
        assert await session.query("what?", context) == "42"
    assert tracker.requests == [{"query": "what?", "context": context}]


async def test_each_request_is_noted_with_its_outcome(autojump_clock: MockClock) -> None:
    async def answer(stream: Stream, request: Request) -> None:
        code = "A_WORD_OF_THEIRS" if "scrape" in request else "FILE_READ_ERROR"
        await say(stream, {"answer": "x"} if "query" in request else {"error": "x", "code": code})

    async with conversation(answer) as (_, session):
        session.request_log = RequestLog()
        await session.query("x")
        for request in ({"file": "x"}, {"scrape": []}):
            with pytest.raises(ErrorAnswer):
                await session.request(request)
    assert {tuple(key): tally.count for key, tally in session.request_log.tallies.items()} == {
        ("json", "query", "ok"): 1,
        ("json", "file", "FILE_READ_ERROR"): 1,
        ("json", "scrape", "ErrorAnswer"): 1,
    }
