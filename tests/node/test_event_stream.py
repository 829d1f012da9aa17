"""Events reach whoever listens; a slow listener loses news, never an outcome."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from p2pnode import config
from p2pnode.node.event_stream import EventStream
from p2pnode.node.events import (
    FetchCompleted,
    FetchFailed,
    FetchProgress,
    Listening,
    NodeEvent,
    NodeWarning,
    PeerConnected,
    PeerDisconnected,
    ServerConnected,
    ServerLost,
    UploadFinished,
)

LISTENING = Listening(address=("10.0.0.1", 1), node_id=bytes(32), role="peer", certificate_pin=bytes(32))


def progress(done: int) -> FetchProgress:
    return FetchProgress(file_id=bytes(32), name="a", size=5, bytes_done=done, rate_bytes_per_s=1.0, peers=1)


def all_now(channel: trio.MemoryReceiveChannel[NodeEvent]) -> list[NodeEvent]:
    events = []
    while channel.statistics().current_buffer_used:
        events.append(channel.receive_nowait())
    return events


async def test_every_subscriber_gets_everything_from_now_on() -> None:
    stream = EventStream()
    stream.publish(NodeWarning(text="before"))
    async with stream.subscribe() as one, stream.subscribe() as other:
        stream.publish(NodeWarning(text="now"))
        assert all_now(one) == all_now(other) == [NodeWarning(text="now")]


async def test_who_comes_late_is_told_where_the_node_listens() -> None:
    stream = EventStream()
    stream.publish(LISTENING)
    async with stream.subscribe() as channel:
        assert all_now(channel) == [LISTENING]


async def test_who_has_left_costs_nothing() -> None:
    stream = EventStream()
    async with stream.subscribe():
        pass
    stream.publish(NodeWarning(text="to nobody"))


CONNECTED = ServerConnected(
    address=("10.0.0.1", 1), node_id=bytes(32), verified=True, observed_address=("10.0.0.2", 1)
)
LOST = ServerLost(address=("10.0.0.1", 1), reason="gone", retry_s=1.0)
COMPLETED = FetchCompleted(
    file_id=bytes(32), name="a", size=5, target=Path("a"), seconds=1.0, bytes_fetched=5
)
FAILED = FetchFailed(file_id=bytes(32), name="a", reason="gone", exit_code=3)
OUTCOMES = [NodeWarning(text="an outcome"), LISTENING, CONNECTED, LOST, COMPLETED, FAILED]

UPLOADED = UploadFinished(file_id=bytes(32), name="a", node_id=bytes(32), bytes_sent=5, seconds=1.0)
GREETED = PeerConnected(node_id=bytes(32), name="b", role="peer", address=("10.0.0.3", 1), dialed=False)
PARTED = PeerDisconnected(node_id=bytes(32), name="b", reason="gone")


@pytest.mark.parametrize(
    "news", [progress(1), UPLOADED, GREETED, PARTED], ids=lambda event: type(event).__name__
)
async def test_a_slow_subscriber_loses_what_comes_without_end_and_nothing_else(news: NodeEvent) -> None:
    stream = EventStream()
    async with stream.subscribe() as channel:
        for _ in range(config.EVENTS_QUEUED_MAX + 100):
            stream.publish(news)
        for outcome in OUTCOMES:
            stream.publish(outcome)
        assert all_now(channel) == [*[news] * config.EVENTS_QUEUED_MAX, *OUTCOMES]
        stream.publish(news)
        assert all_now(channel) == [news]  # it caught up
