"""A picture of a simulated swarm, as SVG text: who had how much when, and how much of the links was used.

One row for each leecher, filled as its file is; below, the bytes of the file that all leechers together got each
second, beside what a swarm would need all the time to end in the least time possible. It is drawn by hand, so
that it needs no library, and is readable on light and dark pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import Final

from p2pnode.testing.swarm_result import SwarmResult

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 960, 120, 90, 72, 40  # pixels; what is left of the width is time
ROW_HEIGHTS: Final = (24, 8)  # of a few leechers, of very many
ROWS_HEIGHT: Final = 480  # all rows together take no more, if that is possible
RATE_HEIGHT: Final = 140
GAP: Final = 34
BINS: Final = 160  # of the rate
TICKS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
TICKS_MAX: Final = 12

STYLE: Final = """\
:root { color-scheme: light dark; --page: #fff; --ink: #1f2328; --soft: #6e7781; --line: #d0d7de; --row: #eff2f5;
  --bound: #1a7f37; --harm: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --page: #0d1117; --ink: #e6edf3; --soft: #8d96a0; --line: #30363d;
  --row: #161b22; --bound: #3fb950; --harm: #ff7b72; } }
svg { background: var(--page); }
text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.soft { fill: var(--soft); } .title { font-size: 15px; font-weight: 600; } .end { text-anchor: end; }
.middle { text-anchor: middle; } .row { fill: var(--row); } .grid { stroke: var(--line); stroke-width: 1; }
.bound { stroke: var(--bound); stroke-width: 1.5; stroke-dasharray: 5 3; }
text.bound { fill: var(--bound); stroke: none; }
.harm { stroke: var(--harm); stroke-width: 1.5; } text.harm { fill: var(--harm); stroke: none; }
.z0 { fill: #4493f8; } .z1 { fill: #a371f7; } .z2 { fill: #db6d28; } .z3 { fill: #2da44e; } .z4 { fill: #bf8700; }
.z5 { fill: #e85aad; }"""
COLORS: Final = 6  # z0 …


def timeline(result: SwarmResult) -> str:
    """The picture, as the text of an SVG file."""
    return "\n".join(_Picture(result).parts()) + "\n"


class _Picture:
    def __init__(self, result: SwarmResult) -> None:
        self._result = result
        self._plan = result.plan
        self._end_s = max(result.samples[-1].seconds, self._plan.bound_s) * 1.02
        most, least = ROW_HEIGHTS
        self._row = max(least, min(most, ROWS_HEIGHT // self._plan.peers))
        self._rows_end = TOP + self._row * self._plan.peers
        self._rate_top = self._rows_end + GAP
        self._rate_end = self._rate_top + RATE_HEIGHT

    def parts(self) -> Iterator[str]:
        """The lines of the file."""
        height = self._rate_end + BOTTOM
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" role="img">'
        )
        yield f"<title>{escape(self._title())}</title>"
        yield f"<style>{STYLE}</style>"
        yield _text(16, 24, self._title(), "title")
        yield _text(16, 44, self._subtitle(), "soft")
        yield from self._grid()
        for number, name in enumerate(self._plan.peer_names):
            yield from self._leecher(number, name)
        yield from self._rate()
        yield from self._marks()
        yield "</svg>"

    def _title(self) -> str:
        plan, result = self._plan, self._result
        outcome = f"{result.completed} have all after {result.seconds:.2f} s"
        return f"{plan.peers} peers fetch {plan.size / 1e6:g} MB: {outcome}"

    def _subtitle(self) -> str:
        ratio = "" if self._result.ratio is None else f"{self._result.ratio:.3f} of the least time possible, "
        return (
            f"{ratio}{self._result.duplicate_fraction:.2%} sent twice; {self._plan.rate * 8 / 1e6:g} Mbit/s each, "
            f"{self._plan.delay_s * 1000:g} ms from host to host, {self._plan.loss:.1%} lost"
        )

    def _x(self, seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / self._end_s

    def _grid(self) -> Iterator[str]:
        step = next((tick for tick in TICKS if self._end_s / tick <= TICKS_MAX), TICKS[-1])
        for number in range(int(self._end_s / step) + 1):
            x = self._x(number * step)
            yield _line(x, TOP, x, self._rate_end, "grid")
            yield _text(x, self._rate_end + 18, f"{number * step:g} s", "soft middle")

    def _leecher(self, number: int, name: str) -> Iterator[str]:
        top = TOP + number * self._row
        base = top + self._row - 2
        zone = self._plan.zone_of(name)
        color = f"z{(int(zone.rpartition('-')[2]) if zone else 0) % COLORS}"
        yield f'<rect class="row" x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{self._row - 2}"/>'
        points = [
            (self._x(sample.seconds), base - (self._row - 2) * sample.shares[number])
            for sample in self._result.samples
        ]
        yield _area(points, base, color)
        if self._row >= 12:
            yield _text(LEFT - 8, base - self._row / 2 + 5, f"{name} {zone}".strip(), "end")
            after = self._result.completions.get(name)
            outcome = "not complete" if after is None else f"{after:.2f} s"
            yield _text(WIDTH - RIGHT + 6, base - self._row / 2 + 5, outcome, "soft")

    def _rate(self) -> Iterator[str]:
        """Bytes of whole pieces that all got together, by time; and what would be enough."""
        enough = self._plan.peers * self._plan.size / self._plan.bound_s
        rates = list(self._rates())
        highest = max([enough, *(rate for _, rate in rates)]) * 1.1

        def y(rate: float) -> float:
            return self._rate_end - RATE_HEIGHT * rate / highest

        yield _text(16, self._rate_top - 10, "file bytes that all got together, MB/s", "soft")
        if rates:
            yield _area([(self._x(seconds), y(rate)) for seconds, rate in rates], self._rate_end, "z0")
        yield _line(LEFT, y(enough), WIDTH - RIGHT, y(enough), "bound")
        yield _text(WIDTH - RIGHT + 6, y(enough) + 4, f"{enough / 1e6:.3g}", "bound")
        yield _line(LEFT, self._rate_end, WIDTH - RIGHT, self._rate_end, "grid")

    def _rates(self) -> Iterator[tuple[float, float]]:
        samples = self._result.samples
        every = max(1, len(samples) // BINS)
        for before, after in pairwise([*samples[::every], samples[-1]]):
            if (seconds := after.seconds - before.seconds) > 0:
                got = (sum(after.shares) - sum(before.shares)) * self._plan.size
                rate = max(0.0, got / seconds)
                yield before.seconds, rate
                yield after.seconds, rate

    def _marks(self) -> Iterator[str]:
        x = self._x(self._plan.bound_s)
        yield _line(x, TOP - 6, x, self._rate_end, "bound")
        yield _text(x, TOP - 9, f"least time {self._plan.bound_s:.2f} s", "bound end")
        for befallen in self._result.befallen:
            incident, x = befallen.incident, self._x(befallen.seconds)
            yield _line(x, TOP - 6, x, self._rate_end, "harm")
            yield _text(x + 3, self._rows_end + 12, f"{incident.what.value} {incident.who}", "harm")


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _area(points: Sequence[tuple[float, float]], base: float, style: str) -> str:
    """What is between the points and a base line."""
    outline = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polygon class="{style}" points="{points[0][0]:.1f},{base:.1f} {outline} {points[-1][0]:.1f},{base:.1f}"/>'
