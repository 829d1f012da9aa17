"""`p2pnode sim`: what it prints, how it ends, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.conftest import P2PNode

SMALL = ("sim", "--peers", "2", "--size", "500KB")


def test_the_last_line_is_the_result(p2pnode: P2PNode) -> None:
    outcome = p2pnode(*SMALL, "--json", "--random-seed", "3", "--delay", "10ms", "--rate", "50Mbit")
    assert outcome.code == 0
    result = outcome.events[-1]
    assert result["event"] == "result"
    assert result["ok"] is True
    assert (result["peers"], result["completed"], result["corrupt"]) == (2, 2, 0)
    assert result["bound_seconds"] == pytest.approx(0.08)
    assert result["ratio"] == pytest.approx(result["seconds"] / 0.08, rel=0.01)
    assert 0 <= result["duplicate_fraction"] <= 1
    assert result["wide_ratio"] is None
    assert sorted(result["completions"]) == ["peer-1", "peer-2"]


def test_people_get_a_table_and_a_picture(p2pnode: P2PNode, tmp_path: Path) -> None:
    picture = tmp_path / "swarm.svg"
    outcome = p2pnode(*SMALL, "--zones", "2", "--wide-rate", "20Mbit", "--timeline", str(picture))
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert [line.split("\t")[:2] for line in lines[:3]] == [
        ["seed", "origin"],
        ["peer-1", "zone-1"],
        ["peer-2", "zone-2"],
    ]
    assert lines[3].startswith("2 of 2 peers have all 0.5 MB after ")
    assert lines[3].endswith("the least time possible is 0.20 s")
    assert lines[4].startswith("ratio ")
    assert "copies for each zone" in lines[4]
    assert ElementTree.parse(picture).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_a_swarm_that_does_not_complete_is_a_failure(p2pnode: P2PNode) -> None:
    doomed = ("sim", "--peers", "1", "--size", "4MB", "--kill", "seed@10%", "--kill", "server@10%")
    outcome = p2pnode(*doomed)
    assert outcome.code == 1
    [line] = [line for line in outcome.err.splitlines() if line.startswith("p2pnode: ")]
    assert "peer-1 did not complete: nobody gives" in line
    outcome = p2pnode(*doomed, "--json")
    assert outcome.code == 1
    assert [event["event"] for event in outcome.events] == ["error", "result"]
    assert outcome.events[-1]["completed"] == 0
    assert outcome.events[-1]["ratio"] is None


def test_a_picture_that_cannot_be_written_is_said(p2pnode: P2PNode, tmp_path: Path) -> None:
    outcome = p2pnode(*SMALL, "--timeline", str(tmp_path / "missing" / "swarm.svg"))
    assert outcome.code == 10
    assert outcome.err.splitlines()[-1].startswith("p2pnode: cannot write ")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--kill", "server"), "'server' is not NAME@MOMENT"),
        (("--kill", "server@half"), "'half' is no moment"),
        (("--kill", "peer-9@50%"), "nobody is called 'peer-9'"),
        (("--peers", "1", "--kill", "peer-1@50%"), "nobody is left"),
        (("--peers", "0"), "--peers"),
        (("--size", "0"), "at least one byte"),
        (("--rate", "unlimited"), "no rate of a link"),
        (("--rate", "fast"), "is no rate"),
        (("--delay", "soon"), "is no duration"),
        (("--loss", "1"), "a loss of 1.0 is not between 0 and 1"),
        (("--loss", "120%"), "is no fraction"),
        (("--zones", "-1"), "--zones"),
    ],
)
def test_what_makes_no_sense_is_one_line(p2pnode: P2PNode, arguments: tuple[str, ...], text: str) -> None:
    outcome = p2pnode("sim", *arguments)
    assert outcome.code == 2
    [line] = outcome.err.splitlines()
    assert text in line
    assert outcome.out == ""
