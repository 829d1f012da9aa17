"""What a swarm was to bring about, and whether it did: digests, transfers, problems. No processes here."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Digests = dict[str, str]
"""SHA-256 in hex by path relative to a node's directory of files."""


def digests(directory: Path) -> Digests:
    """Hash every visible file below `directory`; hidden ones are nobody's business."""
    found = {}
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            with path.open("rb") as file:
                found[relative.as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def item_names(expected: Iterable[str]) -> frozenset[str]:
    """The top-level entries, which are what nodes offer and fetch: a file, or a directory as one tree."""
    return frozenset(path.partition("/")[0] for path in expected)


def problems(node: str, expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """What is missing, different or too much at one node, a line each."""
    missing = [f"{node}: {path} is missing" for path in expected if path not in found]
    wrong = [
        f"{node}: {path} has other bytes than its origin"
        for path, digest in expected.items()
        if found.get(path, digest) != digest
    ]
    extra = [f"{node}: {path} came from nowhere" for path in found if path not in expected]
    return missing + wrong + extra


@dataclass(frozen=True)
class Transfers:
    """What one node gave another in a run; `seconds` is how long the fetches took that it gave to."""

    giver: str
    receiver: str
    files: int
    size: int
    seconds: float

    @property
    def bytes_per_s(self) -> float:
        """The mean rate over those fetches."""
        return self.size / self.seconds if self.seconds > 0 else 0.0


def transfers(events: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[Transfers]:
    """Who gave whom how much, from the `--json` events of each node by its name."""
    names = {
        event["node_id"]: node
        for node, seen in events.items()
        for event in seen
        if event["event"] == "listening"
    }
    fetches: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for node, seen in events.items():
        for event in seen:
            if event["event"] == "fetch_completed":
                for giver, size in event["sources"].items():
                    fetches[names.get(giver, giver[:12]), node].append((size, event["seconds"]))
    return [
        Transfers(giver, receiver, len(parts), sum(s for s, _ in parts), sum(t for _, t in parts))
        for (giver, receiver), parts in sorted(fetches.items(), key=lambda item: item[0][::-1])
    ]
