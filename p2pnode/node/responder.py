"""Answers requests, whoever dialed: allowed? here? within limits? → store → bytes → end.

A request is a stream. What the remote does wrong ends the stream with an `Error` or a reset; a defect of ours is
not caught here and ends the program.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from p2pnode import config
from p2pnode.errors import (
    Busy,
    ConnectionClosed,
    NotFound,
    P2PNodeError,
    Refused,
    RemoteProtocolError,
    SourceChanged,
    StorageError,
    TimedOut,
)
from p2pnode.node.message_stream import MessageStream, text_of
from p2pnode.node.peer_exchange import PeerExchange
from p2pnode.node.peer_link import CloseCode, PeerLink
from p2pnode.node.presence import Presence
from p2pnode.node.pushing import Pusher, PushReceiver
from p2pnode.node.uploader import Uploader
from p2pnode.wire.codec import rows_that_fit
from p2pnode.wire.communication import (
    Error,
    ErrorCode,
    FileAcknowledge,
    FileAnnounce,
    FileList,
    FileRequest,
    FindSources,
    Message,
    PeerList,
    PushOrder,
    PushRequest,
    UnknownMessage,
)


@dataclass(frozen=True)
class Caller:
    """Who asks. `node_id` is proven; a local operator over the Unix socket has ours, and no link."""

    node_id: bytes
    name: str
    is_operator: bool
    is_our_server: bool
    address: tuple[str, int]
    link: PeerLink | None = None


def error_message(error: P2PNodeError) -> Error:
    """What the other side is told of an error of ours: never a path, never more than one line."""
    if isinstance(error, Busy):
        return Error(ErrorCode.BUSY, text_of(error), retryable=True, retry_after_s=error.retry_after_s)
    if isinstance(error, NotFound):
        return Error(ErrorCode.NOT_FOUND, text_of(error))
    if isinstance(error, Refused):
        return Error(ErrorCode.NOT_ALLOWED, text_of(error))
    if isinstance(error, SourceChanged):
        return Error(ErrorCode.SOURCE_CHANGED, "the file changed since it was announced")
    if isinstance(error, RemoteProtocolError):
        return Error(ErrorCode.BAD_REQUEST, text_of(error))
    return Error(ErrorCode.INTERNAL, "the file cannot be read here", retryable=True, retry_after_s=5.0)


class Responder:
    """Answers one stream after the other; shared by all links of a node.

    `exchange`, `push_receiver` and `pusher` are given once there are links, which need answers.
    """

    exchange: PeerExchange
    push_receiver: PushReceiver
    pusher: Pusher

    def __init__(self, presence: Presence, uploader: Uploader) -> None:
        self._presence = presence
        self._uploader = uploader

    async def answer(self, stream: MessageStream, caller: Caller) -> None:
        """Read the request, answer it, finish the stream. Returns when the stream is done with."""
        try:
            try:
                request = await self._receive_in_time(stream)
                await self._dispatch(stream, caller, request)
            except (Refused, NotFound, SourceChanged, StorageError, RemoteProtocolError) as error:
                await stream.send(error_message(error))
            await stream.send_eof()
        except TimedOut:
            stream.reset(CloseCode.TIMED_OUT)
        except ConnectionClosed:
            return
        finally:
            await stream.aclose()

    @staticmethod
    async def _receive_in_time(stream: MessageStream) -> Message | UnknownMessage | None:
        with trio.move_on_after(config.REQUEST_HEADER_TIMEOUT_S):
            return await stream.receive()
        raise TimedOut(f"no request within {config.REQUEST_HEADER_TIMEOUT_S:g} s")

    async def refuse_busy(self, stream: MessageStream) -> None:
        """Say that this link has too many requests under way."""
        busy = Error(ErrorCode.BUSY, "too many requests at once", retryable=True, retry_after_s=1.0)
        try:
            with trio.move_on_after(config.REQUEST_HEADER_TIMEOUT_S):
                await stream.send(busy)
                await stream.send_eof()
        except ConnectionClosed:
            return
        finally:
            await stream.aclose()

    async def _dispatch(
        self, stream: MessageStream, caller: Caller, request: Message | UnknownMessage | None
    ) -> None:
        match request:
            case None | Error():
                return
            case FileRequest():
                if caller.link is None:
                    raise Refused("files are given over links alone")
                await self._uploader.serve(stream, caller.link, request)
            case FileAnnounce():
                await self._take_announces(stream, caller, request)
            case FileList() if request.peer:
                self._demand_operator(caller)
                await stream.send(await self.pusher.list_peer(request))
            case FileList():
                await stream.send(self._presence.list_page(request))
            case FindSources():
                await stream.send(self.exchange.answer(caller.node_id, caller.address, request))
            case PushRequest():
                if not caller.is_our_server:
                    raise Refused("pushes are taken only from the server that this node chose")
                await self.push_receiver.accept(request, stream.send)
            case PeerList():
                self._demand_operator(caller)
                await self._send_peers(stream)
            case PushOrder():
                self._demand_operator(caller)
                await self.pusher.carry_out(request, stream.send)
            case _:
                await stream.send(Error(ErrorCode.UNKNOWN_REQUEST, "this node does not know that request"))

    @staticmethod
    def _demand_operator(caller: Caller) -> None:
        if not caller.is_operator:
            raise Refused(
                "only an operator may do that: use the server's machine and user, or start it with --admin "
                + caller.node_id.hex()
            )

    async def _send_peers(self, stream: MessageStream) -> None:
        peers = self._presence.peers()
        while peers:
            rows = rows_that_fit(peers, config.PEERS_PER_MESSAGE_MAX)
            await stream.send(PeerList(rows))
            peers = peers[len(rows) :]

    async def _take_announces(self, stream: MessageStream, caller: Caller, first: FileAnnounce) -> None:
        """Acknowledge each announce of the stream in order."""
        announce: Message | UnknownMessage | None = first
        while announce is not None:
            if not isinstance(announce, FileAnnounce):
                raise RemoteProtocolError("a stream of announces carries nothing else")
            await stream.send(self._accept_offer(caller, announce))
            announce = await self._receive_in_time(stream)

    def _accept_offer(self, caller: Caller, offer: FileAnnounce) -> FileAcknowledge:
        if caller.link is not None:
            self._presence.client_offers(caller.link.peer, caller.address, trio.current_time())
        return self._presence.accept_offer(caller.node_id, offer)
