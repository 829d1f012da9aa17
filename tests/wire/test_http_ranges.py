"""Conditions and ranges of HTTP: the examples of RFC 9110, and what nobody should ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.wire.http_ranges import FileVersion, Part

SIZE = 10_000
VERSION = FileVersion(SIZE, 784_111_777 * 10**9 + 5)  # Sun, 06 Nov 1994 08:49:37 GMT
DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
WHOLE = Part(200, 0, SIZE)
NOTHING = Part(416, 0, 0)
KNOWN = Part(304, 0, 0)


def test_validators() -> None:
    assert VERSION.last_modified == DATE
    assert VERSION.etag.startswith(b'"')
    others = [FileVersion(SIZE + 1, VERSION.modified_ns), FileVersion(SIZE, VERSION.modified_ns + 1)]
    assert len({VERSION.etag, *(other.etag for other in others)}) == 3


@pytest.mark.parametrize(("modified_ns", "year"), [(-1, b"1970"), (10**30, b"9999")])
def test_files_from_other_times_have_a_date(modified_ns: int, year: bytes) -> None:
    assert year in FileVersion(SIZE, modified_ns).last_modified


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("bytes=0-499", Part(206, 0, 500)),
        ("bytes=500-999", Part(206, 500, 500)),
        ("bytes=-500", Part(206, 9500, 500)),
        ("bytes=9500-", Part(206, 9500, 500)),
        ("Bytes= 0-0 ", Part(206, 0, 1)),
        ("bytes=9999-", Part(206, 9999, 1)),
        ("bytes=0-", Part(206, 0, SIZE)),
        ("bytes=0-99999", Part(206, 0, SIZE)),
        ("bytes=-99999", Part(206, 0, SIZE)),
        ("bytes=10000-", NOTHING),
        ("bytes=99999-100000", NOTHING),
        ("bytes=-0", NOTHING),
        ("bytes=20000-,0-9", Part(206, 0, 10)),
        ("bytes=0-0,-1", WHOLE),
        ("bytes=5-4", WHOLE),
        ("bytes=-", WHOLE),
        ("bytes=", WHOLE),
        ("bytes", WHOLE),
        ("bytes=a-b", WHOLE),
        ("bytes=1-2-3", WHOLE),
        ("bytes=+1-2", WHOLE),
        ("bytes=0-" + "9" * 19, WHOLE),
        ("lines=0-1", WHOLE),
        ("bytes=" + ",".join(["0-"] * (config.HTTP_RANGES_MAX + 1)), WHOLE),
        ("bytes=" + ",".join(["99999-"] * (config.HTTP_RANGES_MAX + 1)), WHOLE),
    ],
)
def test_ranges(value: str, part: Part) -> None:
    assert VERSION.part_for({b"range": value.encode()}) == part


def test_nothing_of_an_empty_file_can_be_had_in_parts() -> None:
    empty = FileVersion(0, 0)
    assert empty.part_for({}) == Part(200, 0, 0)
    assert empty.part_for({b"range": b"bytes=0-"}) == empty.part_for({b"range": b"bytes=-5"}) == NOTHING


@given(st.binary(max_size=40), st.integers(0, 50))
def test_any_range_stays_within_the_file(value: bytes, size: int) -> None:
    part = FileVersion(size, 0).part_for({b"range": b"bytes=" + value})
    assert 0 <= part.first <= part.first + part.length <= size
    assert (part.status == 206) <= (part.length > 0)


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({b"if-none-match": VERSION.etag}, KNOWN),
        ({b"if-none-match": b'"x", W/' + VERSION.etag}, KNOWN),
        ({b"if-none-match": b"*"}, KNOWN),
        ({b"if-none-match": b'"x"'}, WHOLE),
        ({b"if-none-match": b'"x"', b"if-modified-since": DATE}, WHOLE),
        ({b"if-modified-since": DATE}, KNOWN),
        ({b"if-modified-since": b"Sun, 06 Nov 1994 08:49:36 GMT"}, WHOLE),
        ({b"if-modified-since": b"Sun, 06 Nov 1994 08:49:38 -0000"}, KNOWN),
        ({b"if-modified-since": b"yesterday"}, WHOLE),
        ({b"if-modified-since": b"\xff"}, WHOLE),
        ({b"if-none-match": VERSION.etag, b"range": b"bytes=0-1"}, KNOWN),
        ({b"if-range": VERSION.etag, b"range": b"bytes=0-1"}, Part(206, 0, 2)),
        ({b"if-range": b"W/" + VERSION.etag, b"range": b"bytes=0-1"}, WHOLE),
        ({b"if-range": b'"x"', b"range": b"bytes=0-1"}, WHOLE),
        ({b"if-range": DATE, b"range": b"bytes=0-1"}, Part(206, 0, 2)),
        ({b"if-range": b"Sun, 06 Nov 1994 08:49:38 GMT", b"range": b"bytes=0-1"}, WHOLE),
        ({b"if-range": b"", b"range": b"bytes=0-1"}, WHOLE),
    ],
)
def test_conditions(fields: dict[bytes, bytes], part: Part) -> None:
    assert VERSION.part_for(fields) == part


@given(st.binary(max_size=40))
def test_any_date_is_one_or_none(value: bytes) -> None:
    fields = {b"if-modified-since": value, b"if-range": value, b"range": b"bytes=0-0"}
    assert VERSION.part_for(fields).status in (200, 206, 304)
