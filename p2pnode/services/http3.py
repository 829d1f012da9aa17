"""HTTP/3 (RFC 9114) for an ASGI application, over streams of ours.

A request is one task: it reads the headers, starts the application, and from then on reads and writes only as the
application does. So a body comes as fast as it is taken, and a response goes as fast as the client takes it. An
application whose client has gone is cancelled where it sends next; `receive` tells it `http.disconnect`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from email.utils import formatdate
from enum import Enum
from typing import Final, NoReturn
from urllib.parse import unquote

import trio

from p2pnode import config
from p2pnode.errors import ConnectionClosed, LocalProtocolError, StreamReset
from p2pnode.quic import Address, Connection, Stream
from p2pnode.quic.aioquic_http3 import (
    DataReceived,
    ErrorCode,
    H3Event,
    Headers,
    HeadersReceived,
    Http3Framing,
)
from p2pnode.services.asgi import Application, Message, Scope

FEED_SIZE: Final = 16 * config.KIB  # bytes taken in at once: 8,000 frames of nothing, 10 ms of work
SEND_STEP: Final = 64 * config.KIB  # of a response, each when there is room for it

_BODILESS: Final = {204, 304}
_OF_THE_CONNECTION: Final = {
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"transfer-encoding",
    b"upgrade",
}

log = logging.getLogger(__name__)


class Http3Connection:
    """What speaks HTTP/3 on a connection. `Refused` when the client allows us no streams of our own."""

    def __init__(self, connection: Connection, application: Application) -> None:
        self._connection = connection
        self._application = application
        self._streams: dict[int, Stream] = {}  # those that we send on
        self._exchanges: dict[int, _Exchange] = {}
        self._framing = Http3Framing(self)

    async def read(self, stream: Stream) -> None:
        """Take in a unidirectional stream of the client's until it ends."""
        try:
            while await self.feed(stream):
                pass
        except StreamReset:
            self._framing.forget(stream.stream_id)

    async def answer(self, stream: Stream) -> None:
        """Take in one request, and have the application answer it."""
        exchange = _Exchange(stream, self._framing, self.feed)
        self._streams[stream.stream_id] = stream
        self._exchanges[stream.stream_id] = exchange
        try:
            await exchange.run(self._application, self._connection.remote_address)
        finally:
            if self._connection.is_open:
                self._framing.forget(stream.stream_id)
            del self._exchanges[stream.stream_id], self._streams[stream.stream_id]

    async def feed(self, stream: Stream) -> bool:
        """Take in what comes next on a stream; False when that was its end."""
        data = await stream.receive_some(FEED_SIZE)
        for event in self._framing.receive(stream.stream_id, data, not data):
            self._tell(event)
        self._connection.check_open()
        return bool(data)

    def _tell(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived | DataReceived):
            exchange = self._exchanges.get(event.stream_id)
            if exchange is not None:
                exchange.on_event(event)

    # -- what the framing does to streams ------------------------------------------------------------------

    def open_unidirectional(self) -> int:
        """Open one of our three streams."""
        stream = self._connection.open_unidirectional_stream()
        self._streams[stream.stream_id] = stream
        return stream.stream_id

    def send(self, stream_id: int, data: bytes, end: bool) -> None:
        """Hand data over. On our own three streams that is settings and no more: there is no table to speak of."""
        self._streams[stream_id].send_nowait(data, end=end)

    def close(self, code: int, reason: str) -> None:
        """End the connection, in which something is wrong."""
        log.info(
            "HTTP/3 with %s port %d: %s", *self._connection.remote_address, reason or ErrorCode(code).name
        )
        self._connection.close(code, reason)


class _Response(Enum):
    """How far a response is."""

    NOTHING = "nothing"
    BEGUN = "begun"
    ENDED = "ended"


class _Refusal(Exception):
    """The request is answered by this status and nothing else, whatever the application thinks of it."""

    def __init__(self, status: int) -> None:
        self.status = status


class _Exchange:
    """A request and its response: the two sides of a stream."""

    def __init__(
        self, stream: Stream, framing: Http3Framing, feed: Callable[[Stream], Awaitable[bool]]
    ) -> None:
        self._stream = stream
        self._framing = framing
        self._feed = feed
        self._headers: Headers | None = None
        self._parts: deque[bytes] = deque()
        self._body_size = 0
        self._request_ended = False
        self._told_end = False
        self._client_is_gone = False
        self._response = _Response.NOTHING
        self._is_bodiless = False
        self._scope = trio.CancelScope()  # of the application
        self._refused_with: int | None = None

    def on_event(self, event: HeadersReceived | DataReceived) -> None:
        """Something of the request has come."""
        if isinstance(event, DataReceived):
            self._body_size += len(event.data)
            if event.data:
                self._parts.append(event.data)
        elif self._headers is None:
            self._headers = event.headers
        self._request_ended |= event.stream_ended

    async def run(self, application: Application, client: Address) -> None:
        """The whole exchange. What the client does wrong on the stream ends it, no more."""
        try:
            scope = _scope_of(await self._read_headers(), client)
            self._is_bodiless = scope["method"] == "HEAD"
            with self._scope:
                await application(scope, self._receive, self._send)
            if self._refused_with is not None:
                raise _Refusal(self._refused_with)
            self._end()
        except _Refusal as refusal:
            self._refuse(refusal.status)
        except StreamReset as reset:
            log.debug("request on stream %d: %s", self._stream.stream_id, reset)
            self._stream.reset(ErrorCode.H3_REQUEST_CANCELLED)

    def _end(self) -> None:
        """The application has returned, or was cancelled because nobody listens."""
        if self._response is _Response.ENDED:
            self._stream.stop_receiving(ErrorCode.H3_NO_ERROR)  # RFC 9114 §4.1
        elif self._scope.cancelled_caught or self._client_is_gone:
            self._stream.reset(ErrorCode.H3_REQUEST_CANCELLED)
        else:
            log.error("the application left a request without its whole response")
            self._stream.reset(ErrorCode.H3_INTERNAL_ERROR)

    def _refuse(self, status: int) -> None:
        """Say why, if there is still a way to say it, and give up the rest of the request."""
        if self._response is _Response.NOTHING:
            self._framing.send_headers(self._stream.stream_id, _response_headers(status, ()), end_stream=True)
            self._stream.stop_receiving(ErrorCode.H3_NO_ERROR)
        else:
            self._stream.reset(ErrorCode.H3_EXCESSIVE_LOAD)

    # -- the request ---------------------------------------------------------------------------------------

    async def _read_headers(self) -> Headers:
        with trio.move_on_after(config.HTTP3_REQUEST_TIMEOUT_S):
            while self._headers is None:
                if not await self._feed(self._stream) and self._headers is None:
                    self._stream.reset(ErrorCode.H3_REQUEST_INCOMPLETE)
                    raise StreamReset("the request ended before its headers")
                self._check_size()
            return self._headers
        raise _Refusal(408)

    def _check_size(self) -> None:
        if self._framing.held(self._stream.stream_id) > config.HTTP3_FRAME_SIZE_MAX:
            raise _Refusal(431)
        if self._body_size > config.HTTP3_BODY_SIZE_MAX:
            raise _Refusal(413)

    async def _receive(self) -> Message:
        """ASGI's `receive`."""
        if self._response is _Response.ENDED:
            await trio.lowlevel.checkpoint()
            return {"type": "http.disconnect"}
        try:
            if self._told_end:
                await self._stream.wait_refused()
            with trio.move_on_after(config.HTTP3_REQUEST_TIMEOUT_S):
                while not self._parts and not self._request_ended:
                    await self._feed(self._stream)
                    self._check_size()
                body = b"".join(self._parts)
                self._parts.clear()
                self._told_end = self._request_ended
                return {"type": "http.request", "body": body, "more_body": not self._told_end}
            raise _Refusal(408)
        except _Refusal as refusal:
            self._refused_with = refusal.status
            await self._cancel()
        except ConnectionClosed:  # or only the stream
            self._told_end = self._client_is_gone = True
            return {"type": "http.disconnect"}

    # -- the response --------------------------------------------------------------------------------------

    async def _send(self, message: Message) -> None:
        """ASGI's `send`."""
        match message["type"], self._response:
            case "http.response.start", _Response.NOTHING:
                await self._begin(message["status"], message.get("headers", ()))
            case "http.response.body", _Response.BEGUN:
                await self._continue(message.get("body", b""), is_last=not message.get("more_body", False))
            case kind, response:
                raise LocalProtocolError(f"{kind} does not follow a response that has {response.value}")

    async def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._is_bodiless |= status in _BODILESS
        try:
            await trio.lowlevel.checkpoint()
            self._framing.send_headers(self._stream.stream_id, _response_headers(status, headers))
        except ConnectionClosed:
            await self._cancel()
        self._response = _Response.BEGUN

    async def _continue(self, body: bytes, *, is_last: bool) -> None:
        stream_id = self._stream.stream_id
        if self._is_bodiless:
            body = b""
        try:
            for start in range(0, len(body), SEND_STEP):
                await self._wait_for_room()
                self._framing.send_data(stream_id, body[start : start + SEND_STEP], end_stream=False)
            if is_last:
                self._framing.send_data(stream_id, b"", end_stream=True)
        except ConnectionClosed:
            await self._cancel()
        if is_last:
            self._response = _Response.ENDED

    async def _wait_for_room(self) -> None:
        with trio.move_on_after(config.DOOR_SEND_STALL_S):
            await self._stream.wait_send_all_might_not_block()
            return
        raise StreamReset("the client takes nothing of the response")

    async def _cancel(self) -> NoReturn:
        """Nobody wants what the application does."""
        self._scope.cancel()
        await trio.sleep_forever()


def _scope_of(headers: Headers, client: Address) -> Scope:
    """ASGI's scope of a request. `_Refusal` when it is none that we serve."""
    named = {name: value for name, value in headers if name.startswith(b":")}
    target = named.get(b":path", b"")
    if b":protocol" in named or named[b":method"] == b"CONNECT":
        raise _Refusal(501)
    if not target.startswith((b"/", b"*")) or not target.isascii():
        raise _Refusal(400)
    raw_path, _, query = target.partition(b"?")
    host = named.get(b":authority", b"")
    fields = [field for field in headers if not field[0].startswith(b":")]
    if any(name == b"host" and value != host for name, value in fields):
        raise _Refusal(400)  # RFC 9114 §4.3.1
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "3",
        "method": named[b":method"].decode("latin-1"),
        "scheme": named.get(b":scheme", b"https").decode("latin-1"),
        "path": unquote(raw_path.decode("ascii")),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", host), *(field for field in fields if field[0] != b"host")],
        "client": client,
        "server": None,
    }


def _response_headers(status: int, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    named = [(name.lower(), value) for name, value in headers]
    kept = [field for field in named if field[0] not in _OF_THE_CONNECTION]
    if all(name != b"date" for name, _ in kept):
        kept.append((b"date", formatdate(usegmt=True).encode()))  # RFC 9110 §6.6.1
    return [(b":status", b"%d" % status), *kept]
