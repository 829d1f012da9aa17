from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2pnode.errors import SourceChanged, StorageError
from p2pnode.storage.shared_files import SharedFiles
from p2pnode.torrent.metainfo import Metainfo
from p2pnode.wire.bencoding import encode
from tests.storage.content import Source, hashed, metainfo_of, random_bytes


def content(fd: int) -> bytes:
    try:
        return os.read(fd, 1000)
    finally:
        os.close(fd)


def test_a_tree_has_the_names_of_the_torrent_or_the_safe_ones(tmp_path: Path) -> None:
    metainfo = metainfo_of("data", {"a:b": b"x"})
    for name in ("a:b", "a_b"):
        (tmp_path / name).write_bytes(b"x")
        assert content(SharedFiles(metainfo, tmp_path).open(0)) == b"x"
        (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError):
        SharedFiles(metainfo, tmp_path).open(0)


@pytest.mark.parametrize("hostile", [b"..", b".", b"a/b", b"/etc/passwd", b"a\0b"])
def test_M4_a_name_that_leads_elsewhere_is_only_looked_for_as_the_safe_one(
    tmp_path: Path, hostile: bytes
) -> None:
    (tmp_path / "share").mkdir()
    root = hashed(b"x", 16384, "x").hashes.pieces_root
    assert root is not None
    tree = {b"d": {hostile: {b"": {b"length": 1, b"pieces root": root}}}}
    info = {b"file tree": tree, b"meta version": 2, b"name": b"n", b"piece length": 16384}
    metainfo = Metainfo.decode(encode({b"info": info}))  # type: ignore[dict-item]
    with pytest.raises(FileNotFoundError):
        SharedFiles(metainfo, tmp_path / "share").open(0)
    safe = tmp_path.joinpath("share", *metainfo.files[0].path)
    safe.parent.mkdir()
    safe.write_bytes(b"x")
    assert content(SharedFiles(metainfo, tmp_path / "share").open(0)) == b"x"


def test_S8_a_file_must_stay_what_it_was_when_it_was_first_opened(source: Source) -> None:
    files = SharedFiles(source.metainfo, source.path)
    for _ in range(2):
        os.close(files.open_unchanged(0))
    before = len(os.listdir("/dev/fd"))
    os.utime(source.path, ns=(0, 0))
    with pytest.raises(SourceChanged, match="changed"):
        files.open_unchanged(0)
    source.path.unlink()
    with pytest.raises(SourceChanged, match="gone"):
        files.open_unchanged(0)
    assert len(os.listdir("/dev/fd")) == before


def test_S8_a_file_must_have_the_size_that_the_torrent_says(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(random_bytes(9))
    with pytest.raises(SourceChanged, match="changed"):
        SharedFiles(metainfo_of("data", random_bytes(10)), tmp_path / "data").open_unchanged(0)
    with pytest.raises(StorageError, match="regular"):
        SharedFiles(metainfo_of("data", random_bytes(10)), tmp_path).open_unchanged(0)
