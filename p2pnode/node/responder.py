"""Answers requests, whoever dialed: allowed? here? within limits? → store → bytes → end.

A request is a stream. What the remote does wrong ends the stream with an `Error` or a reset; a defect of ours is
not caught here and ends the program.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

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
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.uploader import Uploader
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
    PushReport,
    PushRequest,
    PushStatus,
    Sources,
    UnknownMessage,
)

Told = TypeVar("Told")
Tell = Callable[[Told], Awaitable[None]]


@dataclass(frozen=True)
class Caller:
    """Who asks. `node_id` is proven; a local operator over the Unix socket has ours."""

    node_id: bytes
    name: str
    is_operator: bool
    is_our_server: bool
    on_loopback: bool


class Services(Protocol):
    """What the responder needs of its node."""

    uploader: Uploader

    def accept_announce(self, caller: Caller, announce: FileAnnounce) -> FileAcknowledge:
        """Register what a node has."""

    def list_page(self, asked: FileList) -> FileList:
        """A page of what is known here."""

    def known_sources(self, caller: Caller, asked: FindSources) -> Sources:
        """Who has it, as far as is known here."""

    def peer_list(self) -> list[PeerList]:
        """Whom we know, in messages that fit a frame."""

    async def accept_push(self, request: PushRequest, tell: Tell[PushStatus]) -> None:
        """Fetch what our server asks us to, telling how far it is."""

    async def carry_out_push(self, order: PushOrder, tell: Tell[PushReport]) -> None:
        """Push something to peers, telling what each of them did."""


def error_message(error: P2PNodeError) -> Error:
    """What the other side is told of an error of ours: never a path, never more than one line."""
    if isinstance(error, Busy):
        return Error(ErrorCode.BUSY, str(error), retryable=True, retry_after_s=error.retry_after_s)
    if isinstance(error, NotFound):
        return Error(ErrorCode.NOT_FOUND, str(error))
    if isinstance(error, Refused):
        return Error(ErrorCode.NOT_ALLOWED, str(error))
    if isinstance(error, SourceChanged):
        return Error(ErrorCode.SOURCE_CHANGED, "the file changed since it was announced")
    if isinstance(error, RemoteProtocolError):
        return Error(ErrorCode.BAD_REQUEST, str(error)[: config.ERROR_TEXT_LENGTH_MAX])
    return Error(ErrorCode.INTERNAL, "the file cannot be read here", retryable=True, retry_after_s=5.0)


class Responder:
    """Answers one stream after the other; shared by all links of a node."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def answer(self, stream: MessageStream, caller: Caller) -> None:
        """Read the request, answer it, finish the stream. Returns when the stream is done with."""
        try:
            try:
                with trio.fail_after(config.REQUEST_HEADER_TIMEOUT_S):
                    request = await stream.receive()
                await self._dispatch(stream, caller, request)
            except trio.TooSlowError:
                return
            except (Refused, NotFound, SourceChanged, StorageError, RemoteProtocolError) as error:
                await stream.send(error_message(error))
            await stream.send_eof()
        except (ConnectionClosed, TimedOut, trio.BrokenResourceError):
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
                await self._services.uploader.serve(stream, caller.node_id, request)
            case FileAnnounce():
                await self._take_announces(stream, caller, request)
            case FileList():
                await stream.send(self._services.list_page(request))
            case FindSources():
                await stream.send(self._services.known_sources(caller, request))
            case PushRequest():
                if not caller.is_our_server:
                    raise Refused("pushes are taken only from the server that this node chose")
                await self._services.accept_push(request, stream.send)
            case PeerList():
                self._demand_operator(caller)
                for page in self._services.peer_list():
                    await stream.send(page)
            case PushOrder():
                self._demand_operator(caller)
                await self._services.carry_out_push(request, stream.send)
            case _:
                await stream.send(Error(ErrorCode.UNKNOWN_REQUEST, "this node does not know that request"))

    @staticmethod
    def _demand_operator(caller: Caller) -> None:
        if not caller.is_operator:
            raise Refused(
                "only an operator may do that: use the server's machine and user, or start it with --admin "
                + caller.node_id.hex()
            )

    async def _take_announces(self, stream: MessageStream, caller: Caller, first: FileAnnounce) -> None:
        """Acknowledge each announce of the stream in order."""
        announce: Message | UnknownMessage | None = first
        while announce is not None:
            if not isinstance(announce, FileAnnounce):
                raise RemoteProtocolError("a stream of announces carries nothing else")
            await stream.send(self._services.accept_announce(caller, announce))
            announce = await stream.receive()
