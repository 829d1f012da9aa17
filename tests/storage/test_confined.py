from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pnode.errors import P2PNodeError, StorageError
from p2pnode.storage import FileStore, confined
from p2pnode.torrent.metainfo import Metainfo
from p2pnode.wire.bencoding import encode
from tests.storage.content import Source, hashed, names_in

HOSTILE = ["", ".", "..", "/", "/etc/passwd", "a/b", "a\0b", "\ud800"]
_opened: list[str] | None = None


def _note(event: str, arguments: tuple[object, ...]) -> None:
    """Every path that this process opens, makes, renames or removes while `_opened` is a list."""
    if _opened is not None and event in {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir"}:
        paths = arguments[:2] if event in {"os.rename", "os.link"} else arguments[:1]
        _opened.extend(os.fsdecode(path) for path in paths if isinstance(path, str | bytes | Path))


sys.addaudithook(_note)  # can never be removed, so it is switched


@pytest.fixture
def opened() -> Iterator[list[str]]:
    global _opened
    _opened = []
    yield _opened
    _opened = None


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"precious")
    fd = confined.open_root(tmp_path / "root")
    yield fd
    os.close(fd)


class TestNames:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_M4_refused_wherever_they_stand(self, root: int, name: str, opened: list[str]) -> None:
        for parts in ((name,), (name, "file"), ("a", name), ("a", name, "b")):
            with pytest.raises(StorageError, match="cannot be the name"):
                confined.open_file(root, parts, confined.CREATE)
        with pytest.raises(StorageError):
            confined.open_directory(root, (name,), create=True)
        assert set(opened) <= {"a"}

    @pytest.mark.parametrize(
        "path",
        [
            [b".."], [b"..", b"..", b"x"], [b"/etc/passwd"], [b"a", b"..", b"..", b"b"], [b"a\\..\\b"], [b"."],
            [b""], [b"\xed\xa0\x80"], [b"x" * 300], [b"C:", b"x"], [b"\\\\?\\x"], [b"CON"], [b"f:s"], [b"a\0b"],
        ],
    )  # fmt: skip
    def test_M4_no_path_of_a_torrent_leads_outside(
        self, tmp_path: Path, target: Path, opened: list[str], path: list[bytes]
    ) -> None:
        """Each name is relative to a descriptor, is one component, and follows no link; or it is the
        directory of the target itself."""
        data = b"hostile"
        entry: dict[bytes, object] = {
            b"": {b"length": 7, b"pieces root": hashed(data, 16384, "x").hashes.pieces_root}
        }
        for component in reversed(path):
            entry = {component: entry}
        info = {b"file tree": entry, b"meta version": 2, b"name": b"../x", b"piece length": 16384}
        try:
            metainfo = Metainfo.decode(encode({b"info": info}))  # type: ignore[dict-item]
        except P2PNodeError:
            return  # refused at once
        opened.clear()
        store = FileStore.download(metainfo, target)
        assert store.begin_piece(0, metainfo.piece(0).root or b"")
        assert store.write_blocks(0, 0, data)
        store.publish()
        store.close()
        assert opened
        assert {name for name in opened if "/" in name or name in ("", ".", "..")} <= {str(target.parent)}
        assert names_in(target.parent) == ["data"]
        assert names_in(tmp_path) == ["downloads"]


class TestOpenFile:
    def test_makes_what_is_missing(self, root: int, tmp_path: Path) -> None:
        fd = confined.open_file(root, ("a", "b", "file"), confined.CREATE)
        os.write(fd, b"x")
        os.close(fd)
        assert (tmp_path / "root/a/b/file").read_bytes() == b"x"
        os.close(confined.open_file(root, ("a", "b", "file"), confined.CREATE))
        with pytest.raises(FileExistsError):
            confined.open_file(root, ("a", "b", "file"), confined.CREATE_NEW)

    def test_makes_nothing_to_read(self, root: int, tmp_path: Path) -> None:
        for parts in (("a",), ("a", "b")):
            with pytest.raises(FileNotFoundError):
                confined.open_file(root, parts, confined.UPDATE)
        assert names_in(tmp_path / "root") == []

    @pytest.mark.parametrize("kind", ["link to a file", "dangling link", "fifo", "hard link", "directory"])
    def test_M5_anything_planted_is_refused(self, root: int, tmp_path: Path, kind: str) -> None:
        planted, outside = tmp_path / "root" / "file", tmp_path / "outside" / "file"
        match kind:
            case "link to a file":
                planted.symlink_to(outside)
            case "dangling link":
                planted.symlink_to(tmp_path / "outside" / "new")
            case "fifo":
                os.mkfifo(planted)
            case "hard link":
                os.link(outside, planted)
            case "directory":
                planted.mkdir()
        before = len(os.listdir("/dev/fd"))
        for flags in (confined.CREATE, confined.UPDATE, confined.CREATE_NEW):
            with pytest.raises((OSError, StorageError)):
                confined.open_file(root, ("file",), flags)
        assert len(os.listdir("/dev/fd")) == before
        assert names_in(tmp_path / "outside") == ["file"]
        assert outside.read_bytes() == b"precious"

    def test_M5_no_link_is_followed_on_the_way(self, root: int, tmp_path: Path) -> None:
        (tmp_path / "root" / "a").symlink_to(tmp_path / "outside")
        for parts in (("a", "file"), ("a", "b", "file")):
            with pytest.raises(OSError, match=r"Not a directory|symbolic"):
                confined.open_file(root, parts, confined.CREATE)
        assert names_in(tmp_path / "outside") == ["file"]


class TestDownloadsBesideHostileFiles:
    @pytest.mark.parametrize("name", [".data.p2pnode-part", ".data.p2pnode-journal"])
    @pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "hard link", "directory"])
    def test_M5_planted_before(
        self, source: Source, tree: Source, target: Path, name: str, kind: str
    ) -> None:
        outside = target.parent.with_name("outside")
        outside.mkdir()
        (outside / "file").write_bytes(b"precious")
        planted = target.parent / name
        match kind:
            case "link":
                planted.symlink_to(outside / "file")
            case "dangling link":
                planted.symlink_to(outside / "new")
            case "fifo":
                os.mkfifo(planted)
            case "hard link":
                os.link(outside / "file", planted)
            case "directory":
                planted.mkdir()
        for origin in (source, tree):
            if kind == "directory" and name.endswith("part") and origin is tree:
                continue  # there it is what should be there
            with pytest.raises(StorageError, match="p2pnode"):
                FileStore.download(origin.metainfo, target)
        assert names_in(target.parent) == [name]
        assert names_in(outside) == ["file"]
        assert (outside / "file").read_bytes() == b"precious"

    def test_M5_a_stale_new_journal_is_replaced_not_followed(self, source: Source, target: Path) -> None:
        victim = target.parent / "victim"
        victim.write_bytes(b"precious")
        (target.parent / ".data.p2pnode-journal-new").symlink_to(victim)
        store = FileStore.download(source.metainfo, target)
        store.close()
        assert victim.read_bytes() == b"precious"
        assert names_in(target.parent) == ["victim"]

    def test_M5_planted_meanwhile(self, tree: Source, target: Path) -> None:
        """A directory of the partial is swapped for a link while the download runs."""
        outside = target.parent.with_name("outside")
        outside.mkdir()
        store = FileStore.download(tree.metainfo, target)
        hidden = target.parent / ".data.p2pnode-part"
        (hidden / "z").symlink_to(outside)
        with pytest.raises(StorageError):
            tree.give_pieces(store)
        (hidden / "z").unlink()
        tree.give_pieces(store)
        hidden.rename(target.parent / "moved")
        hidden.symlink_to(outside)
        assert store.read_piece(0) == tree.piece(0)
        with pytest.raises(StorageError, match="replaced"):
            store.publish()
        with pytest.raises(StorageError, match="symbolic link"):
            store.discard()
        assert names_in(outside) == []
        assert not os.path.lexists(target)


class TestOpenShared:
    def test_links_to_files_are_followed_links_to_directories_are_not(self, tmp_path: Path) -> None:
        (tmp_path / "tree" / "real").mkdir(parents=True)
        (tmp_path / "blob").write_bytes(b"blob")
        (tmp_path / "tree" / "real" / "link").symlink_to(tmp_path / "blob")
        (tmp_path / "tree" / "linked").symlink_to("real")
        fd = confined.open_shared(tmp_path / "tree", ("real", "link"))
        assert os.read(fd, 10) == b"blob"
        os.close(fd)
        with pytest.raises(OSError, match=r"Not a directory|symbolic"):
            confined.open_shared(tmp_path / "tree", ("linked", "link"))

    def test_only_regular_files(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        for path in (tmp_path, tmp_path / "fifo"):
            with pytest.raises(StorageError, match="regular"):
                confined.open_shared(path, ())
        with pytest.raises(StorageError, match="regular"):
            confined.open_shared(tmp_path, ("fifo",))
        with pytest.raises(FileNotFoundError):
            confined.open_shared(tmp_path, ("nothing",))
        with pytest.raises(StorageError, match="name"):
            confined.open_shared(tmp_path, ("..",))
