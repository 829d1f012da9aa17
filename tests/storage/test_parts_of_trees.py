"""Fetching a part of a tree, then another part, then all of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2pnode.errors import LocalProtocolError, NotFound, StorageError, TargetExists
from p2pnode.storage import FileStore, StoreState, peek_journal
from p2pnode.torrent.selection import Selection
from tests.storage.content import PIECE, Source, names_in

JOURNAL, HIDDEN = ".data.p2pnode-journal", ".data.p2pnode-part"
SIZES = {
    "a/1.txt": 10,
    "a/2.bin": PIECE + 5,
    "a/deep/3.txt": PIECE,
    "b/4.bin": 2 * PIECE,
    "b/5.txt": 0,
    "c/6.bin": 7,
    "c/7.bin": 0,
}


@pytest.fixture
def many(tmp_path: Path) -> Source:
    return Source(tmp_path / "source", SIZES, "data")


def files_at(target: Path) -> dict[str, bytes]:
    return {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}


def begin(source: Source, target: Path, *include: str, exclude: tuple[str, ...] = ()) -> FileStore:
    files = Selection(include, exclude).files_of(source.metainfo)
    return FileStore.download(source.metainfo, target, files=files)


def give(source: Source, store: FileStore) -> int:
    """Write what is wanted and missing; how many pieces that was."""
    missing = list(store.wanted - store.have())
    source.give_pieces(store, missing)
    return len(missing)


def fetch(source: Source, target: Path, *include: str, exclude: tuple[str, ...] = ()) -> int:
    store = begin(source, target, *include, exclude=exclude)
    given = give(source, store)
    assert store.publish() == target
    store.close()
    return given


def expected(source: Source, *names: str) -> dict[str, bytes]:
    assert isinstance(source.data, dict)
    return {name: source.data[name] for name in names}


def test_a_part_is_published_without_the_rest(many: Source, target: Path) -> None:
    store = begin(many, target, "*.txt")
    assert (store.size, store.bytes_stored) == (10 + PIECE, 0)
    with pytest.raises(LocalProtocolError):
        store.publish()
    assert give(many, store) == 2
    assert store.bytes_stored == store.size
    store.publish()
    assert files_at(target) == expected(many, "a/1.txt", "a/deep/3.txt", "b/5.txt")
    assert names_in(target) == ["a", "b"]
    assert store.have() == store.wanted
    with pytest.raises(NotFound):
        store.read_piece(next(iter(~store.wanted)))
    for piece in store.wanted:
        assert store.read_piece(piece) == many.piece(piece)
    store.close()
    assert names_in(target.parent) == [JOURNAL, "data"]
    assert peek_journal(target) == many.metainfo


def test_the_rest_is_added_to_it(many: Source, target: Path) -> None:
    assert fetch(many, target, "*.txt") == 2
    inode = (target / "a" / "1.txt").stat().st_ino
    assert fetch(many, target, "c") == 1
    assert files_at(target) == expected(many, "a/1.txt", "a/deep/3.txt", "b/5.txt", "c/6.bin", "c/7.bin")
    assert names_in(target.parent) == [JOURNAL, "data"]
    assert fetch(many, target) == 4
    assert many.is_at(target)
    assert (target / "a" / "1.txt").stat().st_ino == inode
    assert names_in(target.parent) == ["data"]
    assert FileStore.download(many.metainfo, target)._state is StoreState.COMPLETE


def test_the_same_part_again_takes_nothing(many: Source, target: Path) -> None:
    assert fetch(many, target, "*.txt") == 2
    assert fetch(many, target, "*.txt") == 0
    assert fetch(many, target, "a/1.txt") == 0
    assert len(files_at(target)) == 3


def test_pieces_of_what_is_published_are_served_while_more_comes(many: Source, target: Path) -> None:
    fetch(many, target, "*.txt")
    store = FileStore.download(many.metainfo, target)
    assert store.bytes_stored == 10 + PIECE
    for piece in store.have():
        assert store.read_piece(piece) == many.piece(piece)
    store.close()


def test_interrupted_it_goes_on_with_the_same_patterns_or_others(many: Source, target: Path) -> None:
    store = begin(many, target, "*.bin")
    many.give_pieces(store, [0, 1] if 0 in store.wanted else list(store.wanted)[:3])
    given = len(store.have())
    store.close()
    assert not target.exists()
    store = begin(many, target, "*.bin", exclude=("c",))
    assert len(store.have()) == given
    give(many, store)
    store.close()
    assert fetch(many, target, "a/1.txt", "b/4.bin") == 1
    assert files_at(target) == expected(many, "a/1.txt", "b/4.bin")
    assert names_in(target) == ["a", "b"]
    assert names_in(target / "a") == ["1.txt"]


def test_interrupted_while_more_comes_it_goes_on(many: Source, target: Path) -> None:
    fetch(many, target, "*.txt")
    store = FileStore.download(many.metainfo, target)
    some = list(store.wanted - store.have())[:2]
    many.give_pieces(store, some)
    store.close()
    assert len(files_at(target)) == 3
    assert fetch(many, target) == 5 - 2
    assert many.is_at(target)


def test_S1_killed_between_the_moves(many: Source, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some files are at the target already, others still hidden."""
    fetch(many, target, "*.txt")
    store = FileStore.download(many.metainfo, target)
    give(many, store)
    from p2pnode.storage import publishing

    real, moved = publishing.move_file, []

    def move_file(source_fd: int, target_fd: int, name: str) -> None:
        if len(moved) == 2:
            raise OSError(5, "Input/output error")
        moved.append(name)
        real(source_fd, target_fd, name)

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "move_file", move_file)
        with pytest.raises(StorageError):
            store.publish()
    store.close()
    assert len(files_at(target)) == 5
    assert fetch(many, target) == 0
    assert many.is_at(target)
    assert names_in(target.parent) == ["data"]


def test_a_file_that_the_user_changed_is_never_replaced(many: Source, target: Path) -> None:
    fetch(many, target, "*.txt")
    (target / "a" / "1.txt").write_bytes(b"mine")
    with pytest.raises(TargetExists, match=r"a/1\.txt' exists with other content"):
        FileStore.download(many.metainfo, target)
    assert fetch(many, target, "c") == 1
    assert (target / "a" / "1.txt").read_bytes() == b"mine"
    (target / "a" / "1.txt").unlink()
    assert fetch(many, target) == 5
    assert many.is_at(target)


def test_S6_a_file_that_appears_meanwhile_is_left_alone(many: Source, target: Path) -> None:
    fetch(many, target, "*.txt")
    store = begin(many, target, "c")
    give(many, store)
    (target / "c").mkdir()
    (target / "c" / "6.bin").write_bytes(b"mine")
    with pytest.raises(TargetExists, match=r"c/6\.bin"):
        store.publish()
    assert (target / "c" / "6.bin").read_bytes() == b"mine"
    (target / "c" / "6.bin").unlink()
    store.publish()
    store.close()
    assert (target / "c" / "6.bin").stat().st_size == 7


def test_S6_a_directory_that_no_part_was_published_as_is_left_alone(many: Source, target: Path) -> None:
    target.mkdir()
    (target / "mine").touch()
    with pytest.raises(TargetExists):
        begin(many, target, "*.txt")
    (target / "mine").unlink()
    target.rmdir()
    fetch(many, target, "*.txt")
    target.rename(target.with_name("moved"))
    target.mkdir()
    with pytest.raises(TargetExists):
        FileStore.download(many.metainfo, target)
    target.rmdir()
    assert fetch(many, target) == many.metainfo.piece_count
    assert many.is_at(target)


def test_M5_links_in_what_is_published_are_not_followed(many: Source, target: Path, tmp_path: Path) -> None:
    fetch(many, target, "*.txt")
    outside = tmp_path / "outside"
    outside.mkdir()
    (target / "c").symlink_to(outside)
    assert fetch(many, target, "b/4.bin") == 2
    with pytest.raises(TargetExists):
        (outside / "6.bin").touch()
        begin(many, target, "c")
    (outside / "6.bin").unlink()
    (target / "c").unlink()
    store = begin(many, target, "c")
    give(many, store)
    (target / "c").symlink_to(outside)
    with pytest.raises(StorageError, match="symbolic link"):
        store.publish()
    store.close()
    assert list(outside.iterdir()) == []


def test_a_discarded_one_leaves_what_was_published(many: Source, target: Path) -> None:
    fetch(many, target, "*.txt")
    store = FileStore.download(many.metainfo, target)
    give(many, store)
    store.discard()
    assert names_in(target.parent) == [JOURNAL, "data"]
    assert len(files_at(target)) == 3
    assert fetch(many, target) == 5


def test_a_part_of_a_tree_that_is_there_is_there(many: Source) -> None:
    store = begin(many, many.path, "*.txt")
    assert store.publish() == many.path
    store.close()
    assert os.listdir(many.path.parent) == ["data"]
