"""For the tests of those who build on p2pnode: `swarm_simulation`, a whole swarm in virtual time.

::

    def test_a_swarm_outlives_its_server(swarm_simulation):
        result = swarm_simulation(peers=4, size=4_000_000, kill=["server@50%"])
        assert not result.problems

pytest finds it by itself where p2pnode is installed. What it needs is imported when a test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from p2pnode.testing.swarm_result import SwarmResult


class SwarmSimulation:
    """Simulates swarms; their files lie below `directory`, each swarm's in one of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._count = 0

    def __call__(self, *, kill: Iterable[str] = (), **plan: Any) -> SwarmResult:
        """Run a swarm to its end. `plan` is what `SwarmPlan` takes; `kill` what `p2pnode sim --kill` does."""
        from p2pnode.testing.simulation import simulate
        from p2pnode.testing.swarm_plan import Incident, SwarmPlan

        incidents = (*plan.pop("incidents", ()), *map(Incident.parse, kill))
        self._count += 1
        directory = self.directory / f"swarm-{self._count}"
        return simulate(SwarmPlan(incidents=incidents, **plan), directory=directory)


@pytest.fixture
def swarm_simulation(tmp_path: Path) -> SwarmSimulation:
    """Call it with what `SwarmPlan` takes: it runs such a swarm, and gives a `SwarmResult`."""
    return SwarmSimulation(tmp_path)
