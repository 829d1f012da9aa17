"""Message ↔ the msgpack map that is the body of a frame.

msgpack gives plain values within limits, msgspec types them, and what a type cannot say is checked last.
Both directions go through the same checks, so what we send is what we would take: a breach is
`LocalProtocolError` in `encode` and `RemoteProtocolError` in `decode`. The texts of both are one line and
never quote the other side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, TypeVar, get_args

import msgpack  # type: ignore[import-untyped]
import msgspec

from p2pnode import config
from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.communication import (
    FileAcknowledge,
    FileAnnounce,
    FileChunk,
    FileItem,
    FileList,
    FileRequest,
    FileResponse,
    FindSources,
    Have,
    Message,
    NodeItem,
    PeerReport,
    PieceRanges,
    PushReport,
    PushRequest,
    SendingLimit,
    Sources,
    UnknownMessage,
)

__all__ = ["decode", "encode", "rows_that_fit"]

Row = TypeVar("Row", FileItem, NodeItem, PeerReport)

_TYPES: Final[dict[str, type[Message]]] = {cls.__name__: cls for cls in get_args(Message)}
_TYPE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_FILE_ID_SIZES: Final = (20, 32)  # SHA-1 of a v1 info dictionary, SHA-256 of a v2 one (BEP 3, BEP 52)
_OTHER_FIELDS_SIZE_MAX: Final = 16 * config.KIB  # what stands beside rows: a name and two cursors, 4 KiB each


def encode(message: Message) -> bytes:
    """Return the body of the frame that says `message`.

    Raises `LocalProtocolError` when a field breaks its bounds or the body is larger than `FRAME_SIZE_MAX`.
    """
    fields = msgspec.to_builtins(message, builtin_types=(bytes,))
    try:
        _typed(fields, type(message))
        body: bytes = msgpack.packb(fields)
    except ValueError as error:  # msgspec's bounds, ours, and text that is no UTF-8 (lone surrogates)
        raise LocalProtocolError(f"{type(message).__name__}: {error}") from None
    if len(body) > config.FRAME_SIZE_MAX:
        raise LocalProtocolError(
            f"{type(message).__name__} of {len(body)} bytes does not fit a frame of {config.FRAME_SIZE_MAX}"
        )
    return body


def decode(body: bytes) -> Message | UnknownMessage:
    """Return the message in the body of a frame, or `UnknownMessage` when only its type is unknown.

    Raises `RemoteProtocolError` for anything else than one map with a `type` and fields within their bounds.
    Keys that this version does not know are ignored.
    """
    fields = _unpacked(body)
    name = fields.get("type") if isinstance(fields, dict) else None
    if not isinstance(name, str) or not _TYPE_NAME.fullmatch(name):
        raise RemoteProtocolError("a frame is not a map with a type")
    message_type = _TYPES.get(name)
    if message_type is None:
        return UnknownMessage(name)
    try:
        return _typed(fields, message_type)
    except ValueError as error:
        raise RemoteProtocolError(f"{name}: {error}") from None


def rows_that_fit(rows: Iterable[Row], count_max: int) -> tuple[Row, ...]:
    """Return as many of the first rows as one message holds, `count_max` at most, and at least one if any.

    A row's bounds are generous, so a full page of the longest rows would not fit a frame: whoever fills
    `FileList.files`, `Sources.sources`, `PushRequest.sources` or `PeerList.peers` takes the rows from here.
    """
    taken: list[Row] = []
    room = config.FRAME_SIZE_MAX - _OTHER_FIELDS_SIZE_MAX
    for row in rows:
        room -= len(msgpack.packb(msgspec.to_builtins(row, builtin_types=(bytes,))))
        if room < 0 or len(taken) == count_max:
            break
        taken.append(row)
    return tuple(taken)


def _unpacked(body: bytes) -> object:
    """Plain values, with arrays and maps bounded before they are allocated."""
    try:
        value: object = msgpack.unpackb(
            body,
            object_pairs_hook=_unique,
            max_array_len=config.RANGES_PER_MESSAGE_MAX,
            max_map_len=config.KEYS_PER_MAP_MAX,
        )
    except UnicodeDecodeError:
        raise RemoteProtocolError("a text in a frame is not UTF-8") from None
    except ValueError:  # whatever msgpack refuses, its texts quote what was sent
        raise RemoteProtocolError("a frame is not one msgpack value within limits") from None
    return value


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise RemoteProtocolError("a key occurs twice in a frame")
    return fields


def _typed(fields: object, message_type: type[Message]) -> Message:
    """The message of that type, with all its bounds checked; `ValueError` says which one does not hold."""
    message = msgspec.convert(fields, message_type, builtin_types=(bytes,))
    _check_meaning(message)
    return message


def _check_meaning(message: Message) -> None:
    """Check what a type cannot say."""
    match message:
        case Have(file_id=file_id, ranges=ranges) | FileRequest(file_id=file_id, ranges=ranges):
            _check_file(file_id, ranges)
        case FileAnnounce(file_id=file_id, have=ranges):
            _check_file(file_id, ranges)
        case (
            FileAcknowledge(file_id=file_id)
            | FileResponse(file_id=file_id)
            | PushReport(file_id=file_id)
            | SendingLimit(file_id=file_id)
        ):
            _check_file(file_id)
        case FileList(files=files):
            for item in files:
                _check_file(item.file_id)
        case Sources(sources=sources):
            _check_sources(sources)
        case PushRequest(file_id=file_id, sources=sources):
            _check_file(file_id)
            _check_sources(sources)
        case FindSources(file_id=None, pieces_root=None):
            raise ValueError("neither file_id nor pieces_root is given")
        case FindSources(file_id=bytes() as file_id):
            _check_file(file_id)
        case FileChunk(offset=offset):
            if offset % config.BLOCK_SIZE:
                raise ValueError("offset is not a whole number of blocks")


def _check_sources(sources: tuple[NodeItem, ...]) -> None:
    for source in sources:
        _check_file(source.file_id, source.have)


def _check_file(file_id: bytes, ranges: PieceRanges = ()) -> None:
    if len(file_id) not in _FILE_ID_SIZES:
        raise ValueError("a file id has 20 or 32 bytes")
    end = 0
    for first, count in ranges:
        if first < end:
            raise ValueError("piece ranges overlap or do not ascend")
        end = first + count
