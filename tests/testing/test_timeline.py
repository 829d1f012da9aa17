"""The picture is well-formed, shows each leecher, what befell whom, and the least time; and nothing leaves the page."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from p2pnode.testing.swarm_plan import Incident, SwarmPlan
from p2pnode.testing.swarm_result import Befallen, Sample, SwarmResult
from p2pnode.testing.timeline import timeline

SVG = "{http://www.w3.org/2000/svg}"
INCIDENT = Incident.parse("server@50%")
PLAN = SwarmPlan(peers=3, size=12_500_000, zones=2, incidents=(INCIDENT,))


def a_result(plan: SwarmPlan) -> SwarmResult:
    """Everybody gets on alike, and is done after 1.2 s but for the last one."""
    samples = [Sample(time / 100, (min(1.0, time / 120),) * plan.peers) for time in range(161)]
    return SwarmResult(
        plan=plan,
        seconds=1.2,
        completions=dict.fromkeys(plan.peer_names[:-1], 1.2),
        failures={plan.peer_names[-1]: "nobody gives it"},
        corrupt=(),
        duplicate_bytes=0,
        received_bytes=1,
        wide_bytes=0,
        given={},
        banned={},
        befallen=(Befallen(INCIDENT, 0.6),),
        samples=tuple(samples),
        real_seconds=1.0,
    )


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def numbers(root: ElementTree.Element, *names: str) -> list[float]:
    return [
        float(element.attrib[name]) for element in root.iter() for name in names if name in element.attrib
    ]


def points_of(polygon: ElementTree.Element) -> list[tuple[float, float]]:
    pairs = (point.split(",") for point in polygon.attrib["points"].split())
    return [(float(x), float(y)) for x, y in pairs]


def test_each_leecher_has_a_row_that_fills_as_its_file_does() -> None:
    root = ElementTree.fromstring(timeline(a_result(PLAN)))
    said = texts(root)
    assert {"peer-1 zone-1", "peer-2 zone-2", "peer-3 zone-1"} <= set(said)
    assert said.count("1.20 s") == 2
    assert said.count("not complete") == 1
    rows = [points_of(polygon) for polygon in root.iter(f"{SVG}polygon")][:3]
    for points in rows:
        xs, ys = zip(*points, strict=True)
        assert list(xs) == sorted(xs)
        assert list(ys[1:-1]) == sorted(ys[1:-1], reverse=True)  # y goes down the page
    colors = [polygon.attrib["class"] for polygon in root.iter(f"{SVG}polygon")][:3]
    assert colors[0] == colors[2] != colors[1]


def test_what_befell_whom_and_the_least_time_are_marked() -> None:
    root = ElementTree.fromstring(timeline(a_result(PLAN)))
    assert "kill server" in texts(root)
    assert "least time 1.00 s" in texts(root)
    [harm] = [line for line in root.iter(f"{SVG}line") if line.attrib["class"] == "harm"]
    bound = [line for line in root.iter(f"{SVG}line") if line.attrib["class"] == "bound"]
    assert float(harm.attrib["x1"]) < max(float(line.attrib["x1"]) for line in bound)


@pytest.mark.parametrize("peers", [1, 8, 64, 256])
def test_nothing_leaves_the_page(peers: int) -> None:
    result = a_result(replace(PLAN, peers=peers, zones=0))
    root = ElementTree.fromstring(timeline(result))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert height < 2400
    assert all(0 <= x <= width for x in numbers(root, "x", "x1", "x2"))
    assert all(0 <= y <= height for y in numbers(root, "y", "y1", "y2"))
    for polygon in root.iter(f"{SVG}polygon"):
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points_of(polygon))


def test_a_swarm_that_never_began_can_be_drawn() -> None:
    plan = replace(PLAN, incidents=())
    result = replace(a_result(plan), samples=(Sample(0.0, (0.0,) * 3),), completions={}, befallen=())
    ElementTree.fromstring(timeline(result))
