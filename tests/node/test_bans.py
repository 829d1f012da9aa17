"""How often a node may send bad pieces, and how many nodes are remembered for it."""

from __future__ import annotations

from p2pnode import config
from p2pnode.node.bans import Bans

LIAR, OTHER = b"l" * 32, b"o" * 32


def test_the_second_bad_piece_bans_and_is_told_once() -> None:
    bans = Bans()
    assert [bans.blame(LIAR) for _ in range(4)] == [False, True, False, False]
    assert bans.is_banned(LIAR)
    assert not bans.is_banned(OTHER)
    assert bans.count == 1


def test_one_bad_piece_each_bans_nobody() -> None:
    bans = Bans()
    assert not bans.blame(LIAR) and not bans.blame(OTHER)
    assert not bans.is_banned(LIAR) and not bans.is_banned(OTHER)
    assert bans.count == 0


def test_of_too_many_those_are_forgotten_who_were_blamed_longest_ago() -> None:
    bans = Bans()
    for _ in range(config.BAD_PIECES_MAX):
        bans.blame(LIAR)
    for number in range(config.BANS_MAX - 1):
        bans.blame(number.to_bytes(32, "big"))
    assert bans.is_banned(LIAR)
    bans.blame(OTHER)
    assert not bans.is_banned(LIAR)
    assert bans.count == 1
