from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2pnode.errors import StorageError
from p2pnode.storage import confined
from p2pnode.storage.directories import Directories


@pytest.fixture
def root_fd(tmp_path: Path) -> int:
    return os.open(tmp_path, os.O_RDONLY)


def make(directories: Directories, *parts: str) -> None:
    os.close(directories.open_file(parts, confined.CREATE_NEW))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_directory_is_found_once(root_fd: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directories = Directories(root_fd)
    make(directories, "a", "b", "0")
    walks: list[tuple[str, ...]] = []
    monkeypatch.setattr(confined, "open_directory", lambda fd, parts, create: walks.append(parts))
    for number in range(1, 5):
        make(directories, "a", "b", str(number))
    assert walks == []
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == list("01234")


def test_few_stay_open_and_none_after_the_end(root_fd: int) -> None:
    before = descriptors()
    directories = Directories(root_fd)
    for number in range(100):
        make(directories, str(number), "file")
    make(directories, "0", "again")
    assert 1 < descriptors() - before <= 16
    directories.close()
    assert descriptors() == before


def test_nothing_is_made_to_read(root_fd: int, tmp_path: Path) -> None:
    directories = Directories(root_fd)
    with pytest.raises(FileNotFoundError):
        directories.open_file(("a", "file"), confined.READ)
    assert list(tmp_path.iterdir()) == []


def test_M5_links_are_not_followed(root_fd: int, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "file").touch()
    (tmp_path / "real" / "name").hardlink_to(tmp_path / "real" / "file")
    directories = Directories(root_fd)
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        directories.open_file(("link", "file"), confined.CREATE)
    with pytest.raises(StorageError, match="hard link"):
        directories.open_file(("real", "file"), confined.UPDATE)
    directories.close()
