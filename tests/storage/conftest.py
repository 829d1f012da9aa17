from __future__ import annotations

from pathlib import Path

import pytest

from tests.storage.content import PIECE, Source


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A file of four pieces of four blocks, the last piece and its last block short."""
    return Source(tmp_path / "source", 3 * PIECE + 40_000)


@pytest.fixture
def tree(tmp_path: Path) -> Source:
    """A directory with files of no byte, one byte, a piece and one more or less, and some depth."""
    sizes = {
        "empty": 0,
        "one": 1,
        "a/piece": PIECE,
        "a/b/more": PIECE + 1,
        "a/b/less": PIECE - 1,
        "z/big": 3 * PIECE,
    }
    return Source(tmp_path / "source", sizes, "tree")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where a download goes; its directory is empty."""
    directory = tmp_path / "downloads"
    directory.mkdir()
    return directory / "data"
