"""Nodes that lie, stall, trickle, flood and babble: each harms itself alone. docs/HOSTILE.md lists the rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import NoSource
from p2pnode.node.events import FetchCompleted, FetchSourceLost
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.peer_link import CloseCode
from p2pnode.testing.nodes import PORT
from p2pnode.wire.communication import FileChunk, FileRequest, FileResponse
from p2pnode.wire.framing import frame
from tests.node.conftest import SERVER, Swarm, write_random
from tests.node.hand_made import Chunk, Content, HandMadeNode, Lie, Request, Serve, announce, hand_made

KIB = 1024


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
        assert [closed.code for closed in liar.closings] == [CloseCode.PROTOCOL_ERROR]
        asked = [request for request in liar.requests if isinstance(request, FileRequest) and request.ranges]
        assert len(asked) <= config.REQUESTS_PER_SOURCE


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


SILENCES = [silent_at_once, silent_in_the_middle, one_byte_a_minute]


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
