"""The streams of one connection: made here or by the remote, found again for each event, and forgotten.

A remote that opens more streams than anybody accepts, or opens them only to reset them, is bounded here.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import trio
from aioquic.quic import events
from aioquic.quic.connection import stream_is_unidirectional

from p2pnode import config
from p2pnode.quic.aioquic_internals import HardenedConnection
from p2pnode.quic.budget import Budget
from p2pnode.quic.lifecycle import ConnectionStatistics, Role
from p2pnode.quic.stream import Stream

if TYPE_CHECKING:
    from p2pnode.quic.connection import Connection

EXCESSIVE_LOAD: Final = 0x107  # the code HTTP/3 has for a peer that only makes work (RFC 9114 §8.1)
ACCEPT_QUEUE_MAX: Final = 256  # streams that the remote opened and nobody accepted yet
SWEEP_MIN: Final = 64  # streams known before it is worth forgetting those that are done

StreamEvent = events.StreamDataReceived | events.StreamReset | events.StopSendingReceived


class AcceptQueue:
    """Streams of one kind that the remote has opened and nobody has accepted yet."""

    def __init__(self) -> None:
        self._streams: deque[Stream] = deque()
        self._is_closed = False
        self._arrived = trio.lowlevel.ParkingLot()

    def put(self, stream: Stream) -> bool:
        """Let somebody accept it; False when too many wait for that, or nobody will."""
        if self._is_closed or len(self._streams) >= ACCEPT_QUEUE_MAX:
            return False
        self._streams.append(stream)
        self._arrived.unpark()
        return True

    def close(self) -> None:
        """There will be no more."""
        self._is_closed = True
        self._arrived.unpark_all()

    async def take(self) -> Stream | None:
        """Wait for the next one; None when there will be none."""
        if self._streams:
            await trio.lowlevel.checkpoint()
        while not self._streams:
            if self._is_closed:
                await trio.lowlevel.checkpoint()
                return None
            await self._arrived.park()
        return self._streams.popleft()


class StreamTable:
    """All streams of `connection` that are not done yet."""

    def __init__(
        self, connection: Connection, engine: HardenedConnection, statistics: ConnectionStatistics
    ) -> None:
        self._connection = connection
        self._engine = engine
        self._statistics = statistics
        self._streams: dict[int, Stream] = {}
        self._sweep_at = SWEEP_MIN
        self.bidirectional = AcceptQueue()
        self.unidirectional = AcceptQueue()
        self._resets = Budget(config.STREAM_RESETS_PER_S, config.STREAM_RESETS_BURST)

    def __len__(self) -> int:
        """How many are known, with some that are done."""
        return len(self._streams)

    def open(self, *, unidirectional: bool = False) -> Stream:
        """A new stream of ours. The remote must allow one."""
        return self._add(self._engine.open_stream(unidirectional=unidirectional))

    def end(self) -> None:
        """The connection is over: let everyone who waits see it."""
        self.bidirectional.close()
        self.unidirectional.close()
        for stream in self._streams.values():
            stream.on_connection_closed()

    def tell(self, event: StreamEvent, now: float) -> None:
        """Let the stream of an event know of it."""
        stream = self._streams.get(event.stream_id) or self._begin(event.stream_id, now)
        match event:
            case events.StreamDataReceived():
                stream.on_data(event.data, event.end_stream)
            case events.StreamReset():
                if stream.on_reset(event.error_code):
                    self._count_reset(event.stream_id, now)
            case events.StopSendingReceived():
                if stream.on_stop_sending(event.error_code):
                    self._count_reset(event.stream_id, now)

    def _begin(self, stream_id: int, now: float) -> Stream:
        """A stream that the remote has just opened, to be accepted."""
        stream = self._add(stream_id)
        queue = self.unidirectional if stream_is_unidirectional(stream_id) else self.bidirectional
        if not queue.put(stream):
            self._statistics.streams_refused += 1
            stream.reset(EXCESSIVE_LOAD)
            self._count_reset(stream_id, now)
        return stream

    def _add(self, stream_id: int) -> Stream:
        if len(self._streams) >= self._sweep_at:
            self._streams = {
                id: stream for id, stream in self._streams.items() if self._engine.has_stream(id)
            }
            self._sweep_at = SWEEP_MIN + 2 * len(self._streams)
        is_one_way = stream_is_unidirectional(stream_id)
        stream = self._streams[stream_id] = Stream(
            self._connection,
            self._engine,
            stream_id,
            sends=not (is_one_way and self._is_remotes(stream_id)),
            receives=not (is_one_way and not self._is_remotes(stream_id)),
        )
        return stream

    def _is_remotes(self, stream_id: int) -> bool:
        """Whether the remote opened it (RFC 9000 §2.1)."""
        return bool(stream_id & 1) is (self._connection.role is Role.DIALED)

    def _count_reset(self, stream_id: int, now: float) -> None:
        """A remote that opens streams only to reset them makes work for nothing, and gets no more of it."""
        if self._is_remotes(stream_id) and not self._resets.spend(now):
            self._engine.close(EXCESSIVE_LOAD, reason_phrase="too many streams opened and reset")
