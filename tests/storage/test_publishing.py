from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from p2pnode.errors import StorageError, TargetExists
from p2pnode.storage import publishing
from tests.storage.content import names_in, unchanging


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def make(path: Path, is_directory: bool) -> None:
    if is_directory:
        (path / "sub").mkdir(parents=True)
        (path / "sub" / "file").write_bytes(b"bytes")
    else:
        path.write_bytes(b"bytes")


def refusing(code: int) -> Callable[..., None]:
    def refuse(*arguments: object, **named: object) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


WAYS = ["renameat2", "without renameat2", "without renameat2 and links", "no such function"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the system can do."""
    if request.param == "no such function":
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    elif request.param != "renameat2":
        monkeypatch.setattr(publishing, "_rename_without_replacing", refusing(errno.EINVAL))
    if request.param == "without renameat2 and links":
        monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    return str(request.param)


each_kind = pytest.mark.parametrize("is_directory", [False, True], ids=["file", "tree"])


@each_kind
@pytest.mark.usefixtures("way")
def test_the_hidden_becomes_the_named(directory: int, tmp_path: Path, is_directory: bool) -> None:
    make(tmp_path / ".hidden", is_directory)
    publishing.publish(directory, ".hidden", "name", is_directory=is_directory)
    assert names_in(tmp_path) == ["name"]
    data = tmp_path / "name" / "sub" / "file" if is_directory else tmp_path / "name"
    assert data.read_bytes() == b"bytes"
    assert data.stat().st_nlink == 1


@each_kind
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("taken", ["file", "directory", "full directory", "link"])
def test_S6_nothing_is_ever_replaced(directory: int, tmp_path: Path, is_directory: bool, taken: str) -> None:
    make(tmp_path / ".hidden", is_directory)
    name = tmp_path / "name"
    match taken:
        case "file":
            name.write_bytes(b"mine")
        case "directory":
            name.mkdir()
        case "full directory":
            make(name, is_directory=True)
        case "link":
            name.symlink_to("nowhere")
    before = unchanging(name)
    with pytest.raises(TargetExists, match="'name'"):
        publishing.publish(directory, ".hidden", "name", is_directory=is_directory)
    assert unchanging(name) == before
    assert names_in(tmp_path) == [".hidden", "name"]


@each_kind
@pytest.mark.parametrize("code", [errno.EXDEV, errno.ENOENT, errno.EIO, errno.EROFS])
def test_S6_other_failures_say_what_failed(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_directory: bool, code: int
) -> None:
    make(tmp_path / ".hidden", is_directory)
    monkeypatch.setattr(publishing, "_rename_without_replacing", refusing(code))
    with pytest.raises(StorageError, match="cannot publish 'name': "):
        publishing.publish(directory, ".hidden", "name", is_directory=is_directory)
    assert names_in(tmp_path) == [".hidden"]


@each_kind
def test_S6_a_placeholder_does_not_stay_when_the_rename_fails(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_directory: bool
) -> None:
    make(tmp_path / ".hidden", is_directory)
    for name in ("rename", "link"):
        monkeypatch.setattr(os, name, refusing(errno.EPERM))
    monkeypatch.setattr(publishing, "_rename_without_replacing", refusing(errno.ENOSYS))
    with pytest.raises(StorageError, match="not permitted"):
        publishing.publish(directory, ".hidden", "name", is_directory=is_directory)
    assert names_in(tmp_path) == [".hidden"]


def test_S6_what_is_put_into_a_placeholder_is_not_lost(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / ".hidden", is_directory=True)
    real = os.mkdir

    def mkdir(name: str, *, dir_fd: int) -> None:
        real(name, dir_fd=dir_fd)
        (tmp_path / name / "mine").write_bytes(b"mine")

    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(publishing, "_rename_without_replacing", refusing(errno.ENOSYS))
    with pytest.raises(TargetExists):
        publishing.publish(directory, ".hidden", "name", is_directory=True)
    assert names_in(tmp_path / "name") == ["mine"]


@pytest.mark.parametrize(("before", "after"), [(0o644, 0o755), (0o600, 0o700), (0o640, 0o750)])
def test_those_who_may_read_may_execute(tmp_path: Path, before: int, after: int) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(before)
    with path.open() as file:
        publishing.let_execute(file.fileno())
    assert path.stat().st_mode & 0o777 == after


def test_a_tree_is_removed_without_following_links(directory: int, tmp_path: Path) -> None:
    make(tmp_path / "kept", is_directory=True)
    make(tmp_path / "tree", is_directory=True)
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "kept")
    publishing.remove_tree(directory, "tree")
    publishing.remove_tree(directory, "tree")
    assert names_in(tmp_path) == ["kept"]
    assert (tmp_path / "kept" / "sub" / "file").exists()
