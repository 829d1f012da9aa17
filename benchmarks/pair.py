"""A way made of two Python programs of one module: `serve` has the file, `fetch` gets it.

python -m benchmarks.ways.NAME serve VARIANT PORT SOURCE CERTIFICATE KEY     prints `ready`, runs until ended
python -m benchmarks.ways.NAME fetch VARIANT PORT TARGET                     keeps a `Receipt`
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import Place, Sample, free_port
from benchmarks.programs import measure_pair, module


@dataclass(frozen=True)
class Offer:
    """What `serve` is told."""

    variant: str
    port: int
    source: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Order:
    """What `fetch` is told."""

    variant: str
    port: int
    target: Path


def run_pair(serve: Callable[[Offer], None], fetch: Callable[[Order], None]) -> None:
    """The main program of a pair."""
    role, variant, port, *paths = sys.argv[1:]
    match role, [Path(path) for path in paths]:
        case "serve", [source, certificate, key]:
            serve(Offer(variant, int(port), source, certificate, key))
        case "fetch", [target]:
            fetch(Order(variant, int(port), target))
        case _:
            raise SystemExit("this is one half of a measurement: run scripts/bench")


def tell_ready() -> None:
    """`fetch` may come."""
    print("ready", flush=True)


@dataclass(frozen=True)
class PairWay:
    """A `Way`: the pair in `benchmarks.ways.{module}`. `needs` are modules that must be there."""

    name: str
    title: str
    module: str
    variant: str = "-"
    needs: tuple[str, ...] = ()
    is_ours: bool = False

    def why_not(self) -> str | None:
        """The first module that is missing."""
        for needed in self.needs:
            if importlib.util.find_spec(needed) is None:
                return f"the Python package {needed} is not installed"
        return None

    def measure(self, place: Place) -> Sample:
        """Both programs, once."""
        port = free_port()
        sample = measure_pair(
            place,
            module(self.module, "serve", self.variant, port, place.source, place.certificate, place.key),
            module(self.module, "fetch", self.variant, port, place.target),
        )
        place.check_target()
        return sample
