"""A node made by hand: a real endpoint and real proofs, and whatever behaviour a test gives it.

It registers with a server as any peer does, and every stream that somebody opens to it goes to `serve`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from p2pnode import config
from p2pnode.errors import ConnectionClosed
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.peer_link import PeerLink, establish_accepted, establish_dialed
from p2pnode.quic import Address, Connection, Credentials, Endpoint, NodeKey, NoTrust
from p2pnode.storage import hash_path
from p2pnode.testing.network import Network
from p2pnode.testing.nodes import PORT
from p2pnode.torrent import Metainfo
from p2pnode.torrent.merkle import block_hashes
from p2pnode.wire.communication import (
    FileAcknowledge,
    FileAnnounce,
    FileChunk,
    FileRequest,
    FileResponse,
    FileTransferComplete,
    FindSources,
    Message,
    NodeItem,
    PresenceAnnounce,
    PresenceResponse,
    Sources,
    UnknownMessage,
)

Request = Message | UnknownMessage | None
Serve = Callable[[MessageStream, Request], Awaitable[None]]


async def serve_nothing(stream: MessageStream, request: Request) -> None:
    """Read the request and never say a word."""
    await trio.sleep_forever()


class HandMadeNode:
    """A node at `host`.

    `requests` are the first messages of all streams that were opened to it, and `asked` tells of the first;
    `closings` says how its links ended.
    """

    def __init__(self, network: Network, host: str, serve: Serve = serve_nothing) -> None:
        self.address: Address = (host, PORT)
        self.key = NodeKey.generate()
        self.requests: list[Request] = []
        self.asked = trio.Event()
        self.links: list[PeerLink] = []
        self.closings: list[ConnectionClosed] = []
        self._network = network
        self.serve = serve
        self._endpoint: Endpoint
        self.nursery: trio.Nursery

    @property
    def node_id(self) -> bytes:
        return self.key.node_id

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Live until cancelled."""
        socket = self._network.socket(self.address)
        async with (
            Endpoint(socket, Credentials.from_node_key(self.key)) as self._endpoint,
            trio.open_nursery() as self.nursery,
        ):
            task_status.started()
            while True:
                self.nursery.start_soon(self._accept, await self._endpoint.accept())

    async def dial(self, address: Address, *, role: str = "peer") -> PeerLink:
        """Dial somebody, prove who we are, serve the link, and stay registered."""
        connection = await self._endpoint.dial(address, server_name=None, trust=NoTrust())
        link = await establish_dialed(connection, self.key, self._presence(role), NoTrust())
        self._keep(link)
        self.nursery.start_soon(self._announce_presence, link, role)
        return link

    def _presence(self, role: str) -> PresenceAnnounce:
        return PresenceAnnounce(
            config.PROTOCOL_VERSION, name=self.address[0], role=role, listen_port=self.address[1]
        )

    async def _announce_presence(self, link: PeerLink, role: str) -> None:
        try:
            while True:
                await trio.sleep(config.PRESENCE_LASTS_S / 3)
                await link.tell(self._presence(role))
        except ConnectionClosed:
            return

    async def _accept(self, connection: Connection) -> None:
        def respond(node_id: bytes, announced: PresenceAnnounce) -> PresenceResponse:
            return PresenceResponse(config.PROTOCOL_VERSION, connection.remote_address, 30.0)

        try:
            self._keep(await establish_accepted(connection, self.key, respond))
        except ConnectionClosed:
            return

    def _keep(self, link: PeerLink) -> None:
        self.links.append(link)
        self.nursery.start_soon(self._serve_link, link)

    async def _serve_link(self, link: PeerLink) -> None:
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    nursery.start_soon(self._answer, MessageStream(await link.connection.accept_stream()))
        except* ConnectionClosed:
            self.closings.append(await link.connection.wait_closed())

    async def _answer(self, stream: MessageStream) -> None:
        try:
            request = await stream.receive()
            self.requests.append(request)
            self.asked.set()
            if isinstance(request, FindSources):
                await stream.send(Sources())  # as a server that knows nobody
            elif isinstance(request, FileAnnounce) and request.is_fetching:
                await stream.send(FileAcknowledge(request.file_id, True))
            else:
                await self.serve(stream, request)
            await stream.aclose()
        except ConnectionClosed:
            return


@asynccontextmanager
async def hand_made(network: Network, host: str, serve: Serve = serve_nothing) -> AsyncIterator[HandMadeNode]:
    """A hand-made node that ends with the body."""
    node = HandMadeNode(network, host, serve)
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        yield node
        nursery.cancel_scope.cancel()


async def announce(link: PeerLink, *offers: FileAnnounce) -> list[FileAcknowledge]:
    """Announce files on one stream, as any peer does."""
    stream = await link.request()
    try:
        for offer in offers:
            await stream.send(offer)
        await stream.send_eof()
        return [await stream.receive_as(FileAcknowledge) for _ in offers]
    finally:
        await stream.aclose()


async def ask(link: PeerLink, request: Message) -> Request:
    """Send one request, and give the first message of the answer; None is the end of the stream."""
    stream = await link.request()
    try:
        await stream.send(request)
        await stream.send_eof()
        return await stream.receive()
    finally:
        await stream.aclose()


# -- what an honest source sends, for others to spoil ------------------------------------------------------

Chunk = tuple[FileChunk, bytes, bytes]
"""The header, the raw block hashes and the raw data of one chunk."""

Lie = Callable[[list[Chunk]], list[Chunk]]


@dataclass(frozen=True)
class Content:
    """A single file, as sources know it."""

    metainfo: Metainfo
    data: bytes

    @classmethod
    def of(cls, path: Path) -> Content:
        return cls(hash_path(path), path.read_bytes())

    @property
    def file_id(self) -> bytes:
        return self.metainfo.file_id

    def offer(self) -> FileAnnounce:
        metainfo = self.metainfo
        return FileAnnounce(
            metainfo.file_id,
            metainfo.name,
            metainfo.size,
            metainfo.piece_length,
            have=((0, metainfo.piece_count),),
            pieces_root=metainfo.files[0].pieces_root,
        )

    def source(self, node: HandMadeNode) -> NodeItem:
        """Where a node that offers it can be dialed."""
        have = ((0, self.metainfo.piece_count),)
        return NodeItem(node.node_id, (node.address,), self.file_id, have=have)

    def chunks(self, request: FileRequest) -> Iterator[Chunk]:
        """One chunk for each piece; of the first one only what was asked for."""
        first_block = request.first_block
        for first, count in request.ranges:
            for index in range(first, first + count):
                piece = self.metainfo.piece(index)
                start = index * self.metainfo.piece_length
                data = self.data[start : start + piece.length]
                hashes = block_hashes(data)
                offset = first_block * config.BLOCK_SIZE
                rest = data[offset:]
                yield FileChunk(index, offset, len(rest), len(hashes) // 32), hashes, rest
                first_block = 0

    def serving(self, lie: Lie = list) -> Serve:
        """A `serve` that gives metainfo honestly, and chunks as `lie` makes them."""

        async def serve(stream: MessageStream, request: Request) -> None:
            assert isinstance(request, FileRequest)
            await self.respond(stream, request)
            if request.ranges:
                sent = await send_chunks(stream, lie(list(self.chunks(request))))
                await stream.send(FileTransferComplete(sent))
                await stream.send_eof()
                await trio.sleep_forever()  # whether they acknowledge or close is theirs to decide

        return serve

    async def respond(self, stream: MessageStream, request: FileRequest) -> None:
        """The response, with the metainfo if it was asked for."""
        raw = self.metainfo.encode() if request.metainfo else b""
        response = FileResponse(self.file_id, True, self.metainfo.size, len(raw))
        await stream.send(response, raw)


async def send_chunks(stream: MessageStream, chunks: Iterable[Chunk]) -> int:
    """Send chunks; gives the bytes of data in them."""
    sent = 0
    for header, hashes, data in chunks:
        await stream.send(header, hashes + data)
        sent += len(data)
    return sent
