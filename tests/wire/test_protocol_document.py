"""docs/PROTOCOL.md says what the program does: its tables are compared with types, limits and vectors."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from p2pnode import config
from p2pnode.wire import communication
from p2pnode.wire.communication import ErrorCode, FileItem, NodeItem, PeerReport

from .field_words import field_rows
from .strategies import MESSAGE_TYPES
from .test_vectors import VECTORS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "PROTOCOL.md").read_text()


def tables() -> list[list[list[str]]]:
    """Every table: rows of cells, the head first."""
    lines = DOCUMENT.splitlines()
    found = []
    for is_table, group in itertools.groupby(lines, key=lambda line: line.startswith("|")):
        if is_table:
            head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in group]
            found.append([head, *rows])
    return found


def table(first_column: str) -> list[list[str]]:
    """The rows of the one table that has this head of its first column."""
    (rows,) = [rows for head, *rows in tables() if head[0] == first_column]
    return rows


def number(cell: str) -> int:
    return int(cell.replace(",", ""))


@pytest.mark.parametrize(
    "cls", [*MESSAGE_TYPES, FileItem, NodeItem, PeerReport], ids=lambda cls: cls.__name__
)
def test_every_field_stands_in_the_document_as_it_is(cls: type) -> None:
    # a message's table follows the heading of its name, a row's the sentence that introduces it
    introduction = re.escape(f"### `{cls.__name__}`") if cls in MESSAGE_TYPES else f"row, `{cls.__name__}`"
    found = re.search(rf"{introduction}(?:(?!\n#).)*?\n(\| field .*?)\n\n", DOCUMENT, re.DOTALL)
    assert found is not None
    _, _, *lines = found[1].splitlines()
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|"))[:3] for line in lines]
    assert rows == field_rows(cls)


def test_the_words_for_types_have_the_bounds_of_the_types() -> None:
    words = {row[0]: row[1] for row in table("type")}
    bounds: dict[str, Any] = {
        "name": config.NAME_LENGTH_MAX,
        "line": config.ERROR_TEXT_LENGTH_MAX,
        "word": 64,
        "cursor": 4 * config.NAME_LENGTH_MAX + 64,
        "addresses": config.ADDRESSES_PER_NODE_MAX,
        "ranges": config.RANGES_PER_MESSAGE_MAX,
        "count": 2**63 - 1,
        "port": 65535,
        "seconds": 7 * 86400,
        "duration": 10**9,
        "address": 255,
        "file id": 20,
    }
    assert set(words) == set(bounds)
    for word, bound in bounds.items():
        assert re.search(rf"\b{bound}\b", words[word]), word


def test_limits_and_times_are_those_of_the_program() -> None:
    for name, value, _ in table("limit"):
        assert number(value) == getattr(config, name.strip("`")), name
    for name, value, _ in table("time"):
        assert float(value) == getattr(config, name.strip("`")), name


def test_the_error_codes_are_those_of_the_program() -> None:
    codes = {value for name, value in vars(ErrorCode).items() if name.isupper()}
    assert {row[0].strip("`") for row in table("error code")} == codes


def test_every_public_message_is_described() -> None:
    described = set(re.findall(r"^### `(\w+)`$", DOCUMENT, re.MULTILINE))
    assert described == {cls.__name__ for cls in MESSAGE_TYPES}
    assert described < set(communication.__all__)


@pytest.mark.parametrize(
    ("head", "vectors"), [("frame", "frames"), ("accepted", "accepted"), ("refused", "refused")]
)
def test_the_frames_in_the_document_are_the_vectors(head: str, vectors: str) -> None:
    assert table(head) == [[vector["name"], f"`{vector['hex']}`"] for vector in VECTORS[vectors]]


def test_the_proof_in_the_document_is_the_vector() -> None:
    shown = {row[1].strip("`") for row in table("proof")}
    assert shown == {value for key, value in VECTORS["proof"].items() if key not in ("role", "hash")}


def test_the_metainfo_in_the_document_is_the_vector() -> None:
    assert [[number(cell) for cell in row] for row in table("size")] == VECTORS["piece_lengths"]
    rows = {row[0]: row for row in table("what")}
    assert len(rows) == len(VECTORS["metainfo"])
    for vector in VECTORS["metainfo"]:
        _, name, _, length, pieces, file_id = rows[vector["name"]]
        assert name == f"`{vector['torrent_name']}`"
        assert file_id == f"`{vector['file_id']}`"
        assert (number(length), number(pieces)) == (vector["piece_length"], vector["piece_count"])
    (whole,) = [vector for vector in VECTORS["metainfo"] if vector["name"] == "one block and a byte"]
    assert f"    {whole['metainfo']}\n" in DOCUMENT


def test_links_within_the_document_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", DOCUMENT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", DOCUMENT)) <= anchors
