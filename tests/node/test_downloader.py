"""A download from several sources at once, in pieces of many blocks: who is asked what, and when it is over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import ConnectFailed, NoSource, StorageError
from p2pnode.node.bans import Bans
from p2pnode.node.blocking import RunBlocking
from p2pnode.node.downloader import Downloader, Surroundings
from p2pnode.node.events import FetchProgress, FetchSourceLost, NodeEvent
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.patience import Patience
from p2pnode.node.peer_link import PeerLink
from p2pnode.node.rate_limits import RateLimits, Throttles
from p2pnode.node.sources import Acquaintance
from p2pnode.node.swarm_news import SwarmNews
from p2pnode.storage import FileStore
from p2pnode.testing.network import LinkProfile, Network
from p2pnode.testing.nodes import inline_blocking
from p2pnode.torrent import FileHasher, HashedFile, Metainfo, TorrentVersion, create_metainfo
from p2pnode.wire.communication import Error, ErrorCode, FileRequest, NodeItem, PieceRanges
from tests.node.hand_made import Content, HandMadeNode, Request, Serve, hand_made

BLOCK = config.BLOCK_SIZE
PIECE = 8 * BLOCK


def content(piece_count: int, name: str = "a.bin") -> Content:
    data = Random(piece_count).randbytes(piece_count * PIECE - 1000)
    hasher = FileHasher(PIECE)
    hasher.update(data)
    metainfo: Metainfo = create_metainfo(
        name,
        [HashedFile((name,), hasher.finish())],
        is_directory=False,
        version=TorrentVersion.V2,
        piece_length=PIECE,
    )
    return Content(metainfo, data)


class Downloading:
    """A downloader over real links to hand-made sources."""

    def __init__(self, network: Network, us: HandMadeNode, content: Content, target: Path) -> None:
        self.content = content
        self.target = target
        self.us = us
        self.network = network
        self.sources: list[NodeItem] = []
        self.unreachable: set[bytes] = set()
        self.events: list[NodeEvent] = []
        self.links: dict[bytes, PeerLink] = {}
        self.bans = Bans()
        self.news = SwarmNews(us.nursery, lambda file_id: None)
        self.wasted = 0
        self.store = FileStore.download(content.metainfo, target)
        self.downloader = self.make()

    def make(self, *, wait: bool = False, run_blocking: RunBlocking | None = None) -> Downloader:
        acquaintance = Acquaintance(
            list, self.find_sources, self.link_to, self.best_link, self.bans.is_banned
        )
        surroundings = Surroundings(
            node_id=self.us.node_id,
            news=self.news,
            blame=self.blame,
            wasted=self.count_wasted,
            run_blocking=run_blocking or inline_blocking(),
            publish=self.events.append,
            rng=Random(1),
            throttles=Throttles(RateLimits()),
            busy_s=lambda: 0.0,
        )
        return Downloader(self.store, acquaintance, surroundings, Patience(wait))

    def best_link(self, node_id: bytes) -> PeerLink | None:
        link = self.links.get(node_id)
        return link if link is not None and link.connection.is_open else None

    def blame(self, node_id: bytes, reason: str) -> None:
        self.bans.blame(node_id)

    def count_wasted(self, size: int) -> None:
        self.wasted += size

    async def find_sources(self) -> list[NodeItem]:
        return self.sources

    async def link_to(self, source: NodeItem) -> PeerLink:
        if source.node_id in self.unreachable:
            raise ConnectFailed("nobody answers")
        link = self.links.get(source.node_id)
        if link is None or not link.connection.is_open:
            link = self.links[source.node_id] = await self.us.dial(source.addresses[0])
        return link

    @asynccontextmanager
    async def source(
        self, number: int, serve: Serve | None = None, have: PieceRanges | None = None
    ) -> AsyncIterator[HandMadeNode]:
        async with hand_made(self.network, f"10.0.3.{number}", serve or self.content.serving()) as node:
            everything = ((0, self.content.metainfo.piece_count),)
            self.sources.append(
                NodeItem(node.node_id, (node.address,), self.content.file_id, have=have or everything)
            )
            yield node

    def finished(self) -> bytes:
        assert self.downloader.bytes_done == len(self.content.data)
        return self.store.publish().read_bytes()


@pytest.fixture
async def downloading(tmp_path: Path) -> AsyncIterator[Downloading]:
    async with Network(seed=5) as network, hand_made(network, "10.0.0.1") as us:
        yield Downloading(network, us, content(12), tmp_path / "a.bin")


def asked(node: HandMadeNode) -> list[FileRequest]:
    return [request for request in node.requests if isinstance(request, FileRequest)]


async def test_a_source_is_asked_only_for_what_it_has(
    autojump_clock: MockClock, downloading: Downloading
) -> None:
    async with (
        downloading.source(1, have=((0, 5),)) as one,
        downloading.source(2, have=((5, 7),)) as other,
    ):
        await downloading.downloader.run()
    assert downloading.finished() == downloading.content.data
    for node, expected in ((one, range(5)), (other, range(5, 12))):
        pieces = [
            piece
            for request in asked(node)
            for first, count in request.ranges
            for piece in range(first, first + count)
        ]
        assert sorted(pieces) == list(expected)
    assert downloading.downloader.bytes_by_source[one.node_id] == 5 * PIECE


async def test_another_source_continues_in_the_middle_of_a_piece(
    autojump_clock: MockClock, downloading: Downloading
) -> None:
    async def half_a_piece(stream: MessageStream, request: Request) -> None:
        assert isinstance(request, FileRequest)
        await downloading.content.respond(stream, request)
        header, hashes, data = next(downloading.content.chunks(request))
        half = type(header)(header.piece, header.offset, 4 * BLOCK, header.hashes)
        await stream.send(half, hashes + data[: 4 * BLOCK])
        await trio.sleep(1)
        dying.links[0].connection.close()

    over = trio.Event()

    async def run() -> None:
        await downloading.downloader.run()
        over.set()

    async with downloading.source(1, half_a_piece) as dying, trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await dying.asked.wait()
        async with downloading.source(2) as other:
            downloading.sources.pop(0)  # nobody speaks of the first one any more
            await over.wait()
            begun = [request for request in asked(other) if request.first_block]
    assert downloading.finished() == downloading.content.data
    assert [request.first_block for request in begun] == [4] * len(begun) and begun
    assert sum(downloading.downloader.bytes_by_source.values()) == len(downloading.content.data)


async def test_what_an_earlier_download_stored_is_not_asked_for(
    autojump_clock: MockClock, downloading: Downloading
) -> None:
    async with downloading.source(1, have=((2, 3),)):
        with pytest.raises(NoSource):
            await downloading.downloader.run()
    downloading.sources.clear()
    downloading.downloader = downloading.make()
    async with downloading.source(2) as other:
        await downloading.downloader.run()
    assert downloading.finished() == downloading.content.data
    pieces = {
        piece
        for request in asked(other)
        for first, count in request.ranges
        for piece in range(first, first + count)
    }
    assert pieces == {0, 1, *range(5, 12)}


async def test_a_complete_store_asks_nobody(autojump_clock: MockClock, downloading: Downloading) -> None:
    async with downloading.source(1) as node:
        await downloading.downloader.run()
        before = len(asked(node))
        downloading.downloader = downloading.make()
        await downloading.downloader.run()
        assert len(asked(node)) == before


async def test_an_unreachable_source_is_dialed_again_and_named_at_the_end(
    autojump_clock: MockClock, downloading: Downloading
) -> None:
    async with downloading.source(1) as node:
        downloading.unreachable.add(node.node_id)
        with pytest.raises(NoSource, match="nobody answers"):
            await downloading.downloader.run()
        downloading.unreachable.clear()
        downloading.downloader = downloading.make()
        await downloading.downloader.run()
    assert downloading.finished() == downloading.content.data


async def test_with_patience_an_unreachable_source_is_waited_for(
    autojump_clock: MockClock, downloading: Downloading
) -> None:
    downloading.downloader = downloading.make(wait=True)
    async with downloading.source(1) as node, trio.open_nursery() as nursery:
        downloading.unreachable.add(node.node_id)
        nursery.start_soon(downloading.downloader.run)
        await trio.sleep(10 * config.NO_SOURCE_TIMEOUT_S)
        downloading.unreachable.clear()
    assert downloading.finished() == downloading.content.data


async def test_a_disk_that_fails_ends_the_download(
    autojump_clock: MockClock, downloading: Downloading
) -> None:
    async with downloading.source(1) as node:
        downloading.store.close()
        with pytest.raises(StorageError, match="cannot be written any more"):
            await downloading.downloader.run()
        assert node.closings == []  # not its fault


async def test_progress_is_published_while_bytes_arrive(
    autojump_clock: MockClock, downloading: Downloading
) -> None:
    downloading.network.set_profile("10.0.3.1", "10.0.0.1", LinkProfile(rate_bytes_per_s=500_000))
    async with downloading.source(1):
        await downloading.downloader.run()
    progress = [event for event in downloading.events if isinstance(event, FetchProgress)]
    done = [event.bytes_done for event in progress]
    assert done == sorted(done) and len(set(done)) >= 5
    rates = sorted(event.rate_bytes_per_s for event in progress)
    assert rates[len(rates) // 2] == pytest.approx(500_000, rel=0.2)
    assert {event.peers for event in progress} <= {0, 1}


async def test_more_sources_than_are_needed_are_not_all_dialed(
    autojump_clock: MockClock, downloading: Downloading
) -> None:
    async with downloading.source(1) as node:
        crowd = [
            NodeItem(bytes([number]) * 32, (("10.0.7.7", 1),), downloading.content.file_id, have=((0, 1),))
            for number in range(config.SOURCES_LINKED_MAX + 10)
        ]
        downloading.sources += crowd
        downloading.unreachable.update(item.node_id for item in crowd)
        await downloading.downloader.run()
        assert downloading.finished() == downloading.content.data
    lost = [event for event in downloading.events if isinstance(event, FetchSourceLost)]
    assert lost == []
    assert node.node_id in downloading.downloader.bytes_by_source


async def test_a_piece_that_was_stored_without_a_word_is_not_asked_for(
    autojump_clock: MockClock, downloading: Downloading
) -> None:
    """A request may be cancelled when its piece is written and the download has not heard of it yet."""
    for piece in (0, 7, 11):
        request = FileRequest(downloading.content.file_id, ((piece, 1),))
        [(_, hashes, data)] = downloading.content.chunks(request)
        downloading.store.begin_piece(piece, hashes)
        assert downloading.store.write_blocks(piece, 0, data)
    async with downloading.source(1) as node:
        with trio.fail_after(10):
            await downloading.downloader.run()
    pieces = [
        piece
        for request in asked(node)
        for first, count in request.ranges
        for piece in range(first, first + count)
    ]
    assert sorted(pieces) == [piece for piece in range(12) if piece not in (0, 7, 11)]
    assert downloading.store.publish().read_bytes() == downloading.content.data


async def test_what_a_thread_stored_counts_though_its_request_was_cancelled_meanwhile(
    autojump_clock: MockClock, downloading: Downloading
) -> None:
    """All of its hop, which holds several pieces."""
    began_several = trio.Event()
    stored_together: list[int] = []

    async def slow_disk(function: Callable[..., Any], *arguments: Any) -> Any:
        runs = arguments[1] if len(arguments) > 1 else ()  # a checkpoint has none
        if len(runs) > 1:
            began_several.set()
        with trio.CancelScope(shield=True):
            await trio.sleep(1 if len(runs) > 1 else 0.05)  # requests grow while the source is not slow
        before = len(downloading.store.have())
        result = function(*arguments)
        if len(runs) > 1:
            stored_together.append(len(downloading.store.have()) - before)
        return result

    async def dying_source(stream: MessageStream, request: Request) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(downloading.content.serving(), stream, request)
            await began_several.wait()
            await trio.sleep(0.5)  # in the middle of that hop
            nursery.cancel_scope.cancel()
        dying.links[0].connection.close()

    downloading.downloader = downloading.make(run_blocking=slow_disk)
    async with (
        downloading.source(1, dying_source) as dying,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(downloading.downloader.run)
        await began_several.wait()
        await trio.sleep(2)
        assert stored_together[0] > 1
        assert downloading.downloader.bytes_by_source[dying.node_id] == downloading.store.bytes_stored
        assert downloading.downloader.bytes_done == downloading.store.bytes_stored
        downloading.sources.clear()
        async with downloading.source(2):
            while nursery.child_tasks:  # noqa: ASYNC110 - there is nothing to wait for but its end
                await trio.sleep(0.1)
    assert downloading.finished() == downloading.content.data
    assert sum(downloading.downloader.bytes_by_source.values()) == len(downloading.content.data)


@pytest.mark.parametrize("answer", [ErrorCode.NOT_FOUND, ErrorCode.BUSY])
async def test_sources_that_give_nothing_do_not_keep_an_honest_one_out(
    autojump_clock: MockClock, downloading: Downloading, answer: str
) -> None:
    async def refuse(stream: MessageStream, request: Request) -> None:
        await stream.send(Error(answer, "no", retryable=answer == ErrorCode.BUSY, retry_after_s=600))

    async with AsyncExitStack() as stack:
        for number in range(config.SOURCES_LINKED_MAX):
            await stack.enter_async_context(downloading.source(number + 1, refuse))
        honest = await stack.enter_async_context(downloading.source(100))
        with trio.fail_after(config.NO_SOURCE_TIMEOUT_S):
            await downloading.downloader.run()
        assert len(downloading.links) == config.SOURCES_LINKED_MAX + 1
    assert downloading.downloader.bytes_by_source[honest.node_id] == len(downloading.content.data)


async def test_a_source_that_trickles_keeps_no_pieces_from_one_that_is_idle(
    autojump_clock: MockClock, downloading: Downloading
) -> None:
    async def trickle(stream: MessageStream, request: Request) -> None:
        assert isinstance(request, FileRequest)
        await downloading.content.respond(stream, request)
        header, hashes, data = next(downloading.content.chunks(request))
        await stream.send(header, hashes)
        for start in range(0, len(data), config.STALL_BYTES_MIN):
            await stream.send_bytes(data[start : start + config.STALL_BYTES_MIN])
            await trio.sleep(config.STALL_TIMEOUT_S / 2)

    async with downloading.source(1, trickle) as slow:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(downloading.downloader.run)
            await slow.asked.wait()
            async with downloading.source(2) as fast:
                with trio.fail_after(config.SOURCES_REFRESH_S + 2 * config.RELIEVE_AFTER_S):
                    while nursery.child_tasks:  # noqa: ASYNC110 - there is nothing to wait for but its end
                        await trio.sleep(0.1)
        assert downloading.finished() == downloading.content.data
        assert downloading.downloader.bytes_by_source[fast.node_id] == len(downloading.content.data)
