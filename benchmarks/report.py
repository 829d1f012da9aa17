"""The measurements as a page of markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.connections import Finding
from benchmarks.figures import Figure, figures
from benchmarks.measuring import MB, MIB, Measurement


@dataclass
class Run:
    """All that one call of `scripts/bench` found out."""

    machine: Sequence[str]
    rounds: int
    titles: Mapping[str, str]  # of the ways, by name
    results: dict[int, dict[str, Measurement]] = field(default_factory=dict)  # by size in MiB
    skipped: dict[str, str] = field(default_factory=dict)  # why, by name
    findings: list[Finding] = field(default_factory=list)
    other_load: dict[int, float] = field(default_factory=dict)  # cores, by size


def to_markdown(run: Run, plot: str | None = None) -> str:
    """The whole page; `plot` is the file name of the picture."""
    lines = ["# Measured", "", "Made by `scripts/bench`; [what is measured and how](README.md).", ""]
    lines += [f"- {line}" for line in run.machine]
    lines += [f"- median of {run.rounds} alternating rounds; MB = 10⁶ bytes", ""]
    if plot is not None:
        lines += [f"![Rates of the ways to move a file]({plot})", ""]
    for size in run.results:
        lines += _size_section(run, size)
    if run.findings:
        lines += ["## Connections", "", "| | |", "|---|--:|"]
        lines += [f"| {found.title} | {found.value:.1f} {found.unit} |" for found in run.findings]
        lines.append("")
    lines += figures_section(figures(run.results, run.findings))
    if run.skipped:
        lines += ["## Not measured", ""]
        lines += [f"- {run.titles[name]}: {reason}" for name, reason in run.skipped.items()]
        lines.append("")
    return "\n".join(lines)


def _size_section(run: Run, size_mib: int) -> list[str]:
    lines = [
        f"## {size_mib} MiB",
        "",
        f"Other processes kept {run.other_load[size_mib]:.2f} cores busy meanwhile.",
        "",
        "| | MB/s | from – to | CPU s a GB, sender + receiver | peak MB, sender, receiver |",
        "|---|--:|--:|--:|--:|",
    ]
    gigabytes = size_mib * MIB / (1000 * MB)
    by_rate = sorted(run.results[size_mib].items(), key=lambda item: -item[1].median_mb_per_s)
    for name, measurement in by_rate:
        samples = measurement.samples
        rates = [sample.mb_per_s for sample in samples]
        cpu_s = [
            statistics.median(side) / gigabytes
            for side in ([s.cpu_s_sender for s in samples], [s.cpu_s_receiver for s in samples])
        ]
        rss = max(s.rss_mb_sender for s in samples), max(s.rss_mb_receiver for s in samples)
        lines.append(
            f"| {run.titles[name]} | {measurement.median_mb_per_s:.1f} | {min(rates):.1f} – {max(rates):.1f} "
            f"| {cpu_s[0]:.2f} + {cpu_s[1]:.2f} | {rss[0]:.0f}, {rss[1]:.0f} |"
        )
    return [*lines, ""]


def figures_section(reached: Sequence[Figure]) -> list[str]:
    """The figures to reach."""
    lines = [
        "## Figures",
        "",
        "Ratios of rates, and of bytes per CPU second of the busier side, which other load hardly moves.",
        "",
        "| | measured | by CPU time | at least | aim | |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for figure in reached:
        measured = "–" if figure.measured is None else f"{figure.measured:.2f}{figure.unit}"
        by_cpu = "–" if figure.measured_by_cpu is None else f"{figure.measured_by_cpu:.2f}"
        bound = "≤ " if figure.is_upper else ""
        lines.append(
            f"| {figure.name} | {measured} | {by_cpu} | {bound}{figure.at_least:g}{figure.unit} "
            f"| {bound}{figure.aim:g}{figure.unit} | {figure.verdict} |"
        )
    return [*lines, ""]
