"""The ALPN `h3`, under which two languages come: JSON on bidirectional streams, and real HTTP/3.

Clients of QUIC trackers write one JSON object on a stream of its own and read the answer to its end; they call that
`h3`, and open no other streams. HTTP/3 begins with unidirectional streams (RFC 9114 §6.2). So a connection that has
opened one speaks HTTP/3 and any other JSON, whatever a request begins with. Packets overtake each other: a request
whose first byte is that of HTTP/3 waits a moment for the control stream.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from p2pnode import config
from p2pnode.errors import StorageError, StreamReset
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.quic import Address, Connection, Stream
from p2pnode.quic.aioquic_http3 import ErrorCode
from p2pnode.services.asgi import Application
from p2pnode.services.http3 import Http3Connection
from p2pnode.services.sending import send_all

Send = Callable[[bytes], Awaitable[None]]
RespondJson = Callable[[bytes | None, Address, Send], Awaitable[None]]
"""Sends the answer to a request, in pieces of any size; to None when the request was over the limit. Its StorageError
says that no more of the answer can be had."""

HTTP3_FIRST_BYTE: Final = b"\x01"  # the type of a HEADERS frame (RFC 9114 §7.2.2)

log = logging.getLogger(__name__)


class H3Door:
    """A `ConnectionService` for both: `respond_json` answers a JSON request, whatever it is, `application` HTTP/3."""

    alpns: Final = ("h3",)
    unidirectional_streams_max: Final = config.DOOR_UNIDIRECTIONAL_STREAMS

    def __init__(self, respond_json: RespondJson, application: Application) -> None:
        self._respond_json = respond_json
        self._application = application

    async def serve(self, connection: Connection) -> None:
        """Answer all requests of a connection, until it ends."""
        async with open_flat_nursery() as nursery:
            conversation = _Conversation(connection, self._respond_json, self._application, nursery)
            nursery.start_soon(conversation.watch)
            while True:
                stream = await connection.accept_stream()
                nursery.start_soon(conversation.answer, stream)


class _Conversation:
    """One connection and the requests on it."""

    def __init__(
        self,
        connection: Connection,
        respond_json: RespondJson,
        application: Application,
        nursery: trio.Nursery,
    ) -> None:
        self._connection = connection
        self._respond_json = respond_json
        self._application = application
        self._nursery = nursery
        self._http3: Http3Connection | None = None  # once it is known that it is that
        self._answers = trio.Semaphore(config.JSON_ANSWERS_AT_ONCE)
        self._undecided: set[trio.CancelScope] = set()  # those who wait for the end of their request
        self._answering = 0  # requests now …
        self._answered = 0  # … and so far

    async def watch(self) -> None:
        """Learn that it is HTTP/3 from the client's unidirectional streams, and end a connection without use."""
        while True:
            answered = self._answered
            with trio.move_on_after(config.DOOR_IDLE_TIMEOUT_S) as patience:
                stream = await self._connection.accept_unidirectional_stream()
                self._nursery.start_soon(self._begin_http3().read, stream)
                for scope in self._undecided:
                    scope.cancel()
            if patience.cancelled_caught and not self._answering and answered == self._answered:
                self._connection.close(ErrorCode.H3_NO_ERROR, "nothing was asked for a while")

    def _begin_http3(self) -> Http3Connection:
        if self._http3 is None:
            self._http3 = Http3Connection(self._connection, self._application)
        return self._http3

    @property
    def _speaks_http3(self) -> bool:
        return self._connection.unidirectional_streams_received > 0

    async def answer(self, stream: Stream) -> None:
        """Answer one request in the language that the connection turns out to speak."""
        self._answering += 1
        try:
            if not self._speaks_http3 and not _is_json(stream):
                await self._decide(stream)
            if self._speaks_http3:
                await self._begin_http3().answer(stream)
            else:
                await self._converse(stream)
        except (StreamReset, StorageError) as error:
            log.debug("stream %d: %s", stream.stream_id, error)
            stream.reset(ErrorCode.H3_REQUEST_CANCELLED)
        finally:
            self._answering -= 1
            self._answered += 1

    async def _decide(self, stream: Stream) -> None:
        """Wait until the request has ended or is too long for JSON, or the connection speaks HTTP/3."""
        with trio.move_on_after(config.JSON_REQUEST_TIMEOUT_S) as scope:
            self._undecided.add(scope)
            try:
                await stream.wait_whole(config.JSON_REQUEST_SIZE_MAX)
                if stream.peek(1) == HTTP3_FIRST_BYTE:
                    await trio.sleep(
                        config.DOOR_LANGUAGE_WAIT_S
                    )  # or until it is cancelled: it speaks HTTP/3
            finally:
                self._undecided.remove(scope)
        if scope.cancelled_caught and not self._speaks_http3:
            raise StreamReset("the request was not finished in time")

    # -- JSON ----------------------------------------------------------------------------------------------

    async def _converse(self, stream: Stream) -> None:
        """One JSON request, which has ended or is too long, and its answer."""
        request: bytes | None = None
        if stream.is_whole and stream.unread <= config.JSON_REQUEST_SIZE_MAX:
            request = stream.receive_nowait(config.JSON_REQUEST_SIZE_MAX)
        else:
            await self._drop(stream)
        try:
            self._answers.acquire_nowait()
        except trio.WouldBlock:
            await self._answers.acquire()
        try:
            outgoing = _Outgoing(stream)
            await self._respond_json(request, self._connection.remote_address, outgoing.send)
            await outgoing.end()
        finally:
            self._answers.release()

    async def _drop(self, stream: Stream) -> None:
        """Read a request to its end: told to stop, known clients fail before they read the answer."""
        with trio.move_on_after(config.JSON_REQUEST_TIMEOUT_S) as scope:
            while await stream.receive_some():
                pass
        if scope.cancelled_caught:
            raise StreamReset("the request was not finished in time")


def _is_json(stream: Stream) -> bool:
    """Whether a request is here as a whole that can be nothing else, unless the connection speaks HTTP/3."""
    return (
        stream.is_whole
        and stream.unread <= config.JSON_REQUEST_SIZE_MAX
        and stream.peek(1) != HTTP3_FIRST_BYTE
    )


class _Outgoing:
    """An answer on its way. The latest piece is held back, so that FIN goes with the last one.

    `StreamReset` when the client takes nothing of it for too long.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._held = b""

    async def send(self, data: bytes) -> None:
        """Send what came before."""
        held, self._held = self._held, data
        await send_all(self._stream, held)

    async def end(self) -> None:
        """Send the last piece, and FIN."""
        if len(self._held) <= config.SEND_BUFFER_MIN:  # each stream may hold so much
            self._stream.send_nowait(self._held, end=True)
            return
        await send_all(self._stream, self._held)
        await self._stream.send_eof()
