"""An HTTP/3 client that others wrote: aioquic's, on a stock connection in the in-memory network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import trio
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent, StopSendingReceived, StreamReset

from p2pnode.quic import Address
from p2pnode.testing.network import Network
from tests.quic.endpoints import DIALER, LISTENER, Remote
from tests.quic.engines import dialer_configuration

AUTHORITY = "tracker.example:7001"
OFFERED = ["h3", "h2", "http/1.1", "doq"]  # as quinn clients do


@dataclass
class Response:
    """What has come on a stream so far."""

    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    is_ended: bool = False
    reset_with: int | None = None
    stopped_with: int | None = None

    @property
    def status(self) -> int:
        return int(dict(self.headers)[b":status"])


class Http3Client:
    """Asks, and remembers what comes. `h3` is aioquic's; nothing is read while nobody waits."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self.engine = remote.engine
        self.h3: H3Connection | None = None
        self.responses: dict[int, Response] = {}

    def begin_http3(self) -> None:
        """Open the control stream and those of QPACK."""
        self.h3 = H3Connection(self.engine)

    def open(self) -> tuple[int, Response]:
        """The id of a new request's stream, and what will have come on it."""
        stream_id = self.engine.get_next_available_stream_id()
        self.engine.send_stream_data(stream_id, b"")
        return stream_id, self.responses.setdefault(stream_id, Response())

    def ask_with(self, fields: Mapping[str, str], *, body: bytes | None = None, end: bool = True) -> Response:
        """Begin a request with exactly these headers; with `end`, that is all of it."""
        assert self.h3 is not None
        stream_id, response = self.open()
        headers = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
        self.h3.send_headers(stream_id, headers, end_stream=end and body is None)
        if body is not None:
            self.h3.send_data(stream_id, body, end_stream=end)
        return response

    def ask(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Mapping[str, str] = MappingProxyType({}),
        body: bytes | None = None,
        end: bool = True,
    ) -> Response:
        """Begin an ordinary request."""
        pseudo = {":method": method, ":scheme": "https", ":authority": AUTHORITY, ":path": path}
        return self.ask_with({**pseudo, **headers}, body=body, end=end)

    async def live_for(self, seconds: float) -> None:
        """Let time pass, and take in what comes."""
        ends_at = trio.current_time() + seconds
        while trio.current_time() < ends_at:
            await self.remote.live_for(0.05)
            self.take_in()

    def take_in(self) -> None:
        while (event := self.engine.next_event()) is not None:
            self._take_in(event)

    def _take_in(self, event: QuicEvent) -> None:
        if isinstance(event, StreamReset) and event.stream_id in self.responses:
            self.responses[event.stream_id].reset_with = event.error_code
        if isinstance(event, StopSendingReceived) and event.stream_id in self.responses:
            self.responses[event.stream_id].stopped_with = event.error_code
        for told in self.h3.handle_event(event) if self.h3 is not None else []:
            if isinstance(told, HeadersReceived | DataReceived):
                response = self.responses[told.stream_id]
                if isinstance(told, HeadersReceived):
                    response.headers = told.headers
                else:
                    response.body += told.data
                response.is_ended |= told.stream_ended

    async def fetch(self, path: str = "/", **options: Any) -> Response:
        """Ask, and wait for the whole response, or for whatever ends it."""
        response = self.ask(path, **options)
        with trio.fail_after(60):
            while not response.is_ended and response.reset_with is None:
                assert self.remote.closed_with is None
                await self.live_for(0.05)
        return response


@asynccontextmanager
async def http3_client(
    network: Network,
    *,
    begun: bool = True,
    address: Address = DIALER,
    prepare: Callable[[QuicConnection], None] = lambda _: None,
) -> AsyncIterator[Http3Client]:
    """A client that is connected to LISTENER, and has begun to speak HTTP/3 unless told otherwise."""
    configuration = dialer_configuration()
    configuration.alpn_protocols = OFFERED
    engine = QuicConnection(configuration=configuration)
    prepare(engine)
    client = Http3Client(Remote(network, address, engine))
    await client.remote.dial(LISTENER)
    await client.remote.live_for(0.3)
    if begun:
        client.begin_http3()
        await client.live_for(0.3)
    yield client
    client.engine.close()
    await client.remote.send()
    client.remote.socket.close()
