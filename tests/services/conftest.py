"""What services are tested with: an endpoint that serves them in the in-memory network, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from p2pnode.node.connection_service import ConnectionService, serve_connections
from p2pnode.quic import Connection, Endpoint, NoTrust
from p2pnode.testing.network import Network
from tests.quic.endpoints import DIALER, LISTENER, endpoint_at, receive_all


@asynccontextmanager
async def served(network: Network, services: Sequence[ConnectionService]) -> AsyncIterator[Endpoint]:
    """An endpoint at LISTENER with these services, as a node has them."""
    unidirectional_streams = {
        alpn: service.unidirectional_streams_max for service in services for alpn in service.alpns
    }
    async with (
        endpoint_at(
            network,
            LISTENER,
            alpns=[*unidirectional_streams],
            unidirectional_streams=unidirectional_streams,
        ) as listener,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(serve_connections, listener, services)
        yield listener
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def dialed(network: Network, alpn: str) -> AsyncIterator[Connection]:
    """The client's end of a connection to LISTENER."""
    async with endpoint_at(network, DIALER) as dialer:
        yield await dialer.dial(LISTENER, alpn=alpn, server_name=None, trust=NoTrust())


async def ask(connection: Connection, question: bytes) -> bytes:
    """Ask on a stream of its own, and read the answer to its end."""
    stream = await connection.open_stream()
    await stream.send_all(question)
    await stream.send_eof()
    return await receive_all(stream)
