from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.errors import LocalProtocolError
from p2pnode.swarm.piece_map import PieceMap, PieceState, bits_of
from p2pnode.torrent.bitfield import Bitfield

MISSING, IN_FLIGHT, VERIFYING, HAVE, UNWANTED = PieceState

ALLOWED = {
    (MISSING, IN_FLIGHT),
    (MISSING, HAVE),
    (IN_FLIGHT, VERIFYING),
    (IN_FLIGHT, HAVE),
    (IN_FLIGHT, MISSING),
    (VERIFYING, HAVE),
    (VERIFYING, IN_FLIGHT),
    (VERIFYING, MISSING),
    (UNWANTED, HAVE),
}
WAYS_TO = {MISSING: [], IN_FLIGHT: [IN_FLIGHT], VERIFYING: [IN_FLIGHT, VERIFYING], HAVE: [HAVE], UNWANTED: []}


def test_it_starts_with_what_is_there_and_what_is_wanted() -> None:
    pieces = PieceMap(Bitfield(4, 0b0110), Bitfield(4, 0b0011))
    assert [pieces.state(piece) for piece in range(4)] == [MISSING, HAVE, HAVE, UNWANTED]
    assert pieces.missing_bits == 0b0001
    assert not pieces.is_complete


def test_it_is_complete_when_all_is_here_that_is_wanted() -> None:
    assert PieceMap(Bitfield(0)).is_complete
    pieces = PieceMap(Bitfield(3, 0b001), Bitfield(3, 0b011))
    pieces.move([2], HAVE)  # nobody wants it
    assert not pieces.is_complete
    pieces.move([1], HAVE)
    assert pieces.is_complete


@pytest.mark.parametrize("start", PieceState)
@pytest.mark.parametrize("end", PieceState)
def test_only_allowed_moves_are_made(start: PieceState, end: PieceState) -> None:
    pieces = PieceMap(Bitfield(1), Bitfield(1) if start is UNWANTED else None)
    for state in WAYS_TO[start]:
        pieces.move([0], state)
    if (start, end) in ALLOWED:
        pieces.move([0], end)
        assert pieces.state(0) is end
    else:
        with pytest.raises(LocalProtocolError, match=f"from {start.name} to {end.name}"):
            pieces.move([0], end)
        assert pieces.state(0) is start


@pytest.mark.parametrize("piece", [-1, 3])
def test_there_are_no_other_pieces(piece: int) -> None:
    pieces = PieceMap(Bitfield(3))
    with pytest.raises(LocalProtocolError):
        pieces.state(piece)
    with pytest.raises(LocalProtocolError):
        pieces.move([piece], HAVE)


@given(
    have=st.integers(0, 255),
    wanted=st.integers(0, 255),
    moves=st.lists(
        st.tuples(st.lists(st.integers(0, 7), unique=True, max_size=3), st.sampled_from(PieceState)),
        max_size=60,
    ),
)
def test_any_moves_leave_each_piece_in_one_state(
    have: int, wanted: int, moves: list[tuple[list[int], PieceState]]
) -> None:
    pieces = PieceMap(Bitfield(8, have), Bitfield(8, wanted))
    states = [
        HAVE if have >> piece & 1 else MISSING if wanted >> piece & 1 else UNWANTED for piece in range(8)
    ]
    for together, state in moves:
        if all((states[piece], state) in ALLOWED for piece in together):
            pieces.move(together, state)
            for piece in together:
                states[piece] = state
        elif len(together) == 1:
            with pytest.raises(LocalProtocolError):
                pieces.move(together, state)
        assert [pieces.state(index) for index in range(8)] == states
        assert pieces.missing_bits == sum(1 << index for index in range(8) if states[index] is MISSING)
        assert pieces.is_complete == all(states[index] is HAVE for index in Bitfield(8, wanted))


@given(st.sets(st.integers(0, 300)))
def test_pieces_as_bits(pieces: set[int]) -> None:
    assert bits_of(list(pieces)) == sum(1 << piece for piece in pieces)
