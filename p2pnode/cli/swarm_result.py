"""What a swarm was to bring about, and whether it did: digests, transfers, problems. No processes here."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2pnode.testing.bounds import Rates, least_seconds

if TYPE_CHECKING:
    from p2pnode.cli.swarm_race import Finish
    from p2pnode.cli.swarm_setup import Nodes, Plan

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


def result_event(
    plan: Plan, nodes: Nodes, finishes: Mapping[str, Finish], failures: Sequence[str]
) -> dict[str, Any]:
    """The last event: how the race came out. What was not limited, or not asked for, is null.

    The bound is that of Kumar and Ross, without zones: they share no links here.
    """
    seconds = max((finish.seconds for finish in finishes.values()), default=None)
    bound = _bound_s(plan)
    wanted = plan.size * max(1, len(finishes))
    return {
        "event": "result",
        "ok": not failures,
        "peers": plan.peers,
        "completed": len(finishes),
        "seconds": seconds,
        "bound_seconds": bound,
        "ratio": seconds / bound if seconds is not None and bound else None,
        "duplicate_fraction": sum(f.duplicate_bytes for f in finishes.values()) / wanted,
        "wide_ratio": _wide_bytes(nodes, finishes) / (plan.size * plan.zones) if plan.zones else None,
        "size": plan.size,
        "completions": {name: finish.seconds for name, finish in finishes.items()},
        "problems": list(failures),
    }


def _bound_s(plan: Plan) -> float | None:
    if plan.rate is None or plan.seed_rate is None:
        return None
    return least_seconds(plan.size, plan.seed_rate, [Rates(plan.rate, plan.rate)] * plan.peers)


def _wide_bytes(nodes: Nodes, finishes: Mapping[str, Finish]) -> int:
    """File bytes that came from a node of another zone."""
    zones = {node.node_id: node.zone for node in nodes.all}
    return sum(
        size
        for peer in nodes.peers
        if peer.name in finishes
        for giver, size in finishes[peer.name].sources.items()
        if zones.get(giver) != peer.zone
    )
