"""Events reach whoever listens; a slow listener loses progress, never an outcome."""

from __future__ import annotations

import trio

from p2pnode import config
from p2pnode.node.event_stream import EventStream
from p2pnode.node.events import FetchProgress, Listening, NodeEvent, NodeWarning

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


async def test_a_slow_subscriber_loses_progress_and_nothing_else() -> None:
    stream = EventStream()
    async with stream.subscribe() as channel:
        for done in range(config.EVENTS_QUEUED_MAX + 100):
            stream.publish(progress(done))
        outcome = NodeWarning(text="an outcome")
        stream.publish(outcome)
        seen = all_now(channel)
        assert seen == [*map(progress, range(config.EVENTS_QUEUED_MAX)), outcome]
        stream.publish(progress(7))
        assert all_now(channel) == [progress(7)]  # it caught up
