"""The measurements as a picture, made by matplotlib, which only this needs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.report import Run

OURS: Final = "#2a6fbb"
THEIRS: Final = "#b0b4ba"
PANEL_WIDTH_IN: Final = 10.0
BAR_HEIGHT_IN: Final = 0.34


def write_plot(run: Run, ours: frozenset[str], path: Path) -> None:
    """One panel for each size: bars are medians, lines go from the slowest round to the fastest."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "p2pnode", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    bars = sum(len(measured) for measured in run.results.values())
    figure, axes = pyplot.subplots(
        len(run.results),
        1,
        figsize=(PANEL_WIDTH_IN, BAR_HEIGHT_IN * bars + 1.2 * len(run.results)),
        squeeze=False,
        layout="constrained",
    )
    for axis, (size, measured) in zip(axes[:, 0], run.results.items(), strict=True):
        by_rate = sorted(measured.items(), key=lambda item: item[1].median_mb_per_s)
        medians = [measurement.median_mb_per_s for _, measurement in by_rate]
        rates = [[sample.mb_per_s for sample in measurement.samples] for _, measurement in by_rate]
        spread = [
            [median - min(each) for median, each in zip(medians, rates, strict=True)],
            [max(each) - median for median, each in zip(medians, rates, strict=True)],
        ]
        drawn = axis.barh(
            [run.titles[name] for name, _ in by_rate],
            medians,
            xerr=spread,
            color=[OURS if name in ours else THEIRS for name, _ in by_rate],
            error_kw={"elinewidth": 1, "capsize": 2},
        )
        axis.bar_label(drawn, labels=[f" {median:.0f}" for median in medians], padding=6)
        axis.set_title(f"{size} MiB between two processes over loopback", loc="left")
        axis.set_xlabel("MB/s, median")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
