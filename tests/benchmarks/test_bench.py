"""`scripts/bench` as its users start it: real processes over loopback, few bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import connections
from benchmarks.connections import Extent, Finding
from benchmarks.figures import Figure, figures
from benchmarks.measuring import Measurement, Place, Sample
from benchmarks.report import Run, to_markdown

PROJECT = Path(__file__).resolve().parents[2]
MEASUREMENT_KEYS = [
    "event", "name", "mb_per_s", "median_mb_per_s", "cpu_s_sender", "cpu_s_receiver", "rss_mb_sender",
    "rss_mb_receiver",
]  # fmt: skip


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=PROJECT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def measurement(name: str, *rates: float) -> Measurement:
    return Measurement(name, [Sample(rate, 1.0, 2.0, 30.0, 40.0) for rate in rates])


def test_every_measurement_is_one_line_of_json():
    ways = ["raw-1452", "raw-mtu", "tight-loop", "tight-loop-ours", "asyncio", "engine", "get"]
    done = bench("--size-mib", "1", "--rounds", "2", "--json", "--only", *ways)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["name"] for event in events] == [
        f"{way} 1 MiB"
        for way in ("raw-1452", "raw-mtu", "get", "engine", "asyncio", "tight-loop", "tight-loop-ours")
    ]
    for event in events:
        assert list(event) == MEASUREMENT_KEYS
        assert event["event"] == "measurement"
        assert len(event["mb_per_s"]) == 2
        assert min(event["mb_per_s"]) <= event["median_mb_per_s"] <= max(event["mb_per_s"])
        assert event["rss_mb_sender"] > 1
        assert event["rss_mb_receiver"] > 1


def test_what_cannot_run_says_why_and_the_rest_is_measured(monkeypatch, tmp_path):
    for program in ("bash", "openssl", "rm", "mv", "chmod", "mktemp", "cat"):
        (tmp_path / program).symlink_to(shutil.which(program))
    monkeypatch.setenv("PATH", str(tmp_path))  # no curl there
    done = bench("--size-mib", "1", "--rounds", "1", "--json", "--only", "nginx", "engine")
    assert done.returncode == 0, done.stderr
    skipped, measured = map(json.loads, done.stdout.splitlines())
    assert skipped.keys() == {"event", "name", "reason"}
    assert (skipped["event"], skipped["name"]) == ("skipped", "nginx")
    assert "is not installed" in skipped["reason"]
    assert measured["name"] == "engine 1 MiB"


def test_a_page_is_written_with_the_machine_and_the_figures(tmp_path):
    done = bench("--size-mib", "1", "--rounds", "1", "--only", "engine", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "cores" in page
    assert "## 1 MiB" in page
    assert "| raw stream at 1452 ÷ aioquic.asyncio | – | – | 6 | 11 | not measured |" in page


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    results = {
        64: {"raw-1452": measurement("raw-1452", 1, 1), "asyncio": measurement("asyncio", 1, 1)},
        256: {
            "raw-1452": measurement("raw-1452", 100, 60, 90),
            "asyncio": measurement("asyncio", 10, 10, 30),
        },
    }
    [ratio] = [figure for figure in figures(results) if figure.measured is not None]
    assert ratio.measured == 6
    assert ratio.measured_by_cpu == 1
    assert ratio.verdict == "reached"


@pytest.mark.parametrize(
    ("measured", "is_upper", "verdict"),
    [
        (None, False, "not measured"),
        (1.9, False, "missed"),
        (2.0, False, "reached"),
        (4.0, False, "aim reached"),
        (5.0, True, "missed"),
        (2.0, True, "reached"),
        (1.0, True, "aim reached"),
    ],
)
def test_a_figure_is_missed_reached_or_at_its_aim(measured, is_upper, verdict):
    at_least, aim = (2.0, 1.0) if is_upper else (2.0, 4.0)
    assert Figure("x", measured, None, at_least, aim, is_upper=is_upper).verdict == verdict


def test_peak_memory_counts_only_for_the_10_gib_file():
    [memory] = [f for f in figures({10240: {"get": measurement("get", 1)}}) if f.measured is not None]
    assert memory.verdict == "aim reached"
    assert memory.measured == pytest.approx(40e6 / 2**20)


def test_connections_are_counted_looked_at_and_reported(tmp_path):
    extent = Extent(open=(1, 2, 6), requests=20, rounds=2, handshakes=4)
    found = {finding.name: finding for finding in connections.measure(Place(tmp_path, 0), extent)}
    assert list(found) == [
        "handshakes", "handshake-cpu", "requests", "requests-one-by-one", "request-cpu-1", "request-cpu-2",
        "request-cpu-6", "idle-rss",
    ]  # fmt: skip
    assert found["handshakes"].value > 0
    assert found["requests"].value > 0
    run = Run(["a machine"], 1, {}, findings=[Finding("x", "the finding x", 2.5, "KiB")])
    assert "| the finding x | 2.5 KiB |" in to_markdown(run)


def test_connections_have_figures_of_their_own():
    findings = [
        Finding("request-cpu-10", "", 100, "µs"),
        Finding("request-cpu-1000", "", 110, "µs"),
        Finding("idle-rss", "", 60, "KiB"),
    ]
    reached = {figure.name: figure for figure in figures({}, findings)}
    assert reached["memory of an idle accepted connection"].verdict == "aim reached"
    assert reached["cost of a request with 1,000 connections ÷ with 10"].measured == pytest.approx(1.1)


def test_the_page_shows_what_was_skipped():
    run = Run(["a machine"], 1, {"a": "the way a", "b": "the way b"})
    run.results[1] = {"a": measurement("a 1 MiB", 10, 30, 20)}
    run.other_load[1] = 0.5
    run.skipped["b"] = "it is not installed"
    page = to_markdown(run, "plot.svg")
    assert "| the way a | 20.0 | 10.0 – 30.0 | 953.67 + 1907.35 | 30, 40 |" in page
    assert "- the way b: it is not installed" in page
    assert "(plot.svg)" in page
