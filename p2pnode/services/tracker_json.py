"""The tracker in JSON: one object in, one object out, whoever carries them.

An answer is sent in pieces as the other side takes them. A file of 5 MiB is 19 MB as an array of numbers, and a
client may ask for it on each of its streams: no more than a step of it is ever in memory, and between two steps
others are answered.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias

from p2pnode import config
from p2pnode.errors import REMOTE_FAULTS, Refused, StorageError
from p2pnode.services.network_shares import NetworkShares
from p2pnode.services.request_log import RequestLog
from p2pnode.services.seed_files import OpenedFile, SeedFiles
from p2pnode.services.tracker import Language, Tracker
from p2pnode.tracker.addresses import Address
from p2pnode.tracker.announces import Announce, AnnounceEvent
from p2pnode.wire.tracker_json import (
    REQUEST_TOO_LARGE,
    AnnounceRequest,
    CapabilityFrame,
    ErrorCode,
    ErrorReply,
    FileAnswer,
    FileQuery,
    Query,
    QueryAnswer,
    Request,
    ScrapeRequest,
    announce_answer,
    capability_answer,
    parse_request,
    scrape_answer,
)

__all__ = ["AnswersQueries", "JsonTracker", "Send"]

Send: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Carries the next bytes of an answer, and returns when there is room for more."""

_OK: Final = "ok"
_BROKEN_OFF: Final = "broken off"
_KINDS: Final[dict[type[Request | ErrorReply], str]] = {
    AnnounceRequest: "announce",
    FileQuery: "file",
    Query: "query",
    ScrapeRequest: "scrape",
    CapabilityFrame: "capabilities",
    ErrorReply: "invalid",
}
_EVENTS: Final = {event.value: event for event in AnnounceEvent}
_NAME_SHOWN_MAX: Final = 60  # characters: what else there is to say must fit as well


class AnswersQueries(Protocol):
    """An AI service."""

    async def answer(self, query: Query) -> QueryAnswer:
        """What it says; one of `REMOTE_FAULTS`, with a text to show, when it fails."""


class JsonTracker:
    """Answers requests over the one `tracker`; `query` is None when no AI service is set."""

    def __init__(
        self,
        tracker: Tracker,
        seed_files: SeedFiles,
        query: AnswersQueries | None,
        request_log: RequestLog,
    ) -> None:
        self._tracker = tracker
        self._seed_files = seed_files
        self._query = query
        self._request_log = request_log
        self._queries = NetworkShares(config.AI_QUERIES_MAX, config.AI_QUERIES_PER_NETWORK_MAX)
        self._capabilities = ("tracker", "scrape", "files") + (("ai",) if query is not None else ())

    async def respond(self, body: bytes | None, client: Address, send: Send) -> None:
        """Send the whole answer to a request; `body` is None where it was too large to be kept.

        Every request has an answer. What `send` raises comes through, and so does the StorageError of a
        file that fails after a part of it was sent: then only a reset can tell.
        """
        began = time.perf_counter()
        request = REQUEST_TOO_LARGE if body is None else parse_request(body)
        outcome = _BROKEN_OFF
        try:
            answer = await self._answer(request, client, send)
            if answer is not None:
                await send(answer.encode() if isinstance(answer, ErrorReply) else answer)
            outcome = answer.code.value if isinstance(answer, ErrorReply) else _OK
        finally:
            took_s = time.perf_counter() - began
            self._request_log.note(Language.JSON.value, _KINDS[type(request)], client, took_s, outcome)

    async def _answer(
        self, request: Request | ErrorReply, client: Address, send: Send
    ) -> bytes | ErrorReply | None:
        """What to send; None when it was sent already."""
        match request:
            case AnnounceRequest():
                return self._announce(request, client)
            case FileQuery():
                return await self._send_file(request.filename, send)
            case ScrapeRequest():
                return self._scrape(request)
            case Query():
                return await self._ask(request, client)
            case CapabilityFrame():
                theirs = frozenset(request.capabilities)
                return capability_answer([name for name in self._capabilities if name in theirs])
            case ErrorReply():
                return request

    def _announce(self, request: AnnounceRequest, client: Address) -> bytes | ErrorReply:
        announce = Announce(
            request.info_hash,
            request.peer_id,
            client,
            request.port,
            request.left,
            _EVENTS.get(request.event, AnnounceEvent.NONE),
            claimed_host=request.claimed_host,
        )
        try:
            answer = self._tracker.announce(announce, passkey=request.passkey, language=Language.JSON)
        except Refused as refused:
            return ErrorReply(str(refused), ErrorCode.REFUSED)
        peers, counts = answer.peers, answer.counts
        return announce_answer(
            answer.interval_s, peers.compact_v4, peers.compact_v6, counts.complete, counts.incomplete
        )

    def _scrape(self, request: ScrapeRequest) -> bytes | ErrorReply:
        asked = request.info_hashes
        try:
            counts = self._tracker.scrape(asked.values(), passkey=request.passkey, language=Language.JSON)
        except Refused as refused:
            return ErrorReply(str(refused), ErrorCode.REFUSED)
        found = ((text, counts.get(info_hash)) for text, info_hash in asked.items())
        return scrape_answer(
            {text: (one.complete, one.downloaded, one.incomplete) for text, one in found if one is not None}
        )

    async def _ask(self, query: Query, client: Address) -> bytes | ErrorReply:
        if self._query is None:
            return ErrorReply("AI processing not available", ErrorCode.AI_UNAVAILABLE)
        try:
            with self._queries.place(client[0]) as has_place:
                if not has_place:
                    return ErrorReply("Too many queries at once, ask again later", ErrorCode.REFUSED)
                answer = await self._query.answer(query)
        except REMOTE_FAULTS as fault:
            return ErrorReply(f"AI processing failed: {fault}", ErrorCode.INTERNAL_ERROR)
        try:
            return answer.encode()
        except UnicodeEncodeError:
            return ErrorReply("The AI service's answer is no text", ErrorCode.SERIALIZATION_ERROR)

    # -- files ---------------------------------------------------------------------------------------------

    async def _send_file(self, filename: str, send: Send) -> ErrorReply | None:
        """Send a file; or nothing, and return why."""
        shown = filename[:_NAME_SHOWN_MAX]
        try:
            file = await self._seed_files.open(filename)
        except StorageError:
            return _unreadable(shown)
        if file is None:
            return ErrorReply(f"File not found: {shown}", ErrorCode.FILE_NOT_FOUND)
        with file:
            if file.size > config.JSON_FILE_SIZE_MAX:
                return _too_large(shown, file.size)
            try:
                start = await _look_through(file)
            except StorageError:
                return _unreadable(shown)
            await _send_content(file, start, FileAnswer(filename, file.size), send)
        return None


async def _look_through(file: OpenedFile) -> bytes:
    """Read it all from the end on, so that an error is known before a byte is sent; return its first step."""
    data = b""
    for offset in reversed(range(0, file.size, config.JSON_FILE_STEP)):
        data = await _step(file, offset)
    return data


async def _send_content(file: OpenedFile, start: bytes, answer: FileAnswer, send: Send) -> None:
    encoded = answer.head + answer.part(start, 0)
    for offset in range(config.JSON_FILE_STEP, file.size, config.JSON_FILE_STEP):
        await send(encoded)
        encoded = answer.part(await _step(file, offset), offset)
    await send(encoded + answer.tail)


async def _step(file: OpenedFile, offset: int) -> bytes:
    return await file.read(offset, min(config.JSON_FILE_STEP, file.size - offset))


def _unreadable(shown: str) -> ErrorReply:
    return ErrorReply(f"File cannot be read: {shown}", ErrorCode.FILE_READ_ERROR)


def _too_large(shown: str, size: int) -> ErrorReply:
    return ErrorReply(
        f"File too large for JSON: {shown} has {size} bytes, the limit is {config.JSON_FILE_SIZE_MAX}. "
        "No limit have p2pnode/1, HTTP (GET /files/<name>) and hq-interop (GET /<name>)",
        ErrorCode.FILE_TOO_LARGE,
    )
