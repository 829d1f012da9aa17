"""`p2pnode bench`, with as few bytes as it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pnode.cli import bench
from p2pnode.cli.bench import _conclusion
from tests.cli.conftest import P2PNode

NAMES = ["AES-128-GCM", "SHA-256", "UDP", "disk", "stream, 1452 bytes", "stream", "get"]


def test_every_rate_is_measured(p2pnode: P2PNode, tmp_path: Path) -> None:
    result = p2pnode("bench", "--size", "1M", "--dir", str(tmp_path), "--json")
    assert result.code == 0
    assert [event["name"] for event in result.events] == NAMES
    assert all(event["median_mb_per_s"] > 0 for event in result.events)
    assert not list(tmp_path.iterdir())


def test_a_person_sees_a_table_and_what_to_make_of_it(p2pnode: P2PNode) -> None:
    result = p2pnode("bench", "--size", "1M")
    assert result.code == 0
    assert [line for line in NAMES if line not in result.out] == []
    assert "is the limit" in result.out.splitlines()[-1]


def test_a_directory_that_is_not_there_is_one_line(p2pnode: P2PNode, tmp_path: Path) -> None:
    result = p2pnode("bench", "--dir", str(tmp_path / "none"))
    assert result.code == 10
    assert str(tmp_path / "none") in result.err


@pytest.mark.parametrize(("disk", "said"), [(100e6, "disk"), (1000e6, "0.7 Gbit/s")])
def test_what_is_slowest_is_named(disk: float, said: str) -> None:
    assert said in _conclusion({"disk": disk, "get": 90e6, "stream, 1452 bytes": 300e6})


def test_a_process_that_fails_shows_its_last_words(p2pnode: P2PNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ETHERNET", 5)  # no datagram is so small
    result = p2pnode("bench", "--size", "1M")
    assert result.code == 6
    assert len(result.err.splitlines()) == 1
    assert "ended with 1" in result.err
    assert "Error: " in result.err


def test_a_process_that_hangs_is_given_up(
    p2pnode: P2PNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "START_LIMIT_S", 0.0)
    monkeypatch.setattr(bench, "RATE_MIN", 1 << 40)
    result = p2pnode("bench", "--size", "1M", "--dir", str(tmp_path))
    assert result.code == 4
    assert len(result.err.splitlines()) == 1
    assert "hangs" in result.err
    assert not list(tmp_path.iterdir())
