from __future__ import annotations

from p2pnode.swarm.conduct import Conduct

A, B = b"a", b"b"


def test_the_second_proven_bad_piece_bans() -> None:
    conduct = Conduct()
    conduct.blame(A)
    assert not conduct.is_banned(A)
    conduct.blame(B)
    conduct.blame(A)
    assert conduct.banned == {A}


def test_a_piece_that_several_gave_is_on_parole_until_it_is_right() -> None:
    conduct = Conduct()
    assert conduct.piece_failed(3, {A, B}) is None
    assert conduct.on_parole == 1 << 3
    assert conduct.piece_failed(3, {A}) == A
    assert conduct.piece_failed(4, {A}) == A
    assert conduct.banned == {A}
    conduct.piece_verified(3)
    assert not conduct.on_parole


def test_a_piece_that_nobody_is_known_to_have_given_blames_nobody() -> None:
    conduct = Conduct()
    assert conduct.piece_failed(3, set()) is None
    assert conduct.banned == frozenset()
