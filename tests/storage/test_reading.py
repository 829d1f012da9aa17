from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2pnode.config import BLOCK_SIZE
from p2pnode.storage import reading
from p2pnode.torrent.merkle import block_hashes
from p2pnode.torrent.pieces import Piece
from tests.storage.content import random_bytes


def test_steps_make_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "STEP", 2 * BLOCK_SIZE)
    data = random_bytes(5 * BLOCK_SIZE + 7)
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open("rb") as file:
        steps = list(reading.read_in_steps(file.fileno(), BLOCK_SIZE, len(data)))
        assert b"".join(steps) == data[BLOCK_SIZE:]
        assert len(steps[0]) == 2 * BLOCK_SIZE
        assert reading.hash_blocks(file.fileno(), 0, len(data)) == block_hashes(data)
        assert reading.hash_blocks(file.fileno(), BLOCK_SIZE, 10) == block_hashes(data[BLOCK_SIZE:][:10])
        assert reading.hash_blocks(file.fileno(), 10**6, 10) == b""


def test_holes_hold_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 1 << 20

    def piece(index: int) -> Piece:
        return Piece(index, 0, index * size, size, None)

    with (tmp_path / "file").open("w+b") as file:
        file.truncate(4 * size)
        os.pwrite(file.fileno(), b"x", 2 * size + 5)
        os.fsync(file.fileno())
        assert [reading.may_hold(file.fileno(), piece(index)) for index in range(4)] == [
            False,
            False,
            True,
            False,
        ]
        monkeypatch.delattr(os, "SEEK_DATA")
        assert reading.may_hold(file.fileno(), piece(0))


def test_where_holes_cannot_be_told_everything_may_hold(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    assert reading.may_hold(reader, Piece(0, 0, 0, 1, None))
    os.close(reader)
    os.close(writer)
