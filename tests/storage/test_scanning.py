from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2pnode.config import SETTLE_S
from p2pnode.errors import NotFound, StorageError
from p2pnode.storage import find_item, list_items
from tests.storage.content import make_tree


def parts_of(path: Path) -> list[str]:
    return ["/".join(file.parts) for file in find_item(path).files]


class TestFindItem:
    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"12345")
        item = find_item(tmp_path / "file")
        assert (item.is_directory, item.size, item.files[0].parts, item.skipped) == (False, 5, (), ())

    def test_a_tree_sorted_by_name(self, tmp_path: Path) -> None:
        make_tree(tmp_path / "tree", {"b": 1, "a/z": 2, "a/b/c": 3, "a.txt": 4})
        item = find_item(tmp_path / "tree")
        assert ["/".join(file.parts) for file in item.files] == ["a/b/c", "a/z", "a.txt", "b"]
        assert (item.is_directory, item.size) == (True, 10)

    def test_hidden_files_are_not_seen(self, tmp_path: Path) -> None:
        make_tree(tmp_path / "tree", {"a": 1, ".hidden": 1, ".git/config": 1, ".a.p2pnode-part": 1})
        item = find_item(tmp_path / "tree")
        assert (len(item.files), item.skipped) == (1, ())

    def test_links_to_files_are_followed(self, tmp_path: Path) -> None:
        make_tree(tmp_path, {"blobs/x": 5, "tree/sub/real": 1})
        (tmp_path / "tree" / "file").symlink_to(tmp_path / "blobs" / "x")
        (tmp_path / "tree" / "directory").symlink_to(tmp_path / "blobs")
        (tmp_path / "tree" / "dangling").symlink_to("nowhere")
        (tmp_path / "tree" / "loop").symlink_to("loop")
        item = find_item(tmp_path / "tree")
        assert [(f.parts, f.signature.size) for f in item.files] == [(("file",), 5), (("sub", "real"), 1)]
        assert [line.split("'")[1] for line in item.skipped] == ["dangling", "directory", "loop"]

    def test_odd_entries_are_skipped_and_named(self, tmp_path: Path) -> None:
        make_tree(tmp_path / "tree", {"a": 1})
        os.mkfifo(tmp_path / "tree" / "fifo")
        (tmp_path / os.fsdecode(b"tree/\xff\x1b")).write_bytes(b"x")
        item = find_item(tmp_path / "tree")
        assert len(item.files) == 1
        assert [line.isprintable() for line in item.skipped] == [True, True]
        assert "not UTF-8" in item.skipped[0] + item.skipped[1]

    def test_links_that_cannot_be_followed_are_skipped_and_named(self, tmp_path: Path) -> None:
        make_tree(tmp_path, {"tree/a": 1, "b": 1})
        for directory in (tmp_path, tmp_path / "tree"):
            (directory / "long").symlink_to("x" * 300)  # ENAMETOOLONG
        assert find_item(tmp_path / "tree").skipped == ("'long' cannot be read: File name too long",)
        assert [item.path.name for item in list_items(tmp_path)] == ["b", "tree"]

    def test_an_entry_whose_kind_cannot_be_found_out_is_skipped_and_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Unknown:
            """An entry of a file system that does not say what it is, and whose status cannot be had."""

            name = "odd"

            def is_dir(self, *, follow_symlinks: bool) -> bool:
                raise PermissionError(13, "Permission denied")

        make_tree(tmp_path / "tree", {"a": 1})
        real = os.scandir
        monkeypatch.setattr(os, "scandir", lambda path: [*real(path), Unknown()])
        item = find_item(tmp_path / "tree")
        assert (len(item.files), item.skipped) == (1, ("'odd' cannot be read: Permission denied",))

    def test_a_directory_that_cannot_be_read_is_skipped_and_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_tree(tmp_path / "tree", {"a": 1, "closed/b": 1})
        real = os.scandir

        def scandir(path: Path) -> object:
            if path.name == "closed":
                raise PermissionError(13, "Permission denied")
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)
        item = find_item(tmp_path / "tree")
        assert len(item.files) == 1
        assert item.skipped == ("'closed' cannot be read: Permission denied",)

    def test_what_cannot_be_shared(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / os.fsdecode(b"\xff")).touch()
        with pytest.raises(NotFound):
            find_item(tmp_path / "nowhere")
        for name, why in (("fifo", "neither"), ("loop", "look"), (os.fsdecode(b"\xff"), "UTF-8")):
            with pytest.raises(StorageError, match=why):
                find_item(tmp_path / name)


class TestFingerprint:
    def test_it_stays_while_nothing_changes(self, tmp_path: Path) -> None:
        make_tree(tmp_path / "tree", {"a": 1, "b/c": 2})
        assert find_item(tmp_path / "tree").fingerprint == find_item(tmp_path / "tree").fingerprint

    @pytest.mark.parametrize("change", ["write", "touch", "add", "remove", "rename", "move", "replace"])
    def test_it_changes_with_anything(self, tmp_path: Path, change: str) -> None:
        tree = tmp_path / "tree"
        make_tree(tree, {"a": 1, "b/c": 2})
        old = find_item(tree)
        match change:
            case "write":
                (tree / "b/c").write_bytes(b"xy")
            case "touch":
                os.utime(tree / "b/c", ns=(0, old.files[1].signature.modified_ns + 1))
            case "add":
                (tree / "b/empty").touch()
            case "remove":
                (tree / "a").unlink()
            case "rename":
                (tree / "a").rename(tree / "aa")
            case "move":
                (tree / "b/c").rename(tree / "c")
            case "replace":
                (tree / "new").write_bytes(b"x")
                (tree / "new").replace(tree / "a")
        new = find_item(tree)
        assert new.fingerprint != old.fingerprint
        assert new != old

    def test_names_cannot_be_mistaken_for_each_other(self, tmp_path: Path) -> None:
        make_tree(tmp_path / "tree", {"a": 0})
        empty = tmp_path / "file"
        empty.touch()
        assert find_item(tmp_path / "tree").fingerprint != find_item(empty).fingerprint


def test_what_changed_a_moment_ago_is_not_settled(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    item = find_item(tmp_path / "file")
    changed = (tmp_path / "file").stat().st_ctime
    assert item.changed_at == pytest.approx(changed)
    assert not item.is_settled(changed + SETTLE_S - 0.01)
    assert item.is_settled(changed + SETTLE_S + 0.01)
    assert item.is_settled(changed - 3600)


class TestListItems:
    def test_each_entry_is_an_item(self, tmp_path: Path) -> None:
        make_tree(tmp_path, {"b.txt": 1, "a/x": 2, "a/y/z": 3, ".hidden": 4})
        (tmp_path / "empty").mkdir()
        (tmp_path / "link to a file").symlink_to("b.txt")
        (tmp_path / "link to a directory").symlink_to("a")
        (tmp_path / "dangling").symlink_to("nowhere")
        os.mkfifo(tmp_path / "fifo")
        items = {item.path.name: item for item in list_items(tmp_path)}
        assert list(items) == ["a", "b.txt", "empty", "link to a file"]
        assert [item.size for item in items.values()] == [5, 1, 0, 1]
        assert items["a"] == find_item(tmp_path / "a")

    def test_a_directory_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="not there"):
            list_items(tmp_path / "nowhere")
