from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pnode.errors import StorageError
from p2pnode.storage.open_files import OpenFiles
from p2pnode.storage.syncing import sync_data, sync_directories, sync_files

MANY = range(40)


class Calls:
    """Counts syncs, of single files and of whole file systems; each fails when told to."""

    def __init__(self) -> None:
        self.of_files = 0
        self.of_file_systems = 0
        self.failure = 0

    def fdatasync(self, fd: int) -> None:
        self.of_files += 1
        if self.failure:
            raise OSError(self.failure, os.strerror(self.failure))

    def syncfs(self, fd: int) -> int:
        self.of_file_systems += 1
        ctypes.set_errno(self.failure)
        return -1 if self.failure else 0


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    monkeypatch.setattr(os, "fdatasync", calls.fdatasync)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: calls)
    return calls


@pytest.fixture
def files(tmp_path: Path) -> Iterator[OpenFiles]:
    files = OpenFiles(lambda index: os.open(tmp_path / str(index), os.O_RDWR | os.O_CREAT), 2)
    yield files
    files.close()


def running(monkeypatch: pytest.MonkeyPatch, sysname: str, release: str) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((sysname, "", release, "", "")))


def test_few_files_are_synced_alone(files: OpenFiles, calls: Calls) -> None:
    sync_files(files, {1, 5}, 0, "data")
    assert (calls.of_files, calls.of_file_systems) == (2, 0)


def test_many_files_are_synced_together(
    files: OpenFiles, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(monkeypatch, "Linux", "5.8.0-rc1")
    sync_files(files, MANY, 0, "data")
    assert (calls.of_files, calls.of_file_systems) == (0, 1)


@pytest.mark.parametrize(
    ("sysname", "release"), [("Linux", "5.7.19"), ("Linux", "4.19.0"), ("Linux", "odd"), ("Darwin", "23.1.0")]
)
def test_not_where_a_failure_would_not_be_told(
    files: OpenFiles, calls: Calls, monkeypatch: pytest.MonkeyPatch, sysname: str, release: str
) -> None:
    running(monkeypatch, sysname, release)
    sync_files(files, MANY, 0, "data")
    assert (calls.of_files, calls.of_file_systems) == (40, 0)


def test_not_where_there_is_no_such_call(
    files: OpenFiles, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(monkeypatch, "Linux", "6.1.0")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    sync_files(files, MANY, 0, "data")
    assert calls.of_files == 40


@pytest.mark.parametrize("indices", [range(1), MANY], ids=["alone", "together"])
def test_S5_a_device_that_fails_is_told_apart_from_a_file_that_cannot_be_opened(
    files: OpenFiles, calls: Calls, monkeypatch: pytest.MonkeyPatch, indices: range
) -> None:
    running(monkeypatch, "Linux", "6.1.0")
    calls.failure = errno.EIO
    with pytest.raises(StorageError, match="cannot keep what was written to 'data'"):
        sync_files(files, indices, 0, "data")

    def refuse(index: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    files.reopen(refuse, 0)
    with pytest.raises(OSError, match="Too many open files"):
        sync_files(files, {1}, 0, "data")


def test_a_real_file_and_its_file_system(tmp_path: Path) -> None:
    files = OpenFiles(lambda index: os.open(tmp_path / str(index), os.O_RDWR | os.O_CREAT), 2)
    fd = os.open(tmp_path, os.O_RDONLY)
    sync_files(files, MANY, fd, "data")
    sync_data(fd)
    os.close(fd)
    files.close()


def test_a_system_without_fdatasync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fdatasync")
    with (tmp_path / "file").open("wb") as file:
        sync_data(file.fileno())


def test_few_directories_are_synced_alone_below_a_root(
    tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("tree")
    root_fd = os.open(tmp_path, os.O_RDONLY)
    sync_directories(root_fd, [("tree", "sub"), ("tree",)])
    expected = {path.stat().st_ino for path in (tmp_path, tmp_path / "tree", tmp_path / "tree" / "sub")}
    assert set(synced) == expected
    assert synced[-1] == tmp_path.stat().st_ino
    assert calls.of_file_systems == 0
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        sync_directories(root_fd, [("link",)])
    os.close(root_fd)


def test_many_directories_are_synced_together(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch, "Linux", "6.1.0")
    sync_directories(0, [(str(number),) for number in MANY])
    assert calls.of_file_systems == 1
