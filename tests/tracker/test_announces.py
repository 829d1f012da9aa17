"""What an announce is answered."""

from __future__ import annotations

import pytest

from p2pnode.tracker.announces import SwarmPeer, SwarmPeers

V4 = [SwarmPeer(bytes([n]) * 20, f"8.8.4.{n}", 6881 + n) for n in range(3)]
V6 = [SwarmPeer(bytes([n]) * 20, f"2600::{n}", 6881 + n) for n in range(7, 9)]


def test_peers_are_packed_and_unpacked_alike() -> None:
    peers = SwarmPeers.of([V6[0], *V4, V6[1]])
    assert list(peers) == V4 + V6
    assert [peers[place] for place in range(5)] == V4 + V6
    assert peers[-1] == V6[1]
    assert peers[1:4] == tuple((V4 + V6)[1:4])
    assert len(peers) == 5
    assert V6[0] in peers
    with pytest.raises(IndexError):
        peers[5]


def test_peers_are_as_they_go_over_the_wire() -> None:
    peers = SwarmPeers.of([V4[1], V6[0]])
    assert peers.compact_v4 == bytes([8, 8, 4, 1]) + (6882).to_bytes(2)
    assert peers.compact_v6 == bytes.fromhex("2600") + bytes(13) + b"\7" + (6888).to_bytes(2)
    assert peers.peer_ids == V4[1].peer_id + V6[0].peer_id


def test_no_peers_are_a_list_too() -> None:
    assert list(SwarmPeers()) == []
    assert not SwarmPeers()
    assert SwarmPeers.of([]) == SwarmPeers()
