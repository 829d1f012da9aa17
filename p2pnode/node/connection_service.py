"""What else may be spoken on a node's UDP port: each language has an ALPN, and whoever serves it is one of these."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import trio

from p2pnode import config
from p2pnode.errors import REMOTE_FAULTS
from p2pnode.quic import Connection, Diagnostics, Endpoint, EndpointOptions

log = logging.getLogger(__name__)


class ConnectionService(Protocol):
    """Serves the connections whose handshake ended with one of its ALPNs."""

    @property
    def alpns(self) -> tuple[str, ...]:
        """The languages that it speaks, those it prefers first."""
        ...

    @property
    def unidirectional_streams_max(self) -> int:
        """Unidirectional streams that a remote may have open at a time, in these languages."""
        ...

    async def serve(self, connection: Connection) -> None:
        """Serve one connection; it is done when this returns.

        What the remote does wrong may be raised (`errors.REMOTE_FAULTS`) and ends that connection, no other.
        """
        ...


def endpoint_options(
    services: Sequence[ConnectionService], receive_window: int, diagnostics: Diagnostics
) -> EndpointOptions:
    """How a node's endpoint listens: for its own language first, then for those of its services."""
    languages = {alpn: service.unidirectional_streams_max for service in services for alpn in service.alpns}
    if services:  # a smaller window never shows that a request, kept unread, has ended or is too long
        receive_window = max(receive_window, config.JSON_REQUEST_SIZE_MAX + 1)
    return EndpointOptions(
        alpns=[config.ALPN, *languages],
        unidirectional_streams=languages,
        stream_receive_window=receive_window,
        diagnostics=diagnostics,
    )


async def serve_connections(endpoint: Endpoint, services: Sequence[ConnectionService]) -> None:
    """Give each connection that the endpoint accepts to the service of its language, for ever."""
    by_alpn = {alpn: service for service in services for alpn in service.alpns}
    async with trio.open_nursery() as nursery:
        while True:
            connection = await endpoint.accept()
            nursery.start_soon(_serve, by_alpn[connection.alpn], connection)


async def _serve(service: ConnectionService, connection: Connection) -> None:
    try:
        await service.serve(connection)
    except REMOTE_FAULTS as error:
        log.info("%s with %s port %d ended: %s", connection.alpn, *connection.remote_address, error)
    connection.close()
