"""Pushes: what a server has peers fetch, and what peers let it."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import Busy, NotFound, P2PNodeError
from p2pnode.node.events import FetchCompleted, FileShared, PushReceived, ServerLost
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.operator import open_operator
from p2pnode.node.peer_link import PeerLink
from p2pnode.node.server_reference import ServerReference
from p2pnode.quic import PinTrust
from p2pnode.testing.network import LinkProfile
from p2pnode.testing.nodes import PORT
from p2pnode.torrent import FileHasher, HashedFile, canonical_metainfo
from p2pnode.wire.communication import (
    Error,
    ErrorCode,
    FileAcknowledge,
    FileAnnounce,
    FileChunkAck,
    Message,
    NodeItem,
    PushReport,
    PushRequest,
    PushStatus,
)
from tests.node.conftest import SERVER, Swarm, Watched, write_random
from tests.node.hand_made import Content, HandMadeNode, Request, announce, hand_made

KIB = 1024
FILE = bytes(range(32))


async def start_server(swarm: Swarm, **options: object) -> Watched:
    """A server with a door for its operator."""
    return await swarm.start_server(state_dir=swarm.root / "state", **options)


async def pushed(swarm: Swarm, reference: str, target: str) -> dict[str, PushReport]:
    """Push as the server's operator; gives the last report of each node by name."""
    reports: dict[str, PushReport] = {}
    async with (
        open_operator(swarm.root / "state") as operator,
        aclosing(operator.push(reference, target)) as told,
    ):
        async for report in told:
            reports[report.name] = report
    return reports


async def share(node: Watched, name: str, size: int) -> bytes:
    data = write_random(node.files_dir / name, size)
    await node.node.share(node.files_dir / name)
    await trio.sleep(0.5)
    return data


async def test_a_push_to_all_reaches_every_peer(autojump_clock: MockClock, swarm: Swarm) -> None:
    server = await start_server(swarm)
    peers = [await swarm.start_peer() for _ in range(3)]
    data = await share(server, "a.bin", 100 * KIB)
    reports = await pushed(swarm, "a.bin", "all")
    assert sorted(reports) == ["10.0.1.1", "10.0.1.2", "10.0.1.3"]
    for peer in peers:
        assert (peer.files_dir / "a.bin").read_bytes() == data
        report = reports[peer.files_dir.name]
        assert (report.state, report.bytes_done, report.file_name) == ("complete", len(data), "a.bin")
        [event] = peer.all(PushReceived)
        assert (event.name, event.size) == ("a.bin", len(data))


@pytest.mark.parametrize("by", ["name", "node id"])
async def test_a_push_to_one_reaches_it_alone(autojump_clock: MockClock, swarm: Swarm, by: str) -> None:
    server = await start_server(swarm)
    one, other = await swarm.start_peer(name="one"), await swarm.start_peer(name="other")
    data = await share(server, "a.bin", 100 * KIB)
    file_id = server.all(FileShared)[0].file_id.hex()
    reports = await pushed(swarm, file_id[:8], "one" if by == "name" else one.node.node_id.hex()[:8])
    assert [report.state for report in reports.values()] == ["complete"]
    assert (one.files_dir / "a.bin").read_bytes() == data
    assert list(other.files_dir.iterdir()) == []


async def test_a_push_to_the_server_fetches_it_from_a_peer(autojump_clock: MockClock, swarm: Swarm) -> None:
    server = await start_server(swarm)
    peer = await swarm.start_peer()
    data = await share(peer, "a.bin", 100 * KIB)
    reports = await pushed(swarm, "a.bin", "server")
    assert [(name, report.state) for name, report in reports.items()] == [(SERVER, "complete")]
    assert (server.files_dir / "a.bin").read_bytes() == data


async def test_a_failed_push_to_the_server_says_why(autojump_clock: MockClock, swarm: Swarm) -> None:
    await start_server(swarm)
    async with hand_made(swarm.network, "10.0.2.1") as node:
        link = await node.dial((SERVER, PORT))
        await announce(link, FileAnnounce(FILE, "a.bin", 5, 16384, have=((0, 1),)))
        reports = await pushed(swarm, "a.bin", "server")
    assert [report.state for report in reports.values()] == ["failed"]
    assert "metainfo" in reports[SERVER].text


async def test_what_nobody_offers_or_nobody_can_take_is_not_found(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await start_server(swarm)
    with pytest.raises(NotFound, match=r"nobody offers 'a\.bin'"):
        await pushed(swarm, "a.bin", "all")
    await share(server, "a.bin", 5)
    with pytest.raises(NotFound, match="no peer is connected"):
        await pushed(swarm, "a.bin", "all")
    await swarm.start_peer(name="one")
    with pytest.raises(NotFound, match="no peer 'two' is connected"):
        await pushed(swarm, "a.bin", "two")


async def test_a_name_with_several_ids_is_refused_and_an_id_is_taken(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await start_server(swarm)
    peer = await swarm.start_peer()
    await share(server, "a.bin", 5)
    write_random(swarm.root / "elsewhere" / "a.bin", 6)
    other = await server.node.share(swarm.root / "elsewhere" / "a.bin")
    with pytest.raises(NotFound, match=rf"2 files fit .*{other.file_id.hex()}"):
        await pushed(swarm, "a.bin", "all")
    await pushed(swarm, other.file_id.hex(), "all")
    assert (peer.files_dir / "a.bin").stat().st_size == 6


async def test_a_push_of_what_is_there_already_is_complete_at_once(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await start_server(swarm)
    peer = await swarm.start_peer()
    await share(server, "a.bin", 100 * KIB)
    await pushed(swarm, "a.bin", "all")
    reports = await pushed(swarm, "a.bin", "all")
    assert [report.state for report in reports.values()] == ["complete"]
    assert peer.all(FetchCompleted)[-1].bytes_fetched == 0


# -- what a peer lets its server do ------------------------------------------------------------------------


async def test_more_than_a_peer_takes_is_refused(autojump_clock: MockClock, swarm: Swarm) -> None:
    server = await start_server(swarm)
    peer = await swarm.start_peer(push_max=100 * KIB)
    await share(server, "large.bin", 100 * KIB + 1)
    reports = await pushed(swarm, "large.bin", "all")
    assert [report.state for report in reports.values()] == ["refused"]
    assert list(peer.files_dir.iterdir()) == []
    await share(server, "just.bin", 100 * KIB)
    reports = await pushed(swarm, "just.bin", "all")
    assert [report.state for report in reports.values()] == ["complete"]


@pytest.fixture
def lying_server(swarm: Swarm) -> HandMadeNode:
    """A server made by hand, which peers choose as theirs: what it says of pushes need not be true."""
    return HandMadeNode(swarm.network, SERVER)


async def peer_of(swarm: Swarm, server: HandMadeNode, **options: object) -> tuple[Watched, PeerLink]:
    """A peer that chose this server, and the server's link to it."""
    reference = ServerReference(f"{SERVER}:{PORT}", PinTrust(server.node_id.hex()))
    peer = await swarm.start_peer(server=reference, **options)
    return peer, server.links[0]


async def push_by_hand(link: PeerLink, request: PushRequest) -> PushStatus:
    """The final status of a push."""
    stream = await link.request()
    await stream.send(request)
    await stream.send_eof()
    while (status := await stream.receive_as(PushStatus)).state not in {"complete", "refused", "failed"}:
        pass
    return status


@pytest.mark.parametrize(
    "name", ["../../escaped", "/etc/passwd", ".ssh", "a\0b", "x" * 1000, "..", "", "a/../../b", "C:\\x"]
)
async def test_C5_a_pushed_file_lands_in_the_directory_whatever_it_is_called(
    autojump_clock: MockClock, swarm: Swarm, lying_server: HandMadeNode, name: str
) -> None:
    write_random(swarm.root / "original" / "honest.bin", 20 * KIB)
    content = Content.of(swarm.root / "original" / "honest.bin")
    lying_server.serve = content.serving()
    async with trio.open_nursery() as nursery:
        await nursery.start(lying_server.run)
        peer, link = await peer_of(swarm, lying_server)
        source = NodeItem(lying_server.node_id, (), content.file_id)
        before = everything_below(swarm.root, but=peer.files_dir)
        status = await push_by_hand(link, PushRequest(content.file_id, name, 20 * KIB, (source,)))
        assert status.state == "complete"
        assert [path.name for path in peer.files_dir.iterdir()] == ["honest.bin"]
        assert everything_below(swarm.root, but=peer.files_dir) == before
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", [".ssh", ".bashrc", "con", "a:b", "\u202egpj.exe", "x" * 300, "trailing. "])
async def test_C5_a_hostile_name_in_the_metainfo_becomes_a_safe_one(
    autojump_clock: MockClock, swarm: Swarm, lying_server: HandMadeNode, name: str
) -> None:
    content = content_named(swarm.root / "original", name)
    lying_server.serve = content.serving()
    async with trio.open_nursery() as nursery:
        await nursery.start(lying_server.run)
        peer, link = await peer_of(swarm, lying_server)
        source = NodeItem(lying_server.node_id, (), content.file_id)
        before = everything_below(swarm.root, but=peer.files_dir)
        status = await push_by_hand(link, PushRequest(content.file_id, "a", 5, (source,)))
        assert status.state == "complete"
        [landed] = peer.files_dir.iterdir()
        assert landed.name != name and not landed.name.startswith(".")
        assert landed.read_bytes() == content.data
        assert everything_below(swarm.root, but=peer.files_dir) == before
        nursery.cancel_scope.cancel()


def content_named(directory: Path, name: str) -> Content:
    """A file of five bytes under a name that need not be possible here."""
    data = b"bytes"
    hasher = FileHasher(16384)
    hasher.update(data)
    return Content(canonical_metainfo(name, [HashedFile((name,), hasher.finish())], is_directory=False), data)


def everything_below(root: Path, *, but: Path) -> set[Path]:
    return {path for path in root.rglob("*") if but not in path.parents}


async def test_C5_a_size_that_was_understated_does_not_help(
    autojump_clock: MockClock, swarm: Swarm, lying_server: HandMadeNode
) -> None:
    write_random(swarm.root / "original" / "a.bin", 200 * KIB)
    content = Content.of(swarm.root / "original" / "a.bin")
    lying_server.serve = content.serving()
    async with trio.open_nursery() as nursery:
        await nursery.start(lying_server.run)
        peer, link = await peer_of(swarm, lying_server, push_max=100 * KIB)
        source = NodeItem(lying_server.node_id, (), content.file_id)
        status = await push_by_hand(link, PushRequest(content.file_id, "a.bin", 5, (source,)))
        assert status.state == "failed" and "more than" in status.text
        assert list(peer.files_dir.iterdir()) == []
        nursery.cancel_scope.cancel()


async def test_C5_pushes_without_number_are_refused_at_some_point(
    autojump_clock: MockClock, swarm: Swarm, lying_server: HandMadeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams that are dropped at once leave their fetches running; those are bounded too."""
    monkeypatch.setattr(config, "PUSHES_AT_ONCE", 4)
    async with trio.open_nursery() as nursery:
        await nursery.start(lying_server.run)
        _, link = await peer_of(swarm, lying_server)
        for number in range(config.PUSHES_AT_ONCE):
            stream = await link.request()
            await stream.send(PushRequest(number.to_bytes(32, "big"), "a", 5))
            assert (await stream.receive_as(PushStatus)).state == "accepted"
            await stream.aclose()
        status = await push_by_hand(link, PushRequest(FILE, "a", 5))
        assert status.state == "refused"
        await trio.sleep(2 * config.NO_SOURCE_TIMEOUT_S)  # those end, and others may come
        status = await push_by_hand(link, PushRequest(FILE, "a", 5))
        assert status.state == "failed"
        nursery.cancel_scope.cancel()


async def test_a_push_outlives_its_server(autojump_clock: MockClock, swarm: Swarm) -> None:
    server = await start_server(swarm)
    source, peer = await swarm.start_peer(), await swarm.start_peer()
    data = await share(source, "a.bin", 1024 * KIB)
    slow = LinkProfile(rate_bytes_per_s=50_000)
    swarm.network.set_profile("10.0.1.1", "10.0.1.2", slow)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pushed, swarm, "a.bin", peer.node.node_id.hex())
        await peer.wait_for(PushReceived)
        await trio.sleep(2)
        await server.stop()
    await peer.wait_for(ServerLost)
    done = await peer.wait_for(FetchCompleted)
    assert done.target.read_bytes() == data


async def test_a_peer_that_goes_away_fails_and_the_others_go_on(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await start_server(swarm)
    stays, goes = await swarm.start_peer(name="stays"), await swarm.start_peer(name="goes")
    await share(server, "a.bin", 300 * KIB)
    for host in ("10.0.1.1", "10.0.1.2"):
        swarm.network.set_profile(SERVER, host, LinkProfile(rate_bytes_per_s=50_000))
    reports: dict[str, PushReport] = {}

    async def push() -> None:
        reports.update(await pushed(swarm, "a.bin", "all"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(push)
        await goes.wait_for(PushReceived)
        await goes.stop()
    assert reports["goes"].state == "failed"
    assert reports["stays"].state == "complete"
    assert (stays.files_dir / "a.bin").exists()


async def test_a_peer_that_answers_nonsense_is_reported_as_failed(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async def nonsense(stream: MessageStream, request: Request) -> None:
        await stream.send(FileChunkAck(5))

    server = await start_server(swarm)
    await share(server, "a.bin", 5)
    async with hand_made(swarm.network, "10.0.2.1", nonsense) as node:
        await node.dial((SERVER, PORT))
        reports = await pushed(swarm, "a.bin", "all")
        assert [report.state for report in reports.values()] == ["failed"]
        [request] = node.requests
        assert isinstance(request, PushRequest)
        assert [source.node_id for source in request.sources] == [server.node.node_id]


LIST_ANSWERS = [
    (Error(ErrorCode.NOT_ALLOWED, "no"), NotFound),
    (Error(ErrorCode.BUSY, "later", retryable=True, retry_after_s=3.0), Busy),
    (FileAcknowledge(FILE, True), NotFound),
    (None, NotFound),
]


@pytest.mark.parametrize(("answer", "expected"), LIST_ANSWERS, ids=["refused", "busy", "nonsense", "reset"])
async def test_what_a_peer_does_wrong_when_its_list_is_asked_for_is_told_as_its_own_fault(
    autojump_clock: MockClock, swarm: Swarm, answer: Message | None, expected: type[P2PNodeError]
) -> None:
    async def serve(stream: MessageStream, request: Request) -> None:
        if answer is not None:
            await stream.send(answer)
            await stream.send_eof()

    await start_server(swarm)
    async with hand_made(swarm.network, "10.0.2.1", serve) as odd:
        await odd.dial((SERVER, PORT))
        async with open_operator(swarm.root / "state") as operator:
            with pytest.raises(expected, match=r"peer '10\.0\.2\.1' .* gives no list"):
                await operator.list_files(peer="10.0.2.1")
