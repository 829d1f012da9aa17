"""Endpoints on the in-memory network, and remotes that are driven by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from aioquic.quic.connection import QuicConnection

from p2pnode.quic import (
    Connection,
    Credentials,
    Diagnostics,
    Endpoint,
    EndpointOptions,
    NodeKey,
    NoTrust,
    Stream,
)
from p2pnode.quic.datagrams import bursts_of
from p2pnode.testing.network import Network, NetworkSocket
from tests.quic.engines import credentials, dialer_configuration
from tests.support.batching import BATCHING

DIALER = ("10.0.0.1", 1001)
LISTENER = ("10.0.0.2", 1002)


@asynccontextmanager
async def endpoint_at(network: Network, address: tuple[str, int], **options: Any) -> AsyncIterator[Endpoint]:
    ours = options.pop("credentials", None) or credentials()
    options = {"diagnostics": Diagnostics(batching=BATCHING.get())} | options
    socket = network.socket(address)
    async with Endpoint(socket, ours, EndpointOptions(**options)) as endpoint:
        yield endpoint
    socket.close()


async def connect(dialer: Endpoint, listener: Endpoint) -> tuple[Connection, Connection]:
    dialled = await dialer.dial(listener.local_address, server_name="localhost", trust=NoTrust())
    return dialled, await listener.accept()


@asynccontextmanager
async def connected(network: Network, **options: Any) -> AsyncIterator[tuple[Connection, Connection]]:
    """The dialer's and the listener's end of one connection; `options` are those of the listening endpoint."""
    async with (
        endpoint_at(network, DIALER) as dialer,
        endpoint_at(network, LISTENER, **options) as listener,
    ):
        yield await connect(dialer, listener)


@asynccontextmanager
async def streams(network: Network) -> AsyncIterator[tuple[Stream, Stream]]:
    """The dialer's and the listener's end of one stream, on which one byte has gone each way."""
    async with connected(network) as (dialled, accepted):
        yield await open_and_accept(dialled, accepted)


async def open_and_accept(dialled: Connection, accepted: Connection) -> tuple[Stream, Stream]:
    ours = await dialled.open_stream()
    await ours.send_all(b"?")
    theirs = await accepted.accept_stream()
    assert await theirs.receive_some() == b"?"
    await theirs.send_all(b"!")
    assert await ours.receive_some() == b"!"
    return ours, theirs


async def receive_all(stream: Stream) -> bytes:
    chunks = []
    while chunk := await stream.receive_some():
        chunks.append(chunk)
    return b"".join(chunks)


async def send_and_finish(stream: Stream, data: bytes) -> None:
    await stream.send_all(data)
    await stream.send_eof()


class Remote:
    """A stock `QuicConnection` on a socket of its own, driven step by step: it does what a test wants."""

    def __init__(
        self, network: Network, address: tuple[str, int] = DIALER, engine: QuicConnection | None = None
    ) -> None:
        self.socket: NetworkSocket = network.socket(address)
        self.engine = engine or QuicConnection(configuration=dialer_configuration())
        self.received: list[bytes] = []

    async def dial(self, address: tuple[str, int]) -> None:
        self.engine.connect(address, trio.current_time())
        await self.send()

    async def send(self) -> None:
        await self.socket.send_batch(bursts_of(self.engine.datagrams_to_send(trio.current_time())))

    async def receive(self, timeout_s: float = 1.0) -> int:
        """Take in what comes within a while, without answering; how many datagrams that was."""
        received = 0
        with trio.move_on_after(timeout_s):
            while True:
                for datagrams, address in await self.socket.receive_batch():
                    self.received += datagrams
                    for data in datagrams:
                        self.engine.receive_datagram(data, address, trio.current_time())
                    received += len(datagrams)
        return received

    async def live(self) -> None:
        """Behave, until cancelled."""
        while True:
            await self.receive(0.02)
            timer = self.engine.get_timer()
            if timer is not None and timer <= trio.current_time():
                self.engine.handle_timer(trio.current_time())
            await self.send()

    async def live_for(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self.live()

    @property
    def closed_with(self) -> int | None:
        event = self.engine._close_event
        return None if event is None else event.error_code


def fresh_credentials() -> Credentials:
    return Credentials.from_node_key(NodeKey.generate())
