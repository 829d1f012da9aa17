from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pnode.errors import AlreadyInProgress, StorageError
from p2pnode.storage.locking import TargetLock

DATA = Path("data")


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_S10_one_holder_at_a_time(directory: int) -> None:
    lock = TargetLock(directory, "journal", DATA)
    with pytest.raises(AlreadyInProgress, match="'data'"):
        TargetLock(directory, "journal", DATA)
    TargetLock(directory, "other", DATA).release()
    lock.release()
    TargetLock(directory, "journal", DATA).release()


def test_S10_a_lock_of_somebody_else_counts(directory: int, tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(AlreadyInProgress):
            TargetLock(directory, "journal", DATA)
    TargetLock(directory, "journal", DATA).release()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_S10_without_file_locks_this_process_still_keeps_apart(
    directory: int, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def flock(fd: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = TargetLock(directory, "journal", DATA)
    with pytest.raises(AlreadyInProgress):
        TargetLock(directory, "journal", DATA)
    lock.release()


def test_a_lock_that_fails_otherwise_leaves_nothing_behind(
    directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(fd: int, how: int) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        with pytest.raises(OSError, match="broken"):
            TargetLock(directory, "journal", DATA)
    TargetLock(directory, "journal", DATA).release()


def test_a_system_without_file_locks(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fcntl", None)
    lock = TargetLock(directory, "journal", DATA)
    with pytest.raises(AlreadyInProgress):
        TargetLock(directory, "journal", DATA)
    lock.release()


def test_the_lock_moves_with_the_journal(directory: int, tmp_path: Path) -> None:
    lock = TargetLock(directory, "journal", DATA)
    new = os.open(tmp_path / "new", os.O_RDWR | os.O_CREAT)
    lock.move_to("new", new)
    assert os.listdir(tmp_path) == ["journal"]
    with (tmp_path / "journal").open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.release()


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_a_journal_that_its_last_owner_took_away_is_not_the_one(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Between our open and our lock the last owner publishes, or writes its journal anew."""
    real = fcntl.flock
    calls = 0

    def flock(fd: int, how: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            (tmp_path / "journal").unlink()
            if change == "replaced":
                (tmp_path / "journal").write_bytes(b"new")
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = TargetLock(directory, "journal", DATA)
    assert calls == 2
    assert os.path.samestat(os.fstat(lock.fd), (tmp_path / "journal").stat())
    lock.release()


def test_a_journal_that_cannot_be_opened_is_named(directory: int, tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    with pytest.raises(StorageError, match=r"'journal'.*directory"):
        TargetLock(directory, "journal", DATA)
