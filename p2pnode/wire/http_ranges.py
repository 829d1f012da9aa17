"""Which part of a file a request over HTTP is for: conditions and ranges (RFC 9110 §13 and §14)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from p2pnode import config

__all__ = ["FileVersion", "Part"]

_YEAR_9999_S: Final = 253_402_300_799  # no date can be later: its form has four digits for the year
_RANGE: Final = re.compile(rb"[ \t]*(\d{0,18})-(\d{0,18})[ \t]*")


@dataclass(frozen=True, slots=True)
class Part:
    """What to answer with: `length` bytes from `first` on, and the status that says so.

    Beside 200 and 206 that is 304 and 416, both without a byte of the file.
    """

    status: HTTPStatus
    first: int
    length: int


@dataclass(frozen=True, slots=True)
class FileVersion:
    """A file as it is now."""

    size: int  # bytes
    modified_ns: int  # since 1970

    @property
    def etag(self) -> bytes:
        """A strong validator: whatever changes a file changes this, as far as its file system tells."""
        return b'"%x-%x"' % (self.size, self.modified_ns)

    @property
    def last_modified(self) -> bytes:
        """The weaker one, in whole seconds."""
        return format_datetime(self._modified(), usegmt=True).encode("ascii")

    def part_for(self, fields: Mapping[bytes, bytes]) -> Part:
        """What a GET or HEAD with these header fields (lower-case names) is for."""
        if self._is_known_to(fields):
            return Part(HTTPStatus.NOT_MODIFIED, 0, 0)
        wanted = None
        if b"range" in fields and self._holds_if_range(fields.get(b"if-range")):
            wanted = _wanted(fields[b"range"], self.size)
        if wanted is None:
            return Part(HTTPStatus.OK, 0, self.size)
        if not wanted:
            return Part(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, 0)
        return Part(HTTPStatus.PARTIAL_CONTENT, wanted.start, len(wanted))

    def _modified(self) -> datetime:
        return datetime.fromtimestamp(min(max(0, self.modified_ns // 10**9), _YEAR_9999_S), UTC)

    def _is_known_to(self, fields: Mapping[bytes, bytes]) -> bool:
        """Whether the client has this version; the date counts only where no tag is named (RFC 9110 §13.2.2)."""
        tags = fields.get(b"if-none-match")
        if tags is not None:
            return any(tag.strip().removeprefix(b"W/") in (b"*", self.etag) for tag in tags.split(b","))
        since = _date(fields.get(b"if-modified-since"))
        return since is not None and self._modified() <= since

    def _holds_if_range(self, validator: bytes | None) -> bool:
        """Whether the client's other parts are of this version (RFC 9110 §13.1.5: a strong comparison)."""
        if validator is None or validator.startswith(b'"'):
            return validator in (None, self.etag)
        return _date(validator) == self._modified()


def _date(value: bytes | None) -> datetime | None:
    try:
        date = parsedate_to_datetime((value or b"").decode("latin-1"))
    except ValueError:
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def _wanted(value: bytes, size: int) -> range | None:
    """The bytes that are asked for; none of them: an empty range; None: the whole file.

    A field that is malformed is ignored. Of several ranges the whole is sent: whoever asks for them has to expect it
    (RFC 9110 §14.2), and many small or overlapping ones are an old way to make a server work.
    """
    unit, _, sets = value.partition(b"=")
    ranges = sets.split(b",", config.HTTP_RANGES_MAX)
    if unit.strip().lower() != b"bytes" or len(ranges) > config.HTTP_RANGES_MAX:
        return None
    satisfiable = []
    for one in ranges:
        match = _RANGE.fullmatch(one)
        if match is None or match[0].strip() == b"-":
            return None
        first, last = match.groups()
        if first and last and int(last) < int(first):
            return None
        if not first:  # the last so many
            wanted = range(max(0, size - int(last)), size)
        else:
            wanted = range(int(first), min(int(last) + 1, size) if last else size)
        if wanted:
            satisfiable.append(wanted)
    if len(satisfiable) > 1:
        return None
    return satisfiable[0] if satisfiable else range(0)
