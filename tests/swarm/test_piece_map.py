from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.errors import LocalProtocolError
from p2pnode.swarm.piece_map import PieceMap, PieceState
from p2pnode.torrent.bitfield import Bitfield

MISSING, IN_FLIGHT, VERIFYING, HAVE = PieceState

ALLOWED = {
    (MISSING, IN_FLIGHT),
    (MISSING, HAVE),
    (IN_FLIGHT, VERIFYING),
    (IN_FLIGHT, HAVE),
    (IN_FLIGHT, MISSING),
    (VERIFYING, HAVE),
    (VERIFYING, MISSING),
}
WAYS_TO = {MISSING: [], IN_FLIGHT: [IN_FLIGHT], VERIFYING: [IN_FLIGHT, VERIFYING], HAVE: [HAVE]}


def test_it_starts_with_what_is_there() -> None:
    pieces = PieceMap(Bitfield(4, 0b0110))
    assert [pieces.state(piece) for piece in range(4)] == [MISSING, HAVE, HAVE, MISSING]
    assert pieces.missing == Bitfield(4, 0b1001)
    assert not pieces.is_complete


def test_a_torrent_of_no_pieces_is_complete() -> None:
    assert PieceMap(Bitfield(0)).is_complete


@pytest.mark.parametrize("start", PieceState)
@pytest.mark.parametrize("end", PieceState)
def test_only_allowed_moves_are_made(start: PieceState, end: PieceState) -> None:
    pieces = PieceMap(Bitfield(1))
    for state in WAYS_TO[start]:
        pieces.move(0, state)
    if (start, end) in ALLOWED:
        pieces.move(0, end)
        assert pieces.state(0) is end
    else:
        with pytest.raises(LocalProtocolError, match=f"from {start.name} to {end.name}"):
            pieces.move(0, end)
        assert pieces.state(0) is start


@pytest.mark.parametrize("piece", [-1, 3])
def test_there_are_no_other_pieces(piece: int) -> None:
    pieces = PieceMap(Bitfield(3))
    with pytest.raises(LocalProtocolError):
        pieces.state(piece)
    with pytest.raises(LocalProtocolError):
        pieces.move(piece, HAVE)


@given(
    have=st.integers(0, 255),
    moves=st.lists(st.tuples(st.integers(0, 7), st.sampled_from(PieceState)), max_size=60),
)
def test_any_moves_leave_each_piece_in_one_state(have: int, moves: list[tuple[int, PieceState]]) -> None:
    pieces = PieceMap(Bitfield(8, have))
    states = [HAVE if piece in Bitfield(8, have) else MISSING for piece in range(8)]
    for piece, state in moves:
        if (states[piece], state) in ALLOWED:
            pieces.move(piece, state)
            states[piece] = state
        else:
            with pytest.raises(LocalProtocolError):
                pieces.move(piece, state)
        assert [pieces.state(index) for index in range(8)] == states
        assert list(pieces.missing) == [index for index in range(8) if states[index] is MISSING]
        assert pieces.is_complete == all(state is HAVE for state in states)
