"""What a node answers, to whom, and what it makes of requests that are none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import ConnectionClosed, StreamReset
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.peer_link import CloseCode, PeerLink
from p2pnode.testing.nodes import PORT
from p2pnode.wire.communication import (
    Error,
    ErrorCode,
    FileAcknowledge,
    FileAnnounce,
    FileChunk,
    FileList,
    FileRequest,
    FileResponse,
    FileTransferComplete,
    FindSources,
    Message,
    NodeProof,
    PeerList,
    PushOrder,
    PushRequest,
    PushStatus,
    Sources,
)
from tests.node.conftest import SERVER, Swarm, Watched, write_random
from tests.node.hand_made import Content, HandMadeNode, announce, ask, hand_made

PING = bytes.fromhex("0000000e82a474797065a450696e67a16e01")  # a frame of a type that nobody knows
FILE = bytes(range(32))


@asynccontextmanager
async def linked(swarm: Swarm, **server_options: object) -> AsyncIterator[tuple[Watched, PeerLink]]:
    """A server, and the link to it of a peer made by hand."""
    server = await swarm.start_server(**server_options)
    async with hand_made(swarm.network, "10.0.2.1") as node:
        yield server, await node.dial((SERVER, PORT))


async def send_raw(link: PeerLink, data: bytes) -> MessageStream:
    stream = await link.request()
    await stream.send_bytes(data)
    return stream


async def test_an_unknown_request_is_answered_so(autojump_clock: MockClock, swarm: Swarm) -> None:
    async with linked(swarm) as (_, link):
        stream = await send_raw(link, PING)
        answer = await stream.receive()
        assert isinstance(answer, Error) and answer.code == ErrorCode.UNKNOWN_REQUEST
        assert await stream.receive() is None


@pytest.mark.parametrize(
    "message",
    [
        NodeProof(bytes(64), bytes(64)),
        FileChunk(0, 0, 5),
        PushStatus("complete"),
        Sources(),
        FileTransferComplete(5),
    ],
)
async def test_a_message_that_is_no_request_is_unknown_too(
    autojump_clock: MockClock, swarm: Swarm, message: Message
) -> None:
    async with linked(swarm) as (_, link):
        answer = await ask(link, message)
        assert isinstance(answer, Error) and answer.code == ErrorCode.UNKNOWN_REQUEST


async def test_an_error_is_never_answered(autojump_clock: MockClock, swarm: Swarm) -> None:
    async with linked(swarm) as (_, link):
        assert await ask(link, Error(ErrorCode.BUSY)) is None


async def test_a_stream_without_a_request_is_just_finished(autojump_clock: MockClock, swarm: Swarm) -> None:
    async with linked(swarm) as (_, link):
        stream = await link.request()
        await stream.send_eof()
        assert await stream.receive() is None


@pytest.mark.parametrize("data", [bytes(4), b"\xff\xff\xff\xff", b"\0\0\0\x01\x90", PING[:-1]])
async def test_a_malformed_request_is_refused_and_the_link_lives(
    autojump_clock: MockClock, swarm: Swarm, data: bytes
) -> None:
    async with linked(swarm) as (_, link):
        stream = await send_raw(link, data)
        await stream.send_eof()
        answer = await stream.receive()
        assert isinstance(answer, Error) and answer.code == ErrorCode.BAD_REQUEST
        assert isinstance(await ask(link, FileList()), FileList)


@pytest.mark.parametrize("begun", [b"", b"\0\0", PING[:-1]])
async def test_Q11_a_request_that_is_never_finished_loses_its_stream(
    autojump_clock: MockClock, swarm: Swarm, begun: bytes
) -> None:
    async with linked(swarm) as (_, link):
        stream = await send_raw(link, begun)
        if not begun:
            await stream.send_bytes(PING[:1])  # or nobody would hear of the stream
        began = trio.current_time()
        with pytest.raises(StreamReset) as caught:
            await stream.receive()
        assert caught.value.code == CloseCode.TIMED_OUT
        assert trio.current_time() - began <= config.REQUEST_HEADER_TIMEOUT_S + 0.5
        assert isinstance(await ask(link, FileList()), FileList)


async def test_Q11_announces_that_stop_coming_lose_their_stream(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with linked(swarm) as (_, link):
        stream = await link.request()
        await stream.send(FileAnnounce(FILE, "a.bin", 5, 16384, have=((0, 1),)))
        assert (await stream.receive_as(FileAcknowledge)).accepted
        with pytest.raises(StreamReset), trio.fail_after(config.REQUEST_HEADER_TIMEOUT_S + 1):
            await stream.receive()


async def test_a_stream_of_announces_carries_nothing_else(autojump_clock: MockClock, swarm: Swarm) -> None:
    async with linked(swarm) as (_, link):
        stream = await link.request()
        await stream.send(FileAnnounce(FILE, "a.bin", 5, 16384, have=((0, 1),)))
        await stream.send(FileList())
        assert (await stream.receive_as(FileAcknowledge)).accepted
        answer = await stream.receive()
        assert isinstance(answer, Error) and answer.code == ErrorCode.BAD_REQUEST


async def test_too_many_requests_at_once_are_busy_and_the_next_are_not(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with linked(swarm) as (_, link):
        silent = [await send_raw(link, PING[:1]) for _ in range(config.REQUESTS_PER_LINK_MAX)]
        await trio.sleep(0.1)
        answer = await ask(link, FileList())
        assert isinstance(answer, Error)
        assert (answer.code, answer.retryable) == (ErrorCode.BUSY, True)
        await silent[0].aclose()
        await trio.sleep(answer.retry_after_s)
        assert isinstance(await ask(link, FileList()), FileList)


async def test_only_an_operator_may_see_peers_or_push(autojump_clock: MockClock, swarm: Swarm) -> None:
    async with linked(swarm) as (_, link):
        for request in (PeerList(), PushOrder("a.bin", "all")):
            answer = await ask(link, request)
            assert isinstance(answer, Error) and answer.code == ErrorCode.NOT_ALLOWED
            assert "--admin" in answer.text


async def test_an_admin_may(autojump_clock: MockClock, swarm: Swarm) -> None:
    node = HandMadeNode(swarm.network, "10.0.2.1")
    await swarm.start_server(admins=frozenset({node.node_id}))
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        link = await node.dial((SERVER, PORT))
        answer = await ask(link, PeerList())
        assert isinstance(answer, PeerList)
        assert [peer.node_id for peer in answer.peers] == [node.node_id]
        nursery.cancel_scope.cancel()


async def test_a_push_from_anyone_but_the_own_server_is_refused(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    await swarm.start_server()
    peer = await swarm.start_peer()
    async with hand_made(swarm.network, "10.0.2.1") as stranger:
        link = await stranger.dial(peer.node.listen_address, role="server")
        answer = await ask(link, PushRequest(FILE, "a.bin", 5))
        assert isinstance(answer, Error) and answer.code == ErrorCode.NOT_ALLOWED


async def test_pieces_that_a_torrent_does_not_have_are_a_bad_request(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with linked(swarm) as (server, link):
        write_random(server.files_dir / "a.bin", 100_000)
        shared = await server.node.share(server.files_dir / "a.bin")
        last = shared.metainfo.piece_count - 1
        for request in (
            FileRequest(shared.file_id, ((0, 2**62),)),
            FileRequest(shared.file_id, ((last, 2),)),
            FileRequest(shared.file_id, ((0, 1),), first_block=1),
        ):
            answer = await ask(link, request)
            assert isinstance(answer, Error) and answer.code == ErrorCode.BAD_REQUEST
        assert isinstance(await ask(link, FileRequest(shared.file_id, ((last, 1),))), FileResponse)


async def test_what_is_not_shared_is_not_found(autojump_clock: MockClock, swarm: Swarm) -> None:
    async with linked(swarm) as (_, link):
        answer = await ask(link, FileRequest(FILE, ((0, 1),)))
        assert isinstance(answer, Error) and answer.code == ErrorCode.NOT_FOUND


async def test_sources_are_told_without_the_asker_and_with_the_answering_node(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with linked(swarm) as (server, link):
        write_random(server.files_dir / "a.bin", 100_000)
        shared = await server.node.share(server.files_dir / "a.bin")
        content = Content.of(server.files_dir / "a.bin")
        assert [answer.accepted for answer in await announce(link, content.offer())] == [True]
        for asked in (FindSources(shared.file_id), FindSources(pieces_root=content.offer().pieces_root)):
            answer = await ask(link, asked)
            assert isinstance(answer, Sources)
            assert [(item.node_id, item.addresses) for item in answer.sources] == [(server.node.node_id, ())]
        assert await ask(link, FindSources(FILE)) == Sources()


# -- the control stream ------------------------------------------------------------------------------------


async def test_an_unknown_control_message_is_ignored(autojump_clock: MockClock, swarm: Swarm) -> None:
    async with linked(swarm) as (_, link):
        await link.control.send_bytes(PING)
        assert isinstance(await ask(link, FileList()), FileList)


@pytest.mark.parametrize("wrong", [b"\xff\xff\xff\xff", b"\0\0\0\x01\x90"])
async def test_a_malformed_control_message_closes_the_link(
    autojump_clock: MockClock, swarm: Swarm, wrong: bytes
) -> None:
    async with linked(swarm) as (_, link):
        await link.control.send_bytes(wrong)
        assert (await link.connection.wait_closed()).code == CloseCode.PROTOCOL_ERROR


async def test_a_request_on_the_control_stream_closes_the_link(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with linked(swarm) as (_, link):
        await link.tell(FileList())
        assert (await link.connection.wait_closed()).code == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("end", ["finished", "reset"])
async def test_a_link_ends_with_its_control_stream(autojump_clock: MockClock, swarm: Swarm, end: str) -> None:
    async with linked(swarm) as (server, link):
        if end == "finished":
            await link.control.send_eof()
        else:
            link.control.reset(0)
        with trio.fail_after(5):
            closed = await link.connection.wait_closed()
        assert closed.by_remote
        assert server.node.statistics["links"] == 0
        with pytest.raises(ConnectionClosed):
            await ask(link, FileList())
