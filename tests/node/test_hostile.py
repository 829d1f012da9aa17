"""Nodes that lie, stall, trickle, flood and babble: each harms itself alone. docs/HOSTILE.md lists the rows."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import msgspec
import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import ConnectionClosed, NoSource, StreamReset
from p2pnode.node.events import FetchCompleted, FetchSourceLost, NodeBanned, PeerDisconnected
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.peer_link import CloseCode, PeerLink
from p2pnode.testing.network import LinkProfile
from p2pnode.testing.nodes import PORT
from p2pnode.wire.communication import (
    ConnectToMe,
    Error,
    ErrorCode,
    FileChunk,
    FileList,
    FileRequest,
    FileResponse,
)
from p2pnode.wire.framing import frame
from tests.node.conftest import SERVER, Swarm, write_random
from tests.node.hand_made import (
    Chunk,
    Content,
    HandMadeNode,
    Lie,
    Request,
    Serve,
    announce,
    ask,
    hand_made,
    serve_nothing,
)

KIB = 1024
MIB = 1024 * KIB


def changed(header: FileChunk, **fields: int) -> FileChunk:
    return msgspec.structs.replace(header, **fields)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def bad_block(chunks: list[Chunk]) -> list[Chunk]:
    *others, (header, hashes, data) = chunks
    return [*others, (header, hashes, flipped(data, len(data) - 1))]


def bad_hash_list(chunks: list[Chunk]) -> list[Chunk]:
    *others, (header, hashes, data) = chunks
    return [*others, (header, flipped(hashes, 31), data)]


def no_hash_list(chunks: list[Chunk]) -> list[Chunk]:
    header, _, data = chunks[0]
    return [(changed(header, hashes=0), b"", data), *chunks[1:]]


def duplicate_chunk(chunks: list[Chunk]) -> list[Chunk]:
    return [chunks[0], *chunks]


def out_of_order(chunks: list[Chunk]) -> list[Chunk]:
    return chunks[1:] + chunks[:1]


def past_the_end(chunks: list[Chunk]) -> list[Chunk]:
    header, hashes, data = chunks[0]
    longer = data + bytes(config.BLOCK_SIZE)
    return [(changed(header, length=len(longer)), hashes, longer), *chunks[1:]]


def broken_block(chunks: list[Chunk]) -> list[Chunk]:
    header, hashes, data = chunks[0]
    return [(changed(header, length=1000), hashes, data[:1000]), *chunks[1:]]


def another_piece(chunks: list[Chunk]) -> list[Chunk]:
    header, hashes, data = chunks[0]
    return [(changed(header, piece=2**40), hashes, data), *chunks[1:]]


def too_little(chunks: list[Chunk]) -> list[Chunk]:
    return chunks[:-1]


LIES: dict[str, Lie] = {
    lie.__name__: lie
    for lie in (
        bad_block,
        bad_hash_list,
        no_hash_list,
        duplicate_chunk,
        out_of_order,
        past_the_end,
        broken_block,
        another_piece,
        too_little,
    )
}


BAD_PIECES = (bad_block, bad_hash_list)  # what a hash proves; all else breaks the protocol


class Hostile:
    """A server, a peer that fetches, and hand-made sources for one file; an honest peer when asked for."""

    def __init__(self, swarm: Swarm, size: int = 256 * KIB) -> None:
        self.swarm = swarm
        self.data = write_random(swarm.root / "original" / "a.bin", size)
        self.content = Content.of(swarm.root / "original" / "a.bin")

    async def register(self, node: HandMadeNode) -> None:
        link = await node.dial((SERVER, PORT))
        [answer] = await announce(link, self.content.offer())
        assert answer.accepted

    async def start_honest(self) -> bytes:
        write_random(self.swarm.root / "honest" / "a.bin", len(self.data))
        peer = await self.swarm.start_peer(files_dir=self.swarm.root / "honest")
        await peer.node.share(peer.files_dir / "a.bin")
        await trio.sleep(0.5)
        return peer.node.node_id


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
async def test_S7_a_lying_source_is_dropped_and_an_honest_one_gives_the_rest(
    autojump_clock: MockClock, swarm: Swarm, lie: Lie
) -> None:
    await swarm.start_server()
    hostile = Hostile(swarm)
    async with hand_made(swarm.network, "10.0.2.1", hostile.content.serving(lie)) as liar:
        await hostile.register(liar)
        fetching = await swarm.start_peer()
        fetch = trio.Event()

        async def join_later() -> None:
            await fetching.wait_for(FetchSourceLost)  # so that the liar was asked, and asked first
            await hostile.start_honest()
            fetch.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(join_later)
            done = await fetching.node.fetch("a.bin", to=fetching.files_dir)
        assert done.target.read_bytes() == hostile.data
        assert done.bytes_fetched == len(hostile.data)
        lost = fetching.all(FetchSourceLost)
        assert {event.node_id for event in lost} == {liar.node_id}
        asked = [request for request in liar.requests if isinstance(request, FileRequest) and request.ranges]
        if lie in BAD_PIECES:  # the first one may be the fault of a disk
            assert [closed.code for closed in liar.closings] == [CloseCode.NOT_ALLOWED]
            assert len(asked) <= config.BAD_PIECES_MAX * config.REQUESTS_PER_SOURCE
            assert fetching.node.statistics["nodes_banned"] == 1
            assert (await fetching.wait_for(NodeBanned)).node_id == liar.node_id
        else:
            assert [closed.code for closed in liar.closings] == [CloseCode.PROTOCOL_ERROR]
            assert len(asked) <= config.REQUESTS_PER_SOURCE
            assert fetching.node.statistics["nodes_banned"] == 0


@pytest.mark.parametrize("liars", [1, 3, 7])
async def test_S7_most_sources_lie_and_the_file_is_right(
    autojump_clock: MockClock, swarm: Swarm, liars: int
) -> None:
    await swarm.start_server()
    hostile = Hostile(swarm)
    for _ in range(8 - liars):
        await hostile.start_honest()
    async with trio.open_nursery() as nursery:
        nodes = []
        for number in range(liars):
            lie = list(LIES.values())[number]
            node = HandMadeNode(swarm.network, f"10.0.2.{number + 1}", hostile.content.serving(lie))
            await nursery.start(node.run)
            await hostile.register(node)
            nodes.append(node)
        fetching = await swarm.start_peer()
        done = await fetching.node.fetch("a.bin", to=fetching.files_dir)
        nursery.cancel_scope.cancel()
    assert done.target.read_bytes() == hostile.data
    assert done.bytes_fetched == len(hostile.data)
    assert {event.node_id for event in fetching.all(FetchSourceLost)} <= {node.node_id for node in nodes}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
async def test_S7_only_liars_is_no_source_and_no_file(
    autojump_clock: MockClock, swarm: Swarm, lie: Lie
) -> None:
    await swarm.start_server()
    hostile = Hostile(swarm)
    async with hand_made(swarm.network, "10.0.2.1", hostile.content.serving(lie)) as liar:
        await hostile.register(liar)
        fetching = await swarm.start_peer()
        with pytest.raises(NoSource), trio.fail_after(120):
            await fetching.node.fetch("a.bin", to=fetching.files_dir)
        assert not (fetching.files_dir / "a.bin").exists()


async def fetch_beside(swarm: Swarm, hostile: Hostile, serve: Serve) -> tuple[FetchCompleted, HandMadeNode]:
    """Fetch from a hostile source, which an honest one joins once it was asked."""
    async with hand_made(swarm.network, "10.0.2.1", serve) as node:
        await hostile.register(node)
        fetching = await swarm.start_peer()

        async def join_later() -> None:
            await node.asked.wait()
            await hostile.start_honest()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(join_later)
            with trio.fail_after(200):
                done = await fetching.node.fetch("a.bin", to=fetching.files_dir)
    assert done.target.read_bytes() == hostile.data
    return done, node


def metainfo_of_another_file(hostile: Hostile) -> Serve:
    write_random(hostile.swarm.root / "other" / "a.bin", 999)
    other = Content.of(hostile.swarm.root / "other" / "a.bin")
    return other.serving()


def metainfo_that_is_none(hostile: Hostile) -> Serve:
    async def serve(stream: MessageStream, request: Request) -> None:
        await stream.send(FileResponse(hostile.content.file_id, True, 5, 100_000), bytes(100_000))

    return serve


def metainfo_too_large(hostile: Hostile) -> Serve:
    async def serve(stream: MessageStream, request: Request) -> None:
        body = b"\xd9\x00"
        await stream.send_bytes(bytes(4) + body)

    return serve


def metainfo_without_end(hostile: Hostile) -> Serve:
    """Just fast enough not to count as a stall."""

    async def serve(stream: MessageStream, request: Request) -> None:
        await stream.send(FileResponse(hostile.content.file_id, True, 5, config.METAINFO_SIZE_MAX))
        while True:
            await stream.send_bytes(bytes(2 * config.STALL_BYTES_MIN))
            await trio.sleep(config.STALL_TIMEOUT_S / 2)

    return serve


def metainfo_denied(hostile: Hostile) -> Serve:
    async def serve(stream: MessageStream, request: Request) -> None:
        await stream.send(FileResponse(hostile.content.file_id, False, reason="no"))

    return serve


METAINFO_LIES = [
    metainfo_of_another_file,
    metainfo_that_is_none,
    metainfo_too_large,
    metainfo_without_end,
    metainfo_denied,
]


@pytest.mark.parametrize("lie", METAINFO_LIES)
async def test_S7_a_source_with_wrong_metainfo_is_passed_over(
    autojump_clock: MockClock, swarm: Swarm, lie: Callable[[Hostile], Serve]
) -> None:
    await swarm.start_server()
    hostile = Hostile(swarm)
    await fetch_beside(swarm, hostile, lie(hostile))


@pytest.mark.parametrize("lie", METAINFO_LIES)
async def test_S7_wrong_metainfo_alone_is_no_source(
    autojump_clock: MockClock, swarm: Swarm, lie: Callable[[Hostile], Serve]
) -> None:
    await swarm.start_server()
    hostile = Hostile(swarm)
    async with hand_made(swarm.network, "10.0.2.1", lie(hostile)) as node:
        await hostile.register(node)
        fetching = await swarm.start_peer()
        with pytest.raises(NoSource), trio.fail_after(config.METAINFO_TIMEOUT_S + 30):
            await fetching.node.fetch("a.bin", to=fetching.files_dir)
        assert list(fetching.files_dir.iterdir()) == []


# -- silence -----------------------------------------------------------------------------------------------


def silent_at_once(content: Content) -> Serve:
    async def serve(stream: MessageStream, request: FileRequest) -> None:
        await trio.sleep_forever()

    return serve_metainfo_then(content, serve)


def silent_in_the_middle(content: Content) -> Serve:
    async def serve(stream: MessageStream, request: FileRequest) -> None:
        await content.respond(stream, request)
        header, hashes, data = next(content.chunks(request))
        await stream.send(header, hashes + data[:5000])
        await trio.sleep_forever()

    return serve_metainfo_then(content, serve)


def one_byte_a_minute(content: Content) -> Serve:
    async def serve(stream: MessageStream, request: FileRequest) -> None:
        await content.respond(stream, request)
        for header, hashes, data in content.chunks(request):
            for byte in frame(header) + hashes + data:
                await stream.send_bytes(bytes([byte]))
                await trio.sleep(60)

    return serve_metainfo_then(content, serve)


def a_trickle(content: Content) -> Serve:
    """Never silent for as long as a stall takes, and yet nothing comes."""

    async def serve(stream: MessageStream, request: FileRequest) -> None:
        await content.respond(stream, request)
        header, hashes, data = next(content.chunks(request))
        await stream.send(header, hashes)
        for byte in data:
            await stream.send_bytes(bytes([byte]))
            await trio.sleep(config.STALL_TIMEOUT_S / 10)

    return serve_metainfo_then(content, serve)


def serve_metainfo_then(
    content: Content, serve_pieces: Callable[[MessageStream, FileRequest], Awaitable[None]]
) -> Serve:
    async def serve(stream: MessageStream, request: Request) -> None:
        assert isinstance(request, FileRequest)
        if request.ranges:
            await serve_pieces(stream, request)
        else:
            await content.respond(stream, request)

    return serve


SILENCES = [silent_at_once, silent_in_the_middle, one_byte_a_minute, a_trickle]


@pytest.mark.parametrize("silence", SILENCES)
async def test_Q11_a_source_that_stalls_or_trickles_is_left_in_time(
    autojump_clock: MockClock, swarm: Swarm, silence: Callable[[Content], Serve]
) -> None:
    await swarm.start_server()
    hostile = Hostile(swarm)
    done, node = await fetch_beside(swarm, hostile, silence(hostile.content))
    assert done.bytes_fetched == len(hostile.data)
    assert done.seconds < 2 * config.STALL_TIMEOUT_S + config.SOURCES_REFRESH_S
    assert node.closings == []  # it may be slow and honest: only this fetch turns away from it


@pytest.mark.parametrize("silence", SILENCES)
async def test_Q11_a_stalling_source_alone_is_no_source(
    autojump_clock: MockClock, swarm: Swarm, silence: Callable[[Content], Serve]
) -> None:
    await swarm.start_server()
    hostile = Hostile(swarm)
    async with hand_made(swarm.network, "10.0.2.1", silence(hostile.content)) as node:
        await hostile.register(node)
        fetching = await swarm.start_peer()
        with pytest.raises(NoSource, match="the source sent"), trio.fail_after(200):
            await fetching.node.fetch("a.bin", to=fetching.files_dir)


async def test_a_source_that_stalled_is_asked_again_for_want_of_others(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    asked = 0

    async def serve(stream: MessageStream, request: FileRequest) -> None:
        nonlocal asked
        asked += 1
        if asked <= config.REQUESTS_PER_SOURCE:
            await trio.sleep_forever()
        await hostile.content.serving()(stream, request)

    await swarm.start_server()
    hostile = Hostile(swarm)
    async with hand_made(swarm.network, "10.0.2.1", serve_metainfo_then(hostile.content, serve)) as node:
        await hostile.register(node)
        fetching = await swarm.start_peer()
        done = await fetching.node.fetch("a.bin", to=fetching.files_dir)
        assert done.target.read_bytes() == hostile.data
        assert {event.node_id for event in fetching.all(FetchSourceLost)} == {node.node_id}


# -- requests cut short, floods, and readers who do not read -----------------------------------------------


@pytest.mark.parametrize("where", ["before the response", "in the middle of a chunk"])
async def test_Q10_a_reset_ends_one_request_and_its_pieces_are_asked_for_again(
    autojump_clock: MockClock, swarm: Swarm, where: str
) -> None:
    resets_left = 3

    async def serve(stream: MessageStream, request: FileRequest) -> None:
        nonlocal resets_left
        if not resets_left:
            await hostile.content.serving()(stream, request)
            return
        resets_left -= 1
        if where == "in the middle of a chunk":
            await hostile.content.respond(stream, request)
            first, second, *_ = hostile.content.chunks(request)
            await stream.send(first[0], first[1] + first[2])
            await stream.send(second[0], second[1] + second[2][:100])
            await trio.sleep(1)
        stream.reset(CloseCode.CANCELLED)

    await swarm.start_server()
    hostile = Hostile(swarm)
    async with hand_made(swarm.network, "10.0.2.1", serve_metainfo_then(hostile.content, serve)) as node:
        await hostile.register(node)
        fetching = await swarm.start_peer()
        done = await fetching.node.fetch("a.bin", to=fetching.files_dir)
        assert done.target.read_bytes() == hostile.data
        assert done.bytes_fetched == len(hostile.data)
        assert resets_left == 0
        assert fetching.all(FetchSourceLost) == []
        assert node.closings == []


async def test_Q10_a_source_that_resets_for_ever_is_no_source(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async def serve(stream: MessageStream, request: FileRequest) -> None:
        stream.reset(CloseCode.CANCELLED)

    await swarm.start_server()
    hostile = Hostile(swarm)
    async with hand_made(swarm.network, "10.0.2.1", serve_metainfo_then(hostile.content, serve)) as node:
        await hostile.register(node)
        fetching = await swarm.start_peer()
        with pytest.raises(NoSource), trio.fail_after(100):
            await fetching.node.fetch("a.bin", to=fetching.files_dir)
        assert len(node.requests) < 3 * config.NO_SOURCE_TIMEOUT_S / config.RESET_RETRY_S


async def test_a_busy_source_is_asked_again_when_it_said(autojump_clock: MockClock, swarm: Swarm) -> None:
    asked_at: list[float] = []

    async def serve(stream: MessageStream, request: FileRequest) -> None:
        asked_at.append(trio.current_time())
        if len(asked_at) <= config.REQUESTS_PER_SOURCE:
            await stream.send(Error(ErrorCode.BUSY, "later", retryable=True, retry_after_s=7.0))
        else:
            await hostile.content.serving()(stream, request)

    await swarm.start_server()
    hostile = Hostile(swarm)
    async with hand_made(swarm.network, "10.0.2.1", serve_metainfo_then(hostile.content, serve)) as node:
        await hostile.register(node)
        fetching = await swarm.start_peer()
        done = await fetching.node.fetch("a.bin", to=fetching.files_dir)
        assert done.bytes_fetched == len(hostile.data)
        assert asked_at[-1] - asked_at[0] >= 7.0
        assert fetching.all(FetchSourceLost) == []


async def test_Q10_a_requester_that_stops_reading_ends_its_request_alone(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server()
    write_random(server.files_dir / "a.bin", MIB)
    content = Content.of(server.files_dir / "a.bin")
    await server.node.share(server.files_dir / "a.bin")
    async with hand_made(swarm.network, "10.0.2.1") as node:
        link = await node.dial((SERVER, PORT))
        everything = FileRequest(content.file_id, ((0, content.metainfo.piece_count),))
        for _ in range(5):
            stream = await link.request()
            await stream.send(everything)
            await stream.receive_as(FileResponse)
            await stream.receive_as(FileChunk)
            stream.reset(CloseCode.CANCELLED)
        await trio.sleep(1)
        assert isinstance(await ask(link, FileRequest(content.file_id, ((0, 1),))), FileResponse)
        assert server.node.statistics["links"] == 1
        assert server.node.statistics["requests_served"] == 1  # of the last one


async def test_Q13_a_requester_that_never_reads_loses_its_stream_and_costs_little(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server()
    size = 8 * MIB
    write_random(server.files_dir / "a.bin", size)
    shared = await server.node.share(server.files_dir / "a.bin")
    async with hand_made(swarm.network, "10.0.2.1") as node:
        link = await node.dial((SERVER, PORT))
        streams = []
        for _ in range(4):
            stream = await link.request()
            await stream.send(FileRequest(shared.file_id, ((0, shared.metainfo.piece_count),)))
            streams.append(stream)
        await trio.sleep(config.SEND_STALL_TIMEOUT_S - 1)
        taken = server.node.statistics["bytes_sent"]
        held = taken - config.CONNECTION_RECEIVE_WINDOW  # the rest is with the reader
        assert (
            0
            < held
            <= config.CONNECTION_SEND_BUFFER * config.SEND_BUFFER_GROWTH_MAX
            + len(streams) * config.CHUNK_SIZE
        )
        await trio.sleep(5)
        assert isinstance(await ask(link, FileList()), FileList)  # it may go on, with streams that it reads
        await trio.sleep(
            3 * config.SEND_STALL_TIMEOUT_S
        )  # one may get its first bytes when another has ended
        for stream in streams:
            with pytest.raises(StreamReset) as caught:
                await stream.receive()
            assert caught.value.code == CloseCode.TIMED_OUT


async def test_Q12_a_flood_of_streams_does_not_stop_another_peers_fetch(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server()
    data = write_random(server.files_dir / "a.bin", MIB)
    await server.node.share(server.files_dir / "a.bin")
    peer = await swarm.start_peer()
    swarm.network.set_profile(SERVER, "10.0.1.1", LinkProfile(rate_bytes_per_s=500_000))
    opened = 0

    async def flood(link: PeerLink) -> None:
        nonlocal opened
        with contextlib.suppress(ConnectionClosed):
            while True:
                stream = await link.request()
                await stream.send_bytes(b"\0")
                await trio.sleep(0.0005)
                stream.reset(CloseCode.CANCELLED)
                opened += 1

    async with hand_made(swarm.network, "10.0.2.1") as flooder, trio.open_nursery() as nursery:
        nursery.start_soon(flood, await flooder.dial((SERVER, PORT)))
        done = await peer.node.fetch("a.bin", to=peer.files_dir)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert done.target.read_bytes() == data
    assert done.seconds < 1.2 * MIB / 500_000 + 1
    assert opened < config.STREAM_RESETS_BURST + 10 * config.STREAM_RESETS_PER_S
    assert [event.name for event in server.all(PeerDisconnected)] == ["10.0.2.1"]


async def test_a_target_that_never_reads_holds_up_nobody_and_costs_little(
    autojump_clock: MockClock, swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One node asks a server to have another dial it, again and again; the other does not even read that."""
    monkeypatch.setattr(config, "STREAM_RECEIVE_WINDOW", 64 * KIB)  # so that little fills them
    monkeypatch.setattr(config, "SEND_BUFFER", 64 * KIB)
    server = await swarm.start_server()
    async with hand_made(swarm.network, "10.0.2.1") as asker, hand_made(swarm.network, "10.0.2.2") as deaf:
        await deaf.dial((SERVER, PORT))
        link = await asker.dial((SERVER, PORT))
        wish = frame(ConnectToMe(deaf.node_id))
        for _ in range(10):
            await link.control.send_bytes(1000 * wish)
        await trio.sleep(1)
        assert len(server.node._nursery.child_tasks) < 3_000
        stays = trio.current_time() + 2 * config.PRESENCE_LASTS_S
        await trio.sleep_until(stays)
        assert asker.node_id in {report.node_id for report in await server.node.list_peers()}
        assert isinstance(await ask(link, FileList()), FileList)


async def test_a_source_that_grants_no_stream_is_a_stall(autojump_clock: MockClock, swarm: Swarm) -> None:
    """All the streams that it allows are open already, and it finishes none."""
    await swarm.start_server()
    hostile = Hostile(swarm)
    async with hand_made(swarm.network, "10.0.2.1", serve_nothing) as node:
        await hostile.register(node)
        fetching = await swarm.start_peer()
        with trio.move_on_after(0.5):
            await fetching.node.fetch("a.bin", to=fetching.files_dir)
        [link] = [link for link in fetching.node._link_service.links if link.node_id == node.node_id]
        with trio.move_on_after(1.0):
            while True:
                await (await link.request()).send_bytes(b"\0")
        with pytest.raises(NoSource, match="allowed no request"), trio.fail_after(100):
            await fetching.node.fetch(hostile.content.metainfo, to=fetching.files_dir)


# -- what is said about files ------------------------------------------------------------------------------


async def test_pieces_that_a_torrent_does_not_have_are_nobodys_source(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A peer announces more pieces than there are: it is passed over, and the fetch is not disturbed."""
    await swarm.start_server()
    hostile = Hostile(swarm)
    async with hand_made(swarm.network, "10.0.2.1", hostile.content.serving()) as node:
        link = await node.dial((SERVER, PORT))
        offer = msgspec.structs.replace(
            hostile.content.offer(), have=((0, hostile.content.metainfo.piece_count + 1),)
        )
        [answer] = await announce(link, offer)
        assert answer.accepted  # a server does not know the torrent
        await hostile.start_honest()
        fetching = await swarm.start_peer()
        done = await fetching.node.fetch("a.bin", to=fetching.files_dir)
        assert node.node_id not in done.sources
        assert done.target.read_bytes() == hostile.data


async def test_one_id_with_two_sizes_is_listed_as_most_say(autojump_clock: MockClock, swarm: Swarm) -> None:
    server = await swarm.start_server()
    hostile = Hostile(swarm)
    honest = hostile.content.offer()
    async with hand_made(swarm.network, "10.0.2.1") as one, hand_made(swarm.network, "10.0.2.2") as other:
        await hostile.register(one)
        link = await other.dial((SERVER, PORT))
        [answer] = await announce(link, msgspec.structs.replace(honest, size=honest.size + 1))
        assert answer.accepted  # who says the truth is not known, so nobody is shut out
        assert [(item.size, item.sources) for item in await server.node.list_files()] == [(honest.size, 2)]


async def test_names_that_no_list_should_hold_are_not_accepted(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server()
    hostile = Hostile(swarm)
    async with hand_made(swarm.network, "10.0.2.1") as node:
        link = await node.dial((SERVER, PORT))
        bad = [msgspec.structs.replace(hostile.content.offer(), name=name) for name in ("", "a\0b")]
        assert [answer.accepted for answer in await announce(link, *bad)] == [False, False]
        assert await server.node.list_files() == []


async def test_a_peer_takes_no_announces(autojump_clock: MockClock, swarm: Swarm) -> None:
    await swarm.start_server()
    peer = await swarm.start_peer()
    async with hand_made(swarm.network, "10.0.2.1") as node:
        link = await node.dial(peer.node.listen_address)
        [answer] = await announce(link, Hostile(swarm).content.offer())
        assert not answer.accepted
        assert await ask(link, FileList()) == FileList()
