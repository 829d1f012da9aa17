"""`docs/HOSTILE.md` names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
DOCUMENT = TESTS.parent / "docs" / "HOSTILE.md"


def test_every_test_that_the_document_names_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", DOCUMENT.read_text("utf-8"))
    assert len(named) > 100
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"^ *(async )?def {name}\(", (TESTS / file).read_text("utf-8"), re.MULTILINE)
    ]
    assert missing == []


def test_every_row_has_a_test_with_its_id() -> None:
    rows = re.split(r"^### ", DOCUMENT.read_text("utf-8"), flags=re.MULTILINE)[1:]
    assert len(rows) > 30
    for row in rows:
        row_id = row.partition("\n")[0]
        assert re.search(rf"::test_(\w+_)?{row_id}_", row), row_id
