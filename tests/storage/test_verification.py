from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2pnode.config import BLOCK_SIZE
from p2pnode.storage import verify_path
from p2pnode.torrent.creation import TorrentVersion, create_metainfo
from p2pnode.torrent.merkle import PieceHasherV1
from p2pnode.torrent.metainfo import Metainfo
from tests.storage.content import PIECE, Source, hashed, make_tree, random_bytes

SIZES = {"a": PIECE + 10, "b/c": 20, "b/d": 0, "e": 2 * PIECE}


def torrent(contents: dict[str, bytes] | bytes, version: TorrentVersion) -> Metainfo:
    is_directory = isinstance(contents, dict)
    files = contents if isinstance(contents, dict) else {"data": contents}
    hasher = PieceHasherV1(PIECE)
    for data in files.values():
        if version is TorrentVersion.HYBRID:
            hasher.align()
        hasher.update(data)
    if version is TorrentVersion.HYBRID and len(files) > 1:
        hasher.align()
    return create_metainfo(
        "data",
        [hashed(data, PIECE, *name.split("/")) for name, data in files.items()],
        is_directory=is_directory,
        version=version,
        piece_length=PIECE,
        piece_hashes_v1=hasher.finish(),
    )


@pytest.fixture(params=TorrentVersion)
def version(request: pytest.FixtureRequest) -> TorrentVersion:
    assert isinstance(request.param, TorrentVersion)
    return request.param


@pytest.fixture
def tree_path(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def tree_torrent(tree_path: Path, version: TorrentVersion) -> Metainfo:
    return torrent(make_tree(tree_path, SIZES), version)


def test_what_is_right_is_good(tree_torrent: Metainfo, tree_path: Path) -> None:
    told: list[tuple[int, int]] = []
    found = verify_path(tree_torrent, tree_path, lambda done, total: told.append((done, total)))
    assert (found.is_good, found.bad_files, list(found.bad_pieces), found.is_zero_padded) == (
        True,
        {},
        [],
        False,
    )
    assert told[-1] == (tree_torrent.size, tree_torrent.size)


def test_a_single_file(tmp_path: Path, version: TorrentVersion) -> None:
    data = random_bytes(3 * PIECE + 5)
    (tmp_path / "renamed").write_bytes(data)
    assert verify_path(torrent(data, version), tmp_path / "renamed", threads=1).is_good
    assert not verify_path(torrent(data, version), tmp_path).is_good


def test_a_wrong_byte_names_its_piece_and_file(tree_torrent: Metainfo, tree_path: Path) -> None:
    with (tree_path / "e").open("r+b") as file:
        file.seek(PIECE + 100)
        file.write(b"\0\0\0\0")
    found = verify_path(tree_torrent, tree_path)
    assert not found.is_good
    assert len(found.bad_pieces) == 1
    assert ("e",) in found.bad_files
    assert "1 of its" in found.bad_files["e",]


@pytest.mark.parametrize("fault", ["missing", "short", "long", "directory", "unreadable"])
def test_files_that_cannot_be_right_say_why(
    tree_torrent: Metainfo, tree_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    e = tree_path / "e"
    expected = {
        "missing": "missing",
        "short": f"5 bytes instead of {2 * PIECE:,}",
        "long": f"{2 * PIECE + 1:,} bytes instead",
        "directory": "not a regular file",
        "unreadable": "permission denied",
    }
    match fault:
        case "missing":
            e.unlink()
        case "short":
            os.truncate(e, 5)
        case "long":
            os.truncate(e, 2 * PIECE + 1)
        case "directory":
            e.unlink()
            e.mkdir()
        case "unreadable":
            real = os.open

            def refuse(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
                if path == "e":
                    raise PermissionError(13, "Permission denied")
                return real(path, flags, mode, dir_fd=dir_fd)

            monkeypatch.setattr(os, "open", refuse)
    found = verify_path(tree_torrent, tree_path)
    assert not found.is_good
    assert expected[fault] in found.bad_files["e",]
    assert len(found.bad_pieces) >= (0 if fault == "long" else 2)


def test_a_path_where_nothing_is(tree_torrent: Metainfo, tmp_path: Path) -> None:
    found = verify_path(tree_torrent, tmp_path / "nowhere")
    assert set(found.bad_files.values()) == {"missing"}
    assert found.bad_pieces == ~type(found.bad_pieces)(tree_torrent.piece_count)


def test_v1_pieces_that_run_over_files_blame_all_of_them(tree_path: Path) -> None:
    metainfo = torrent(make_tree(tree_path, SIZES), TorrentVersion.V1)
    (tree_path / "b" / "c").write_bytes(bytes(20))
    found = verify_path(metainfo, tree_path)
    assert list(found.bad_pieces) == [1]
    assert set(found.bad_files) == {("a",), ("b", "c"), ("e",)}


def test_v1_a_last_piece_that_was_hashed_with_zeros_is_told(tmp_path: Path) -> None:
    data = random_bytes(PIECE + 10)
    hasher = PieceHasherV1(PIECE)
    hasher.update(data)
    hasher.align()
    metainfo = create_metainfo(
        "data",
        [hashed(data, PIECE, "data")],
        is_directory=False,
        version=TorrentVersion.V1,
        piece_length=PIECE,
        piece_hashes_v1=hasher.finish(),
    )
    (tmp_path / "data").write_bytes(data)
    found = verify_path(metainfo, tmp_path / "data")
    assert (found.is_good, found.is_zero_padded) == (True, True)


def test_many_small_pieces_are_all_looked_at(tmp_path: Path) -> None:
    source = Source(tmp_path / "s", 300 * BLOCK_SIZE)
    with source.path.open("r+b") as file:
        for piece in (0, 63, 74):
            file.seek(piece * PIECE)
            file.write(b"....")
    assert list(verify_path(source.metainfo, source.path).bad_pieces) == [0, 63, 74]


def test_an_exception_from_the_callback_ends_it(source: Source) -> None:
    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_path(source.metainfo, source.path, cancel)
