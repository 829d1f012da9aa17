"""Whole swarms in virtual time: what is counted is what happened, and what is planned happens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pnode.errors import StorageError
from p2pnode.testing import simulation
from p2pnode.testing.bounds import Rates
from p2pnode.testing.pytest_plugin import SwarmSimulation
from p2pnode.testing.simulation import run_swarm, simulate
from p2pnode.testing.swarm_plan import Happening, Incident, Progress, SwarmPlan

SMALL = SwarmPlan(peers=3, size=2_000_000)


def test_everybody_has_every_byte(tmp_path: Path) -> None:
    news: list[Progress] = []
    result = simulate(SMALL, directory=tmp_path, on_progress=news.append)
    assert result.problems == []
    assert result.completed == result.expected == 3
    assert sorted(result.completions) == ["peer-1", "peer-2", "peer-3"]
    assert result.seconds == max(result.completions.values())
    assert result.ratio is not None
    assert result.ratio == pytest.approx(result.seconds / 0.16)
    assert sum(result.given.values()) == 3 * 2_000_000
    assert 1 < result.overhead < 1.25
    assert result.wide_ratio is None
    originals = (tmp_path / "data.bin").read_bytes()
    assert len(originals) == 2_000_000
    for name in result.completions:
        assert (tmp_path / name / "files" / "data.bin").read_bytes() == originals
    assert news[0] == Progress(0.0)
    assert news[-1].completed == 3
    assert news[-1].has_union
    assert [progress.seconds for progress in news] == sorted({progress.seconds for progress in news})
    assert result.samples[0].shares == (0.0,) * 3
    assert result.samples[-1].shares == (1.0,) * 3


def test_nothing_is_faster_than_the_least_time(swarm_simulation: SwarmSimulation) -> None:
    """The links do what they are said to do, whoever is slow."""
    slow = {"peer-1": Rates(12.5e6, 1e6)}
    result = swarm_simulation(peers=2, size=1_000_000, rates=slow)
    assert result.plan.bound_s == 1.0
    assert result.completions["peer-1"] > 1.0
    assert result.completions["peer-2"] < result.completions["peer-1"]
    assert swarm_simulation(peers=2, size=1_000_000, seed_rate=1e6).seconds > 1.0


def test_files_are_removed_after_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(simulation, "MEMORY_DISK", tmp_path)
    assert not simulate(replace(SMALL, peers=1, size=100_000)).problems
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="no room for"):
        simulate(replace(SMALL, size=10**18))


async def test_a_test_may_run_a_swarm_in_its_own_virtual_time(autojump_clock: MockClock) -> None:
    before = trio.current_time()
    result = await run_swarm(replace(SMALL, peers=2, size=500_000))
    assert not result.problems
    assert trio.current_time() - before > result.seconds


def test_the_coordinator_is_killed_when_the_median_leecher_has_half(
    swarm_simulation: SwarmSimulation,
) -> None:
    result = swarm_simulation(peers=3, size=2_000_000, kill=["server@50%"])
    assert result.problems == []
    [befallen] = result.befallen
    [sample] = [sample for sample in result.samples if sample.seconds == befallen.seconds]
    assert sum(share >= 0.5 for share in sample.shares) >= 2
    before = result.samples[result.samples.index(sample) - 1]
    assert sum(share < 0.5 for share in before.shares) >= 2


def test_a_leecher_that_is_killed_is_not_waited_for(swarm_simulation: SwarmSimulation) -> None:
    result = swarm_simulation(peers=3, size=2_000_000, kill=["peer-2@50%"])
    assert result.problems == []
    assert result.expected == result.completed == 2
    assert "peer-2" not in result.completions
    assert result.ratio is not None


def test_a_swarm_without_a_source_fails_and_says_why(swarm_simulation: SwarmSimulation) -> None:
    result = swarm_simulation(peers=2, size=2_000_000, kill=["seed@10%"])
    assert result.completed == 0
    assert result.ratio is None
    assert sorted(result.failures) == ["peer-1", "peer-2"]
    assert all("did not complete: nobody gives" in problem for problem in result.problems)
    assert result.to_json()["ok"] is False


def test_a_leecher_leaves_and_returns_and_another_comes_late(swarm_simulation: SwarmSimulation) -> None:
    result = swarm_simulation(
        peers=4,
        size=1_000_000,
        incidents=(
            Incident.parse("peer-1@30%"),
            Incident.parse("peer-1@60%", Happening.START),
            Incident.parse("peer-2@90%", Happening.START),
        ),
    )
    assert result.problems == []
    assert result.completed == 4
    late = max(befallen.seconds for befallen in result.befallen)
    assert result.completions["peer-2"] > late
    assert all(sample.shares[1] == 0 for sample in result.samples if sample.seconds <= late)


def test_a_source_that_freezes_does_not_keep_the_others_waiting(swarm_simulation: SwarmSimulation) -> None:
    frozen = Incident.parse("seed-1@0%", Happening.FREEZE)
    result = swarm_simulation(peers=1, seeds=3, size=1_000_000, incidents=(frozen,))
    assert result.problems == []
    assert result.given["seed-1"] == 0


@pytest.mark.parametrize(("seeds", "liars"), [(3, 1), (1, 3)])
def test_liars_give_nothing(swarm_simulation: SwarmSimulation, seeds: int, liars: int) -> None:
    result = swarm_simulation(peers=1, seeds=seeds, liars=liars, size=1_000_000)
    assert result.problems == []
    assert result.corrupt == ()
    assert sum(result.given[name] for name in result.plan.seed_names) == 1_000_000
    assert all(result.given[name] == 0 for name in result.plan.liar_names)
    assert result.duplicate_bytes > 0
    if liars > seeds:  # all of them are needed until they are known
        assert result.banned == dict.fromkeys(result.plan.liar_names, ("peer-1",))


def test_what_goes_from_zone_to_zone_is_counted(swarm_simulation: SwarmSimulation) -> None:
    result = swarm_simulation(peers=4, zones=2, size=1_000_000, wide_rate=5e6)
    assert result.problems == []
    assert result.plan.bound_s == pytest.approx(0.2)
    assert result.wide_ratio is not None
    assert result.wide_ratio >= 1.0  # each zone needs a copy at least


def test_a_lossy_network_with_large_datagrams(swarm_simulation: SwarmSimulation) -> None:
    result = swarm_simulation(peers=2, size=2_000_000, loss=0.01, mtu=9000)
    assert result.problems == []
