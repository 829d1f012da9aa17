"""A tracker's front ends: one tracker, one share of files, one log, and the doors that lead to them.

::

    async with open_front_ends(options, seed_dir) as front_ends:      # nothing is answered yet
        async with Node(…, connection_services=front_ends.connection_services):
            doors = await nursery.start(front_ends.run)                # now everything is
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from http import HTTPStatus
from pathlib import Path
from typing import Final

import trio

from p2pnode.errors import ConfigError, LocalProtocolError
from p2pnode.node.blocking import in_threads
from p2pnode.node.connection_service import ConnectionService
from p2pnode.quic import Address, Credentials, format_address
from p2pnode.services.asgi import Application, Receive, Scope, Send
from p2pnode.services.extras import extra
from p2pnode.services.h3_door import H3Door
from p2pnode.services.http09 import Http09
from p2pnode.services.request_log import RequestLog
from p2pnode.services.seed_files import SeedFiles
from p2pnode.services.tracker import Tracker, TrackerOptions
from p2pnode.services.tracker_json import AnswersQueries, JsonTracker
from p2pnode.services.tracker_udp import UdpTracker

__all__ = [
    "AiChoice",
    "Credentials",
    "Door",
    "FrontEndOptions",
    "FrontEnds",
    "TrackerOptions",
    "open_front_ends",
]

Serve = Callable[..., Awaitable[None]]
"""Given addresses and a `task_status`, answers there, and starts with the addresses as they turned out."""

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
    http: Address | None = None  # HTTP/1.1 and HTTP/2, in the clear
    https: Address | None = None  # the same over TLS
    udp: Address | None = None  # BEP 15
    tracker: TrackerOptions = field(default_factory=TrackerOptions)
    announce_url: str | None = None  # of the torrents made beside the files; None: from what is open
    ai: AiChoice | None = None
    web_hosts: tuple[str, ...] = ()  # names by which a browser may ask for `/stats`
    has_public_statistics: bool = False  # `/stats` and `/metrics` for everybody

    @property
    def any_open(self) -> bool:
        """Whether there is anything to run."""
        return (self.quic or self.http or self.https or self.udp) is not None


@dataclass(frozen=True)
class Door:
    """A port that answers, and what is spoken there: "quic", "http", "https" or "udp"."""

    language: str
    address: Address


class FrontEnds:
    """All front ends of one process over one tracker, made by `open_front_ends`; `run` opens all but the node's."""

    def __init__(
        self,
        options: FrontEndOptions,
        credentials: Credentials | None,
        seed_files: SeedFiles,
        query: AnswersQueries | None,
    ) -> None:
        self._options = options
        self._credentials = credentials
        self._seed_files = seed_files
        self._query = query
        self._request_log = RequestLog()
        self._tracker = Tracker(options.tracker)

    @cached_property
    def connection_services(self) -> tuple[ConnectionService, ...]:
        """What the node beside them serves on its own port. Without the extra for HTTP, HTTP/3 says what is missing."""
        if self._options.quic is None:
            return ()
        json = JsonTracker(self._tracker, self._seed_files, self._query, self._request_log)
        try:
            application = self._application
        except ConfigError as error:
            application = partial(_say_why_not, str(error))
        return (H3Door(json.respond, application), Http09(self._seed_files, self._request_log))

    async def run(self, *, task_status: trio.TaskStatus[list[Door]] = trio.TASK_STATUS_IGNORED) -> None:
        """Open all doors but the node's, tell them to `task_status`, and answer until cancelled.

        `AddressInUse`, `AddressError`; ConfigError where an extra is missing.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tracker.run)
            nursery.start_soon(self._seed_files.run)
            doors: list[Door] = []
            for language, address, serve in self._listening():
                doors += [Door(language, bound) for bound in await nursery.start(serve, [address])]
            task_status.started(doors)

    def _listening(self) -> Iterator[tuple[str, Address, Serve]]:
        """Each door that is a port of its own, and what serves there."""
        options = self._options
        if options.http is not None or options.https is not None:
            with extra("web", "HTTP"):
                from p2pnode.services.http_server import serve_http

            application = self._application
            if options.http is not None:
                yield "http", options.http, partial(serve_http, application)
            if options.https is not None:
                yield "https", options.https, partial(serve_http, application, credentials=self._credentials)
        if options.udp is not None:
            yield "udp", options.udp, UdpTracker(self._tracker, self._request_log).serve

    @cached_property
    def _application(self) -> Application:
        """One for all doors: what it bounds, it bounds for all together."""
        with extra("web", "HTTP"):
            from p2pnode.services.tracker_http import application

        return application(
            self._tracker,
            self._seed_files,
            self._request_log,
            hosts=self._options.web_hosts,
            shows_statistics_to_all=self._options.has_public_statistics,
        )


async def _say_why_not(reason: str, _scope: Scope, _receive: Receive, send: Send) -> None:
    """An ASGI application that can do nothing."""
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": HTTPStatus.NOT_IMPLEMENTED, "headers": headers})
    await send({"type": "http.response.body", "body": f"{reason}\n".encode()})


@asynccontextmanager
async def open_front_ends(
    options: FrontEndOptions, seed_dir: Path, credentials: Credentials | None = None
) -> AsyncIterator[FrontEnds]:
    """Make what is seeded, the torrents too, and find the AI service; `credentials` are those of HTTPS.

    StorageError, ConfigError; `AddressInUse` and `AddressError` for HTTP.
    """
    async with AsyncExitStack() as stack:
        query: AnswersQueries | None = None
        if options.ai is not None:
            with extra("http", "a query to an AI service"):
                from p2pnode.services.query import AiOptions, open_ai_service

            ai = AiOptions(options.ai.url, options.ai.model, options.ai.key)
            query = await stack.enter_async_context(open_ai_service(ai))
        if options.http is not None and options.http[1] == 0:
            options = replace(options, http=await _free_address(options.http))
        url = options.announce_url or _announce_url(options)
        seed_files = SeedFiles(seed_dir, url, run_blocking=in_threads())
        await seed_files.prepare()
        yield FrontEnds(options, credentials, seed_files, query)


async def _free_address(address: Address) -> Address:
    """With a port that is free now: the torrents that are made name it before anybody listens there."""
    with extra("web", "HTTP"):
        from p2pnode.services.http_server import open_listener

    listener = await open_listener(address)
    port: int = listener.socket.getsockname()[1]
    listener.socket.close()
    return address[0], port


def _announce_url(options: FrontEndOptions) -> str:
    """Where a torrent's tracker is, seen from this machine."""
    for scheme, address, path in (
        ("http", options.http, "/announce"),
        ("https", options.https, "/announce"),
        ("udp", options.udp, "/announce"),
        ("quic", options.quic, ""),
    ):
        if address is not None:
            host, port = address
            return f"{scheme}://{format_address((_LOOPBACK.get(host, host), port))}{path}"
    raise LocalProtocolError("no front end is open")
