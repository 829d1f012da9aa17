"""JSON over QUIC as its client sees it: what a tracker answered, checked before anybody believes it.

A tracker may be anybody's. An answer is one JSON object; what is not, or has a field of the wrong type, is a
`RemoteProtocolError`, and `{"error": …}` is raised as what it means. Texts are as the tracker wrote them:
`printable` before a terminal sees them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec

from p2pnode import config
from p2pnode.errors import ErrorAnswer, NotFound, RemoteProtocolError
from p2pnode.wire.tracker_json import ErrorCode

__all__ = [
    "PeerList",
    "TrackerAnswer",
    "encode_request",
    "file_in",
    "peers_in",
    "read_answer",
    "reply_in",
    "scrape_in",
]

TrackerAnswer = dict[str, Any]

_Fields = TypeVar("_Fields", bound=msgspec.Struct)
_Count = Annotated[int, msgspec.Meta(ge=0)]


class _ErrorFields(msgspec.Struct):
    error: str
    code: Annotated[str, msgspec.Meta(max_length=config.WORD_LENGTH_MAX)] | None = None


class _AnnounceFields(msgspec.Struct):
    interval: float
    peers: list[Any] | None = None
    complete: _Count | None = None
    incomplete: _Count | None = None


class _PeerFields(msgspec.Struct):
    ip: Annotated[str, msgspec.Meta(min_length=1, max_length=config.WORD_LENGTH_MAX)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class _CountsFields(msgspec.Struct):
    complete: _Count = 0
    incomplete: _Count = 0
    downloaded: _Count = 0


class _ScrapeFields(msgspec.Struct):
    files: dict[str, _CountsFields]


class _FileFields(msgspec.Struct):
    data: list[Any]
    size: _Count | None = None


class _ReplyFields(msgspec.Struct):
    answer: str


@dataclass(frozen=True)
class PeerList:
    """What an announce was answered. `interval_s` is within our bounds; `peers` are addresses as they were given."""

    interval_s: float
    complete: int
    incomplete: int
    peers: tuple[tuple[str, int], ...]


def encode_request(request: Mapping[str, Any]) -> bytes:
    """One JSON object in ASCII, so that no text of a user, however odd, can fail to be sent."""
    return json.dumps(request, separators=(",", ":")).encode("ascii")


def read_answer(data: bytes | bytearray) -> TrackerAnswer:
    """The object that `data` is. `RemoteProtocolError`; `NotFound` or `ErrorAnswer` for an error."""
    try:
        answer = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"the tracker's answer of {len(data)} bytes is no JSON: {error}") from None
    if not isinstance(answer, dict):
        raise RemoteProtocolError("the tracker's answer is no JSON object")
    if "error" in answer:
        fields = _fields(answer, _ErrorFields)
        text = f"the tracker says: {fields.error[: config.ERROR_TEXT_LENGTH_MAX]}"
        if fields.code == ErrorCode.FILE_NOT_FOUND.value:
            raise NotFound(text)
        raise ErrorAnswer(f"{text} ({fields.code})" if fields.code else text, code=fields.code or "")
    return answer


def peers_in(answer: TrackerAnswer) -> PeerList:
    """The answer to an announce; a peer that can be none is left out, the rest of them count."""
    fields = _fields(answer, _AnnounceFields)
    peers = []
    for peer in (fields.peers or [])[: config.TRACKER_ANSWER_PEERS_MAX]:
        try:
            read = msgspec.convert(peer, _PeerFields)
        except msgspec.ValidationError:
            continue
        peers.append((read.ip, read.port))
    return PeerList(
        min(max(fields.interval, config.TRACKER_INTERVAL_MIN_S), config.TRACKER_INTERVAL_MAX_S),
        fields.complete or 0,
        fields.incomplete or 0,
        tuple(peers),
    )


def scrape_in(answer: TrackerAnswer) -> dict[str, tuple[int, int, int]]:
    """How many have all, how many are fetching, how often it was completed; by info hash in hex."""
    files = _fields(answer, _ScrapeFields).files
    return {key: (counts.complete, counts.incomplete, counts.downloaded) for key, counts in files.items()}


def file_in(answer: TrackerAnswer) -> bytes:
    """The bytes of a file; `RemoteProtocolError` for fewer or more than the answer itself says."""
    fields = _fields(answer, _FileFields)
    try:
        data = bytes(fields.data)
    except (ValueError, TypeError):
        raise RemoteProtocolError("the tracker's file has numbers that are no bytes") from None
    if fields.size is not None and fields.size != len(data):
        raise RemoteProtocolError(f"the tracker sent {len(data)} bytes of a file of {fields.size}")
    return data


def reply_in(answer: TrackerAnswer) -> str:
    """The text that answers a query."""
    return _fields(answer, _ReplyFields).answer


def _fields(answer: TrackerAnswer, kind: type[_Fields]) -> _Fields:
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise RemoteProtocolError(f"the tracker's answer makes no sense: {error}") from None
