"""One TCP connection that speaks HTTP/1.1 or HTTP/2: hypercorn's protocols, driven by a loop of ours.

hypercorn's own trio worker serves such connections too, but it starts a task for each idle timer, sends the head
and the body of an answer apart, lets what one remote can cause end all connections, and hides what our own code
raises. So its protocols, which do no input or output, are given to this driver instead: one task reads, each
request is a task, and how long anything may take is one deadline that is moved (`_Phase`).
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from math import inf
from typing import Any, Final
from urllib.parse import unquote

import h2.exceptions
import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H2ProtocolAssumedError, H11Protocol
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hyperframe.exceptions import HyperframeError
from priority.priority import PriorityError

from p2pnode import config
from p2pnode.quic.datagrams import Address
from p2pnode.services.asgi import Application, Message, Receive, Scope, Send

__all__ = ["HttpConnection", "protocol_settings"]

_logger = logging.getLogger("p2pnode.http")

# What hypercorn and the parsers below it let out when a remote breaks the rules (of HTTP/2, mostly).
_ESCAPES: Final = (
    h11.RemoteProtocolError,
    h2.exceptions.H2Error,
    HyperframeError,
    PriorityError,
    LookupError,  # of a stream that they forgot
    NameError,  # of a field that is missing
    ValueError,  # bytes that are no ASCII, or no Base64
)
_ABSOLUTE: Final = re.compile(rb"https?://(?P<host>[^/]+)(?P<path>/.*)?", re.IGNORECASE)
_LENGTHS: Final = frozenset((b"content-length", b"transfer-encoding"))
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
_TOO_SLOW: Final = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class _Phase(Enum):
    """What a connection waits for.

    IDLE → HEAD → ANSWERING → IDLE; HTTP/2 has no HEAD, since other frames come at any time. From all of them →
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


class _Http11Protocol(H11Protocol):
    """hypercorn's, but `Upgrade: h2c` is left unheard: RFC 9113 §3.1 dropped it, and its settings are a risk."""

    async def _check_protocol(self, event: h11.Request) -> None:
        if (event.method, event.target, event.http_version) == (b"PRI", b"*", b"2.0"):
            raise H2ProtocolAssumedError(b"PRI * HTTP/2.0\r\n\r\n" + self.connection.trailing_data[0])


class _Http2Protocol(H2Protocol):
    """hypercorn's, but a body waits for the client: its own mark lets everything in once the client takes nothing."""

    async def stream_send(self, event: StreamEvent) -> None:
        await super().stream_send(event)
        if isinstance(event, Body) and event.stream_id in self.stream_buffers:
            await self.stream_buffers[event.stream_id].drain()


class HttpConnection:
    """Serves one connection until either side ends it; `run` raises nothing that a remote caused."""

    def __init__(
        self,
        tcp: trio.SocketStream,
        tls: ssl.SSLContext | None,
        application: Application,
        settings: Config,
        *,
        remote: Address,
        local: Address,
    ) -> None:
        self._tcp = tcp
        self._tls = None if tls is None else trio.SSLStream(tcp, tls, server_side=True, https_compatible=True)
        self._stream = self._tls or self._tcp
        self._application = application
        self._settings = settings
        self._remote = remote
        self._local = local
        self._protocol: H11Protocol | H2Protocol
        self._nursery: trio.Nursery
        self._scope = trio.CancelScope()
        self._phase = _Phase.IDLE
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
            self._tcp.socket.close()  # without a checkpoint, where cancellation would hide a defect on its way out

    async def _handshake(self) -> str:
        """The language that was agreed on."""
        if self._tls is None:
            return "http/1.1"  # or a client that begins with HTTP/2 at once: the protocol sees that
        with trio.move_on_after(config.HTTP_HEAD_TIMEOUT_S) as patience:
            await self._tls.do_handshake()
        if patience.cancelled_caught:
            raise trio.BrokenResourceError("the TLS handshake took too long")
        return self._tls.selected_alpn_protocol() or "http/1.1"

    async def _serve(self, alpn: str) -> None:
        with self._scope:
            self._enter(_Phase.IDLE)
            async with trio.open_nursery() as self._nursery:
                self._protocol = (_Http2Protocol if alpn == "h2" else _Http11Protocol)(*self._arguments())
                await self._guarded(self._protocol.initiate)
                await self._read()

    def _arguments(self) -> tuple[Any, ...]:
        """What either protocol is made with."""
        return (
            self._application,
            self._settings,
            WorkerContext(None),
            self,  # all that it needs of a task group is below
            ConnectionState({}),
            self._tls is not None,
            self._remote,
            self._local,
            self._take,
        )

    async def _read(self) -> None:
        """Take in what comes. A client that says no more still gets the answer to what it asked, over HTTP/1.1."""
        try:
            while data := await self._stream.receive_some(config.HTTP_READ_SIZE):
                if self._phase is _Phase.IDLE and not self._is_http2:
                    self._enter(_Phase.HEAD)
                await self._guarded(self._receive, bytes(data))
        except _GONE:
            self._end()
        if self._is_http2 or self._phase is not _Phase.ANSWERING:
            self._end()
        await self._guarded(self._receive, b"")

    async def _receive(self, data: bytes) -> None:
        """Give the protocol what came; over HTTP/1.1 that may be the wish to speak HTTP/2."""
        try:
            await self._protocol.handle(RawData(data))
        except H2ProtocolAssumedError as wish:
            self._protocol = protocol = _Http2Protocol(*self._arguments())
            await protocol.initiate()
            await protocol.handle(RawData(wish.data))

    @property
    def _is_http2(self) -> bool:
        return isinstance(self._protocol, H2Protocol)

    async def _linger(self) -> None:
        """Say what is left to say, and read on for a while: a reset would take the answer from who still sends."""
        with trio.move_on_after(config.HTTP_LINGER_S):
            if self._phase is _Phase.HEAD and not self._is_http2:
                self._unwritten += _TOO_SLOW
            await self._write()
            await self._tcp.send_eof()
            while await self._tcp.receive_some(config.HTTP_READ_SIZE):
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
            await self._take(Closed())

    # -- what the protocol asks for ------------------------------------------------------------------------

    async def _take(self, event: Event) -> None:
        if isinstance(event, RawData):
            self._unwritten += event.data
            if self._unwritten and not self._is_corked:
                await self._write()
        elif isinstance(event, Updated):
            self._enter(_Phase.IDLE if event.idle else _Phase.ANSWERING)
        elif isinstance(event, Closed):
            await self._write()  # what another task writes just now shall arrive
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
        scope = _in_origin_form(scope)
        lengths = _LENGTHS & {name for name, _ in scope["headers"]}
        if lengths == _LENGTHS:
            application = _refuse_two_lengths
        request = _Request(self, scope, send, may_have_body=bool(lengths) or self._is_http2)
        self._nursery.start_soon(request.run, application)
        return request.put

    async def answer(self, send: Send, message: Message) -> None:
        """Send a part of an answer, its head together with the first part of the body."""
        self._is_corked = message["type"] == "http.response.start"
        await send(message)
        self._is_corked = False
        if message.get("more_body") and self._phase is _Phase.ANSWERING:
            self._enter(_Phase.ANSWERING)  # the client took that much

    def cut_short(self) -> None:
        """An answer was begun and cannot be ended: only the end of the connection says so."""
        self._end()


def _in_origin_form(scope: Scope) -> Scope:
    """A whole address may be asked for, as of a proxy: its host counts, not the field's (RFC 9112 §3.2.2)."""
    absolute = _ABSOLUTE.fullmatch(scope["raw_path"])
    if absolute is None:
        return scope
    raw_path = absolute["path"] or b"/"
    return {
        **scope,
        "raw_path": raw_path,
        "path": unquote(raw_path.decode("ascii")),
        "headers": [
            *(field for field in scope["headers"] if field[0] != b"host"),
            (b"host", absolute["host"]),
        ],
    }


async def _refuse_two_lengths(scope: Scope, receive: Receive, send: Send) -> None:
    """Who is between us and the client may have gone by the other length, and smuggle requests (RFC 9112 §6.3)."""
    await send({"type": "http.response.start", "status": 400, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body"})


class _Request:
    """One run of the application."""

    def __init__(
        self,
        connection: HttpConnection,
        scope: Scope,
        send: Callable[[Message | None], Awaitable[None]],
        *,
        may_have_body: bool,
    ) -> None:
        self._connection = connection
        self._scope = scope
        self._send = send
        self._to_application, self._from_client = trio.open_memory_channel[Message](
            config.HTTP_BODY_PARTS_QUEUED
        )
        self._has_more = may_have_body  # to say, the client
        self._is_cut_short = False

    async def run(self, application: Application) -> None:
        with self._from_client:
            await application(self._scope, self._receive, self._answer)
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
            message = await self._from_client.receive()
        except trio.EndOfChannel:
            message = {"type": "http.disconnect"}
        self._has_more = message.get("more_body", False)
        return message

    async def _answer(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_cut_short = True
        is_last = message["type"] == "http.response.body" and not message.get("more_body")
        if is_last and self._has_more:
            await self._pass_over()
        await self._connection.answer(self._send, message)
        if is_last:
            self._is_cut_short = False

    async def _pass_over(self) -> None:
        """Wait for the end of a body that nobody wants: what came after the answer would make no sense to the protocol.

        Not for long: over HTTP/1.1 the answer to a body that is still coming ends the connection.
        """
        with trio.move_on_after(inf if self._scope["http_version"] == "2" else config.HTTP_LINGER_S):
            while self._has_more:
                await self._receive()
