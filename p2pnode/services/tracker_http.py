"""The tracker over HTTP: one ASGI application for HTTP/1.1, 2 and 3.

`/announce` and `/scrape`, with a passkey before them where the tracker is private, are nearly all that comes; they are
answered here from the raw query string, before any routing. Everything else is pages: the seeded files, and what an
operator looks at.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from p2pnode import config
from p2pnode.errors import Busy, Refused, RemoteProtocolError
from p2pnode.services.http_files import SeedFile, list_seed_files
from p2pnode.services.http_guard import why_not_shown
from p2pnode.services.metrics import METRICS_CONTENT_TYPE, Metrics
from p2pnode.services.request_log import RequestLog
from p2pnode.services.seed_files import SeedFiles
from p2pnode.services.tracker import Language, Tracker
from p2pnode.tracker.addresses import Address
from p2pnode.tracker.announces import Announce, AnnounceEvent, SwarmCounts
from p2pnode.wire import tracker_http as wire

__all__ = ["application"]

_QUESTION: Final = re.compile(r"(?:/(?P<passkey>[^/]+))?/(?P<kind>announce|scrape)")
_PAGE: Final = re.compile(r"/(files|health|metrics|stats)(?:/|\Z)")
_BROKEN_OFF: Final = "broken off"
_LANGUAGES: Final = {"2": "http/2", "3": "http/3"}

# For whatever a browser shows: it runs nothing of it, and takes it for nothing else than it says.
_SAFETY: Final = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
]


def application(
    tracker: Tracker,
    seed_files: SeedFiles,
    request_log: RequestLog,
    *,
    hosts: Collection[str] = (),
    shows_statistics_to_all: bool = False,
) -> ASGIApp:
    """The whole application. `/metrics` and `/stats` are for this machine and its site, unless they are for all.

    `hosts`: the names, besides `localhost`, by which an operator's browser may call this tracker. By any other
    name, a page of a stranger may be asking (DNS rebinding). Addresses in digits are always good.
    """
    names = frozenset(host.lower() for host in hosts)
    pages = _pages(Metrics(tracker, request_log), seed_files, names, shows_statistics_to_all)
    return _TrackerApplication(tracker, request_log, pages)


class _TrackerApplication:
    def __init__(self, tracker: Tracker, request_log: RequestLog, pages: ASGIApp) -> None:
        self._tracker = tracker
        self._request_log = request_log
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        begun = perf_counter()
        question = _QUESTION.fullmatch(scope["path"])
        page = _PAGE.match(scope["path"])
        kind = question["kind"] if question else page[1] if page else "other"
        outcome = _BROKEN_OFF
        try:
            if len(scope["raw_path"]) + len(scope["query_string"]) > config.HTTP_URI_LENGTH_MAX:
                kind, status = "other", HTTPStatus.REQUEST_URI_TOO_LONG
                await PlainTextResponse("too long an address\n", status)(scope, receive, send)
                outcome = str(int(status))
            elif question is None:
                outcome = await self._show(scope, receive, send)
            elif scope["method"] == "GET":
                outcome = await self._answer(kind, question["passkey"], scope, send)
            else:
                status = HTTPStatus.METHOD_NOT_ALLOWED
                await PlainTextResponse("only GET\n", status, {"allow": "GET"})(scope, receive, send)
                outcome = str(int(status))
        finally:  # who left is counted too
            language = _LANGUAGES.get(scope["http_version"], "http/1.1")
            self._request_log.note(language, kind, tuple(scope["client"]), perf_counter() - begun, outcome)

    async def _answer(self, kind: str, passkey: str | None, scope: Scope, send: Send) -> str:
        """Answer an announce or a scrape; what came of it."""
        ask = self._announce if kind == "announce" else self._scrape
        outcome = "ok"
        try:
            body = ask(scope["query_string"], scope["client"], passkey)
        except (RemoteProtocolError, Refused) as error:
            body = wire.encode_failure(str(error))
            outcome = (
                "busy"
                if isinstance(error, Busy)
                else "refused"
                if isinstance(error, Refused)
                else "malformed"
            )
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))],
            }
        )
        await send({"type": "http.response.body", "body": body})
        return outcome

    def _announce(self, query_string: bytes, source: Address, passkey: str | None) -> bytes:
        query = wire.parse_announce(query_string)
        announce = Announce(
            query.info_hash,
            query.peer_id,
            source,
            query.port,
            query.left,
            AnnounceEvent(query.event),
            query.numwant,
            query.claimed_host,
            query.key,
        )
        answer = self._tracker.announce(announce, passkey=passkey, language=Language.HTTP)
        if query.is_compact:
            peers = wire.compact_peers(answer.peers.compact_v4, answer.peers.compact_v6)
        else:
            named = ((peer.peer_id, peer.host, peer.port) for peer in answer.peers)
            peers = wire.peer_dictionaries(named, with_ids=query.wants_peer_ids)
        return wire.encode_announce(
            _counts(answer.counts),
            peers,
            interval_s=answer.interval_s,
            interval_min_s=answer.interval_min_s,
        )

    def _scrape(self, query_string: bytes, source: Address, passkey: str | None) -> bytes:
        info_hashes = wire.parse_scrape(query_string)
        found = self._tracker.scrape(info_hashes, passkey=passkey, language=Language.HTTP)
        return wire.encode_scrape({info_hash: _counts(counts) for info_hash, counts in found.items()})

    async def _show(self, scope: Scope, receive: Receive, send: Send) -> str:
        """Answer a request for a page; what came of it."""
        status = 0
        is_whole = False

        async def send_safely(message: Message) -> None:
            nonlocal status, is_whole
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_SAFETY]
            await send(message)
            is_whole = message["type"] == "http.response.body" and not message.get("more_body")

        await self._pages(scope, receive, send_safely)
        if not is_whole:
            return _BROKEN_OFF
        return "ok" if status < 400 else str(int(status))


def _counts(counts: SwarmCounts) -> wire.Counts:
    return counts.complete, counts.incomplete, counts.downloaded


def _pages(metrics: Metrics, seed_files: SeedFiles, hosts: Collection[str], open_to_all: bool) -> ASGIApp:
    async def health(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def statistics(request: Request) -> Response:
        if reason := why_not_shown(request.scope, hosts, open_to_all):
            return PlainTextResponse(f"{reason}\n", HTTPStatus.FORBIDDEN)
        return JSONResponse(metrics.statistics())

    async def exposition(request: Request) -> Response:
        if reason := why_not_shown(request.scope, hosts, open_to_all):
            return PlainTextResponse(f"{reason}\n", HTTPStatus.FORBIDDEN)
        return Response(metrics.exposition(), media_type=METRICS_CONTENT_TYPE)

    return Starlette(
        routes=[
            Route("/files/", partial(list_seed_files, seed_files)),
            Route("/files/{name}", SeedFile(seed_files)),
            Route("/health", health),
            Route("/metrics", exposition),
            Route("/stats", statistics),
        ]
    )
