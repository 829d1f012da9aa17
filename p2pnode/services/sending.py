"""Sending to clients that may take nothing of it."""

from __future__ import annotations

import trio

from p2pnode import config
from p2pnode.errors import StreamReset
from p2pnode.quic import Stream


async def send_all(stream: Stream, data: bytes) -> None:
    """Send as `Stream.send_all` does. `StreamReset`, too, when the client takes nothing of it for too long."""
    for start in range(0, len(data), config.SEND_BUFFER_MIN):
        with trio.move_on_after(config.DOOR_SEND_STALL_S) as patience:
            await stream.send_all(memoryview(data)[start : start + config.SEND_BUFFER_MIN])
        if patience.cancelled_caught:
            raise StreamReset("the client takes nothing of the answer")
