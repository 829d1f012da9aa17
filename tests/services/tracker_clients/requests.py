"""An announce as tests make it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from p2pnode.quic import Address
from p2pnode.services.tracker_clients import AnnounceRequest
from p2pnode.tracker.announces import AnnounceEvent

INFO_HASH = bytes(range(236, 256))
PEER_ID = b"-PN0001-0123456789ab"


def announce(**changes: Any) -> AnnounceRequest:
    fields: dict[str, Any] = {
        "info_hash": INFO_HASH,
        "peer_id": PEER_ID,
        "port": 6881,
        "uploaded": 1,
        "downloaded": 2,
        "left": 3,
        "event": AnnounceEvent.STARTED,
        "numwant": 50,
        "key": 0xDEADBEEF,
    }
    return AnnounceRequest(**fields | changes)


def names(**hosts: str | list[str]) -> Callable[[str, int], Awaitable[list[Address]]]:
    """What each name means; `_` in a keyword stands for a dot. A name is looked up once, or the test fails."""
    left = {
        name.replace("_", "."): [found] if isinstance(found, str) else found for name, found in hosts.items()
    }

    async def resolve(name: str, port: int) -> list[Address]:
        return [(host, port) for host in left.pop(name)]

    return resolve
