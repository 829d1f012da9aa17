"""Turns between whole nodes that share one uplink: pieces are whole soon, and the slow cost others little."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.peer_link import PeerLink
from p2pnode.testing.network import HostProfile
from p2pnode.wire.communication import FileChunk, FileRequest, FileResponse
from tests.node.conftest import SERVER, Swarm, Watched, write_random
from tests.node.hand_made import Content, hand_made

RATE = 2_000_000  # bytes a second of the server's uplink
SIZE = 4 * config.MIB
REQUESTERS = 16
ASKED = 256 * config.KIB  # by each


@asynccontextmanager
async def uplink(swarm: Swarm, count: int) -> AsyncIterator[tuple[Watched, Content, list[PeerLink]]]:
    """A server behind a narrow uplink, and the links of so many requesters."""
    server = await swarm.start_server()
    write_random(server.files_dir / "a.bin", SIZE)
    content = Content.of(server.files_dir / "a.bin")
    await server.node.share(server.files_dir / "a.bin")
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(hand_made(swarm.network, f"10.0.2.{number}"))
            for number in range(1, count + 1)
        ]
        links = [await node.dial((SERVER, 4433)) for node in nodes]
        swarm.network.set_host(SERVER, HostProfile(up_bytes_per_s=RATE))
        yield server, content, links


async def ask_for(link: PeerLink, content: Content, number: int) -> MessageStream:
    """Request the part of the file with this number."""
    count = ASKED // content.metainfo.piece_length
    stream = await link.request()
    await stream.send(FileRequest(content.file_id, ((number * count, count),)))
    return stream


async def take(stream: MessageStream) -> float:
    """Read it all; when the last byte came."""
    await stream.receive_as(FileResponse)
    while isinstance(message := await stream.receive(), FileChunk):
        await stream.receive_raw(32 * message.hashes + message.length)
    return trio.current_time()


async def completion_times(swarm: Swarm) -> list[float]:
    """When each of many requesters has its part, after all have asked at once."""
    times: list[float] = []
    async with uplink(swarm, REQUESTERS) as (_, content, links):
        began = trio.current_time()

        async def fetch(number: int) -> None:
            times.append(await take(await ask_for(links[number], content, number)) - began)

        async with trio.open_nursery() as nursery:
            for number in range(REQUESTERS):
                nursery.start_soon(fetch, number)
    return sorted(times)


def earlier_half(times: list[float]) -> float:
    """When the earlier half of the requesters was done, on average, as a part of the time that all need at least.

    An average, because which of them has its piece at what moment is a matter of which packet was lost.
    """
    count = len(times) // 2
    return sum(times[:count]) / count / (REQUESTERS * ASKED / RATE)


def at_once(monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    monkeypatch.setattr("p2pnode.node.upload_turns.UploadTurns.__init__.__defaults__", (turns,))


async def test_of_many_requesters_the_first_ones_have_their_pieces_early(
    autojump_clock: MockClock, swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch, 4)
    times = await completion_times(swarm)
    assert times[-1] <= 1.5 * REQUESTERS * ASKED / RATE  # the uplink is as busy as ever
    assert earlier_half(times) <= 0.7  # 0.42 to 0.55 in fact


async def test_without_turns_they_would_all_be_late(
    autojump_clock: MockClock, swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch, 1000)
    assert earlier_half(await completion_times(swarm)) >= 0.8  # 0.9 to 1.05 in fact


async def test_Q18_requesters_that_died_delay_a_living_one_by_a_bounded_time(
    autojump_clock: MockClock, swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six of them, two at a time, a second each at most; and each has a second request behind its first."""
    at_once(monkeypatch, 2)
    async with uplink(swarm, 7) as (_, content, [alive, *dead]):
        for link in dead:
            for number in (3, 4):
                await ask_for(link, content, number)
        await trio.sleep(0.015)  # they have arrived, and nothing was answered yet
        for number in range(len(dead)):
            swarm.network.block(SERVER, f"10.0.2.{2 + number}")
        began = trio.current_time()
        ended = await take(await ask_for(alive, content, 1))
        waited_s = 3 * (config.UPLOAD_TURN_MAX_S + config.UPLOAD_TURN_CHECK_S)
        assert ended - began <= waited_s + 2 * ASKED / RATE + 0.2
        began = trio.current_time()
        ended = await take(await ask_for(alive, content, 2))
        assert ended - began <= 2 * ASKED / RATE + 0.1  # they are in nobody's way any more
