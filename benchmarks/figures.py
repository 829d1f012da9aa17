"""The figures that the project sets itself: ratios of one run on one machine, since absolutes do not travel."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.connections import Finding
from benchmarks.measuring import MB, MIB, Measurement

Results = Mapping[int, Mapping[str, Measurement]]  # by size in MiB, then by the name of the way

MEMORY_SIZE_MIB: Final = 10 * 1024


@dataclass(frozen=True)
class Figure:
    """What was reached. `measured` is None when a part of it was not measured in this run."""

    name: str
    measured: float | None
    measured_by_cpu: float | None  # the same ratio, of bytes per CPU second of the busier side
    at_least: float
    aim: float
    unit: str = ""
    is_upper: bool = False  # whether less is better

    @property
    def verdict(self) -> str:
        """In words for the table."""
        if self.measured is None:
            return "not measured"
        sign = -1 if self.is_upper else 1
        if sign * self.measured >= sign * self.aim:
            return "aim reached"
        return "reached" if sign * self.measured >= sign * self.at_least else "missed"

    def to_json(self) -> dict[str, object]:
        """The line of `--json --ratios`."""
        return {
            "event": "figure",
            "name": self.name,
            "measured": self.measured and round(self.measured, 3),
            "measured_by_cpu": self.measured_by_cpu and round(self.measured_by_cpu, 3),
            "at_least": self.at_least,
            "aim": self.aim,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Ratio:
    """One way's rate over another's, with what it must be at least, and the aim."""

    name: str
    way: str
    other: str
    at_least: float
    aim: float


RATIOS: Final = (
    Ratio("raw stream at 1452 ÷ aioquic.asyncio", "raw-1452", "asyncio", 6, 11),
    Ratio("raw stream at 1452 ÷ aioquic's class in a tight loop", "raw-1452", "tight-loop", 2.0, 3.3),
    Ratio("raw stream at 1452 ÷ py-libp2p over QUIC", "raw-1452", "libp2p", 25, 50),
    Ratio("raw stream at 1452 ÷ libtorrent uTP", "raw-1452", "libtorrent-utp", 2, 4),
    Ratio("raw stream at 1452 ÷ libtorrent TCP", "raw-1452", "libtorrent-tcp", 0.6, 1.0),
    Ratio("raw stream at 1452 ÷ qh3 in a tight loop", "raw-1452", "qh3", 0.4, 0.7),
    Ratio("raw stream, path MTU discovered ÷ libtorrent TCP", "raw-mtu", "libtorrent-tcp", 1.2, 1.9),
    Ratio("raw stream, path MTU discovered ÷ nginx and curl", "raw-mtu", "nginx", 0.4, 0.65),
    Ratio("get ÷ raw stream, both with the path MTU discovered", "get", "raw-mtu", 0.75, 0.9),
    Ratio("p2pnode's class ÷ aioquic's, batch way off", "tight-loop-ours", "tight-loop", 0.95, 1.0),
)


def figures(results: Results, findings: Sequence[Finding] = ()) -> list[Figure]:
    """All of them, from the largest size that was measured. A ratio is the median of its rounds'."""
    measured = results[max(results)] if results else {}
    reached = [_figure(ratio, measured) for ratio in RATIOS]
    memory = _peak_mib(results.get(MEMORY_SIZE_MIB, {}).get("get"))
    reached.append(
        Figure(
            "peak memory of either side of a 10 GiB get", memory, None, 150, 80, unit=" MiB", is_upper=True
        )
    )
    found = {finding.name: finding.value for finding in findings}
    idle = found.get("idle-rss")
    reached.append(
        Figure("memory of an idle accepted connection", idle, None, 100, 70, unit=" KiB", is_upper=True)
    )
    many, few = found.get("request-cpu-1000"), found.get("request-cpu-10")
    growth = many / few if many and few else None
    reached.append(
        Figure("cost of a request with 1,000 connections ÷ with 10", growth, None, 1.2, 1.0, is_upper=True)
    )
    return reached


def _figure(ratio: Ratio, measured: Mapping[str, Measurement]) -> Figure:
    if ratio.way not in measured or ratio.other not in measured:
        return Figure(ratio.name, None, None, ratio.at_least, ratio.aim)
    pairs = list(zip(measured[ratio.way].samples, measured[ratio.other].samples, strict=True))
    by_rate = [one.mb_per_s / other.mb_per_s for one, other in pairs]
    by_cpu = [other.cpu_s_busier / one.cpu_s_busier for one, other in pairs if one.cpu_s_busier]
    return Figure(
        ratio.name,
        statistics.median(by_rate),
        statistics.median(by_cpu) if by_cpu else None,
        ratio.at_least,
        ratio.aim,
    )


def _peak_mib(measurement: Measurement | None) -> float | None:
    if measurement is None:
        return None
    return max(max(s.rss_mb_sender, s.rss_mb_receiver) for s in measurement.samples) * MB / MIB
