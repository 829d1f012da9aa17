"""Trackers in JSON over QUIC, on the in-memory network."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from trio.testing import MockClock

from p2pnode.errors import ConfigError, ConnectFailed, ErrorAnswer, Refused, RemoteProtocolError, TrustError
from p2pnode.node.blocking import in_threads
from p2pnode.quic import PinTrust
from p2pnode.services.h3_door import H3Door
from p2pnode.services.outbound import Author, Outbound
from p2pnode.services.request_log import RequestLog
from p2pnode.services.seed_files import SeedFiles
from p2pnode.services.tracker import Tracker
from p2pnode.services.tracker_clients import TrackerClients
from p2pnode.services.tracker_http import application
from p2pnode.services.tracker_json import JsonTracker
from p2pnode.testing.network import Network
from p2pnode.tracker.announces import AnnounceEvent, SwarmCounts, SwarmPeer
from tests.quic.endpoints import LISTENER, endpoint_at
from tests.services.conftest import served
from tests.services.hand_made_tracker import TRACKER, HandMadeTracker, always, tracker_at
from tests.services.tracker_clients.requests import INFO_HASH, announce, names

OURS = ("10.0.0.9", 1009)
URL = f"quic://{TRACKER[0]}:{TRACKER[1]}"
NOBODY = {"interval": 60, "peers": [], "complete": 0, "incomplete": 1}


@asynccontextmanager
async def conversation(answer: Any, **options: Any) -> AsyncIterator[tuple[HandMadeTracker, TrackerClients]]:
    """A tracker that always answers so, and clients."""
    async with (
        Network(seed=1) as network,
        tracker_at(network, always(answer)) as tracker,
        endpoint_at(network, OURS) as endpoint,
    ):
        yield tracker, TrackerClients(Random(1), endpoint, **options)


async def test_our_own_tracker(autojump_clock: MockClock, tmp_path: Path) -> None:
    tracker, log = Tracker(rng=Random(1)), RequestLog()
    files = SeedFiles(tmp_path, URL, run_blocking=in_threads())
    door = H3Door(JsonTracker(tracker, files, None, log).respond, application(tracker, files, log))
    async with Network(seed=1) as network, served(network, [door]), endpoint_at(network, OURS) as endpoint:
        clients = TrackerClients(Random(1), endpoint)
        asked = clients.client(f"quic://{LISTENER[0]}:{LISTENER[1]}", Author.TORRENT)
        await asked.announce(announce(peer_id=b"A" * 20, port=1001, left=0))
        answer = await asked.announce(announce(peer_id=b"B" * 20, port=1002))
        assert answer.peers == (SwarmPeer(b"", OURS[0], 1001),)
        assert (answer.interval_s, answer.complete, answer.incomplete) == (60, 1, 1)
        other = b"o" * 20
        counts = await asked.scrape([INFO_HASH, other])
        assert counts == {INFO_HASH: SwarmCounts(1, 1, 0), other: SwarmCounts(0, 0, 0)}
        await asked.announce(announce(peer_id=b"A" * 20, port=1001, event=AnnounceEvent.STOPPED))
        assert (await asked.scrape([INFO_HASH]))[INFO_HASH] == SwarmCounts(0, 1, 0)


@pytest.mark.parametrize("event", list(AnnounceEvent))
async def test_an_announce_says_all_that_it_is_to_say(
    autojump_clock: MockClock, event: AnnounceEvent
) -> None:
    async with conversation(NOBODY) as (tracker, clients):
        await clients.client(URL, Author.TORRENT).announce(announce(event=event))
    (sent,) = tracker.requests
    assert sent.pop("event", "") == event.value
    assert sent == {
        "info_hash": INFO_HASH.hex(),
        "peer_id": "-PN0001-0123456789ab",
        "port": 6881,
        "uploaded": 1,
        "downloaded": 2,
        "left": 3,
    }


async def test_no_connection_is_kept_from_one_announce_to_the_next(autojump_clock: MockClock) -> None:
    async with conversation(NOBODY) as (tracker, clients):
        asked = clients.client(URL, Author.TORRENT)
        for _ in range(3):
            await asked.announce(announce())
        for connection in tracker.connections:
            await connection.wait_closed()
    assert len(tracker.connections) == 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"error": "no such torrent", "code": "REFUSED"}, ErrorAnswer),
        ({"peers": []}, RemoteProtocolError),
        ({"interval": "x", "peers": []}, RemoteProtocolError),
        (b"[]", RemoteProtocolError),
        (b"", RemoteProtocolError),
        (b"[" * 50_000, RemoteProtocolError),
        (NOBODY | {"padding": "x" * 70_000}, RemoteProtocolError),
    ],
    ids=range(7),
)
async def test_T11_what_is_no_answer(autojump_clock: MockClock, answer: Any, error: type[Exception]) -> None:
    async with conversation(answer) as (_, clients):
        with pytest.raises(error):
            await clients.client(URL, Author.TORRENT).announce(announce())


@pytest.mark.parametrize(
    "answer", [{"files": []}, {"files": {"00": {"complete": -1}}}, {"files": {"00": 5}}, {}], ids=range(4)
)
async def test_T11_what_is_no_scrape(autojump_clock: MockClock, answer: Any) -> None:
    async with conversation(answer) as (_, clients):
        with pytest.raises(RemoteProtocolError):
            await clients.client(URL, Author.TORRENT).scrape([INFO_HASH])


async def test_what_was_not_asked_for_is_left_out_of_a_scrape(autojump_clock: MockClock) -> None:
    files = {"00" * 20: {"complete": 1}, INFO_HASH.hex(): {"complete": 2, "incomplete": 3, "downloaded": 4}}
    async with conversation({"files": files}) as (_, clients):
        counts = await clients.client(URL, Author.TORRENT).scrape([INFO_HASH])
    assert counts == {INFO_HASH: SwarmCounts(2, 3, 4)}


async def test_the_next_address_of_a_name_is_tried(autojump_clock: MockClock) -> None:
    dead = "10.0.0.77"
    outbound = Outbound(names(**{"tracker.example": [dead, TRACKER[0]], dead: dead}))
    async with conversation(NOBODY, outbound=outbound) as (tracker, clients):
        await clients.client(f"quic://tracker.example:{TRACKER[1]}", Author.TORRENT).announce(announce())
        with pytest.raises(ConnectFailed):
            await clients.client(f"quic://{dead}:7001", Author.TORRENT).announce(announce())
    assert len(tracker.requests) == 1


async def test_a_trust_that_is_given_decides(autojump_clock: MockClock) -> None:
    async with conversation(NOBODY, trust=PinTrust("00" * 32)) as (tracker, clients):
        with pytest.raises(TrustError):
            await clients.client(URL, Author.TORRENT).announce(announce())
    assert tracker.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433"])
async def test_T10_a_torrent_leads_to_no_tracker_of_this_machine(
    autojump_clock: MockClock, host: str
) -> None:
    outbound = Outbound(names(**{host: "127.0.0.1"}))
    async with conversation(NOBODY, outbound=outbound) as (tracker, clients):
        with pytest.raises(Refused):
            await clients.client(f"quic://{host}:7001", Author.TORRENT).announce(announce())
    assert tracker.connections == []


def test_without_an_endpoint_there_is_no_quic() -> None:
    with pytest.raises(ConfigError, match="endpoint"):
        TrackerClients(Random(1)).client(URL, Author.USER)


def test_without_httpx2_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    monkeypatch.delitem(sys.modules, "p2pnode.services.tracker_clients.http", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'p2pnode\[http\]'"):
        TrackerClients(Random(1)).client("http://tracker.example/announce", Author.USER)
