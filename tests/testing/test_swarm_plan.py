"""What can be planned, how it is written, and what makes no sense."""

from __future__ import annotations

from typing import Any

import pytest

from p2pnode.errors import ConfigError
from p2pnode.testing.bounds import Rates
from p2pnode.testing.swarm_plan import Happening, Incident, Moment, Progress, SwarmPlan


@pytest.mark.parametrize(
    ("text", "moment", "before", "after"),
    [
        ("50%", Moment(share=0.5), Progress(9, median_share=0.49), Progress(median_share=0.5)),
        ("12.5%", Moment(share=0.125), Progress(), Progress(median_share=0.2)),
        ("0%", Moment(share=0.0), None, Progress()),
        ("1.5s", Moment(seconds=1.5), Progress(1.4, median_share=1), Progress(1.5)),
        ("union", Moment(), Progress(99, median_share=0.99), Progress(has_union=True)),
    ],
)
def test_a_moment_is_a_share_a_time_or_the_union(
    text: str, moment: Moment, before: Progress | None, after: Progress
) -> None:
    assert Moment.parse(text) == moment
    assert before is None or not moment.has_come(before)
    assert moment.has_come(after)


@pytest.mark.parametrize("text", ["", "50", "101%", "-1%", "half", "1.5", "s", "union ", "٥%"])
def test_anything_else_is_no_moment(text: str) -> None:
    with pytest.raises(ConfigError, match="no moment"):
        Moment.parse(text)


@pytest.mark.parametrize("text", ["", "server", "@50%", "Server@50%", "peer 3@50%", "peer-@50%"])
def test_an_incident_has_a_name_and_a_moment(text: str) -> None:
    with pytest.raises(ConfigError, match="NAME@MOMENT"):
        Incident.parse(text)


def test_who_is_meant() -> None:
    seed = Incident.parse("seed@union")
    assert seed == Incident("seed", Happening.KILL, Moment())
    assert [name for name in ("server", "seed", "seed-2", "peer-1") if seed.befalls(name)] == [
        "seed",
        "seed-2",
    ]
    assert not Incident.parse("peer-1@5%").befalls("peer-10")


def incidents(*texts: str) -> tuple[Incident, ...]:
    """`kill peer-1@50%` …"""
    return tuple(
        Incident.parse(rest, Happening(what)) for what, _, rest in (text.partition(" ") for text in texts)
    )


def test_names_and_zones() -> None:
    plan = SwarmPlan(peers=3, seeds=2, liars=1, zones=2)
    assert plan.seed_names == ("seed-1", "seed-2")
    assert plan.peer_names == ("peer-1", "peer-2", "peer-3")
    assert plan.liar_names == ("liar-1",)
    names = ("server", "seed-1", "liar-1", "peer-1", "peer-2", "peer-3")
    assert [plan.zone_of(name) for name in names] == [
        "origin",
        "origin",
        "origin",
        "zone-1",
        "zone-2",
        "zone-1",
    ]
    assert SwarmPlan().seed_names == ("seed",)
    assert {SwarmPlan().zone_of(name) for name in ("server", "seed", "peer-1")} == {""}


def test_rates_and_the_least_time() -> None:
    plan = SwarmPlan(peers=2, size=1000, rate=100, seed_rate=50, rates={"peer-2": Rates(10, 20)})
    assert [plan.rates_of(name) for name in ("seed", "peer-1", "peer-2")] == [
        Rates(50, 50),
        Rates(100, 100),
        Rates(10, 20),
    ]
    assert plan.bound_s == pytest.approx(1000 / 20)
    assert SwarmPlan(peers=8, size=1000, rate=100).bound_s == pytest.approx(10)
    assert SwarmPlan(peers=8, size=1000, rate=100, zones=4, wide_rate=20).bound_s == pytest.approx(50)
    assert SwarmPlan(peers=8, size=1000, rate=100, zones=4).gateway_rate == 100


def test_who_comes_late_and_who_never_comes_back() -> None:
    plan = SwarmPlan(
        peers=4,
        incidents=incidents(
            "start peer-1@90%",
            "kill peer-2@10%",
            "kill peer-3@10%",
            "start peer-3@20%",
            "freeze seed@10%",
        ),
    )
    assert plan.late_names == {"peer-1"}
    assert plan.lost_names == {"peer-2"}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"peers": 0}, "at least one leecher"),
        ({"seeds": 0}, "at least one leecher and one seed"),
        ({"size": 0}, "at least one byte"),
        ({"loss": 1.0}, "loss of 1.0"),
        ({"delay_s": -1}, "not negative"),
        ({"zones": -1}, "not negative"),
        ({"rate": 0}, "rate is more than 0"),
        ({"wide_rate": 0}, "rate is more than 0"),
        ({"rates": {"seed": Rates(1, 0)}}, "rate is more than 0"),
        (
            {"rates": {"nobody": Rates(1, 1)}},
            "nobody is called 'nobody': there are server, seed, peer-1 … peer-8",
        ),
        ({"incidents": incidents("kill peer-9@1s")}, "nobody is called 'peer-9'"),
        ({"incidents": incidents("start seed@1s")}, "only leechers can"),
        ({"peers": 1, "incidents": incidents("kill peer-1@1s")}, "nobody is left"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        SwarmPlan(**values)
