"""Trackers over UDP: our own one, and one that says, packet by packet, what a test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
import trio

from p2pnode import config
from p2pnode.errors import ConnectFailed, Refused, TimedOut
from p2pnode.services.outbound import Author, Outbound
from p2pnode.services.request_log import RequestLog
from p2pnode.services.tracker import Tracker, TrackerOptions
from p2pnode.services.tracker_clients import TrackerClient, TrackerClients
from p2pnode.services.tracker_udp import UdpTracker
from p2pnode.tracker.announces import AnnounceEvent, SwarmCounts, SwarmPeer
from p2pnode.wire import tracker_udp as wire
from tests.services.tracker_clients.requests import INFO_HASH, announce, names

ID = b"proved!!"
Packets = list[Any]  # with `encode`, or bytes
Answer = Callable[[Any], Packets]  # a request → what is sent back


def friendly(request: Any) -> Packets:
    """What a good tracker answers."""
    match request:
        case wire.ConnectRequest(transaction_id):
            return [wire.ConnectResponse(transaction_id, ID)]
        case wire.AnnounceRequest():
            return [wire.AnnounceResponse(request.transaction_id, 900, 3, 4, b"\x7f\0\0\1\x1a\xe1")]
    return [wire.ScrapeResponse(request.transaction_id, (wire.ScrapeCounts(1, 2, 3),))]


@dataclass
class HandMadeUdpTracker:
    answer: Answer
    host: str
    port: int = 0
    requests: list[Any] = field(default_factory=list)
    asked_at: list[float] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        return [type(request).__name__.removesuffix("Request") for request in self.requests]

    @property
    def url(self) -> str:
        return f"udp://[{self.host}]:{self.port}" if ":" in self.host else f"udp://{self.host}:{self.port}"

    async def serve(self, socket: trio.socket.SocketType) -> None:
        while True:
            datagram, address = await socket.recvfrom(65_535)
            request = wire.decode_request(datagram)
            self.requests.append(request)
            self.asked_at.append(trio.current_time())
            for packet in self.answer(request):
                await socket.sendto(packet if isinstance(packet, bytes) else packet.encode(), address)


@asynccontextmanager
async def udp_tracker(
    answer: Answer = friendly, host: str = "127.0.0.1"
) -> AsyncIterator[HandMadeUdpTracker]:
    family = trio.socket.AF_INET6 if ":" in host else trio.socket.AF_INET
    tracker = HandMadeUdpTracker(answer, host)
    with trio.socket.socket(family, trio.socket.SOCK_DGRAM) as socket:
        await socket.bind((host, 0))
        tracker.port = socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tracker.serve, socket)
            yield tracker
            nursery.cancel_scope.cancel()


def client(url: str, author: Author = Author.USER, **options: Any) -> TrackerClient:
    return TrackerClients(Random(1), **options).client(url, author)


# -- what is asked and answered ----------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_our_own_tracker(host: str) -> None:
    server = UdpTracker(Tracker(TrackerOptions(pace=None), rng=Random(1)), RequestLog())
    async with trio.open_nursery() as nursery:
        ((_, port),) = await nursery.start(server.serve, [(host, 0)])
        clients = TrackerClients(Random(1))
        url = f"udp://[{host}]:{port}" if ":" in host else f"udp://{host}:{port}"
        first, second = (clients.client(url, Author.USER) for _ in range(2))
        await first.announce(announce(peer_id=b"A" * 20, port=1001, left=0))
        answer = await second.announce(announce(peer_id=b"B" * 20, port=1002))
        assert answer.peers == (SwarmPeer(b"", host, 1001),)
        assert (answer.complete, answer.incomplete) == (1, 1)
        assert answer.interval_s == config.TRACKER_INTERVAL_S
        assert await first.scrape([INFO_HASH, b"o" * 20]) == {
            INFO_HASH: SwarmCounts(1, 1, 0),
            b"o" * 20: SwarmCounts(0, 0, 0),
        }
        stopped = announce(peer_id=b"A" * 20, port=1001, left=0, event=AnnounceEvent.STOPPED)
        await first.announce(stopped)
        assert await second.scrape([INFO_HASH]) == {INFO_HASH: SwarmCounts(0, 1, 0)}
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("event", list(AnnounceEvent))
async def test_an_announce_says_all_that_it_is_to_say(event: AnnounceEvent) -> None:
    async with udp_tracker() as tracker:
        answer = await client(tracker.url + "/announce?key=%ff").announce(announce(event=event))
    connect, sent = tracker.requests
    assert isinstance(connect, wire.ConnectRequest)
    assert sent._replace(transaction_id=0) == wire.AnnounceRequest(
        connection_id=ID,
        transaction_id=0,
        info_hash=INFO_HASH,
        peer_id=b"-PN0001-0123456789ab",
        downloaded=2,
        left=3,
        uploaded=1,
        event={"": 0, "completed": 1, "started": 2, "stopped": 3, "paused": 4}[event.value],
        ip=0,
        key=0xDEADBEEF,
        numwant=50,
        port=6881,
        url_data=b"/announce?key=%ff",
    )
    assert connect.transaction_id != sent.transaction_id
    assert (answer.interval_s, answer.interval_min_s, answer.complete, answer.incomplete) == (900, None, 4, 3)
    assert answer.peers == (SwarmPeer(b"", "127.0.0.1", 6881),)


async def test_a_url_without_a_path_has_none_to_say() -> None:
    async with udp_tracker() as tracker:
        await client(tracker.url).announce(announce())
    assert tracker.requests[1].url_data == b""


# -- connection ids ----------------------------------------------------------------------------------------


async def test_a_connection_id_serves_for_a_minute_and_for_all_torrents(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with udp_tracker() as tracker:
        clients = TrackerClients(Random(1))
        await clients.client(tracker.url, Author.USER).announce(announce())
        await trio.sleep(59)
        await clients.client(tracker.url, Author.USER).announce(announce(info_hash=b"o" * 20))
        assert tracker.kinds == ["Connect", "Announce", "Announce"]
        await trio.sleep(2)
        await clients.client(tracker.url, Author.USER).scrape([INFO_HASH])
    assert tracker.kinds == ["Connect", "Announce", "Announce", "Connect", "Scrape"]


async def test_T13_a_tracker_that_was_started_again_and_takes_no_old_id_is_asked_with_a_new_one() -> None:
    known = ID

    def answer(request: Any) -> Packets:
        if isinstance(request, wire.ConnectRequest):
            return [wire.ConnectResponse(request.transaction_id, known)]
        if request.connection_id != known:
            return [wire.ErrorResponse(request.transaction_id, "connection id mismatch")]
        return friendly(request)

    async with udp_tracker(answer) as tracker:
        asked = client(tracker.url)
        await asked.announce(announce())
        known = b"another!"
        assert (await asked.announce(announce())).interval_s == 900
    assert tracker.kinds == ["Connect", "Announce", "Announce", "Connect", "Announce"]


async def test_an_error_is_a_refusal_and_is_not_asked_for_twice() -> None:
    def answer(request: Any) -> Packets:
        if isinstance(request, wire.ConnectRequest):
            return friendly(request)
        return [wire.ErrorResponse(request.transaction_id, "not\x1b[2J here" + "!" * 1000)]

    async with udp_tracker(answer) as tracker:
        with pytest.raises(Refused, match="here") as caught:
            await client(tracker.url).announce(announce())
    assert len(str(caught.value)) <= config.ERROR_TEXT_LENGTH_MAX
    assert tracker.kinds == ["Connect", "Announce"]


# -- what may go wrong -------------------------------------------------------------------------------------


async def test_what_is_not_answered_is_sent_again_after_15_seconds_times_two_to_the_n(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with udp_tracker(lambda _: []) as tracker:
        with pytest.raises(TimedOut):
            await client(tracker.url).announce(announce())
    assert set(tracker.kinds) == {"Connect"}
    began = tracker.asked_at[0]
    assert [at - began for at in tracker.asked_at] == [15 * (2**n - 1) for n in range(9)]


async def test_a_lost_answer_costs_no_second_connect(autojump_clock: trio.testing.MockClock) -> None:
    lost = iter([True, True, False])

    def answer(request: Any) -> Packets:
        return [] if isinstance(request, wire.AnnounceRequest) and next(lost) else friendly(request)

    async with udp_tracker(answer) as tracker:
        await client(tracker.url).announce(announce())
    assert tracker.kinds == ["Connect", "Announce", "Announce", "Announce"]
    assert len({request.transaction_id for request in tracker.requests}) == 4
    began = tracker.asked_at[0]
    assert [at - began for at in tracker.asked_at] == [0, 0, 15, 45]


async def test_T11_what_is_no_answer_to_this_question_is_passed_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def answer(request: Any) -> Packets:
        (good,) = friendly(request)
        number = request.transaction_id
        return [
            b"",
            b"\0" * 7,
            b"\xff" * 100,
            wire.ErrorResponse(number ^ 1, "not for you"),
            wire.ConnectResponse(number ^ 1, b"another!"),
            good.encode()[:8] if isinstance(request, wire.ConnectRequest) else good.encode()[:19],
            wire.ScrapeResponse(number, ()),
            good,
        ]

    async with udp_tracker(answer) as tracker:
        answer_read = await client(tracker.url).announce(announce())
    assert answer_read.interval_s == 900
    assert tracker.requests[1].connection_id == ID


async def test_T11_a_stranger_who_knows_our_port_is_not_heard(autojump_clock: trio.testing.MockClock) -> None:
    """Only what comes from the very address and port that was asked is an answer, even with the right number."""

    async def forge(socket: trio.socket.SocketType, port: int) -> None:
        while True:
            datagram, address = await socket.recvfrom(100)
            request = wire.decode_request(datagram)
            forged = wire.ErrorResponse(request.transaction_id, "forged").encode()
            with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as stranger:
                await stranger.bind(("127.0.0.2", port))
                await stranger.sendto(forged, address)
            for packet in friendly(request):
                await socket.sendto(packet.encode(), address)

    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as socket:
        await socket.bind(("127.0.0.1", 0))
        port = socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forge, socket, port)
            answer = await client(f"udp://127.0.0.1:{port}").announce(announce())
            assert answer.interval_s == 900
            nursery.cancel_scope.cancel()


async def test_T11_many_peers_and_any_interval() -> None:
    def answer(request: Any) -> Packets:
        if isinstance(request, wire.ConnectRequest):
            return friendly(request)
        peers = b"".join(b"\x7f\0%b\1\1" % number.to_bytes(2, "big") for number in range(1, 9001))
        return [wire.AnnounceResponse(request.transaction_id, 2**32 - 1, 0, 0, peers + b"\1\2\3")]

    async with udp_tracker(answer) as tracker:
        read = await client(tracker.url).announce(announce())
    assert read.interval_s == 2**32 - 1
    assert len(read.peers) == config.TRACKER_ANSWER_PEERS_MAX


async def test_nobody_there() -> None:
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as unused:
        await unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(ConnectFailed, match=f"127.0.0.1:{port}"):
        await client(f"udp://127.0.0.1:{port}").announce(announce())


async def test_the_other_addresses_of_a_name_are_tried(autojump_clock: trio.testing.MockClock) -> None:
    async with udp_tracker() as tracker:
        # Nobody listens at the first: the network says so at once.
        url = f"udp://tracker.example:{tracker.port}"
        outbound = Outbound(names(tracker_example=["127.0.0.2", "127.0.0.1"]))
        began = trio.current_time()
        await client(url, outbound=outbound).announce(announce())
        assert trio.current_time() - began < 1
        # The first says nothing: after the first wait the second one is asked.
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as silent:
            await silent.bind(("127.0.0.3", tracker.port))
            outbound = Outbound(names(tracker_example=["127.0.0.3", "127.0.0.1"]))
            began = trio.current_time()
            await client(url, outbound=outbound).announce(announce())
            assert trio.current_time() - began == pytest.approx(15)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"])
async def test_T10_a_torrent_sends_no_datagram_to_this_machine(host: str) -> None:
    async with udp_tracker() as tracker:
        with pytest.raises(Refused):
            await client(f"udp://{host}:{tracker.port}", Author.TORRENT).announce(announce())
    assert tracker.requests == []
