from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2pnode.config import BLOCK_SIZE, MIB
from p2pnode.errors import MetainfoError, NotFound, SourceChanged
from p2pnode.storage import find_item, hash_files, hash_item, hash_path, hash_pieces_v1
from p2pnode.torrent.creation import HashedFile, canonical_metainfo
from p2pnode.torrent.merkle import FileHasher, PieceHasherV1
from p2pnode.torrent.pieces import piece_length_for
from tests.storage.content import make_tree, random_bytes


def hashed_alone(data: bytes, piece_length: int, *parts: str) -> HashedFile:
    hasher = FileHasher(piece_length)
    hasher.update(data)
    return HashedFile(parts, hasher.finish())


@pytest.mark.parametrize(
    "size", [0, 1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, MIB - 1, MIB, MIB + 1, 17 * MIB + 5]
)
@pytest.mark.parametrize("threads", [1, 3])
def test_S12_a_file_is_what_one_hasher_makes_of_it(tmp_path: Path, size: int, threads: int) -> None:
    data = random_bytes(size)
    (tmp_path / "data").write_bytes(data)
    file = hashed_alone(data, piece_length_for(size), "data")
    assert hash_path(tmp_path / "data", threads=threads) == canonical_metainfo(
        "data", [file], is_directory=False
    )


def test_S12_a_tree_is_what_one_hasher_makes_of_it(tmp_path: Path) -> None:
    contents = make_tree(tmp_path / "tree", {"z": 0, "a/b": 100, "a.b": BLOCK_SIZE + 1, "é/c": 3 * MIB})
    piece_length = piece_length_for(sum(map(len, contents.values())))
    files = [hashed_alone(data, piece_length, *path.split("/")) for path, data in contents.items()]
    assert hash_path(tmp_path / "tree") == canonical_metainfo("tree", files, is_directory=True)


def test_a_directory_without_files_cannot_be_described(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with pytest.raises(MetainfoError):
        hash_path(tmp_path / "tree")
    with pytest.raises(NotFound):
        hash_path(tmp_path / "nowhere")


def test_a_path_without_a_name_has_that_of_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(tmp_path / "tree", {"a": 1})
    monkeypatch.chdir(tmp_path / "tree")
    assert hash_path(Path()) == hash_path(tmp_path / "tree")


def test_progress_is_told_to_the_end(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", {"a": 5 * MIB, "b": 10, "c": 0})
    told: list[tuple[int, int]] = []
    hash_path(tmp_path / "tree", lambda done, total: told.append((done, total)))
    assert len(told) == 6
    assert told == sorted(told)
    assert told[-1] == (5 * MIB + 10, 5 * MIB + 10)


def test_an_exception_from_the_callback_ends_it(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(5 * MIB))

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = len(os.listdir("/dev/fd"))
    with pytest.raises(KeyboardInterrupt):
        hash_path(tmp_path / "data", cancel)
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("change", ["grown", "cut", "touched", "deleted", "added"])
def test_S8_a_change_while_hashing_is_noticed(tmp_path: Path, change: str) -> None:
    make_tree(tmp_path / "tree", {"a": 6 * MIB, "b": MIB})
    b = tmp_path / "tree" / "b"

    def interfere(done: int, total: int) -> None:
        match change:
            case "grown":
                b.write_bytes(bytes(MIB + 1))
            case "cut":
                os.truncate(b, 1)
            case "touched":
                os.utime(b, ns=(0, done))
            case "deleted":
                b.unlink(missing_ok=True)
            case "added":
                (tmp_path / "tree" / "c").touch()

    with pytest.raises(SourceChanged, match="while it was hashed"):
        hash_path(tmp_path / "tree", interfere, threads=1)


def test_S8_a_file_that_is_cut_while_it_is_read_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").write_bytes(bytes(3 * BLOCK_SIZE))
    item = find_item(tmp_path / "data")
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: b"")
    with pytest.raises(SourceChanged):
        hash_item(item)


class TestForOtherPrograms:
    def test_any_piece_length(self, tmp_path: Path) -> None:
        contents = make_tree(tmp_path / "tree", {"b": 3 * MIB + 1, "a": BLOCK_SIZE})
        found = hash_files(find_item(tmp_path / "tree"), 2 * MIB)
        assert found == [hashed_alone(contents[name], 2 * MIB, name) for name in ("a", "b")]

    @pytest.mark.parametrize("aligned", [False, True])
    def test_v1_hashes(self, tmp_path: Path, aligned: bool) -> None:
        contents = make_tree(tmp_path / "tree", {"a/b": 50_000, "b": 70_000})
        hasher = PieceHasherV1(BLOCK_SIZE)
        for name in ("a/b", "b"):
            hasher.update(contents[name])
            if aligned:
                hasher.align()
        told: list[int] = []
        item = find_item(tmp_path / "tree")
        found = hash_pieces_v1(item, BLOCK_SIZE, lambda done, _: told.append(done), aligned=aligned)
        assert found == hasher.finish()
        assert told[-1] == 120_000
