"""The state directory: key, lock, note; one process at a time."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from p2pnode.errors import AlreadyInProgress, StorageError
from p2pnode.node.state import StateDirectory, read_note


def test_the_key_is_made_once_and_is_nobody_elses(tmp_path: Path) -> None:
    with StateDirectory(tmp_path / "deep" / "state") as state:
        first = state.node_key()
    with StateDirectory(tmp_path / "deep" / "state") as state:
        assert state.node_key().node_id == first.node_id
    assert stat.S_IMODE((tmp_path / "deep" / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "deep" / "state" / "node.key").stat().st_mode) == 0o600


def test_without_a_directory_the_key_is_new_each_time() -> None:
    with StateDirectory(None) as state:
        assert state.catalogue_path is None
        assert state.node_key().node_id != state.node_key().node_id


def test_a_second_process_gets_one_clear_line(tmp_path: Path) -> None:
    with StateDirectory(tmp_path):
        with pytest.raises(AlreadyInProgress, match="another p2pnode runs on"), StateDirectory(tmp_path):
            pass
        with StateDirectory(tmp_path, locked=False) as unlocked:  # as short commands do
            assert unlocked.catalogue_path == tmp_path / "catalogue.sqlite"
    with StateDirectory(tmp_path):
        pass  # the first one is gone, and with it its lock


def test_a_directory_that_cannot_be_used_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(StorageError, match="cannot use the state directory"),
        StateDirectory(tmp_path / "file"),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "text"), [(("10.0.0.1", 4433), "10.0.0.1:4433"), (("::", 4433), "[::]:4433")]
)
def test_a_server_says_where_it_is_until_it_ends(tmp_path: Path, address: tuple[str, int], text: str) -> None:
    with StateDirectory(tmp_path) as state:
        state.leave_note(address, bytes(32))
        note = read_note(tmp_path)
        assert note is not None
        assert (note.address, note.pid, note.node_id) == (text, os.getpid(), bytes(32).hex())
    assert read_note(tmp_path) is None


def test_an_unlocked_user_of_the_directory_leaves_the_note_alone(tmp_path: Path) -> None:
    with StateDirectory(tmp_path) as state:
        state.leave_note(("10.0.0.1", 1), bytes(32))
        with StateDirectory(tmp_path, locked=False):
            pass
        assert read_note(tmp_path) is not None


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"address": 5}', b"\xff"])
def test_a_note_that_makes_no_sense_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "server.json").write_bytes(content)
    assert read_note(tmp_path) is None
