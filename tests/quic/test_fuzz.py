"""Short runs of the fuzzer, against the engine and against a whole endpoint with an application on it.

`python -m tests.quic.fuzz` is the long run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from random import Random

import pytest
import trio

from p2pnode import config
from p2pnode.errors import ConnectionClosed
from p2pnode.quic import Connection, Endpoint, Stream
from p2pnode.testing.network import Network
from tests.quic.endpoints import LISTENER, Remote, connect, endpoint_at, open_and_accept
from tests.quic.engines import seal
from tests.quic.frames import AlmostLegal
from tests.quic.fuzz import fuzz

SESSIONS = 60
PACKETS_PER_SESSION = 150
pytestmark = pytest.mark.usefixtures("both_ways")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """aioquic warns of each broken rule."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", [1, 2])
def test_G1_almost_legal_frames_make_nothing_escape_from_the_engine(seed: int) -> None:
    counts = fuzz(seed, lambda counts: counts["sessions"] >= SESSIONS)
    assert counts["escapes"] == 0, counts
    assert counts["datagrams"] > 10 * SESSIONS
    assert counts["held at most"] <= config.CONNECTION_RECEIVE_WINDOW
    assert counts["handshakes broken"] < SESSIONS / 2


async def test_F2_almost_legal_frames_end_one_connection_and_hurt_no_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rng = Random(1)
    async with (
        Network() as network,
        endpoint_at(network, LISTENER) as listener,
        endpoint_at(network, ("10.0.0.8", 8)) as friend,
        trio.open_nursery() as nursery,
    ):
        friendly, accepted = await connect(friend, listener)
        for session in range(SESSIONS):
            await _attack(network, listener, rng, 2000 + session)
        await open_and_accept(friendly, accepted)
        assert listener.statistics.escapes == 0
        nursery.cancel_scope.cancel()


async def _attack(network: Network, listener: Endpoint, rng: Random, port: int) -> None:
    remote = Remote(network, ("10.6.6.6", port))
    await remote.dial(LISTENER)
    await remote.live_for(0.5)
    victim = await listener.accept()
    frames = AlmostLegal(rng, victim._engine, remote.engine)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_application, victim, rng)
        for _ in range(PACKETS_PER_SESSION):
            if not victim.is_open:
                break
            await remote.socket.send_batch([([seal(remote.engine, frames.payload())], LISTENER)])
            await trio.sleep(rng.choice([0, 0.001, 0.05]))
        victim.close()
        await victim.wait_closed()


async def _application(connection: Connection, rng: Random) -> None:
    """Accepts, reads, answers, resets and opens streams, as it pleases."""
    try:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(_serve, await connection.accept_stream(), rng)
                if rng.random() < 0.3:
                    with trio.move_on_after(0.1):
                        nursery.start_soon(_serve, await connection.open_stream(), rng)
    except* ConnectionClosed:
        pass


async def _serve(stream: Stream, rng: Random) -> None:
    try:
        for _ in range(rng.randrange(5)):
            with trio.move_on_after(rng.random()):
                await stream.receive_some()
            with trio.move_on_after(rng.random()):
                await stream.send_all(bytes(rng.randrange(100_000)))
        if rng.random() < 0.5:
            await stream.aclose()
        else:
            stream.reset(rng.randrange(1000))
    except ConnectionClosed:  # a StreamReset is one
        stream.reset()
