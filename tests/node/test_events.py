"""The event stream's schema is what docs/EVENTS.md says."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from p2pnode.node import events
from p2pnode.node.bottleneck import Bottleneck
from p2pnode.node.events import FetchCompleted, NodeEvent

DOCUMENT = (Path(__file__).parents[2] / "docs" / "EVENTS.md").read_text()
KINDS = [kind for kind in NodeEvent.__subclasses__() if kind.__module__ == events.__name__]


def documented() -> dict[str, set[str]]:
    return {name: set(re.findall(r"`(\w+)`", keys)) for name, keys in rows_of("From a running node")}


def rows_of(heading: str) -> list[tuple[str, str]]:
    section = DOCUMENT.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE)


def snake(kind: type[NodeEvent]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_event_is_documented_with_its_keys(kind: type[NodeEvent]) -> None:
    assert documented()[snake(kind)] == {field.name for field in dataclasses.fields(kind)}


def test_nothing_is_documented_that_does_not_exist() -> None:
    assert set(documented()) == {snake(kind) for kind in KINDS}


def test_every_bottleneck_is_explained() -> None:
    assert [word for word, _ in rows_of("What limits a transfer")] == list(Bottleneck)


def test_an_event_becomes_plain_json() -> None:
    event = FetchCompleted(
        file_id=b"\x01\xff",
        name="a",
        size=3,
        target=Path("/tmp/a"),
        seconds=0.5,
        bytes_fetched=3,
        sources={b"\x0a": 3},
        duplicate_bytes=2,
        limit_waited_s=0.25,
        bottleneck=Bottleneck.SENDER_DISK,
    )
    assert json.loads(json.dumps(event.to_json())) == {
        "event": "fetch_completed",
        "file_id": "01ff",
        "name": "a",
        "size": 3,
        "target": "/tmp/a",
        "seconds": 0.5,
        "bytes_fetched": 3,
        "sources": {"0a": 3},
        "duplicate_bytes": 2,
        "limit_waited_s": 0.25,
        "bottleneck": "sender_disk",
    }
    address = events.PeerConnected(node_id=b"", name="", role="", address=("h", 1), dialed=True).to_json()
    assert address["address"] == ["h", 1]
