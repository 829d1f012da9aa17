"""Other languages on a node's port: each connection goes to the service of its ALPN, whatever becomes of it there."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import ConnectFailed, ConnectionClosed, Refused, RemoteProtocolError
from p2pnode.node.rate_limits import RateLimits
from p2pnode.quic import Connection, Endpoint, NoTrust
from p2pnode.testing.nodes import PORT
from tests.node.conftest import SERVER, Swarm
from tests.quic.endpoints import DIALER, endpoint_at, receive_all


class Echo:
    """Says again what it is told, and takes offence at `!`."""

    def __init__(self, *alpns: str, unidirectional_streams_max: int = 0) -> None:
        self.alpns = alpns
        self.unidirectional_streams_max = unidirectional_streams_max

    async def serve(self, connection: Connection) -> None:
        while True:
            stream = await connection.accept_stream()
            said = await receive_all(stream)
            if said == b"!":
                raise RemoteProtocolError("that is no way to talk")
            if said == b"bye":
                return
            await stream.send_all(connection.alpn.encode() + b": " + said)
            await stream.send_eof()


class Whole(Echo):
    """Says how long each request is that it waited for unread, or that it is too long."""

    async def serve(self, connection: Connection) -> None:
        while True:
            stream = await connection.accept_stream()
            is_whole = await stream.wait_whole(config.JSON_REQUEST_SIZE_MAX)
            await stream.send_all(str(stream.unread).encode() if is_whole else b"too long")
            await stream.send_eof()


async def dial(endpoint: Endpoint, alpn: str) -> Connection:
    return await endpoint.dial((SERVER, PORT), alpn=alpn, server_name=None, trust=NoTrust())


async def ask(connection: Connection, question: bytes) -> bytes:
    stream = await connection.open_stream()
    await stream.send_all(question)
    await stream.send_eof()
    return await receive_all(stream)


async def test_each_language_has_its_service(autojump_clock: MockClock, swarm: Swarm) -> None:
    services = [Echo("h3", "h3-29"), Echo("hq-interop", unidirectional_streams_max=2)]
    await swarm.start_server(connection_services=services)
    async with endpoint_at(swarm.network, DIALER) as dialer:
        for alpn in ("h3", "h3-29", "hq-interop"):
            connection = await dial(dialer, alpn)
            assert await ask(connection, b"hello") == alpn.encode() + b": hello"
            if alpn == "hq-interop":
                connection.open_unidirectional_stream()
            else:
                with pytest.raises(Refused):
                    connection.open_unidirectional_stream()
        with pytest.raises(ConnectFailed, match="does not speak h2"):
            await dial(dialer, "h2")
    peer = await swarm.start_peer()  # its own language is spoken as ever
    assert [row.node_id for row in await peer.node.list_files()] == []


@pytest.mark.parametrize("last_word", [b"!", b"bye"])
async def test_a_fault_or_an_end_is_that_of_one_connection(
    autojump_clock: MockClock, swarm: Swarm, last_word: bytes
) -> None:
    await swarm.start_server(connection_services=[Echo("h3")])
    async with endpoint_at(swarm.network, DIALER) as dialer:
        one, other = await dial(dialer, "h3"), await dial(dialer, "h3")
        with pytest.raises(ConnectionClosed):
            await ask(one, last_word)
        assert await ask(other, b"hello") == b"h3: hello"


async def test_a_request_is_whole_at_a_node_whose_rate_is_limited(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    await swarm.start_server(connection_services=[Whole("h3")], limits=RateLimits(down=20_000))
    sizes = {60_000: b"60000", config.JSON_REQUEST_SIZE_MAX + 1: b"too long"}
    async with endpoint_at(swarm.network, DIALER) as dialer:
        connection = await dial(dialer, "h3")
        for size, answer in sizes.items():
            with trio.fail_after(20):
                assert await ask(connection, bytes(size)) == answer
