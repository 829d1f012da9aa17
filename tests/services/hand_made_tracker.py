"""A tracker on the in-memory network that answers as a test wants it to, in JSON on `h3`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import trio

from p2pnode.errors import NetworkError
from p2pnode.node.server_reference import ServerReference
from p2pnode.quic import Connection, Credentials, Endpoint, EndpointOptions, NodeKey, NoTrust, Stream, Trust
from p2pnode.services.tracker_session import TrackerSession
from p2pnode.testing.network import Network

TRACKER = ("10.0.0.1", 7001)
CLIENT = ("10.0.0.2", 1002)

Request = dict[str, Any]
Answer = Callable[[Stream, Request], Awaitable[None]]


@dataclass
class HandMadeTracker:
    """Everything that it was asked, and by how many connections."""

    answer: Answer
    requests: list[Request] = field(default_factory=list)
    stream_ids: list[int] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    asked: trio.Event = field(default_factory=trio.Event)

    async def serve(self, endpoint: Endpoint) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                connection = await endpoint.accept()
                self.connections.append(connection)
                nursery.start_soon(self._serve_connection, connection)

    async def _serve_connection(self, connection: Connection) -> None:
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    nursery.start_soon(self._serve_stream, await connection.accept_stream())
        except* NetworkError:
            pass

    async def _serve_stream(self, stream: Stream) -> None:
        data = b""
        while part := await stream.receive_some():
            data += part
        request = json.loads(data)
        self.requests.append(request)
        self.stream_ids.append(stream.stream_id)
        self.asked.set()
        await self.answer(stream, request)


async def say(stream: Stream, answer: object) -> None:
    """The whole of an answer: an object as JSON, or bytes as they are."""
    await stream.send_all(answer if isinstance(answer, bytes) else json.dumps(answer).encode())
    await stream.send_eof()


def always(answer: object) -> Answer:
    """What answers everything alike."""

    async def answer_it(stream: Stream, _request: Request) -> None:
        await say(stream, answer)

    return answer_it


@asynccontextmanager
async def tracker_at(
    network: Network,
    answer: Answer,
    *,
    credentials: Credentials | None = None,
    alpn: str = "h3",
) -> AsyncIterator[HandMadeTracker]:
    """A tracker that answers until the block is left."""
    socket = network.socket(TRACKER)
    credentials = credentials or Credentials.from_node_key(NodeKey.generate())
    async with Endpoint(socket, credentials, EndpointOptions(alpns=(alpn,))) as endpoint:
        tracker = HandMadeTracker(answer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tracker.serve, endpoint)
            yield tracker
            nursery.cancel_scope.cancel()
    socket.close()


@asynccontextmanager
async def session_on(network: Network, trust: Trust | None = None) -> AsyncIterator[TrackerSession]:
    """A session with that tracker."""
    socket = network.socket(CLIENT)
    async with Endpoint(socket, Credentials.from_node_key(NodeKey.generate())) as endpoint:
        host, port = TRACKER
        yield TrackerSession(endpoint, ServerReference(f"{host}:{port}", trust or NoTrust()), Random(1))
    socket.close()


@asynccontextmanager
async def conversation(
    answer: Answer, **options: Any
) -> AsyncIterator[tuple[HandMadeTracker, TrackerSession]]:
    """A tracker and a session with it; `options` are those of `tracker_at`."""
    async with (
        Network(seed=1) as network,
        tracker_at(network, answer, **options) as tracker,
        session_on(network) as session,
    ):
        yield tracker, session
