"""A fetch lends what it has: pieces are given out while the rest is still to come, and after it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import NotFound, StorageError
from p2pnode.node.events import FileShared, FileUnshared
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.peer_link import PeerLink
from p2pnode.node.sharing import Shared, Shares
from p2pnode.storage import FileStore
from p2pnode.testing.nodes import PORT
from p2pnode.torrent.merkle import block_hashes
from p2pnode.wire.communication import Error, ErrorCode, FileChunk, FileList, FileRequest, FileResponse
from tests.node.conftest import SERVER, Swarm, Watched, write_random
from tests.node.hand_made import Content, Request, ask, hand_made

MIB = config.MIB
LARGE = 16 * MIB  # more than a requester that does not read can be sent


@dataclass
class Lending:
    """A node with a fetch under way, of a file that nobody else has, and the link of a requester."""

    server: Watched
    link: PeerLink
    content: Content
    store: FileStore
    lent: Shared

    @property
    def shares(self) -> Shares:
        return self.server.node._shares

    def store_pieces(self, pieces: Iterable[int]) -> None:
        """As a fetch does."""
        length = self.content.metainfo.piece_length
        for piece in pieces:
            data = self.content.data[piece * length :][:length]
            assert self.store.begin_piece(piece, block_hashes(data))
            assert self.store.write_blocks(piece, 0, data)

    def store_all(self) -> None:
        self.store_pieces(range(self.content.metainfo.piece_count))

    async def ask(self, *pieces: tuple[int, int], metainfo: bool = False) -> Request:
        """Request pieces; the first message of the answer."""
        return await ask(self.link, FileRequest(self.content.file_id, pieces, metainfo=metainfo))

    async def begin(self) -> MessageStream:
        """Request everything, and read nothing of it yet but the response."""
        stream = await self.link.request()
        await stream.send(FileRequest(self.content.file_id, ((0, self.content.metainfo.piece_count),)))
        await stream.receive_as(FileResponse)
        await trio.sleep(1)
        return stream


@asynccontextmanager
async def lending(
    swarm: Swarm, size: int = LARGE, *, directory: Path | None = None
) -> AsyncIterator[Lending]:
    server = await swarm.start_server()
    write_random(swarm.root / "source" / "a.bin", size)
    content = Content.of(swarm.root / "source" / "a.bin")
    target = (directory or server.files_dir) / "a.bin"
    store = FileStore.download(content.metainfo, target)
    lent = server.node._shares.lend(content.metainfo, store, target)
    async with hand_made(swarm.network, "10.0.2.1") as node:
        yield Lending(server, await node.dial((SERVER, PORT)), content, store, lent)


async def rest_of(stream: MessageStream) -> tuple[bytes, Request]:
    """The data of the chunks that come, and what comes after them."""
    data = b""
    while isinstance(message := await stream.receive(), FileChunk):
        await stream.receive_raw(32 * message.hashes)
        data += await stream.receive_raw(message.length)
    return data, message


async def test_pieces_that_are_here_are_given_and_others_are_not_found_before_any_byte(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with lending(swarm) as fetch:
        fetch.store_pieces([1, 2, 4])
        assert isinstance(await fetch.ask((1, 2), (4, 1)), FileResponse)
        for absent in [((0, 1),), ((1, 3),), ((1, 2), (5, 1))]:
            answer = await fetch.ask(*absent)
            assert isinstance(answer, Error) and answer.code == ErrorCode.NOT_FOUND
        fetch.store_pieces([3])
        assert isinstance(await fetch.ask((1, 4)), FileResponse)


async def test_metainfo_is_given_before_the_first_piece_is_here(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with lending(swarm) as fetch:
        stream = await fetch.link.request()
        await stream.send(FileRequest(fetch.content.file_id, metainfo=True))
        response = await stream.receive_as(FileResponse)
        assert await stream.receive_raw(response.metainfo_length) == fetch.content.metainfo.encode()


async def test_what_is_lent_is_on_no_list(autojump_clock: MockClock, swarm: Swarm) -> None:
    async with lending(swarm) as fetch:
        fetch.store_all()
        await trio.sleep(2 * config.RESCAN_INTERVAL_S)
        answer = await ask(fetch.link, FileList())
        assert isinstance(answer, FileList) and answer.files == ()
        assert not fetch.server.node.offers(fetch.content.file_id)
        assert list(fetch.shares) == [] and fetch.server.all(FileShared) == []
        fetch.shares.take_back(fetch.lent)
        assert fetch.shares.readable(fetch.content.file_id) is None
        assert fetch.server.all(FileUnshared) == []


async def test_a_request_goes_on_when_the_fetch_is_complete_and_adopted(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with lending(swarm) as fetch:
        fetch.store_all()
        stream = await fetch.begin()
        target = fetch.store.publish()
        await fetch.shares.adopt(fetch.content.metainfo, target)
        fetch.shares.take_back(fetch.lent)
        assert (await rest_of(stream))[0] == fetch.content.data
        assert list(fetch.shares) == [fetch.lent]  # the same store, not a second one
        assert len(fetch.server.all(FileShared)) == 1
        assert isinstance(await fetch.ask((0, 1024)), FileResponse)


async def test_a_request_ends_with_not_found_when_the_fetch_ends_early(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with lending(swarm) as fetch:
        fetch.store_all()
        stream = await fetch.begin()
        fetch.shares.take_back(fetch.lent)
        FileStore.download(fetch.content.metainfo, fetch.lent.path).close()  # a reader locks nobody out
        data, end = await rest_of(stream)
        assert isinstance(end, Error) and end.code == ErrorCode.NOT_FOUND
        assert len(data) < LARGE and fetch.content.data.startswith(data)
        fetch.shares.take_back(fetch.lent)
        answer = await fetch.ask((0, 1))
        assert isinstance(answer, Error) and answer.code == ErrorCode.NOT_FOUND


async def test_what_lands_elsewhere_is_given_no_more(autojump_clock: MockClock, swarm: Swarm) -> None:
    (swarm.root / "elsewhere").mkdir()
    async with lending(swarm, directory=swarm.root / "elsewhere") as fetch:
        fetch.store_all()
        stream = await fetch.begin()
        target = fetch.store.publish()
        await fetch.shares.adopt(fetch.content.metainfo, target)
        fetch.shares.take_back(fetch.lent)
        data, end = await rest_of(stream)
        assert isinstance(end, Error) and end.code == ErrorCode.NOT_FOUND
        assert fetch.content.data.startswith(data)
        assert list(fetch.shares) == [] and fetch.server.all(FileShared) == []


async def test_S8_what_was_changed_is_not_given_and_its_fetch_ends(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with lending(swarm) as fetch:
        fetch.store_pieces([0, 1])
        [part] = fetch.server.files_dir.glob(f".a.bin*{config.PARTIAL_SUFFIX}")
        with part.open("r+b") as file:
            file.write(b"?")
        stream = await fetch.link.request()
        await stream.send(FileRequest(fetch.content.file_id, ((0, 1),)))
        await stream.receive_as(FileResponse)
        data, end = await rest_of(stream)
        assert data == b"" and isinstance(end, Error) and end.code == ErrorCode.SOURCE_CHANGED
        assert fetch.shares.readable(fetch.content.file_id) is None
        with pytest.raises(StorageError, match="changed by somebody else"):
            fetch.store_pieces([2])
        fetch.shares.take_back(fetch.lent)
        with pytest.raises(NotFound):
            fetch.store.read_piece(1)


async def test_S8_what_was_changed_as_it_was_published_is_hashed_before_it_is_offered(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with lending(swarm) as fetch:
        fetch.store_all()
        target = fetch.store.publish()
        with target.open("r+b") as file:
            file.write(b"?")
        stream = await fetch.link.request()
        await stream.send(FileRequest(fetch.content.file_id, ((0, 1),)))
        await stream.receive_as(FileResponse)
        _, end = await rest_of(stream)
        assert isinstance(end, Error) and end.code == ErrorCode.SOURCE_CHANGED
        await fetch.shares.adopt(fetch.content.metainfo, target)
        fetch.shares.take_back(fetch.lent)
        assert list(fetch.shares) == []
        await trio.sleep(2 * config.RESCAN_INTERVAL_S + config.SETTLE_S)
        [found] = fetch.shares
        assert found.file_id != fetch.content.file_id


async def test_what_is_published_and_not_yet_adopted_is_not_hashed(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with lending(swarm) as fetch:
        fetch.store_all()
        target = fetch.store.publish()
        await trio.sleep(2 * config.RESCAN_INTERVAL_S)
        assert list(fetch.shares) == []
        await fetch.shares.adopt(fetch.content.metainfo, target)
        assert list(fetch.shares) == [fetch.lent]


async def test_of_two_fetches_of_one_torrent_the_one_that_has_more_gives(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    (swarm.root / "elsewhere").mkdir()
    async with lending(swarm) as fetch:
        other_path = swarm.root / "elsewhere" / "a.bin"
        other_store = FileStore.download(fetch.content.metainfo, other_path)
        other = fetch.shares.lend(fetch.content.metainfo, other_store, other_path)
        fetch.store_pieces([0])
        assert fetch.shares.readable(fetch.content.file_id) is fetch.lent
        fetch.shares.take_back(fetch.lent)
        assert fetch.shares.readable(fetch.content.file_id) is other
        fetch.shares.take_back(other)
