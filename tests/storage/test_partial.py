from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2pnode.config import JOURNAL_SUFFIX, PARTIAL_SUFFIX
from p2pnode.errors import AlreadyInProgress, StorageError
from p2pnode.storage import FileStore
from p2pnode.storage.block_map import BlockMap
from p2pnode.storage.journal import replay
from p2pnode.storage.partial import Partial, hidden_name, journal_name
from tests.storage.content import Source, names_in


class TestHiddenNames:
    def test_beside_the_target_with_a_dot(self) -> None:
        assert hidden_name("data.bin", PARTIAL_SUFFIX) == ".data.bin.p2pnode-part"
        assert journal_name(Path("/a/data.bin")) == ".data.bin.p2pnode-journal"

    @pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "x" * 241, os.fsdecode(b"\xff" * 255)])
    def test_they_fit_and_stay_apart(self, name: str) -> None:
        hidden = hidden_name(name, JOURNAL_SUFFIX)
        assert len(os.fsencode(hidden)) <= 255
        assert hidden != hidden_name(name[:-1] + "y", JOURNAL_SUFFIX)
        assert hidden == hidden_name(name, JOURNAL_SUFFIX)


def test_nothing_is_made_before_the_journal_is_begun(source: Source, tree: Source, target: Path) -> None:
    for origin in (source, tree):
        partial = Partial(origin.metainfo, target)
        assert partial.inode == 0
        with pytest.raises(FileNotFoundError):
            partial.open_found(0)
        assert not partial.target_exists()
        partial.close()
        assert names_in(target.parent) == []


def test_a_begun_journal_stays_and_says_what_it_was_given(source: Source, target: Path) -> None:
    partial = Partial(source.metainfo, target)
    blocks = BlockMap(source.metainfo)
    blocks.add_pieces(1, 2)
    journal = partial.start_journal(blocks)
    assert journal.end == os.fstat(partial.journal_fd).st_size
    said = replay(partial.journal_fd, source.metainfo)
    assert said is not None
    assert (list(said.blocks.have), said.inode) == ([1, 2], partial.inode)
    partial.close()
    assert names_in(target.parent) == [".data.p2pnode-journal", ".data.p2pnode-part"]


def test_a_journal_that_cannot_be_written_leaves_the_old_one(
    source: Source, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = Partial(source.metainfo, target)
    partial.start_journal(BlockMap(source.metainfo))
    before = names_in(target.parent)

    def fsync(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="Input/output"):
            partial.start_journal(BlockMap(source.metainfo))
    assert names_in(target.parent) == before
    assert replay(partial.journal_fd, source.metainfo) is not None
    with pytest.raises(AlreadyInProgress):
        Partial(source.metainfo, target)
    partial.close()


def test_files_get_their_full_size(tree: Source, target: Path) -> None:
    partial = Partial(tree.metainfo, target)
    partial.start_journal(BlockMap(tree.metainfo))
    for index, file in enumerate(tree.metainfo.files):
        fd = partial.open_part(index)
        assert os.fstat(fd).st_size == file.size
        os.close(fd)
        os.close(partial.open_part(index))
    partial.remove()
    partial.close()
    assert names_in(target.parent) == []


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("change", ["vanishes", "is cut"])
def test_a_file_that_vanishes_or_is_cut_is_not_mended(
    tree: Source, target: Path, change: str, resumed: bool
) -> None:
    """Zeros in the place of its blocks would be published as if they were them."""
    store = FileStore.download(tree.metainfo, target)
    tree.give_pieces(store)
    if resumed:
        store.close()
        store = FileStore.download(tree.metainfo, target)
    victim = target.parent / ".data.p2pnode-part" / "one"
    victim.unlink() if change == "vanishes" else os.truncate(victim, 0)
    with pytest.raises(StorageError, match=r"not there|changed by somebody else"):
        store.publish()
    store.close()
    store = FileStore.download(tree.metainfo, target)
    assert tree.give_pieces(store) == 1
    store.publish()
    store.close()
    assert tree.is_at(target)


def test_closing_does_not_take_the_next_one_s_journal_away(source: Source, target: Path) -> None:
    partial = Partial(source.metainfo, target)
    partial.remove()
    (target.parent / ".data.p2pnode-journal").touch()
    partial.close()
    assert names_in(target.parent) == [".data.p2pnode-journal"]
