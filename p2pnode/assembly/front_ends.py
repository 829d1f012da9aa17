"""A tracker's front ends: one tracker, one share of files, one log, and the doors that lead to them.

::

    async with open_front_ends(options, seed_dir) as front_ends:      # nothing is answered yet
        async with Node(…, connection_services=front_ends.connection_services):
            doors = await nursery.start(front_ends.run)                # now everything is
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from p2pnode.errors import LocalProtocolError
from p2pnode.node.blocking import in_threads
from p2pnode.node.connection_service import ConnectionService
from p2pnode.quic import Address, format_address
from p2pnode.services.h3_door import H3Door
from p2pnode.services.request_log import RequestLog
from p2pnode.services.seed_files import SeedFiles
from p2pnode.services.tracker import Tracker, TrackerOptions
from p2pnode.services.tracker_json import AnswersQueries, JsonTracker

__all__ = ["AiChoice", "Door", "FrontEndOptions", "FrontEnds", "TrackerOptions", "open_front_ends"]

_LOOPBACK: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}
"""What a torrent made here names for a tracker that listens everywhere."""


@dataclass(frozen=True, kw_only=True)
class AiChoice:
    """An OpenAI-compatible service that answers queries."""

    url: str
    model: str = ""
    key: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class FrontEndOptions:
    """Which doors are open, and what holds for all of them."""

    quic: Address | None = None  # JSON, HTTP/3 and HTTP/0.9 on the node's own port
    http: Address | None = None  # HTTP/1.1 and HTTP/2
    udp: Address | None = None  # BEP 15
    tracker: TrackerOptions = field(default_factory=TrackerOptions)
    announce_url: str | None = None  # of the torrents made beside the files; None: from what is open
    ai: AiChoice | None = None

    @property
    def any_open(self) -> bool:
        """Whether there is anything to run."""
        return (self.quic or self.http or self.udp) is not None


@dataclass(frozen=True)
class Door:
    """A port that answers, and what is spoken there: "quic", "http" or "udp"."""

    language: str
    address: Address


class FrontEnds:
    """All front ends of one process over one tracker, made by `open_front_ends`; `run` opens all but the node's."""

    def __init__(self, options: FrontEndOptions, seed_files: SeedFiles, query: AnswersQueries | None) -> None:
        self._options = options
        self._seed_files = seed_files
        self._request_log = RequestLog()
        self._tracker = Tracker(options.tracker)
        self._json = JsonTracker(self._tracker, seed_files, query, self._request_log)

    @property
    def connection_services(self) -> tuple[ConnectionService, ...]:
        """What the node beside them serves on its own port."""
        return () if self._options.quic is None else (H3Door(self._json.respond),)

    async def run(self, *, task_status: trio.TaskStatus[list[Door]] = trio.TASK_STATUS_IGNORED) -> None:
        """Open all doors but the node's, tell them to `task_status`, and answer until cancelled.

        `AddressInUse`, `AddressError`.
        """
        doors: list[Door] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tracker.run)
            nursery.start_soon(self._seed_files.run)
            task_status.started(doors)


@asynccontextmanager
async def open_front_ends(options: FrontEndOptions, seed_dir: Path) -> AsyncIterator[FrontEnds]:
    """Make what is seeded, the torrents too, and find the AI service. StorageError, ConfigError."""
    async with AsyncExitStack() as stack:
        query: AnswersQueries | None = None
        if options.ai is not None:
            from p2pnode.services.query import AiOptions, open_ai_service  # an extra

            ai = AiOptions(options.ai.url, options.ai.model, options.ai.key)
            query = await stack.enter_async_context(open_ai_service(ai))
        url = options.announce_url or _announce_url(options)
        seed_files = SeedFiles(seed_dir, url, run_blocking=in_threads())
        await seed_files.prepare()
        yield FrontEnds(options, seed_files, query)


def _announce_url(options: FrontEndOptions) -> str:
    """Where a torrent's tracker is, seen from this machine."""
    for scheme, address, path in (
        ("http", options.http, "/announce"),
        ("udp", options.udp, "/announce"),
        ("quic", options.quic, ""),
    ):
        if address is not None:
            host, port = address
            return f"{scheme}://{format_address((_LOOPBACK.get(host, host), port))}{path}"
    raise LocalProtocolError("no front end is open")
