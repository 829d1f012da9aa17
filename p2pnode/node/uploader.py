"""Answers requests for pieces: what is here, in turns, within limits of memory, with a word for each that is over.

Never bytes that fail their hash. Whose pieces go out when is up to `upload_turns`; a request that waits holds
nothing. What all requests together may hold in memory is bounded, and what those of one node or network may; a
request beyond that is answered BUSY.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

from p2pnode import config
from p2pnode.errors import NotFound, RemoteProtocolError, SourceChanged, StreamReset
from p2pnode.node.blocking import RunBlocking
from p2pnode.node.events import NodeEvent, UploadFinished
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.node.peer_link import CloseCode, PeerLink
from p2pnode.node.rate_limits import Throttles
from p2pnode.node.sharing import Shared, Shares
from p2pnode.node.upload_memory import UploadMemory
from p2pnode.node.upload_parts import memory_of
from p2pnode.node.upload_request import UploadRequest
from p2pnode.node.upload_slots import UploadSlots
from p2pnode.node.upload_turns import UploadTurns
from p2pnode.node.uploads import Uploads
from p2pnode.quic import network_of
from p2pnode.torrent import Metainfo
from p2pnode.wire.communication import FileRequest


def check_request(request: FileRequest, metainfo: Metainfo) -> None:
    """Raise `RemoteProtocolError` for pieces or blocks that the torrent does not have."""
    if not request.ranges:
        return
    end = request.ranges[-1][0] + request.ranges[-1][1]
    if end > metainfo.piece_count:
        raise RemoteProtocolError(f"the torrent has {metainfo.piece_count} pieces, asked for {end}")
    if request.first_block and request.first_block >= metainfo.piece(request.ranges[0][0]).block_count:
        raise RemoteProtocolError("the first piece has no such block")


class Uploader:
    """Serves `FileRequest`s out of what is shared here, and of what is fetched; `run` keeps the time of turns."""

    def __init__(
        self,
        shares: Shares,
        run_blocking: RunBlocking,
        publish: Callable[[NodeEvent], None],
        throttles: Throttles,
        uploads: Uploads,
        slots: UploadSlots,
    ) -> None:
        self._shares = shares
        self._run_blocking = run_blocking
        self._publish = publish
        self._throttles = throttles
        self._uploads = uploads
        self._slots = slots
        self._memory = UploadMemory()
        self._turns = UploadTurns()
        self.bytes_sent = 0
        self.requests_served = 0

    async def run(self) -> None:
        """See to it that no turn lasts too long, and nobody has a slot for too long, for ever."""
        async with open_flat_nursery() as nursery:
            nursery.start_soon(self._turns.run)
            nursery.start_soon(self._slots.run)

    async def serve(self, stream: MessageStream, link: PeerLink, request: FileRequest) -> None:
        """Answer one request: the response, the metainfo if asked for, the chunks, the end."""
        shared = self._shares.readable(request.file_id)
        if shared is None:
            raise NotFound("not shared here")
        check_request(request, shared.metainfo)
        if not shared.has(request.ranges):
            raise NotFound("not all of these pieces are here")
        throttle = self._throttles.upload(link.node_id)
        count = partial(self._count, link.node_id)
        upload = UploadRequest(request, shared, stream, throttle, self._run_blocking, count)
        if not request.ranges:
            await upload.respond()
            return
        started = trio.current_time()
        try:
            with self._slots.serving(link.node_id):
                sent = await self._send(upload, link, request, shared)
        except RemoteProtocolError as error:  # no room for an `Error` between chunks, or after the end
            stream.reset(CloseCode.PROTOCOL_ERROR)
            raise StreamReset(f"reset here: {error}", code=CloseCode.PROTOCOL_ERROR) from None
        except SourceChanged:
            self._shares.withdraw(shared, "it changed")
            raise
        self.requests_served += 1
        self._publish(
            UploadFinished(
                file_id=shared.file_id,
                name=shared.name,
                node_id=link.node_id,
                bytes_sent=sent,
                seconds=trio.current_time() - started,
                limit_waited_s=throttle.waited_s,
            )
        )

    async def _send(self, upload: UploadRequest, link: PeerLink, request: FileRequest, shared: Shared) -> int:
        """Wait for a turn, holding nothing, and send what was asked for; return the file bytes."""
        network = network_of(link.connection.remote_address[0])
        size = memory_of(request.ranges, shared.metainfo)
        async with open_flat_nursery() as nursery:
            nursery.start_soon(upload.watch)
            with self._turns.place(link.connection, request.priority) as place:
                await place.begin_turn(min(size, config.UPLOAD_READ_AHEAD))
                with (
                    self._memory.reserved(link.node_id, network, size) as reservation,
                    self._uploads.request(link, shared) as task,
                ):
                    await upload.respond()
                    sent = await upload.send(place, task, reservation)
            nursery.cancel_scope.cancel()
        return sent

    def _count(self, node_id: bytes, size: int) -> None:
        self.bytes_sent += size
        self._slots.count(node_id, size)
