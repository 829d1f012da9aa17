"""The tracker's JSON: one object a request, one object an answer, byte for byte what its known clients speak.

`parse_request` is as strict as JSON can be read: text that is not UTF-8, NaN and infinities, a key twice, half of a
surrogate pair, numbers without end and nesting without end are errors, and so is a known key of the wrong
type (`true` is no number, `1.0` no integer). An absent key and one that is null are the same; unknown keys are
ignored. Whatever the bytes are, what comes back is a request or an `ErrorReply`: nothing is raised.

The kind of a request follows from its keys: `info_hash`, then `file`, `query`, `scrape`, `capabilities`.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Annotated, Any, Final, NoReturn, TypeAlias

import msgspec
from msgspec import Meta, Struct

from p2pnode import config

__all__ = [
    "REQUEST_TOO_LARGE",
    "AnnounceRequest",
    "CapabilityFrame",
    "ContextMessage",
    "ErrorCode",
    "ErrorReply",
    "FileAnswer",
    "FileQuery",
    "Query",
    "QueryAnswer",
    "QueryMetadata",
    "QueryParameters",
    "Request",
    "ScrapeRequest",
    "announce_answer",
    "capability_answer",
    "parse_request",
    "scrape_answer",
]


class ErrorCode(Enum):
    """What went wrong, as the `code` of an error answer says it."""

    INVALID_ENCODING = "INVALID_ENCODING"  # not UTF-8
    INVALID_JSON = "INVALID_JSON"  # also empty, no object, or too large to be looked at
    UNKNOWN_REQUEST = "UNKNOWN_REQUEST"  # no kind that we know, or a known key of the wrong type
    FILE_NOT_FOUND = "FILE_NOT_FOUND"
    FILE_READ_ERROR = "FILE_READ_ERROR"
    FILE_TOO_LARGE = "FILE_TOO_LARGE"
    SERIALIZATION_ERROR = "SERIALIZATION_ERROR"  # the answer cannot be said in JSON
    INTERNAL_ERROR = "INTERNAL_ERROR"
    AI_UNAVAILABLE = "AI_UNAVAILABLE"  # no service is set
    REFUSED = "REFUSED"  # our own: a private tracker, or a torrent that the operator does not allow


class ErrorReply(Struct, frozen=True):
    """A request that gets no other answer, and why in one line."""

    text: str
    code: ErrorCode

    def encode(self) -> bytes:
        """Give less than 1 kB, whatever a stranger had put into the text."""
        shown = "".join(
            character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
            for character in self.text[: config.JSON_ERROR_TEXT_LENGTH_MAX]
        )
        return _encode({"error": shown, "code": self.code.value})


REQUEST_TOO_LARGE: Final = ErrorReply(
    f"Request is larger than {config.JSON_REQUEST_SIZE_MAX} bytes", ErrorCode.INVALID_JSON
)

# -- requests ----------------------------------------------------------------------------------------------


class AnnounceRequest(Struct, frozen=True, gc=False):
    """A peer and a torrent. `claimed_host` is what the peer says of its address, `event` any text."""

    info_hash: bytes
    peer_id: bytes
    port: int
    uploaded: int
    downloaded: int
    left: int
    event: str
    claimed_host: str | None
    passkey: str | None


class FileQuery(Struct, frozen=True):
    """A file's content; the name as it was asked for, however hostile."""

    filename: str


class ContextMessage(Struct, frozen=True):
    """What was said before a query, and by whom."""

    role: str
    content: str


class QueryParameters(Struct, frozen=True):
    """How an AI service shall answer; None leaves it to the service."""

    temperature: float | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    top_p: float | None = None


class Query(Struct, frozen=True):
    """A question to the AI service."""

    text: str
    context: tuple[ContextMessage, ...] = ()
    parameters: QueryParameters = QueryParameters()


class ScrapeRequest(Struct, frozen=True):
    """How many peers torrents have: 20 bytes each, by the text that asked for it."""

    info_hashes: dict[str, bytes]
    passkey: str | None


class CapabilityFrame(Struct, frozen=True):
    """What the asker speaks."""

    capabilities: tuple[str, ...]


Request: TypeAlias = AnnounceRequest | FileQuery | Query | ScrapeRequest | CapabilityFrame

_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Keys(Struct, frozen=True, gc=False):
    """Every key that means something, of whatever kind of request: its type is checked wherever it stands."""

    info_hash: str | None = None
    peer_id: str | None = None
    port: Annotated[int, Meta(ge=0, le=65535)] | None = None
    uploaded: _Count | None = None
    downloaded: _Count | None = None
    left: _Count | None = None
    event: str | None = None
    ip: str | None = None
    passkey: str | None = None
    file: str | None = None
    query: str | None = None
    context: tuple[ContextMessage, ...] | None = None
    parameters: QueryParameters | None = None
    scrape: tuple[str, ...] | None = None
    capabilities: tuple[str, ...] | None = None


def parse_request(body: bytes) -> Request | ErrorReply:
    """Read all that came on a stream up to its end."""
    if len(body) > config.JSON_REQUEST_SIZE_MAX:
        return REQUEST_TOO_LARGE
    try:
        found = _parse_strictly(body.decode())
    except UnicodeDecodeError:
        return ErrorReply("Request is not valid UTF-8", ErrorCode.INVALID_ENCODING)
    except (ValueError, RecursionError):
        reason = "Request is not valid JSON" if body else "Request is empty"
        return ErrorReply(reason, ErrorCode.INVALID_JSON)
    if not isinstance(found, dict):
        return ErrorReply("Request is not a JSON object", ErrorCode.INVALID_JSON)
    try:
        return _request(msgspec.convert(found, _Keys))
    except msgspec.ValidationError as error:
        return ErrorReply(f"Invalid request: {error}", ErrorCode.UNKNOWN_REQUEST)


def _request(keys: _Keys) -> Request:
    if keys.info_hash is not None:
        return _announce(keys.info_hash, keys)
    if keys.file is not None:
        return FileQuery(keys.file)
    if keys.query is not None:
        return Query(keys.query, keys.context or (), keys.parameters or QueryParameters())
    if keys.scrape is not None:
        return ScrapeRequest({text: _info_hash(text) for text in keys.scrape}, keys.passkey)
    if keys.capabilities is not None:
        return CapabilityFrame(keys.capabilities)
    raise msgspec.ValidationError("none of the keys info_hash, file, query, scrape, capabilities")


def _announce(info_hash: str, keys: _Keys) -> AnnounceRequest:
    if keys.peer_id is None or keys.port is None:
        raise msgspec.ValidationError("an announce needs info_hash, peer_id and port")
    peer_id = keys.peer_id.encode()
    if not 1 <= len(peer_id) <= config.PEER_ID_SIZE_MAX:
        raise msgspec.ValidationError(f"a peer_id has 1 to {config.PEER_ID_SIZE_MAX} bytes")
    return AnnounceRequest(
        _info_hash(info_hash),
        peer_id,
        keys.port,
        keys.uploaded or 0,
        keys.downloaded or 0,
        keys.left or 0,  # who does not say what it lacks has it all
        keys.event or "",
        keys.ip,
        keys.passkey,
    )


_INFO_HASH: Final = re.compile("[0-9a-fA-F]{40}")  # bytes.fromhex alone skips spaces


def _info_hash(text: str) -> bytes:
    if not _INFO_HASH.fullmatch(text):
        raise msgspec.ValidationError("an info hash has 40 hexadecimal digits")
    return bytes.fromhex(text)


# -- strict JSON -------------------------------------------------------------------------------------------


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number without end")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_finite, parse_constant=_refuse_constant
)
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def _parse_strictly(text: str) -> object:
    """Raise ValueError or RecursionError for what is no JSON, and for what two readers could read differently."""
    found: object = _DECODER.decode(text)
    if _SURROGATE.search(text):
        json.dumps(
            found, ensure_ascii=False
        ).encode()  # UnicodeEncodeError, a ValueError, unless they pair up
    return found


# -- answers -----------------------------------------------------------------------------------------------

_encode: Final = msgspec.json.Encoder().encode


_V4: Final = struct.Struct("!4BH")
_V6: Final = struct.Struct("!16sH")


def announce_answer(
    interval_s: int, peers_v4: bytes, peers_v6: bytes, complete: int, incomplete: int
) -> bytes:
    """Encode whom to talk to. Peers come packed, as BEP 23 (6 bytes each) and BEP 7 (18 bytes) have them."""
    peers = [b'{"ip":"%d.%d.%d.%d","port":%d}' % fields for fields in _V4.iter_unpack(peers_v4)]
    peers += [b'{"ip":"%b","port":%d}' % (_shown(host), port) for host, port in _V6.iter_unpack(peers_v6)]
    return b'{"interval":%d,"peers":[%b],"complete":%d,"incomplete":%d}' % (
        interval_s,
        b",".join(peers),
        complete,
        incomplete,
    )


@lru_cache(maxsize=4096)  # finding the longest run of zeros takes longer than all the rest of an announce
def _shown(host: bytes) -> bytes:
    return str(IPv6Address(host)).encode()


def scrape_answer(files: Mapping[str, tuple[int, int, int]]) -> bytes:
    """Encode (complete, downloaded, incomplete) of each torrent, by the text that asked for it."""
    names = ("complete", "downloaded", "incomplete")
    return _encode({"files": {text: dict(zip(names, counts, strict=True)) for text, counts in files.items()}})


def capability_answer(capabilities: Sequence[str]) -> bytes:
    """Encode what both sides speak."""
    return _encode({"capabilities": capabilities})


class FileAnswer:
    """A file as an array of numbers, 3.6 bytes for each of its own: encoded in parts, never all at once.

    The answer is `head`, what `part` gives for the file's bytes in order, and `tail`.
    """

    head: Final = b'{"data":['

    def __init__(self, filename: str, size: int) -> None:
        self.tail: Final = b'],"filename":%b,"size":%d}' % (_encode(filename), size)

    @staticmethod
    def part(data: bytes, offset: int) -> bytes:
        """Encode the bytes that stand at `offset` of the file."""
        numbers = _encode(list(data))[1:-1]
        return b"," + numbers if offset else numbers


class QueryMetadata(Struct, frozen=True):
    """What an answer cost."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    processing_time_ms: int


class QueryAnswer(Struct, frozen=True):
    """What the AI service said."""

    answer: str
    metadata: QueryMetadata

    def encode(self) -> bytes:
        """Give the JSON; ValueError when the text has half of a surrogate pair, which UTF-8 cannot say."""
        return _encode(self)
