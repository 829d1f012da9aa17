from __future__ import annotations

import pytest

from p2pnode import config
from p2pnode.tracker.addresses import (
    Reach,
    believable_addresses,
    known_addresses,
    network_of,
    reach_of,
    visible_addresses,
)

WORLD, OTHER_WORLD = "8.8.4.4", "9.9.9.9"
SITE, OTHER_SITE = "10.1.2.3", "192.168.1.5"
MACHINE = "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "reach"),
    [
        ("127.0.0.1", Reach.MACHINE),
        ("127.9.9.9", Reach.MACHINE),
        ("::1", Reach.MACHINE),
        ("::ffff:127.0.0.1", Reach.MACHINE),
        ("10.0.0.1", Reach.SITE),
        ("192.168.0.1", Reach.SITE),
        ("::ffff:10.0.0.1", Reach.SITE),
        ("100.64.0.1", Reach.SITE),
        ("fd00::1", Reach.SITE),
        ("8.8.8.8", Reach.WORLD),
        ("::ffff:8.8.8.8", Reach.WORLD),
        ("2a00:1450:4001::1", Reach.WORLD),
        ("0.0.0.0", Reach.NOWHERE),
        ("0.1.2.3", Reach.NOWHERE),
        ("::", Reach.NOWHERE),
        ("::ffff:0.0.0.0", Reach.NOWHERE),
        ("224.0.0.1", Reach.NOWHERE),
        ("::ffff:224.0.0.1", Reach.NOWHERE),
        ("ff02::1", Reach.NOWHERE),
        ("255.255.255.255", Reach.NOWHERE),
        ("240.0.0.1", Reach.NOWHERE),
        ("169.254.169.254", Reach.NOWHERE),
        ("fe80::1", Reach.NOWHERE),
        ("fe80::1%2", Reach.NOWHERE),
        ("fd00::1%eth0", Reach.NOWHERE),
        ("64:ff9b::a00:1", Reach.NOWHERE),
        ("64:ff9b::808:808", Reach.NOWHERE),
        ("2002:808:808::1", Reach.NOWHERE),
        ("2001:0:4136:e378::1", Reach.NOWHERE),
        ("example.com", Reach.NOWHERE),
        ("2130706433", Reach.NOWHERE),
        ("127.1", Reach.NOWHERE),
        ("", Reach.NOWHERE),
    ],
)
def test_T5_from_where_an_address_can_be_dialled(host: str, reach: Reach) -> None:
    assert reach_of(host) is reach


def test_the_observed_address_comes_first() -> None:
    claimed = [(SITE, 7), (WORLD, 5)]
    assert known_addresses((WORLD, 5), claimed, 6) == ((WORLD, 5), (WORLD, 6), (SITE, 7))


def test_T1_a_claimed_third_party_is_ignored() -> None:
    claimed = [(OTHER_WORLD, 5), ("example.com", 5), (MACHINE, 5), ("224.0.0.1", 5)]
    assert known_addresses((WORLD, 5), claimed, 0) == ((WORLD, 5),)
    assert known_addresses((SITE, 5), claimed, 0) == ((SITE, 5),)


def test_a_node_on_our_own_machine_may_say_where_the_world_finds_it() -> None:
    assert known_addresses((MACHINE, 5), [(WORLD, 7)], 0) == ((MACHINE, 5), (WORLD, 7))


def test_mapped_addresses_are_shown_as_what_they_are() -> None:
    assert known_addresses(("::ffff:8.8.4.4", 5), [(WORLD, 5)], 5) == ((WORLD, 5),)


@pytest.mark.parametrize("port", [0, 53])
def test_T5_ports_that_are_never_dialled_are_left_out(port: int) -> None:
    assert known_addresses((WORLD, port), [(SITE, port)], port) == ()


def test_a_node_has_so_many_addresses_and_no_more() -> None:
    claimed = [(SITE, port) for port in range(1000, 1050)]
    assert len(known_addresses((WORLD, 5), claimed, 0)) == config.ADDRESSES_PER_NODE_MAX


ADDRESSES = ((WORLD, 1), (SITE, 2), (MACHINE, 3))


@pytest.mark.parametrize(
    ("observed", "asker", "visible"),
    [
        (MACHINE, MACHINE, {1, 2, 3}),
        (MACHINE, "::1", {1, 2, 3}),
        (MACHINE, SITE, {1, 2}),
        (MACHINE, WORLD, {1}),
        (SITE, MACHINE, {1, 2}),
        (SITE, OTHER_SITE, {1, 2}),
        (SITE, WORLD, {1}),
        (WORLD, MACHINE, {1}),
        (WORLD, SITE, {1}),
        (WORLD, OTHER_WORLD, {1}),
        (WORLD, WORLD, {1, 2}),  # behind the same NAT
        (WORLD, "::ffff:" + WORLD, {1, 2}),
    ],
)
def test_T5_an_asker_is_told_what_can_be_dialled_from_where_he_is(
    observed: str, asker: str, visible: set[int]
) -> None:
    assert {port for _, port in visible_addresses(ADDRESSES, observed, asker)} == visible


def test_T6_an_ipv6_customer_is_one_network() -> None:
    assert network_of("2a00:1:2:3::1") == network_of("2a00:1:2:3:ffff::9") != network_of("2a00:1:2:4::1")
    assert network_of("8.8.8.8") == network_of("::ffff:8.8.8.8") != network_of("8.8.8.9")
    assert network_of("no digits") == "no digits"


@pytest.mark.parametrize(
    ("teller_host", "believed"),
    [
        ("127.0.0.1", {"127.0.0.2", "10.0.0.9", "100.64.0.9", "9.9.9.9"}),
        ("192.168.1.7", {"10.0.0.9", "100.64.0.9", "9.9.9.9"}),
        ("8.8.8.8", {"9.9.9.9"}),
        ("nowhere", {"9.9.9.9"}),
    ],
)
def test_T5_who_is_out_in_the_world_knows_nobody_in_our_site(teller_host: str, believed: set[str]) -> None:
    hosts = ("127.0.0.2", "10.0.0.9", "100.64.0.9", "9.9.9.9", "224.0.0.1", "0.0.0.0", "name.example")
    found = believable_addresses([(host, 7) for host in hosts], teller_host)
    assert {host for host, _ in found} == believed


def test_T5_ports_where_nobody_of_ours_listens_are_not_believed() -> None:
    claims = [("9.9.9.9", port) for port in (0, 53, 5000, 5000)]
    assert believable_addresses(claims, "8.8.8.8") == (("9.9.9.9", 5000),)
    many = [("9.9.9.9", 1000 + number) for number in range(20)]
    assert len(believable_addresses(many, "8.8.8.8")) == config.ADDRESSES_PER_NODE_MAX
