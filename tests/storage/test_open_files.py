from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from p2pnode.errors import NotFound
from p2pnode.storage.open_files import OpenFiles, read_at, write_at


class Opener:
    """Opens numbered files below a directory, counts, and fails as often as it is told to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.count = 0
        self.open: set[int] = set()
        self.failures = 0

    def __call__(self, index: int) -> int:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "too many")
        self.count += 1
        return os.open(self._directory / str(index), os.O_RDWR | os.O_CREAT)


@pytest.fixture
def opener(tmp_path: Path) -> Opener:
    return Opener(tmp_path)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_file_is_opened_once_while_it_stays(opener: Opener) -> None:
    files = OpenFiles(opener, 2)
    for _ in range(3):
        with files.borrow(1) as fd, files.borrow(1) as again:
            assert fd == again
    assert opener.count == 1
    files.close()


def test_the_longest_unused_is_closed(opener: Opener) -> None:
    files = OpenFiles(opener, 2)
    fds = []
    for index in (1, 2, 1, 3):
        with files.borrow(index) as fd:
            fds.append(fd)
    assert opener.count == 3
    with files.borrow(1):
        assert opener.count == 3
    with files.borrow(2):
        assert opener.count == 4
    files.close()


def test_what_is_lent_out_stays_open(opener: Opener) -> None:
    files = OpenFiles(opener, 0)
    with files.borrow(1) as first, files.borrow(2) as second:
        with files.borrow(1):
            pass
        assert is_open(first)
        files.close()
        assert is_open(first)
        assert is_open(second)
    assert not is_open(first)
    assert not is_open(second)


def test_a_closed_one_opens_nothing(opener: Opener) -> None:
    files = OpenFiles(opener, 2)
    files.close()
    with pytest.raises(NotFound), files.borrow(1):
        pass
    assert opener.count == 0


def test_another_opener_finds_the_files_from_now_on(opener: Opener, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Opener(tmp_path / "other")
    files = OpenFiles(opener, 2)
    with files.borrow(1):
        files.reopen(other, 2)
        with files.borrow(2):
            pass
    assert (opener.count, other.count) == (1, 1)
    files.close()


def test_F1_without_descriptors_idle_ones_are_given_up(opener: Opener) -> None:
    files = OpenFiles(opener, 8)
    for index in (1, 2):
        with files.borrow(index):
            pass
    opener.failures = 1
    with files.borrow(3):
        assert opener.count == 3
    with files.borrow(1):
        assert opener.count == 4
    files.close()


def test_F1_without_descriptors_and_idle_ones_it_is_an_error(opener: Opener) -> None:
    files = OpenFiles(opener, 8)
    opener.failures = 1
    with pytest.raises(OSError, match="too many"), files.borrow(1):
        pass
    with files.borrow(1):
        assert opener.count == 1
    files.close()


def test_reads_and_writes_go_all_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    pread, pwrite = os.pread, os.pwrite
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: pread(fd, min(size, 3), offset))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:2], offset))
    write_at(fd, b"0123456789", 5)
    assert read_at(fd, 10, 5) == b"0123456789"
    assert read_at(fd, 10, 9) == b"456789"
    assert read_at(fd, 10, 100) == b""
    os.close(fd)
