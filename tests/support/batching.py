"""Which way the engines of a test go: by runs of packets, or packet by packet."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from p2pnode.quic.aioquic_batches import BatchConnection
from p2pnode.quic.aioquic_internals import HardenedConnection

BATCHING: Final = ContextVar("BATCHING", default=True)


def engine_class() -> type[HardenedConnection]:
    """What an endpoint would use."""
    return BatchConnection if BATCHING.get() else HardenedConnection
