from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from random import Random

import pytest
import trio

from p2pnode import config
from p2pnode.cli.console import Console
from p2pnode.cli.swarm import _conclude, _swarm
from p2pnode.cli.swarm_nodes import SwarmFailed, SwarmNode, environment, program
from p2pnode.cli.swarm_result import digests
from p2pnode.cli.swarm_setup import Plan, prepare, write_random
from p2pnode.errors import ConfigError
from tests.cli.conftest import P2PNode
from tests.cli.processes import PROJECT, new_home


def plan(directory: Path, *, files_dir: Path | None = None, liars: int = 0, zones: int = 0) -> Plan:
    return Plan(directory, peers=3, size=100_000, files_dir=files_dir, liars=liars, zones=zones)


def processes_below(directory: Path) -> list[str]:
    """The command lines of all processes that name `directory`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has just ended
        if str(directory) in words:
            found.append(words)
    return found


def test_prepares_who_has_what_at_the_start(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    (origin / "tree").mkdir(parents=True)
    (origin / "tree" / "a.txt").write_text("a")
    (origin / ".git").mkdir()
    nodes = prepare(plan(tmp_path / "run", files_dir=origin, liars=1, zones=2))
    assert [(node.name, node.zone) for node in nodes.all] == [
        ("server", ""),
        ("seed", "origin"),
        ("peer-1", "zone-1"),
        ("peer-2", "zone-2"),
        ("peer-3", "zone-1"),
        ("liar-1", ""),
    ]
    assert [sorted(digests(node.files_dir)) for node in nodes.all] == [
        ["hello_from_server.txt"],
        ["random-97.7KiB.bin"],
        ["tree/a.txt"],
        [],
        [],
        ["random-97.7KiB.bin"],
    ]


def test_a_second_run_begins_with_nothing_of_the_first(tmp_path: Path) -> None:
    first = prepare(plan(tmp_path / "run"))
    (first.peers[2].files_dir / "leftover").write_text("x")
    second = prepare(plan(tmp_path / "run"))
    assert digests(second.peers[2].files_dir) == {}


def test_only_who_is_there_can_be_killed(tmp_path: Path, p2pnode: P2PNode) -> None:
    nodes = prepare(plan(tmp_path / "run"))
    assert nodes.named("peer-3") is nodes.peers[2]
    with pytest.raises(
        ConfigError, match="there is no 'peer-4' to kill: it is one of server, seed, peer-1, "
    ):
        nodes.named("peer-4")
    ended = p2pnode("swarm", "--kill", "seed@union")
    assert ended.code == 2
    assert "p2pnode sim" in ended.err


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
def test_a_random_file_has_the_size_it_was_given(tmp_path: Path, size: int) -> None:
    write_random(tmp_path / "r.bin", size, Random(1))
    assert (tmp_path / "r.bin").read_bytes() == Random(1).randbytes(size)
    assert [path.name for path in tmp_path.iterdir()] == ["r.bin"]


def test_anything_missing_ends_it_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        _conclude(Console(json=True), ["peer-1: a is missing"], "all is well", {"event": "result"})
    assert raised.value.code == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("peer-1: a is missing\n")
    assert "problems: 1" in printed.err
    assert [json.loads(line)["event"] for line in printed.out.splitlines()] == ["error", "result"]


async def test_a_reason_is_said_however_deep_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail_deep(*_: object) -> None:
        raise ExceptionGroup("nursery", [ExceptionGroup("nursery", [SwarmFailed("peer-1 ended with 9")])])

    monkeypatch.setattr("p2pnode.cli.swarm.start", fail_deep)
    with pytest.raises(SystemExit):
        await _swarm(Console(), plan(tmp_path / "run"))
    assert "peer-1 ended with 9\n" in capsys.readouterr().err


def test_a_swarm_that_ends_before_it_began_has_nothing_to_remove(
    p2pnode: P2PNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise SystemExit(130)

    monkeypatch.setattr("p2pnode.cli.swarm.run", interrupted)
    ended = p2pnode("swarm", "--dir", str(tmp_path / "run"))
    assert (ended.code, ended.err) == (130, "")


def test_children_do_not_hear_the_settings_of_whoever_starts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PNODE_FILES_DIR", "/precious")
    assert "P2PNODE_FILES_DIR" not in environment()
    assert environment(0.02, 0.01)["P2PNODE_IMPAIR"] == "0.02,0.01"
    assert program("peer")[-3:] == ["--config", os.devnull, "peer"]


async def test_a_node_that_ends_early_is_named_with_its_last_words(tmp_path: Path) -> None:
    node = SwarmNode("peer-1", tmp_path)
    async with trio.open_nursery() as nursery:
        await node.start(nursery, program("peer", "--json"), environment())
        with pytest.raises(SwarmFailed, match=r"peer-1 ended with 2: .*--server-addr"):
            await node.first("listening")
        await node.stop()


async def test_a_node_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pnode.cli.swarm_nodes._STOP_PATIENCE_S", 0.0)
    node = SwarmNode("peer-1", tmp_path)
    async with trio.open_nursery() as nursery:
        words = ["server", "--json", "--addr", "127.0.0.1:0", "--files-dir", str(tmp_path / "files")]
        await node.start(nursery, program(*words), environment())
        await node.first("listening")
        await node.stop()
    assert processes_below(tmp_path) == []


def test_a_node_has_what_it_shared_at_first_and_what_it_fetched_to_the_end(tmp_path: Path) -> None:
    node = SwarmNode("peer-1", tmp_path)
    node.events = [
        {"event": "listening"},
        {"event": "file_shared", "name": "own"},
        {"event": "fetch_started", "name": "half"},
        {"event": "file_shared", "name": "half"},
        {"event": "fetch_started", "name": "whole"},
        {"event": "file_shared", "name": "whole"},
        {"event": "fetch_completed", "name": "whole"},
    ]
    assert node.items() == {"own", "whole"}


def test_a_whole_swarm_comes_out_right(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home")
    done = home.run("swarm", "--peers", "2", "--size", "3M", "--json", "--dir", str(tmp_path / "run"))
    assert done.code == 0, done.err
    result = done.events[-1]
    assert (result["event"], result["ok"], result["problems"]) == ("result", True, [])
    assert (result["peers"], result["completed"], result["ratio"]) == (2, 2, None)
    assert sorted(result["completions"]) == ["peer-1", "peer-2"]
    given = [event for event in done.events if event["event"] == "swarm_transfers"]
    assert sum(gift["size"] for gift in given if gift["receiver"] == "peer-1") >= 3 << 20
    assert {event["state"] for event in done.events if event["event"] == "push_report"} >= {"complete"}
    assert not (tmp_path / "run" / "swarm-nodes").exists()
    assert processes_below(tmp_path / "run") == []


def test_a_swarm_on_slow_links_goes_on_when_its_server_is_killed_and_some_lie(tmp_path: Path) -> None:
    words = ["--peers", "2", "--liars", "1", "--size", "2MB", "--zones", "2", "--random-seed", "7"]
    words += ["--rate", "10Mbit", "--delay", "5ms", "--loss", "0.1%", "--kill", "server@30%"]
    done = new_home(tmp_path / "home").run("swarm", *words, "--json", "--dir", str(tmp_path / "run"))
    assert done.code == 0, done.err
    result = done.events[-1]
    assert (result["event"], result["completed"]) == ("result", 2)
    assert result["bound_seconds"] == 1.6
    assert result["ratio"] == result["seconds"] / 1.6 > 0.9
    assert 0.9 < result["wide_ratio"] <= 2.0
    lies = config.BAD_PIECES_MAX * config.REQUEST_BYTES_MIN  # to each peer, before it knows better
    assert result["duplicate_fraction"] <= 0.02 + lies / result["size"]


def test_an_interrupted_swarm_leaves_nothing(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home")
    with home.running("swarm", "--peers", "2", "--size", "1M", "--dir", str(tmp_path / "run")) as swarm:
        log = tmp_path / "run" / "swarm-nodes" / "peer-1" / "events.jsonl"
        assert swarm.process.stderr is not None
        assert b"starting a server, a seed and 2 peers" in swarm.process.stderr.readline()
        while not log.exists():
            os.sched_yield()
        assert swarm.end(signal.SIGINT) == 130
    assert processes_below(tmp_path / "run") == []
    assert not (tmp_path / "run" / "swarm-nodes").exists()


def test_the_script_finds_its_project() -> None:
    assert os.access(PROJECT / "scripts" / "swarm", os.X_OK)
    assert os.access(PROJECT / "scripts" / "test", os.X_OK)
