"""What `recover` believes; whole stories of damage are in `test_survival.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2pnode.config import BLOCK_SIZE
from p2pnode.errors import StorageError
from p2pnode.storage import FileStore
from p2pnode.storage.block_map import BlockMap
from p2pnode.storage.journal import Run, encode_checkpoint, encode_hashes, encode_run
from p2pnode.storage.partial import Partial
from p2pnode.storage.recovery import recover
from tests.storage.content import PIECE, Source, bytes_of


def begun(source: Source, target: Path, *records: bytes, blocks: int = 2) -> Partial:
    """A partial whose journal has these records, and whose file has the first blocks of piece 0."""
    partial = Partial(source.metainfo, target)
    journal = partial.start_journal(BlockMap(source.metainfo))
    for record in records:
        journal.append(record)
    fd = partial.open_part(0)
    os.pwrite(fd, bytes_of(source.piece(0))[: blocks * BLOCK_SIZE], 0)
    os.close(fd)
    return partial


def blocks_of(blocks: BlockMap, piece: int) -> list[int]:
    return list(blocks.partial[piece].written) if piece in blocks.partial else []


def test_suspects_count_only_if_they_fit_their_hashes(source: Source, target: Path) -> None:
    hashes = encode_hashes(0, source.piece(0).block_hashes)
    runs = [encode_run(Run(0, 0, 2)), encode_run(Run(0, 0, 2)), encode_run(Run(0, 2, 1))]
    partial = begun(source, target, hashes, *runs)
    assert blocks_of(recover(source.metainfo, partial, None), 0) == [0, 1]
    partial.close()


def test_what_a_checkpoint_covers_is_believed(source: Source, target: Path) -> None:
    """Even block 3, which is not there: so a checkpoint must never be written before its data is kept."""
    hashes = encode_hashes(0, source.piece(0).block_hashes)
    partial = begun(source, target, hashes, encode_run(Run(0, 3, 1)), encode_checkpoint(10**9))
    assert blocks_of(recover(source.metainfo, partial, None), 0) == [3]
    partial.close()


def test_hashes_that_do_not_fit_the_root_are_not_believed(source: Source, target: Path) -> None:
    partial = begun(
        source, target, encode_hashes(0, bytes(128)), encode_run(Run(0, 0, 1)), encode_checkpoint(10**9)
    )
    assert recover(source.metainfo, partial, None).is_empty
    partial.close()


@pytest.mark.parametrize("journalled", [True, False])
def test_what_is_believed_was_synced_first(
    source: Source, target: Path, monkeypatch: pytest.MonkeyPatch, journalled: bool
) -> None:
    """A device that fails now must end the start, not be found out about later."""
    records = [encode_hashes(0, source.piece(0).block_hashes), encode_run(Run(0, 0, 4))]
    partial = begun(source, target, *(records if journalled else []), blocks=4)

    def fdatasync(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with pytest.raises(StorageError, match="the device reports an error"):
        recover(source.metainfo, partial, None)
    partial.close()


def test_only_places_with_data_are_looked_at(tmp_path: Path, target: Path) -> None:
    source = Source(tmp_path / "big", 200 * PIECE)
    store = FileStore.download(source.metainfo, target)
    source.give_pieces(store, [100, 101])
    store.close()
    (target.parent / ".data.p2pnode-journal").unlink()
    looked: list[int] = []
    store = FileStore.download(source.metainfo, target, on_progress=lambda done, total: looked.append(total))
    assert list(store.have()) == [100, 101]
    assert looked
    assert looked[0] <= 4 * PIECE
    store.discard()


def test_without_a_way_to_drop_memory_s_copy_it_still_works(
    source: Source, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = begun(source, target, encode_hashes(0, source.piece(0).block_hashes), encode_run(Run(0, 0, 2)))
    monkeypatch.delattr(os, "posix_fadvise")
    monkeypatch.delattr(os, "fdatasync")
    assert blocks_of(recover(source.metainfo, partial, None), 0) == [0, 1]
    partial.close()
