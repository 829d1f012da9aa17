from __future__ import annotations

import hashlib
from pathlib import Path

from p2pnode.cli.swarm_result import Transfers, digests, item_names, problems, transfers


def test_hashes_what_is_visible(tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "b.txt").write_bytes(b"b")
    (tmp_path / "a.txt").write_bytes(b"a")
    (tmp_path / ".a.p2pnode-part").write_bytes(b"partial")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "c").write_bytes(b"c")
    assert digests(tmp_path) == {
        "a.txt": hashlib.sha256(b"a").hexdigest(),
        "tree/deep/b.txt": hashlib.sha256(b"b").hexdigest(),
    }


def test_items_are_the_top_level_entries() -> None:
    assert item_names(["a.txt", "tree/deep/b.txt", "tree/c.txt"]) == {"a.txt", "tree"}


def test_says_what_is_missing_wrong_or_too_much() -> None:
    expected = {"a": "1", "b": "2", "c": "3"}
    assert problems("peer-1", expected, expected) == []
    assert problems("peer-1", expected, {"a": "1", "c": "0", "d": "4"}) == [
        "peer-1: b is missing",
        "peer-1: c has other bytes than its origin",
        "peer-1: d came from nowhere",
    ]


def test_adds_up_who_gave_whom_how_much() -> None:
    def listening(node_id: str) -> dict[str, object]:
        return {"event": "listening", "node_id": node_id}

    def completed(sources: dict[str, int], seconds: float) -> dict[str, object]:
        return {"event": "fetch_completed", "sources": sources, "seconds": seconds}

    events = {
        "server": [listening("aa")],
        "peer-1": [listening("bb"), completed({"aa": 100}, 1.0), completed({"aa": 300, "cc": 60}, 3.0)],
        "peer-2": [listening("cc"), {"event": "file_shared"}, completed({"f" * 64: 7}, 0.0)],
    }
    assert transfers(events) == [
        Transfers("peer-2", "peer-1", 1, 60, 3.0),
        Transfers("server", "peer-1", 2, 400, 4.0),
        Transfers("ffffffffffff", "peer-2", 1, 7, 0.0),
    ]


def test_a_rate_is_the_mean_over_its_fetches() -> None:
    assert Transfers("a", "b", 2, 400, 4.0).bytes_per_s == 100.0
    assert Transfers("a", "b", 1, 7, 0.0).bytes_per_s == 0.0
