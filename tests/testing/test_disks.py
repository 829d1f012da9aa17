"""Disks that lie or hang do just that, and nothing else."""

from __future__ import annotations

import hashlib

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pnode.storage import PieceData
from p2pnode.testing.disks import Disk, Lie, LyingDisk

BLOCKS = (b"a" * 16384, b"b" * 100)
PIECE = PieceData(b"".join(hashlib.sha256(block).digest() for block in BLOCKS), BLOCKS)


async def test_a_disk_works_until_it_is_frozen(autojump_clock: MockClock) -> None:
    disk = Disk()
    assert await disk.run_blocking(max, 1, 2) == 2
    disk.freeze()
    with trio.move_on_after(1e6) as scope:
        await disk.run_blocking(max, 1, 2)
    assert scope.cancelled_caught


@pytest.mark.parametrize(("lie", "are_hashes_right", "are_blocks_right"), [
    (Lie.BLOCKS, True, False),
    (Lie.HASHES, False, True),
])  # fmt: skip
async def test_a_liar_forges_each_piece_that_is_read(
    lie: Lie, are_hashes_right: bool, are_blocks_right: bool
) -> None:
    disk = LyingDisk(lie)
    [(number, piece)] = await disk.run_blocking(lambda: [(7, PIECE)])
    assert number == 7
    assert (piece.block_hashes == PIECE.block_hashes) is are_hashes_right
    assert (piece.parts == PIECE.parts) is are_blocks_right
    assert len(b"".join(piece.parts)) == len(b"".join(PIECE.parts))
    assert disk.pieces_forged == 1


async def test_a_liar_is_honest_in_all_else() -> None:
    disk = LyingDisk(Lie.BLOCKS)
    assert await disk.run_blocking(sorted, [2, 1]) == [1, 2]
    assert await disk.run_blocking(list, [("a", 1)]) == [("a", 1)]
    assert disk.pieces_forged == 0
    await wait_all_tasks_blocked()
