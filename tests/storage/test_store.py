"""What every store must do, whatever it is made of. A new implementation adds itself to `stores`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from p2pnode.config import BLOCK_SIZE
from p2pnode.errors import HashMismatch, InvalidData, LocalProtocolError, NotFound
from p2pnode.storage import FileStore, Store, WholePiece
from tests.storage.content import PIECE, Source, bytes_of

CONTENTS: dict[str, int | dict[str, int]] = {
    "file": 3 * PIECE + 40_000,
    "file of one block": 100,
    "file of whole pieces": 2 * PIECE,
    "tree": {"a": 1, "b/c": PIECE + 1, "b/d": 0, "e": 2 * PIECE - 1},
}
Make = Callable[[], Store]


@pytest.fixture(params=CONTENTS)
def origin(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    return Source(tmp_path / "origin", CONTENTS[request.param])


@pytest.fixture(params=["FileStore"])
def store(request: pytest.FixtureRequest, tmp_path: Path, origin: Source) -> Iterator[Store]:
    """An empty store of the origin's torrent."""
    made: dict[str, Make] = {"FileStore": lambda: FileStore.download(origin.metainfo, tmp_path / "target")}
    store = made[request.param]()
    yield store
    store.close()


class TestStore:
    def test_an_empty_store_has_nothing(self, store: Store, origin: Source) -> None:
        assert not list(store.have())
        for index in range(origin.metainfo.piece_count):
            assert store.missing_blocks(index) == ((0, origin.metainfo.piece(index).block_count),)
            with pytest.raises(NotFound):
                store.read_piece(index)

    def test_what_is_written_is_read(self, store: Store, origin: Source) -> None:
        for index in range(origin.metainfo.piece_count):
            piece = origin.piece(index)
            assert store.begin_piece(index, piece.block_hashes)
            assert store.write_blocks(index, 0, memoryview(bytes_of(piece)))
            assert store.read_piece(index) == piece
            assert store.missing_blocks(index) == ()
        assert store.have().is_complete

    def test_blocks_come_in_any_order(self, store: Store, origin: Source) -> None:
        for index in reversed(range(origin.metainfo.piece_count)):
            assert store.begin_piece(index, origin.piece(index).block_hashes)
            for block in reversed(range(origin.metainfo.piece(index).block_count)):
                assert store.missing_blocks(index) == ((0, block + 1),)
                assert index not in store.have()
                assert store.write_blocks(index, block, origin.block(index, block)) == (block == 0)
        assert store.have().is_complete

    def test_S7_hashes_that_do_not_fit_the_root_are_refused(self, store: Store, origin: Source) -> None:
        hashes = origin.piece(0).block_hashes
        for wrong in (b"", hashes[:-32], hashes + hashes[-32:], hashes[:-1] + bytes([hashes[-1] ^ 1])):
            assert not store.begin_piece(0, wrong)
        with pytest.raises(LocalProtocolError):
            store.write_blocks(0, 0, origin.block(0, 0))

    def test_S7_bad_data_is_named_and_not_kept(self, store: Store, origin: Source) -> None:
        index = origin.metainfo.piece_count - 1
        piece = origin.piece(index)
        last = origin.metainfo.piece(index).block_count - 1
        assert store.begin_piece(index, piece.block_hashes)
        wrong = bytes_of(piece)[:-1] + bytes([bytes_of(piece)[-1] ^ 1])
        with pytest.raises(HashMismatch, match=f"block {last} of piece {index} "):
            store.write_blocks(index, 0, wrong)
        assert store.missing_blocks(index) == ((0, last + 1),)
        assert store.write_blocks(index, 0, bytes_of(piece))

    def test_S7_duplicates_change_nothing(self, store: Store, origin: Source) -> None:
        piece = origin.piece(0)
        whole = origin.metainfo.piece(0).block_count == 1
        for _ in range(3):
            assert store.begin_piece(0, piece.block_hashes)
            assert store.write_blocks(0, 0, origin.block(0, 0)) == whole
        for _ in range(3):
            assert store.write_blocks(0, 0, bytes_of(piece))
            assert store.begin_piece(0, piece.block_hashes)
        assert store.read_piece(0) == piece

    def test_S7_blocks_past_the_end_are_refused(self, store: Store, origin: Source) -> None:
        index = origin.metainfo.piece_count - 1
        piece = origin.piece(index)
        count = origin.metainfo.piece(index).block_count
        assert store.begin_piece(index, piece.block_hashes)
        past = [
            (count, b"x"),
            (0, bytes_of(piece) + b"x"),
            (count - 1, bytes(BLOCK_SIZE + 1)),
            (-1, b"x"),
            (0, b""),
        ]
        for first_block, data in past:
            with pytest.raises(InvalidData):
                store.write_blocks(index, first_block, data)
        assert store.missing_blocks(index) == ((0, count),)

    def test_S7_parts_of_blocks_are_refused(self, store: Store, origin: Source) -> None:
        piece = origin.piece(0)
        assert store.begin_piece(0, piece.block_hashes)
        with pytest.raises(InvalidData):
            store.write_blocks(0, 0, bytes_of(piece)[: min(len(bytes_of(piece)), BLOCK_SIZE) - 1])

    @pytest.mark.parametrize("index", [-1, 1000])
    def test_S7_pieces_past_the_end_are_refused(self, store: Store, origin: Source, index: int) -> None:
        with pytest.raises(InvalidData):
            store.begin_piece(index, bytes(32))
        with pytest.raises(InvalidData):
            store.write_blocks(index, 0, b"x")
        with pytest.raises(InvalidData):
            store.missing_blocks(index)
        with pytest.raises(NotFound):
            store.read_piece(index)

    def test_whole_pieces_are_kept_together(self, store: Store, origin: Source) -> None:
        pieces = [origin.whole(index) for index in range(origin.metainfo.piece_count)]
        assert store.write_pieces(pieces) == len(pieces)
        assert store.have().is_complete
        for piece in pieces:
            assert store.read_piece(piece.index) == origin.piece(piece.index)
        assert store.write_pieces(pieces) == len(pieces)

    def test_a_whole_piece_may_follow_some_of_its_blocks(self, store: Store, origin: Source) -> None:
        origin.give_block(store, 0, 0)
        assert store.write_pieces([origin.whole(0)]) == 1
        assert store.missing_blocks(0) == ()
        assert store.read_piece(0) == origin.piece(0)

    @pytest.mark.parametrize("fault", ["data", "hashes", "short", "long", "empty"])
    def test_S7_whole_pieces_are_kept_up_to_the_first_that_is_wrong(
        self, store: Store, origin: Source, fault: str
    ) -> None:
        pieces = [origin.whole(index) for index in range(origin.metainfo.piece_count)]
        last, data = pieces[-1], bytes(pieces[-1].data)
        wrong = {
            "data": WholePiece(last.index, last.block_hashes, bytes([data[0] ^ 1]) + data[1:]),
            "hashes": WholePiece(last.index, bytes(len(last.block_hashes)), data),
            "short": WholePiece(last.index, last.block_hashes, data[:-1]),
            "long": WholePiece(last.index, last.block_hashes, data + b"x"),
            "empty": WholePiece(last.index, last.block_hashes, b""),
        }[fault]
        if len(pieces) > 1:
            assert store.write_pieces([*pieces[:-1], wrong]) == len(pieces) - 1
        with pytest.raises((HashMismatch, InvalidData), match=f"piece {last.index}"):
            store.write_pieces([wrong])
        assert last.index not in store.have()
        assert store.write_pieces([last]) == 1

    def test_S7_whole_pieces_past_the_end_are_refused(self, store: Store, origin: Source) -> None:
        with pytest.raises(InvalidData):
            store.write_pieces([WholePiece(1000, bytes(32), b"x")])
