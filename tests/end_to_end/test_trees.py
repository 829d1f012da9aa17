"""Trees between real processes: what of them survives, and parts of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import program, run

FILES = {
    "README": b"read me",
    "empty": b"",
    "run.sh": b"#!/bin/sh\n",
    "src/main.c": b"int main;",
    "src/lib/deep/er/x.c": b"x" * 40_000,
    "src/lib/deep/er/none": b"",
    "photos/a.jpg": b"a" * 100_000,
    "photos/drafts/b.jpg": b"b",
    "with space/-dash": b"-",
    "with space/é\u4e2d.txt": b"u",
    "with space/#'\"$(x)`": b"q",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "source" / "tree"
    for name, data in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (root / "run.sh").chmod(0o755)
    (root / "nothing" / "here").mkdir(parents=True)
    (root / "link.c").symlink_to("src/main.c")
    (root / "linked").symlink_to("src")
    (root / "broken").symlink_to("gone")
    return root


@pytest.fixture
def umask_027() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def files_at(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


async def test_what_survives(tree: Path, tmp_path: Path, umask_027: None) -> None:
    """Names, empty files, folders and the executable bit; links to files as files; no empty folders."""
    async with program("share", tree, state=tmp_path) as sharing:
        ticket = (await sharing.wait_for("ticket"))["ticket"]
        warning = await sharing.wait_for("node_warning", text=lambda text: "left out" in text)
        got = await run("get", ticket, "-o", "copy/", state=tmp_path, cwd=tmp_path)
    assert got.code == 0, got.said
    copy = tmp_path / "copy" / "tree"
    assert "broken" in warning["text"]
    names = {name.replace('"', "_") if '"' in name else name: data for name, data in FILES.items()}
    assert files_at(copy) == {**names, "link.c": FILES["src/main.c"]}
    assert not any(path.is_symlink() for path in copy.rglob("*"))
    assert not (copy / "nothing").exists()
    modes = {str(p.relative_to(copy)): p.stat().st_mode & 0o777 for p in copy.rglob("*") if p.is_file()}
    assert modes.pop("run.sh") == 0o750
    assert set(modes.values()) == {0o640}


async def test_a_part_is_fetched_and_the_rest_added(tree: Path, tmp_path: Path) -> None:
    async with program("share", tree, state=tmp_path) as sharing:
        ticket = (await sharing.wait_for("ticket"))["ticket"]

        async def get(*patterns: str) -> list[str]:
            got = await run("get", ticket, *patterns, state=tmp_path, cwd=tmp_path)
            assert (got.code, got.lines) == (0, ["tree"]), got.said
            return sorted(files_at(tmp_path / "tree"))

        assert await get("--include", "*.jpg", "--exclude", "drafts/") == ["photos/a.jpg"]
        assert await get("--include", "/src/*") == [
            "photos/a.jpg",
            *(n for n in sorted(FILES) if n[:4] == "src/"),
        ]
        nothing = await run("get", ticket, "--include", "*.png", state=tmp_path, cwd=tmp_path)
        assert nothing.error(3) == "the patterns fit none of the 12 files of 'tree'"
        assert len(await get()) == 12
    assert sorted(path.name for path in tmp_path.iterdir() if "tree" in path.name) == ["tree"]


async def test_a_part_is_shared(tree: Path, tmp_path: Path) -> None:
    async with program("share", tree, "--include", "src/", "--exclude", "none", state=tmp_path) as sharing:
        ticket = (await sharing.wait_for("ticket"))["ticket"]
        got = await run("get", ticket, state=tmp_path, cwd=tmp_path)
    assert got.code == 0, got.said
    assert sorted(files_at(tmp_path / "tree")) == ["src/lib/deep/er/x.c", "src/main.c"]
    none = await run("share", tree, "--include", "*.png", state=tmp_path)
    assert none.error(3) == f"the patterns fit no file below '{tree}'"
    bad = await run("share", tree, "--include", "", state=tmp_path)
    assert bad.error(2) == "'' is no pattern for paths; see p2pnode share --help"


async def test_a_torrent_of_a_part(tree: Path, tmp_path: Path) -> None:
    made = await run("torrent", "create", tree, "--v2", "--include", "*.c", state=tmp_path, cwd=tmp_path)
    assert (made.code, made.lines) == (0, ["tree.torrent"]), made.said
    shown = await run("--json", "torrent", "show", "tree.torrent", state=tmp_path, cwd=tmp_path)
    names = ["link.c", "src/lib/deep/er/x.c", "src/main.c"]
    assert [file["path"] for file in shown.events[0]["files"]] == names
