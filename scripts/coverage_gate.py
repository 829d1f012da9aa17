"""Fails when a package of p2pnode is covered less than it must be (branches included).

Run after `pytest --cov`: `python scripts/coverage_gate.py`. The pure packages decide everything and are easy
to test, so they must be covered almost whole.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from coverage import Coverage
from coverage.exceptions import NoDataError

PURE = ("config.py", "errors.py", "swarm", "torrent", "tracker", "wire")
PURE_PERCENT = 95.0
SHELL_PERCENT = 90.0


def parts(package: Path) -> list[Path]:
    """The packages and top-level modules that hold code."""
    modules = [path for path in package.iterdir() if path.suffix == ".py" and path.stat().st_size > 0]
    packages = [path for path in package.iterdir() if any(f.stat().st_size > 0 for f in path.glob("*.py"))]
    return sorted(modules + packages)


def percent(coverage: Coverage, part: Path) -> float:
    """Lines and branches of `part` that a test has run, in percent."""
    pattern = str(part / "*") if part.is_dir() else str(part)
    try:
        return coverage.report(include=[pattern], file=io.StringIO(), skip_covered=False)
    except NoDataError:
        return 0.0


def main() -> int:
    """Print one line for each part; 1 when one is below its gate."""
    package = Path(__file__).resolve().parent.parent / "p2pnode"
    coverage = Coverage()
    coverage.load()
    failed = False
    for part in parts(package):
        needed = PURE_PERCENT if part.name in PURE else SHELL_PERCENT
        reached = percent(coverage, part)
        verdict = "ok" if reached >= needed else "TOO LOW"
        sys.stdout.write(f"{part.name:<16} {reached:6.1f} %  (needs {needed:.0f} %)  {verdict}\n")
        failed = failed or reached < needed
    if failed:
        coverage.report(file=sys.stdout, show_missing=True, skip_covered=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
