"""Addresses have one form, and bursts keep the order of their datagrams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.errors import AddressError
from p2pnode.quic import format_address, normalise, resolve
from p2pnode.quic.datagrams import bursts_of, network_of


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:0201", "192.0.2.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("::", "::"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
def test_an_address_has_one_form(host: str, expected: str) -> None:
    assert normalise(host, 1) == (expected, 1)


def test_a_scope_is_part_of_the_address() -> None:
    assert normalise("fe80::1", 1, scope_id=3) == ("fe80::1%3", 1)


@pytest.mark.parametrize(
    ("host", "port"), [("name", 1), ("", 1), ("1.2.3", 1), ("1.2.3.4", 65_536), ("1.2.3.4", -1)]
)
def test_W6_what_is_no_address(host: str, port: int) -> None:
    with pytest.raises(AddressError):
        normalise(host, port)


@given(st.ip_addresses(), st.integers(0, 65_535))
def test_normalising_twice_changes_nothing(host: object, port: int) -> None:
    once = normalise(str(host), port)
    assert normalise(*once) == once


def test_addresses_are_shown_as_people_type_them() -> None:
    assert format_address(("192.0.2.1", 5)) == "192.0.2.1:5"
    assert format_address(("2001:db8::1", 5)) == "[2001:db8::1]:5"


async def test_resolving() -> None:
    assert await resolve("127.0.0.1", 5) == [("127.0.0.1", 5)]
    assert ("127.0.0.1", 5) in await resolve("localhost", 5)
    for host, port in [("no such host.invalid", 1), ("x" * 300, 1), ("127.0.0.1", 65_536), ("\ud800", 1)]:
        with pytest.raises(AddressError):
            await resolve(host, port)


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
    ],
)
def test_a_network_is_what_one_customer_has(host: str, network: str) -> None:
    assert network_of(host) == network


def test_neighbours_to_one_address_make_a_burst() -> None:
    here, there = ("192.0.2.1", 1), ("192.0.2.1", 2)
    datagrams = [(b"1", here), (b"2", here), (b"3", there), (b"4", here)]
    assert bursts_of(datagrams) == [([b"1", b"2"], here), ([b"3"], there), ([b"4"], here)]
    assert bursts_of([]) == []
