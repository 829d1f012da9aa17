"""`python -m benchmarks.swarm`: its cases can be simulated, and its figures say what was reached."""

from __future__ import annotations

import json

import pytest

from benchmarks.swarm import CASES, FIGURES, Figure, main
from p2pnode.testing.swarm_result import SwarmResult


def ratio_of_first(results: list[SwarmResult]) -> float:
    raise AssertionError("nothing was measured")


def test_figures_are_of_cases_that_there_are() -> None:
    for figure in FIGURES:
        assert set(figure.cases) <= CASES.keys()
    assert {case for figure in FIGURES for case in figure.cases} == CASES.keys()


def test_what_was_not_measured_is_no_figure() -> None:
    figure = Figure("both", ("2 peers", "8 peers"), ratio_of_first, 1.25, 1.1)  # type: ignore[arg-type]
    assert figure.of({}) is None
    assert [figure.verdict(measured) for measured in (None, 1.1, 1.2, 1.3)] == [
        "not measured",
        "aim reached",
        "reached",
        "missed",
    ]


def test_cases_are_simulated_and_judged(capfd: pytest.CaptureFixture[str]) -> None:
    code = main(["--only", "2 peers", "3 of 8 lie", "--size-mb", "0.2", "--json"])
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    simulations = {line["case"]: line for line in lines if line["event"] == "simulation"}
    assert {name: line["ok"] for name, line in simulations.items()} == {"2 peers": True, "3 of 8 lie": True}
    figures = {line["name"]: line for line in lines if line["event"] == "figure"}
    assert list(figures) == [figure.name for figure in FIGURES]
    reached = figures["last completion ÷ least time, 2 peers"]
    assert reached["measured"] == pytest.approx(simulations["2 peers"]["ratio"], rel=0.01)
    assert reached["verdict"] == "missed"  # so small a file is over before it begins
    assert figures["peers not right, 3 of 8 lie"]["verdict"] == "aim reached"
    assert figures["growth of that from 2 peers to 32"]["measured"] is None
    assert figures["duplicate bytes"]["measured"] == simulations["2 peers"]["duplicate_fraction"]
    assert code == 1
