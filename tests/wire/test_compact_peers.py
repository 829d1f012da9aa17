"""Compact peers are read, whatever the bytes."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from p2pnode.wire.compact_peers import unpack_peers

PORTS = st.integers(0, 65_535)


def packed(peers: list[tuple[str, int]]) -> bytes:
    return b"".join(ip_address(host).packed + port.to_bytes(2) for host, port in peers)


@given(st.lists(st.tuples(st.ip_addresses(v=4).map(str), PORTS)), st.binary(max_size=5))
def test_T11_ipv4_peers_are_read_and_what_is_none_at_the_end_is_left_out(
    peers: list[tuple[str, int]], rest: bytes
) -> None:
    assert unpack_peers(packed(peers) + rest, is_ipv6=False) == tuple(peers)


@given(st.lists(st.tuples(st.ip_addresses(v=6).map(str), PORTS)), st.binary(max_size=17))
def test_T11_ipv6_peers_are_read_and_what_is_none_at_the_end_is_left_out(
    peers: list[tuple[str, int]], rest: bytes
) -> None:
    assert unpack_peers(packed(peers) + rest, is_ipv6=True) == tuple(peers)


def test_hosts_and_ports_as_they_stand_in_the_beps() -> None:
    assert unpack_peers(bytes.fromhex("c00002011ae1"), is_ipv6=False) == (("192.0.2.1", 6881),)
    compact = bytes.fromhex("20010db8000000000000000000000001" "0050")  # fmt: skip
    assert unpack_peers(compact, is_ipv6=True) == (("2001:db8::1", 80),)
