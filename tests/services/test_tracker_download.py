"""Downloads through a tracker: in JSON and in the nodes' own protocol, from honest trackers and others."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.assembly import torrent_of
from p2pnode.errors import (
    ConnectFailed,
    ErrorAnswer,
    HashMismatch,
    InvalidData,
    NotFound,
    RemoteProtocolError,
    StorageError,
    StreamReset,
    TargetExists,
)
from p2pnode.node.events import FetchStarted, NodeEvent
from p2pnode.node.node import Node
from p2pnode.node.server_reference import ServerReference
from p2pnode.quic import Credentials, Endpoint, NodeKey, NoTrust, Stream
from p2pnode.services.h3_door import H3Door
from p2pnode.services.request_log import RequestLog
from p2pnode.services.seed_files import SeedFiles
from p2pnode.services.tracker import Tracker
from p2pnode.services.tracker_download import (
    DownloadAnnounced,
    DownloadCompleted,
    DownloadSwitched,
    TrackerDownloads,
    Way,
)
from p2pnode.services.tracker_http import application
from p2pnode.services.tracker_json import JsonTracker
from p2pnode.services.tracker_session import TrackerSession
from p2pnode.testing.network import Network
from p2pnode.testing.nodes import inline_blocking, simulated_node
from p2pnode.torrent import Metainfo, TorrentVersion
from tests.services.hand_made_tracker import CLIENT, TRACKER, Answer, Request, say, tracker_at
from tests.services.known_torrents import known_torrent

HELLO = b"Hello World from QUIC Server!\n"


@dataclass
class Client:
    """A client with its own directory, and what it was told."""

    downloads: TrackerDownloads
    directory: Path
    events: list[NodeEvent]

    def all(self, kind: type[NodeEvent]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def fetch(self, metainfo: Metainfo, **options: Any) -> bytes:
        await self.downloads.download(metainfo, self.directory / "out.bin", **options)
        assert self.names == ["out.bin"]
        return (self.directory / "out.bin").read_bytes()

    @property
    def names(self) -> list[str]:
        return sorted(os.listdir(self.directory)) if self.directory.exists() else []


@asynccontextmanager
async def client_on(network: Network, directory: Path) -> AsyncIterator[Client]:
    socket = network.socket(CLIENT)
    events: list[NodeEvent] = []

    @asynccontextmanager
    async def open_node(server: ServerReference) -> AsyncIterator[Node]:
        node = simulated_node(network, CLIENT[0], role="client", server=server)
        async with node, node.events() as channel:
            yield node
            while channel.statistics().current_buffer_used:
                events.append(channel.receive_nowait())

    async with Endpoint(socket, Credentials.from_node_key(NodeKey.generate())) as endpoint:
        session = TrackerSession(
            endpoint, ServerReference(f"{TRACKER[0]}:{TRACKER[1]}", NoTrust()), Random(1)
        )
        downloads = TrackerDownloads(session, open_node, inline_blocking(), events.append)
        yield Client(downloads, directory, events)
    socket.close()


@dataclass
class Seeder:
    """A whole tracker of ours, and its directory."""

    directory: Path
    tracker: Tracker

    def put(self, name: str, data: bytes) -> None:
        path = self.directory / name
        path.write_bytes(data)
        past = time.time() - 60
        os.utime(path, (past, past))


@asynccontextmanager
async def seeder_on(
    network: Network, directory: Path, *, offered: Path | None = None
) -> AsyncIterator[Seeder]:
    """Seeds `directory`, and offers it by the nodes' own protocol too unless that shall be another one."""
    directory.mkdir(exist_ok=True)
    run_blocking = inline_blocking()
    seed_files = SeedFiles(directory, "http://127.0.0.1:7000/announce", run_blocking=run_blocking)
    await seed_files.prepare()
    tracker = Tracker(rng=Random(1))
    log = RequestLog()
    door = H3Door(JsonTracker(tracker, seed_files, None, log).respond, application(tracker, seed_files, log))
    host, port = TRACKER
    async with simulated_node(
        network, host, port=port, role="server", files_dir=offered or directory, connection_services=[door]
    ):
        yield Seeder(directory, tracker)


@asynccontextmanager
async def both(tmp_path: Path) -> AsyncIterator[tuple[Seeder, Client]]:
    async with (
        Network(seed=1) as network,
        seeder_on(network, tmp_path / "seed") as seeder,
        client_on(network, tmp_path / "client") as client,
    ):
        yield seeder, client


@asynccontextmanager
async def with_tracker(tmp_path: Path, answer: Answer) -> AsyncIterator[tuple[list[Request], Client]]:
    async with (
        Network(seed=1) as network,
        tracker_at(network, answer) as tracker,
        client_on(network, tmp_path / "client") as client,
    ):
        yield tracker.requests, client


def answering(file: object) -> Answer:
    """A tracker that answers announces as it should, and file queries so."""

    async def answer(stream: Stream, request: Request) -> None:
        announced = {"interval": 60, "peers": [], "complete": 1, "incomplete": 1}
        await say(stream, announced if "info_hash" in request else file)

    return answer


def sent(data: bytes) -> dict[str, Any]:
    return {"data": list(data), "filename": "x", "size": len(data)}


# -- an honest tracker -------------------------------------------------------------------------------------


async def test_a_known_torrent_is_downloaded_and_verified(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with both(tmp_path) as (_, client):
        assert await client.fetch(known_torrent("E:\\x\\seed\\hello_world.txt", HELLO)) == HELLO
    [announced] = client.all(DownloadAnnounced)
    assert (announced.complete, announced.incomplete, announced.peers) == (0, 1, ())
    [completed] = client.all(DownloadCompleted)
    assert (completed.way, completed.verified, completed.zero_padded) == (Way.JSON, True, True)
    assert completed.size == 30


async def test_a_torrent_of_the_tracker_itself_is_asked_for(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with both(tmp_path) as (_, client):
        metainfo = await client.downloads.ask_for_torrent("hello_world.txt.torrent")
        assert await client.fetch(metainfo) == HELLO
        with pytest.raises(NotFound, match=r"nothing\.torrent"):
            await client.downloads.ask_for_torrent("nothing.torrent")
        with pytest.raises(InvalidData, match=r"'hello_world\.txt', as the tracker has it"):
            await client.downloads.ask_for_torrent("hello_world.txt")
    [completed] = client.all(DownloadCompleted)
    assert not completed.zero_padded


async def test_the_tracker_knows_who_downloads_and_who_is_done(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    requests: list[Request]
    torrent = known_torrent("..\\seed\\data.json", b"{}")
    async with with_tracker(tmp_path, answering(sent(b"{}"))) as (requests, client):
        await client.fetch(torrent)
    kinds = [(request.get("event"), request.get("left"), request.get("file")) for request in requests]
    assert kinds == [
        ("started", 2, None),
        (None, None, "data.json"),
        ("completed", 0, None),
        ("stopped", 0, None),
    ]
    assert torrent.info_hash_v1 is not None
    assert requests[0]["info_hash"] == torrent.info_hash_v1.hex()
    assert requests[0]["port"] == 6881


async def test_who_fails_or_is_cancelled_leaves_the_tracker_too(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async def hang(stream: Stream, request: Request) -> None:
        if "file" in request:
            await trio.sleep_forever()
        await answering(None)(stream, request)

    async with with_tracker(tmp_path, hang) as (requests, client):
        with trio.move_on_after(5):
            await client.fetch(known_torrent("x", b"abc"))
    assert [request.get("event") for request in requests] == ["started", None, "stopped"]
    assert requests[-1]["left"] == 3


async def test_a_large_file_is_fetched_in_the_nodes_own_protocol_and_verified_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    data = Random(1).randbytes(config.JSON_FILE_SIZE_MAX + 1)
    async with both(tmp_path) as (seeder, client):
        seeder.put("large.bin", data)
        assert await client.fetch(known_torrent("E:\\x\\seed\\large.bin", data)) == data
    [switched] = client.all(DownloadSwitched)
    assert "FILE_TOO_LARGE" in switched.reason
    [completed] = client.all(DownloadCompleted)
    assert (completed.way, completed.verified, completed.zero_padded) == (Way.NODE, True, True)


async def test_a_file_of_the_right_name_and_size_with_other_bytes_is_not_taken(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    data = Random(1).randbytes(config.JSON_FILE_SIZE_MAX + 1)
    async with both(tmp_path) as (seeder, client):
        seeder.put("large.bin", data[:-1] + b"!")
        with pytest.raises(HashMismatch, match="1 of its 21 pieces are wrong"):
            await client.fetch(known_torrent("large.bin", data))
        assert client.names == []


async def test_a_large_file_of_another_size_is_not_even_fetched(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    data = Random(1).randbytes(config.JSON_FILE_SIZE_MAX + 2)
    async with both(tmp_path) as (seeder, client):
        seeder.put("large.bin", data)
        with pytest.raises(HashMismatch, match=f"has {len(data)} bytes there, but the torrent says 9:"):
            await client.fetch(known_torrent("large.bin", b"123456789"))
        assert client.names == []
        assert client.all(FetchStarted) == []


async def test_a_server_that_does_not_offer_the_large_file_is_waited_for_only_so_long(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    offered = tmp_path / "offered"
    offered.mkdir()
    data = bytes(config.JSON_FILE_SIZE_MAX + 1)
    async with (
        Network(seed=1) as network,
        seeder_on(network, tmp_path / "seed", offered=offered) as seeder,
        client_on(network, tmp_path / "client") as client,
    ):
        seeder.put("large.bin", data)
        began = trio.current_time()
        with pytest.raises(NotFound, match="offers it in no way"):
            await client.fetch(known_torrent("large.bin", data))
        assert trio.current_time() - began < 2 * config.TRACKER_LISTED_WITHIN_S


async def test_a_file_that_the_server_offers_a_little_later_is_waited_for(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    data = bytes(config.JSON_FILE_SIZE_MAX + 1)
    async with both(tmp_path) as (seeder, client):
        seeder.put("large.bin", data)  # the next look at the directory finds it
        assert await client.fetch(known_torrent("large.bin", data)) == data


async def test_a_server_that_dies_in_the_middle_is_asked_for_the_rest_when_it_is_back(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    data = Random(1).randbytes(2 * config.JSON_FILE_SIZE_MAX)
    outcome: list[bytes] = []
    async with Network(seed=1) as network, client_on(network, tmp_path / "client") as client:

        async def download() -> None:
            outcome.append(await client.fetch(known_torrent("large.bin", data)))

        async with trio.open_nursery() as nursery:
            async with seeder_on(network, tmp_path / "seed") as seeder:
                seeder.put("large.bin", data)
                nursery.start_soon(download)
                with trio.fail_after(60):
                    while not any("p2pnode-part" in name for name in client.names):  # noqa: ASYNC110
                        await trio.sleep(0.001)
                network.kill(TRACKER[0])
            await trio.sleep(3)
            async with seeder_on(network, tmp_path / "seed"):
                with trio.fail_after(120):
                    while not outcome:  # noqa: ASYNC110 - there is nothing to wait for but time
                        await trio.sleep(0.1)
    assert outcome == [data]


@pytest.mark.parametrize("failures", [config.TRACKER_TRIES - 1, config.TRACKER_TRIES])
async def test_a_node_that_cannot_reach_the_server_is_tried_again_a_few_times(
    autojump_clock: MockClock, tmp_path: Path, failures: int
) -> None:
    data = bytes(config.JSON_FILE_SIZE_MAX + 1)
    tries: list[ServerReference] = []
    async with both(tmp_path) as (seeder, client):
        seeder.put("large.bin", data)
        open_node = client.downloads.open_node

        def open_at_last(server: ServerReference) -> AbstractAsyncContextManager[Node]:
            tries.append(server)
            if len(tries) <= failures:
                raise ConnectFailed("nobody answers")
            return open_node(server)

        client.downloads = replace(client.downloads, open_node=open_at_last)
        if failures < config.TRACKER_TRIES:
            assert await client.fetch(known_torrent("large.bin", data)) == data
        else:
            with pytest.raises(ConnectFailed):
                await client.fetch(known_torrent("large.bin", data))
    assert len(tries) == config.TRACKER_TRIES


async def test_that_the_tracker_will_not_hear_of_the_end_is_no_failure(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async def deaf(stream: Stream, request: Request) -> None:
        if request.get("event") == "completed":
            await say(stream, {"error": "enough"})
        else:
            await answering(sent(HELLO))(stream, request)

    async with with_tracker(tmp_path, deaf) as (requests, client):
        assert await client.fetch(known_torrent("x", HELLO)) == HELLO
    assert requests[-1]["event"] == "completed"


@pytest.mark.parametrize("is_right", [True, False])
async def test_what_a_killed_client_left_is_taken_if_it_is_right(
    autojump_clock: MockClock, tmp_path: Path, is_right: bool
) -> None:
    data = Random(1).randbytes(config.JSON_FILE_SIZE_MAX + 1)
    async with both(tmp_path) as (seeder, client):
        seeder.put("large.bin", data)
        client.directory.mkdir()
        (client.directory / ".out.bin.p2pnode-fetch").write_bytes(data if is_right else data[::-1])
        assert await client.fetch(known_torrent("large.bin", data)) == data
    assert len(client.all(FetchStarted)) == (0 if is_right else 1)


async def test_a_long_download_is_announced_again_and_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async def slow(stream: Stream, request: Request) -> None:
        if "file" in request:
            for part in (b'{"data":[', *[b"72," for _ in range(10)], b'72],"size":11}'):
                await trio.sleep(15)
                await stream.send_all(part)
            await stream.send_eof()
        elif "event" in request:
            await answering(None)(stream, request)
        else:
            await say(stream, {"error": "not now"})

    async with with_tracker(tmp_path, slow) as (requests, client):
        assert await client.fetch(known_torrent("x", b"H" * 11)) == b"H" * 11
    announces = [request.get("event") for request in requests if "info_hash" in request]
    assert announces == ["started", None, None, "completed", "stopped"]


async def test_v2_and_hybrid_torrents_are_verified_by_their_own_hashes(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with both(tmp_path) as (seeder, client):
        seeder.put("data.json", b'{"a":1}')
        for version in (TorrentVersion.V2, TorrentVersion.HYBRID):
            metainfo = torrent_of(seeder.directory / "data.json", version=version)
            await client.downloads.download(metainfo, client.directory / version.name)
            assert (client.directory / version.name).read_bytes() == b'{"a":1}'


async def test_a_directory_is_not_for_this(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with both(tmp_path) as (seeder, client):
        seeder.put("a", b"1")
        metainfo = torrent_of(seeder.directory, version=TorrentVersion.V1)
        with pytest.raises(InvalidData, match="is a directory"):
            await client.fetch(metainfo)


# -- what is there already ---------------------------------------------------------------------------------


async def test_the_same_bytes_are_success_and_nobody_is_asked(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with with_tracker(tmp_path, answering(sent(b"no"))) as (requests, client):
        client.directory.mkdir()
        (client.directory / "out.bin").write_bytes(HELLO)
        assert await client.fetch(known_torrent("x", HELLO)) == HELLO
    assert requests == []
    assert client.all(DownloadCompleted)[0].way is Way.HERE


@pytest.mark.parametrize("check_pieces", [True, False])
async def test_other_bytes_are_never_replaced(
    autojump_clock: MockClock, tmp_path: Path, check_pieces: bool
) -> None:
    async with with_tracker(tmp_path, answering(sent(HELLO))) as (_, client):
        client.directory.mkdir()
        (client.directory / "out.bin").write_bytes(b"mine")
        with pytest.raises(TargetExists, match="holds other bytes"):
            await client.fetch(known_torrent("x", HELLO), check_pieces=check_pieces)
        assert client.names == ["out.bin"]
        assert (client.directory / "out.bin").read_bytes() == b"mine"


async def test_unchecked_the_same_bytes_are_success_too(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with with_tracker(tmp_path, answering(sent(b"other"))) as (_, client):
        client.directory.mkdir()
        (client.directory / "out.bin").write_bytes(b"other")
        assert await client.fetch(known_torrent("x", HELLO), check_pieces=False) == b"other"


async def test_a_directory_that_cannot_be_made_is_said(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with with_tracker(tmp_path, answering(sent(HELLO))) as (requests, client):
        client.directory.write_bytes(b"a file")
        with pytest.raises(StorageError):
            await client.downloads.download(known_torrent("x", HELLO), client.directory / "a" / "b")
        assert requests == []


# -- trackers that are not as they should be ---------------------------------------------------------------


async def test_wrong_bytes_are_not_taken_unless_they_need_not_be_right(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    wrong = HELLO.replace(b"W", b"V")
    async with with_tracker(tmp_path, answering(sent(wrong))) as (_, client):
        with pytest.raises(HashMismatch, match="1 of its 1 pieces are wrong"):
            await client.fetch(known_torrent("x", HELLO))
        assert client.names == []
        assert await client.fetch(known_torrent("x", HELLO), check_pieces=False) == wrong
    [completed] = client.all(DownloadCompleted)
    assert not completed.verified


async def test_another_length_is_named_with_both_sizes(autojump_clock: MockClock, tmp_path: Path) -> None:
    torrent = known_torrent("E:\\x\\seed\\hello_world.txt", HELLO, length=29)
    async with with_tracker(tmp_path, answering(sent(HELLO))) as (_, client):
        with pytest.raises(HashMismatch, match="has 30 bytes there, but the torrent says 29: --no-check"):
            await client.fetch(torrent)
        assert client.names == []
        assert await client.fetch(torrent, check_pieces=False) == HELLO
    assert not client.all(DownloadCompleted)[0].verified


@pytest.mark.parametrize(
    ("file", "error"),
    [
        (b'{"data":[72,101', RemoteProtocolError),
        ({"data": [72], "size": 30}, RemoteProtocolError),
        ({"data": [999], "size": 1}, RemoteProtocolError),
        ({"filename": "x"}, RemoteProtocolError),
        ({"error": "gone", "code": "FILE_NOT_FOUND"}, NotFound),
        ({"error": "broken", "code": "FILE_READ_ERROR"}, ErrorAnswer),
    ],
)
async def test_an_answer_that_is_no_file_leaves_nothing_behind(
    autojump_clock: MockClock, tmp_path: Path, file: object, error: type[Exception]
) -> None:
    async with with_tracker(tmp_path, answering(file)) as (requests, client):
        with pytest.raises(error):
            await client.fetch(known_torrent("x", HELLO))
        assert client.names == []
    assert [request.get("event") for request in requests] == ["started", None, "stopped"]


async def test_a_file_without_end_is_cut_off(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "TRACKER_ANSWER_SIZE_MAX", 100_000)

    async def flood(stream: Stream, request: Request) -> None:
        if "file" not in request:
            await answering(None)(stream, request)
            return
        with pytest.raises(StreamReset):
            while True:
                await stream.send_all(b'{"data":[' + b"72," * 10_000)

    async with with_tracker(tmp_path, flood) as (_, client):
        with pytest.raises(RemoteProtocolError, match="larger than"):
            await client.fetch(known_torrent("x", HELLO))
        assert client.names == []


async def test_a_tracker_that_refuses_the_announce_is_asked_for_nothing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async def refuse(stream: Stream, request: Request) -> None:
        await say(stream, {"error": "not here", "code": "REFUSED"})

    async with with_tracker(tmp_path, refuse) as (requests, client):
        with pytest.raises(ErrorAnswer, match="not here"):
            await client.fetch(known_torrent("x", HELLO))
    assert len(requests) == 1


async def test_a_connection_that_breaks_in_the_middle_of_the_file_costs_one_more_question(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    broken: list[bool] = []

    async def break_once(stream: Stream, request: Request) -> None:
        if "file" in request and not broken:
            broken.append(True)
            await stream.send_all(b'{"data":[72,')
            stream.connection.close(1, "killed")
            return
        await answering(sent(HELLO))(stream, request)

    async with with_tracker(tmp_path, break_once) as (requests, client):
        assert await client.fetch(known_torrent("x", HELLO)) == HELLO
    assert [request["file"] for request in requests if "file" in request] == ["x", "x"]
