from __future__ import annotations

from p2pnode.swarm.ledger import Ledger
from p2pnode.swarm.peer import Peer
from p2pnode.swarm.piece_map import PieceState
from p2pnode.torrent.bitfield import Bitfield

COUNT = 6
SIZE = 10
MISSING, IN_FLIGHT, VERIFYING, HAVE, UNWANTED = PieceState


def peer(name: bytes) -> Peer:
    return Peer(name, (1 << COUNT) - 1, is_complete=True, is_near=True)


def ledger() -> Ledger:
    return Ledger([SIZE] * COUNT, Bitfield(COUNT), None)


def test_what_a_request_still_owes_is_missing_again_when_it_ends() -> None:
    books, one = ledger(), peer(b"a")
    request = books.open(one, [0, 1, 2], 0.0)
    assert one.owed_bytes == 3 * SIZE
    assert books.giving == {b"a"}
    books.stored(b"a", 0, SIZE, 1.0)
    assert books.end(request, 2.0) == 0b110
    assert [books.pieces.state(piece) for piece in range(4)] == [VERIFYING, MISSING, MISSING, MISSING]
    assert books.drawn_from(one) == {0}
    assert one.owed_bytes == 0
    assert books.giving == set()


def test_of_a_cancelled_request_nothing_is_waited_for() -> None:
    books, one = ledger(), peer(b"a")
    request = books.open(one, [0, 1], 0.0)
    books.stored(b"a", 0, SIZE, 1.0)
    books.end(request, 2.0, conclude=True)
    assert [books.pieces.state(piece) for piece in (0, 1)] == [MISSING, MISSING]


def test_a_piece_asked_of_two_stays_in_flight_until_neither_owes_it() -> None:
    books, one, other = ledger(), peer(b"a"), peer(b"b")
    first = books.open(one, [0], 0.0)
    second = books.open(other, [0], 0.0, is_hedge=True)
    books.end(first, 1.0)
    assert books.pieces.state(0) is IN_FLIGHT
    books.end(second, 1.0)
    assert books.pieces.state(0) is MISSING


def test_the_winner_of_two_is_hashed_and_if_it_was_wrong_the_other_goes_on() -> None:
    books, one, other = ledger(), peer(b"a"), peer(b"b")
    books.open(one, [0], 0.0)
    books.open(other, [0], 0.0, is_hedge=True)
    books.stored(b"a", 0, 4, 1.0)
    books.stored(b"b", 0, 6, 1.0)
    assert books.pieces.state(0) is VERIFYING
    assert books.givers(0) == {b"a", b"b"}
    assert books.spoilt(0, b"b") == []
    assert books.pieces.state(0) is IN_FLIGHT
    assert books.drawn_from(one) == {0}


def test_a_verified_piece_tells_who_still_owed_it() -> None:
    books, one = ledger(), peer(b"a")
    request = books.open(one, [0, 1], 0.0)
    assert books.verified(0, 1.0) == [request]
    assert books.remaining_bytes == 5 * SIZE
    assert request.owed == {1}
    assert books.verified(0, 1.0) == []


def test_the_rear_of_a_request_is_taken_back() -> None:
    books, one = ledger(), peer(b"a")
    request = books.open(one, [0, 1, 2, 3], 0.0)
    assert books.shorten(request, 1, 1.0) == [1, 2, 3]
    assert request.pieces == [0]
    assert one.owed_bytes == SIZE
    assert books.pieces.missing_bits == 0b111110


def test_whoever_is_gone_answers_for_nothing() -> None:
    books, one = ledger(), peer(b"a")
    books.open(one, [0, 1], 0.0)
    books.stored(b"a", 0, SIZE, 1.0)
    books.forget(one, 2.0)
    assert not books.requests and not books.verifier and not books.giving
    assert books.pieces.missing_bits == 0b111111


def test_what_nobody_wants_does_not_count_as_remaining() -> None:
    books = Ledger([SIZE] * COUNT, Bitfield(COUNT, 0b1), Bitfield(COUNT, 0b11))
    assert books.remaining_bytes == SIZE
    books.verified(5, 0.0)
    assert books.remaining_bytes == SIZE
    assert books.pieces.state(5) is HAVE
