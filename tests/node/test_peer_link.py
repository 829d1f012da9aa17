"""Links: both node keys proven, over this very connection, before anything else is looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from p2pnode import config
from p2pnode.errors import ConnectionClosed, RemoteProtocolError, TimedOut, TrustError
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.peer_link import (
    CloseCode,
    PeerLink,
    _proof,
    establish_accepted,
    establish_dialed,
)
from p2pnode.quic import (
    Connection,
    Credentials,
    Endpoint,
    NodeIdTrust,
    NodeKey,
    NoTrust,
    Trust,
)
from p2pnode.testing.network import Network
from p2pnode.wire.communication import NodeProof, PresenceAnnounce, PresenceResponse

PRESENCE = PresenceAnnounce(config.PROTOCOL_VERSION, name="dialer")


def respond(node_id: bytes, announced: PresenceAnnounce) -> PresenceResponse:
    return PresenceResponse(config.PROTOCOL_VERSION, ("10.0.0.1", 1), 30.0, name="listener")


@asynccontextmanager
async def endpoint(network: Network, host: str, key: NodeKey) -> AsyncIterator[Endpoint]:
    async with Endpoint(network.socket((host, 4433)), Credentials.from_node_key(key)) as opened:
        yield opened


@asynccontextmanager
async def pair(key_a: NodeKey, key_b: NodeKey) -> AsyncIterator[tuple[Connection, Connection]]:
    """A connection from A (dialed) to B (accepted), nothing proven yet."""
    async with (
        Network(seed=1) as network,
        endpoint(network, "10.0.0.1", key_a) as a,
        endpoint(network, "10.0.0.2", key_b) as b,
    ):
        dialed = await a.dial(("10.0.0.2", 4433), server_name=None, trust=NoTrust())
        yield dialed, await b.accept()


async def both(
    dialed: Connection, accepted: Connection, key_a: NodeKey, key_b: NodeKey, trust: Trust
) -> tuple[PeerLink, PeerLink]:
    links: list[PeerLink] = []
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            links.append(await establish_accepted(accepted, key_b, respond))

        nursery.start_soon(accept)
        link = await establish_dialed(dialed, key_a, PRESENCE, trust)
    return link, links[0]


async def test_both_sides_learn_the_proven_node_id(autojump_clock: trio.testing.MockClock) -> None:
    key_a, key_b = NodeKey.generate(), NodeKey.generate()
    async with pair(key_a, key_b) as (dialed, accepted):
        link_a, link_b = await both(dialed, accepted, key_a, key_b, NodeIdTrust(key_b.node_id))
        assert (link_a.node_id, link_b.node_id) == (key_b.node_id, key_a.node_id)
        assert (link_a.peer.name, link_b.peer.name) == ("listener", "dialer")


async def test_a_dialer_closes_on_another_node_id(autojump_clock: trio.testing.MockClock) -> None:
    key_a, key_b = NodeKey.generate(), NodeKey.generate()
    async with pair(key_a, key_b) as (dialed, accepted), trio.open_nursery() as nursery:

        async def accept() -> None:
            with pytest.raises(ConnectionClosed):
                await establish_accepted(accepted, key_b, respond)

        nursery.start_soon(accept)
        with pytest.raises(TrustError):
            await establish_dialed(dialed, key_a, PRESENCE, NodeIdTrust(NodeKey.generate().node_id))
        closed = await accepted.wait_closed()
        assert closed.code == CloseCode.NOT_PROVEN


async def test_Q6_a_peer_that_answers_nothing_is_closed_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    key_a, key_b = NodeKey.generate(), NodeKey.generate()
    async with pair(key_a, key_b) as (dialed, accepted):
        began = trio.current_time()
        with pytest.raises(TimedOut, match="no proof"):
            await establish_accepted(accepted, key_b, respond)
        assert trio.current_time() - began <= config.PROOF_TIMEOUT_S + 0.1
        assert (await dialed.wait_closed()).code == CloseCode.NOT_PROVEN


async def test_Q6_a_request_before_the_proof_is_never_looked_at(
    autojump_clock: trio.testing.MockClock,
) -> None:
    key_a, key_b = NodeKey.generate(), NodeKey.generate()
    async with pair(key_a, key_b) as (dialed, accepted):
        control = MessageStream(await dialed.open_stream())
        await control.send(PRESENCE)
        with pytest.raises(RemoteProtocolError, match="expected NodeProof"):
            await establish_accepted(accepted, key_b, respond)
        assert (await dialed.wait_closed()).code == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("wrong", ["signature", "key", "role"])
async def test_Q6_a_wrong_proof_is_refused(autojump_clock: trio.testing.MockClock, wrong: str) -> None:
    key_a, key_b = NodeKey.generate(), NodeKey.generate()
    async with pair(key_a, key_b) as (dialed, accepted):
        proof = _proof(dialed, key_a)
        if wrong == "signature":
            proof = NodeProof(proof.spki, key_a.sign(b"something else"))
        elif wrong == "key":
            proof = NodeProof(NodeKey.generate().spki, proof.signature)
        else:
            proof = _proof(accepted, key_a)  # signed for the other role
        control = MessageStream(await dialed.open_stream())
        await control.send(proof)
        with pytest.raises(TrustError):
            await establish_accepted(accepted, key_b, respond)
        assert (await dialed.wait_closed()).code == CloseCode.NOT_PROVEN


async def test_Q6_a_man_in_the_middle_cannot_relay_proofs(autojump_clock: trio.testing.MockClock) -> None:
    """Mallory ends TLS on both sides and passes every byte of the control streams on, unchanged."""
    key_a, key_b, key_m = NodeKey.generate(), NodeKey.generate(), NodeKey.generate()
    outcomes: dict[str, type[BaseException] | None] = {}
    async with (
        Network(seed=1) as network,
        endpoint(network, "10.0.0.1", key_a) as a,
        endpoint(network, "10.0.0.2", key_b) as b,
        endpoint(network, "10.0.0.66", key_m) as mallory,
        trio.open_nursery() as nursery,
    ):

        async def honest_listener() -> None:
            try:
                await establish_accepted(await b.accept(), key_b, respond)
            except (TrustError, TimedOut, ConnectionClosed) as error:
                outcomes["listener"] = type(error)

        async def relay() -> None:
            victim = await mallory.accept()
            server = await mallory.dial(("10.0.0.2", 4433), server_name=None, trust=NoTrust())
            towards_victim, towards_server = await victim.accept_stream(), await server.open_stream()

            async def pass_on(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
                try:
                    async for data in source:
                        await sink.send_all(data)
                except ConnectionClosed:
                    return

            async with trio.open_nursery() as relays:
                relays.start_soon(pass_on, towards_victim, towards_server)
                relays.start_soon(pass_on, towards_server, towards_victim)

        nursery.start_soon(honest_listener)
        nursery.start_soon(relay)
        # The dialer does not even expect a certain node: the relayed proof must fail by itself.
        connection = await a.dial(("10.0.0.66", 4433), server_name=None, trust=NoTrust())
        with pytest.raises((TrustError, TimedOut, ConnectionClosed)) as caught:
            await establish_dialed(connection, key_a, PRESENCE, NoTrust())
        outcomes["dialer"] = caught.type
        await trio.sleep(config.PROOF_TIMEOUT_S + 1)
        nursery.cancel_scope.cancel()
    assert TrustError in outcomes.values()
    assert set(outcomes) == {"listener", "dialer"}
