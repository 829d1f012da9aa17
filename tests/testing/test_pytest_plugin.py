"""The plugin is found, costs nothing until a test asks for it, and runs swarms."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from p2pnode.testing import pytest_plugin
from p2pnode.testing.pytest_plugin import SwarmSimulation

PROJECT = Path(__file__).resolve().parent.parent.parent


def test_pytest_finds_it_by_the_entry_point() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"p2pnode": pytest_plugin.__name__}


def test_it_loads_no_node_before_a_test_asks_for_one() -> None:
    """Every run of pytest where p2pnode is installed loads the plugin."""
    program = "import sys, p2pnode.testing.pytest_plugin; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "pytest" in loaded
    assert not loaded & {"trio", "aioquic", "cryptography", "msgspec"}


def test_each_swarm_has_a_directory_of_its_own(swarm_simulation: SwarmSimulation) -> None:
    for size in (10_000, 20_000):
        result = swarm_simulation(peers=2, size=size, kill=["peer-2@0%"])
        assert result.problems == []
        assert [befallen.incident.who for befallen in result.befallen] == ["peer-2"]
    files = sorted(swarm_simulation.directory.glob("*/data.bin"))
    assert [file.stat().st_size for file in files] == [10_000, 20_000]
