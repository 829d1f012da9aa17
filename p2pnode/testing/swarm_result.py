"""What came of a simulated swarm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from p2pnode.testing.swarm_plan import Incident, SwarmPlan


@dataclass(frozen=True, slots=True)
class Sample:
    """What part of the file each leecher had at a time, 0 … 1, in the order of `SwarmPlan.peer_names`."""

    seconds: float
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Befallen:
    """An incident, and when it happened. Seconds since the leechers were told to fetch."""

    incident: Incident
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmResult:
    """All of it. Seconds are virtual and count from when the leechers were told to fetch, but for `real_seconds`.

    `completions` are the leechers that have the file, and when they had it; `failures` say why others have not.
    `corrupt` names those whose file is not byte for byte the seed's. `duplicate_bytes` came to a leecher that had
    them already, or no longer wanted them. `received_bytes` is all UDP payload that reached leechers, `wide_bytes`
    all that went from one zone to another. `given` is how many bytes of the file each node gave. `banned` maps
    whoever was banned to those who did so.
    """

    plan: SwarmPlan
    seconds: float
    completions: Mapping[str, float]
    failures: Mapping[str, str]
    corrupt: tuple[str, ...]
    duplicate_bytes: int
    received_bytes: int
    wide_bytes: int
    given: Mapping[str, int]
    banned: Mapping[str, tuple[str, ...]]
    befallen: tuple[Befallen, ...]
    samples: tuple[Sample, ...]
    real_seconds: float

    @property
    def completed(self) -> int:
        """How many leechers have the file."""
        return len(self.completions)

    @property
    def expected(self) -> int:
        """How many leechers should: all that were not killed for good."""
        return self.plan.peers - len(self.plan.lost_names)

    @property
    def ratio(self) -> float | None:
        """The last completion ÷ the least time that is possible; None when somebody never had it."""
        return None if self.completed < self.expected else self.seconds / self.plan.bound_s

    @property
    def duplicate_fraction(self) -> float:
        """Of the bytes of the file that all leechers got together."""
        return self.duplicate_bytes / self._got_bytes

    @property
    def overhead(self) -> float:
        """UDP payload that reached leechers ÷ the bytes of the file that they got: more than 1."""
        return self.received_bytes / self._got_bytes

    @property
    def wide_ratio(self) -> float | None:
        """UDP payload from zone to zone ÷ (file × zones); None without zones."""
        return self.wide_bytes / (self.plan.size * self.plan.zones) if self.plan.zones else None

    @property
    def problems(self) -> list[str]:
        """Why it did not come out right, a line each; none when it did."""
        found = [f"{name} did not complete: {reason}" for name, reason in self.failures.items()]
        return found + [f"{name} has wrong bytes" for name in self.corrupt]

    @property
    def _got_bytes(self) -> float:
        """Of the file, by all leechers together, those that were killed included; 1 when there was nothing."""
        most = map(max, zip(*(sample.shares for sample in self.samples), strict=True))
        return self.plan.size * sum(most) or 1.0

    def to_json(self) -> dict[str, Any]:
        """One flat object: what `p2pnode sim --json` ends with. Ratios are rounded to what they mean."""
        return {
            "event": "result",
            "ok": not self.problems,
            "peers": self.plan.peers,
            "completed": self.completed,
            "expected": self.expected,
            "seconds": round(self.seconds, 3),
            "bound_seconds": round(self.plan.bound_s, 3),
            "ratio": None if self.ratio is None else round(self.ratio, 4),
            "duplicate_fraction": round(self.duplicate_fraction, 5),
            "wide_ratio": None if self.wide_ratio is None else round(self.wide_ratio, 4),
            "overhead": round(self.overhead, 4),
            "corrupt": len(self.corrupt),
            "size": self.plan.size,
            "completions": {name: round(seconds, 3) for name, seconds in self.completions.items()},
            "failures": dict(self.failures),
            "given": dict(self.given),
            "banned": dict(self.banned),
            "incidents": [
                {"who": b.incident.who, "what": b.incident.what.value, "seconds": round(b.seconds, 3)}
                for b in self.befallen
            ],
            "real_seconds": round(self.real_seconds, 1),
        }
