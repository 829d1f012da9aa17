from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pnode.config import BLOCK_SIZE
from p2pnode.storage.block_map import BlockMap
from tests.storage.content import PIECE, metainfo_of

METAINFO = metainfo_of("data", {"a": bytes(2 * PIECE + 100), "b": bytes(BLOCK_SIZE + 1)})
COUNTS = [4, 4, 1, 2]  # blocks of each piece
steps = st.lists(
    st.tuples(st.sampled_from(["begin", "add", "add pieces", "drop"]), st.integers(0, 3), st.integers(0, 3))
)


@given(steps=steps)
def test_a_piece_is_in_one_place_and_every_block_is_counted(steps: list[tuple[str, int, int]]) -> None:
    blocks = BlockMap(METAINFO)
    model: set[tuple[int, int]] = set()
    begun: set[int] = set()
    for step, piece, block in steps:
        whole = {(piece, number) for number in range(COUNTS[piece])}
        match step:
            case "begin":
                blocks.begin(piece, bytes(32 * COUNTS[piece]))
                begun.add(piece)
            case "add" if piece in begun or whole <= model:
                block %= COUNTS[piece]
                blocks.add(piece, block, 1)
                model.add((piece, block))
            case "add pieces":
                blocks.add_pieces(piece, 1)
                model |= whole
            case "drop":
                blocks.drop_pieces(range(piece, piece + 1))
                model -= whole
                begun.discard(piece)
        begun -= set(blocks.have)
    assert not set(blocks.have) & set(blocks.partial)
    assert set(blocks.have) == {p for p in range(4) if all((p, b) in model for b in range(COUNTS[p]))}
    assert blocks.is_empty == (not model)
    for piece, count in enumerate(COUNTS):
        missing = {b for first, n in blocks.missing_blocks(piece) for b in range(first, first + n)}
        assert missing == {b for b in range(count) if (piece, b) not in model}
        assert blocks.has_blocks(piece, 0, count) == (not missing)
    last_blocks = {(2, 0): 100, (3, 1): 1}
    for piece, block in ((p, b) for p in range(4) for b in range(COUNTS[p])):
        size = last_blocks.get((piece, block), BLOCK_SIZE) if (piece, block) in model else 0
        assert blocks.bytes_in(piece, block, 1) == size
    for piece, count in enumerate(COUNTS):
        assert blocks.bytes_in(piece, 0, count) == sum(blocks.bytes_in(piece, b, 1) for b in range(count))
    assert blocks.bytes_here == sum(last_blocks.get(place, BLOCK_SIZE) for place in model)


def test_hashes_are_known_while_a_piece_is_in_flight() -> None:
    blocks = BlockMap(METAINFO)
    assert blocks.hashes_of(3, 0, 1) is None
    blocks.begin(3, b"a" * 32 + b"b" * 32)
    blocks.begin(3, bytes(64))
    assert blocks.hashes_of(3, 1, 1) == b"b" * 32
    assert blocks.hashes_of(3, 0, 2) == b"a" * 32 + b"b" * 32
    blocks.add(3, 0, 2)
    assert blocks.hashes_of(3, 0, 1) is None
    blocks.begin(3, bytes(64))
    assert blocks.partial == {}
