"""One TCP connection that speaks HTTP/1.1 or HTTP/2: hypercorn's protocols, driven by a loop of ours.

hypercorn's own trio worker serves such connections too, but it starts a task for each idle timer, sends the head
and the body of an answer apart, lets what one remote can cause end all connections, and hides what our own code
raises. So its protocols, which do no input or output, are given to this driver instead: one task reads, each
request is a task, and how long anything may take is one deadline that is moved (`_Phase`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from math import inf
from typing import Any, Final, cast

import h2.exceptions
import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from priority.priority import PriorityError

from p2pnode import config
from p2pnode.quic.datagrams import Address
from p2pnode.services.asgi import Application, Message, Scope, Send

__all__ = ["HttpConnection", "protocol_settings"]

_logger = logging.getLogger("p2pnode.http")

# What hypercorn and the parsers below it let out when a remote breaks the rules (of HTTP/2, mostly).
_ESCAPES: Final = (
    h11.RemoteProtocolError,
    h2.exceptions.H2Error,
    PriorityError,
    LookupError,
    ValueError,
)
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
_TOO_SLOW: Final = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class _Phase(Enum):
    """What a connection waits for.

    HEAD → ANSWERING → IDLE → HEAD; HTTP/2 has no HEAD, since other frames come at any time. From all of them →
    ENDING, which is left no more.
    """

    IDLE = auto()  # for a request
    HEAD = auto()  # for the rest of one
    ANSWERING = auto()  # for the client to take the next part of an answer
    ENDING = auto()


_PATIENCE_S: Final = {
    _Phase.IDLE: config.HTTP_KEEP_ALIVE_S,
    _Phase.HEAD: config.HTTP_HEAD_TIMEOUT_S,
    _Phase.ANSWERING: config.HTTP_STALL_TIMEOUT_S,
    _Phase.ENDING: -inf,
}


def protocol_settings() -> Config:
    """How hypercorn's protocols are set up; the same for all connections of a server. It logs nothing."""
    settings = Config()
    settings.accesslog = settings.errorlog = None
    settings.include_server_header = False
    settings.h11_max_incomplete_size = config.HTTP_HEAD_SIZE_MAX
    settings.h2_max_header_list_size = config.HTTP_HEAD_SIZE_MAX
    settings.h2_max_concurrent_streams = config.HTTP_STREAMS_MAX
    settings.keep_alive_max_requests = config.HTTP_REQUESTS_PER_CONNECTION_MAX
    return settings


class HttpConnection:
    """Serves one connection until either side ends it; `run` raises nothing that a remote caused."""

    def __init__(
        self,
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream],
        application: Application,
        settings: Config,
        *,
        remote: Address,
        local: Address,
    ) -> None:
        self._stream = stream
        self._application = application
        self._settings = settings
        self._remote = remote
        self._local = local
        self._protocol: ProtocolWrapper
        self._nursery: trio.Nursery
        self._scope = trio.CancelScope()
        self._phase = _Phase.HEAD  # whoever connects has something to ask
        self._write_lock = trio.Lock()
        self._unwritten = bytearray()
        self._is_corked = False  # what is written now waits for what comes next

    async def run(self) -> None:
        """Do the TLS handshake if there is one, then answer requests; the stream is closed in the end."""
        try:
            await self._serve(await self._handshake())
            await self._linger()
        except _GONE:
            _logger.debug("%s is gone", self._remote)
        finally:
            await trio.aclose_forcefully(self._stream)

    async def _handshake(self) -> str:
        """The language that was agreed on."""
        if isinstance(self._stream, trio.SocketStream):
            return "http/1.1"  # or a client that begins with HTTP/2 at once: the protocol sees that
        with trio.move_on_after(config.HTTP_HEAD_TIMEOUT_S) as patience:
            await self._stream.do_handshake()
        if patience.cancelled_caught:
            raise trio.BrokenResourceError("the TLS handshake took too long")
        return self._stream.selected_alpn_protocol() or "http/1.1"

    async def _serve(self, alpn: str) -> None:
        with self._scope:
            self._enter(_Phase.HEAD)
            async with trio.open_nursery() as self._nursery:
                self._protocol = ProtocolWrapper(
                    cast("Any", self._application),
                    self._settings,
                    WorkerContext(None),
                    cast("Any", self),  # all that it needs of a task group is below
                    ConnectionState({}),
                    not isinstance(self._stream, trio.SocketStream),
                    self._remote,
                    self._local,
                    self._take,
                    alpn,
                )
                await self._guarded(self._protocol.initiate)
                await self._read()

    async def _read(self) -> None:
        """Take in what comes. A client that says no more still gets the answer to what it asked, over HTTP/1.1."""
        try:
            while data := await self._stream.receive_some(config.HTTP_READ_SIZE):
                if self._phase is _Phase.IDLE and not self._is_http2:
                    self._enter(_Phase.HEAD)
                await self._guarded(self._protocol.handle, RawData(bytes(data)))
        except _GONE:
            self._end()
        if self._is_http2 or self._phase is not _Phase.ANSWERING:
            self._end()
        await self._guarded(self._protocol.handle, RawData(b""))

    @property
    def _is_http2(self) -> bool:
        return isinstance(self._protocol.protocol, H2Protocol)

    async def _linger(self) -> None:
        """Say what is left to say, and read on for a while: a reset would take the answer from who still sends."""
        with trio.move_on_after(config.HTTP_LINGER_S):
            if self._phase is _Phase.HEAD and not self._is_http2:
                self._unwritten += _TOO_SLOW
            await self._write()
            if not isinstance(self._stream, trio.SocketStream):
                await self._stream.aclose()
                return
            await self._stream.send_eof()
            while await self._stream.receive_some(config.HTTP_READ_SIZE):
                pass

    def _enter(self, phase: _Phase) -> None:
        if self._phase is not _Phase.ENDING:
            self._phase = phase
            self._scope.deadline = trio.current_time() + _PATIENCE_S[phase]

    def _end(self) -> None:
        self._enter(_Phase.ENDING)
        self._scope.cancel()

    async def _guarded(self, call: Callable[..., Awaitable[None]], *args: object) -> None:
        """Let the protocol work on what a remote sent: what is wrong with it ends this connection."""
        try:
            await call(*args)
        except _ESCAPES as error:
            _logger.debug("%s broke the rules: %r", self._remote, error)
            self._end()

    # -- what the protocol asks for ------------------------------------------------------------------------

    async def _take(self, event: Event) -> None:
        if isinstance(event, RawData):
            self._unwritten += event.data
            if self._unwritten and not self._is_corked:
                await self._write()
        elif isinstance(event, Updated):
            self._enter(_Phase.IDLE if event.idle else _Phase.ANSWERING)
        elif isinstance(event, Closed):
            self._end()

    async def _write(self) -> None:
        async with self._write_lock:
            data, self._unwritten = self._unwritten, bytearray()
            if data:
                try:
                    await self._stream.send_all(data)
                except _GONE:
                    self._end()

    def spawn(self, function: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run a part of the protocol."""
        self._nursery.start_soon(self._guarded, function, *args)

    async def spawn_app(
        self,
        application: Application,
        settings: Config,
        scope: Scope,
        send: Callable[[Message | None], Awaitable[None]],
    ) -> Send:
        """Run the application for one request; what is returned takes in what else comes of it."""
        request = _Request(self, send)
        self._nursery.start_soon(request.run, application, scope)
        return request.put

    async def answer(self, send: Send, message: Message) -> None:
        """Send a part of an answer, its head together with the first part of the body."""
        if self._phase is _Phase.ANSWERING:
            self._enter(_Phase.ANSWERING)  # the client took what was before
        self._is_corked = message["type"] == "http.response.start"
        await send(message)
        self._is_corked = False

    def cut_short(self) -> None:
        """An answer was begun and cannot be ended: only the end of the connection says so."""
        self._end()


class _Request:
    """One run of the application."""

    def __init__(self, connection: HttpConnection, send: Callable[[Message | None], Awaitable[None]]) -> None:
        self._connection = connection
        self._send = send
        self._to_application, self._from_client = trio.open_memory_channel[Message](
            config.HTTP_BODY_PARTS_QUEUED
        )
        self._is_cut_short = False

    async def run(self, application: Application, scope: Scope) -> None:
        with self._from_client:
            await application(scope, self._receive, self._answer)
        if self._is_cut_short:
            self._connection.cut_short()
        else:
            await self._send(None)

    async def put(self, message: Message) -> None:
        """A part of the request's body, or its end; the application may need none of it any more."""
        if message["type"] == "http.disconnect":
            self._to_application.close()
            return
        try:
            await self._to_application.send(message)
        except _GONE:
            return

    async def _receive(self) -> Message:
        try:
            return await self._from_client.receive()
        except trio.EndOfChannel:
            return {"type": "http.disconnect"}

    async def _answer(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_cut_short = True
        await self._connection.answer(self._send, message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._is_cut_short = False
