"""Hands out events to whoever listens; a slow listener loses news, never an outcome."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from p2pnode import config
from p2pnode.node.events import (
    FetchCompleted,
    FetchFailed,
    Listening,
    NodeEvent,
    NodeWarning,
    ServerConnected,
    ServerLost,
)

# What must not be lost. All else a remote can cause as often as it likes: it connects, it asks for a piece.
_OUTCOMES = (FetchCompleted, FetchFailed, Listening, NodeWarning, ServerConnected, ServerLost)


class EventStream:
    """Publishes to any number of subscribers; `Listening` is repeated to late ones."""

    def __init__(self) -> None:
        self._subscribers: set[trio.MemorySendChannel[NodeEvent]] = set()
        self._listening: Listening | None = None

    def publish(self, event: NodeEvent) -> None:
        """Give the event to every subscriber, now."""
        if isinstance(event, Listening):
            self._listening = event
        for channel in self._subscribers:
            queued = channel.statistics().current_buffer_used
            if queued < config.EVENTS_QUEUED_MAX or isinstance(event, _OUTCOMES):
                channel.send_nowait(event)

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[trio.MemoryReceiveChannel[NodeEvent]]:
        """Receive every event from now on."""
        # Unbounded, since an outcome must not be lost; `publish` bounds all the rest.
        send, receive = trio.open_memory_channel[NodeEvent](float("inf"))
        if self._listening is not None:
            send.send_nowait(self._listening)
        self._subscribers.add(send)
        try:
            with send, receive:
                yield receive
        finally:
            self._subscribers.discard(send)
