"""The soak test with real processes: a tracker of its own or another, and what it ends with."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from p2pnode.cli.console import Console
from p2pnode.cli.soak import SummaryLog
from p2pnode.cli.soak_files import SIZES, make_files
from p2pnode.cli.soak_result import Download, Status
from tests.cli.conftest import Outcome, P2PNode
from tests.cli.processes import Home, new_home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return new_home(tmp_path)


def downloads(ended: Outcome) -> list[tuple[str, str]]:
    return [(event["file"], event["status"]) for event in ended.events if event["event"] == "download"]


def test_once_is_each_file_once_and_all_are_good(home: Home) -> None:
    ended = home.run("soak", "--once", "--pause", "0", "--json")
    assert ended.code == 0, ended.err
    assert downloads(ended) == [(name, "OK") for name in SIZES]
    assert ended.events[-1] == {"event": "result", "ok": 6, "retry": 0, "fail": 0, "warn": 0}
    summary = (home.path / "soak_logs" / "summary.log").read_text().splitlines()
    rows = [line.split("\t")[1:4] for line in summary]
    assert rows == [[str(number), name, "OK"] for number, name in enumerate(SIZES, 1)]
    requests = [
        json.loads(line) for line in (home.path / "soak_logs" / "tracker.log").read_text().splitlines()
    ]
    assert {"announce", "file"} <= {line.get("kind") for line in requests}


def test_a_tracker_that_is_started_again_fails_nobody(home: Home) -> None:
    ended = home.run("soak", "--count", "40", "--clients", "4", "--pause", "0", "--restarts", "2", "--json")
    assert ended.code == 0, ended.err
    result = ended.events[-1]
    assert result["fail"] == result["warn"] == 0
    assert result["ok"] + result["retry"] == 40
    assert "the tracker is started again, 2 of 2" in ended.err


def test_other_bytes_than_the_reference_are_a_failure_and_none_a_warning(home: Home) -> None:
    make_files(home.path / "seed", SIZES)
    make_files(home.path / "refs", SIZES)
    (home.path / "refs" / "small.txt").write_text("other bytes")
    (home.path / "refs" / "data.json").unlink()
    with home.running("tracker", "--addr", "127.0.0.1", "--quic", "0") as tracker:
        port = str(tracker.first("front_ends_ready")["doors"][0]["address"][1])
        place = ("--server", "127.0.0.1", "--port", port, "--refs", "refs")
        ended = home.run("soak", *place, "--once", "--pause", "0")
    assert ended.code == 1
    assert "[2] small.txt FAIL: wrong hash" in ended.err
    assert "[3] data.json WARN: there is no reference hash" in ended.err
    assert "6 downloads: OK 4, RETRY 0, FAIL 1, WARN 1" in ended.err
    assert ended.out.splitlines()[1].split("\t")[:5] == ["small.txt", "0", "0", "1", "0"]


def test_a_tracker_that_dies_ends_the_test_and_says_so(home: Home) -> None:
    with home.running("soak", "--hours", "1", "--pause", "0") as running:
        running.first("download")
        threads = Path(f"/proc/{running.process.pid}/task").glob("*/children")
        (tracker,) = [int(child) for children in threads for child in children.read_text().split()]
        os.kill(tracker, signal.SIGKILL)
        assert running.first("error")["exit_code"] == 1
        assert running.process.wait(60) == 1
        assert "the tracker ended with -9" in running.talk()


def test_a_full_disk_ends_no_test(capfd: pytest.CaptureFixture[str]) -> None:
    summary = SummaryLog(Path("/dev/full"), Console())
    for number in (1, 2):
        summary.add(Download(number, "small.txt", Status.OK, "verified", 35, 0.1))
    warned = capfd.readouterr().err
    assert warned.count("\n") == 1
    assert "No space left on device" in warned


def test_only_a_tracker_of_its_own_can_be_started_again(p2pnode: P2PNode) -> None:
    assert p2pnode("soak", "--server", "a", "--restarts", "1").code == 2
