"""Kills and damage: what was verified once is never fetched again, and nothing false is believed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pnode.errors import TargetExists
from p2pnode.storage import FileStore, peek_journal
from tests.storage import kill_everywhere, killed_writer
from tests.storage.content import PIECE, Source, names_in

PROJECT = Path(__file__).parents[2]
HIDDEN = ".data.p2pnode-part"
JOURNAL = ".data.p2pnode-journal"


def arguments(script: ModuleType, source: Source, target: Path, directory: Path) -> list[str]:
    (directory / "torrent").write_bytes(source.metainfo.encode())
    names = [str(path) for path in (source.path, target, directory / "torrent")]
    return [sys.executable, "-m", script.__name__, *names]


def test_S1_killed_at_random_points(tmp_path: Path, target: Path) -> None:
    source = Source(tmp_path / "source", 90 * PIECE + 5)
    command = arguments(killed_writer, source, target, tmp_path)
    rng = Random(7)
    fetched: Counter[tuple[int, int]] = Counter()
    for _ in range(20):
        with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(rng.randrange(1, 16)):
                piece, block = map(int, writer.stdout.readline().split())
                fetched[piece, block] += 1
            writer.kill()
            fetched.update((int(piece), int(block)) for piece, block in map(str.split, writer.stdout))
    store = FileStore.download(source.metainfo, target)
    for piece in range(source.metainfo.piece_count):
        for first, count in store.missing_blocks(piece):
            assert not any((piece, block) in fetched for block in range(first, first + count))
    source.give_pieces(store)
    store.publish()
    store.close()
    assert source.is_at(target)
    assert len(fetched) >= 20
    assert set(fetched.values()) == {1}


@pytest.mark.parametrize("kind", ["file", "tree"])
def test_S1_killed_at_every_call_that_changes_a_disk(tmp_path: Path, kind: str) -> None:
    contents = 3 * PIECE + 5 if kind == "file" else {"a": 5, "b/c": PIECE + 5, "empty": 0}
    source = Source(tmp_path / "source", contents)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = arguments(kill_everywhere, source, scratch, tmp_path)
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    acknowledged = [int(line) for line in done.stdout.split()]
    assert len(acknowledged) > 40
    assert acknowledged[0] == 0
    assert acknowledged == sorted(acknowledged)
    assert acknowledged[-1] == (13 if kind == "file" else 6)


@pytest.mark.parametrize("kind", ["file", "tree"])
def test_S1_killed_at_every_call_while_pieces_are_stored_together(tmp_path: Path, kind: str) -> None:
    tree = {"a": 5, "b/c": PIECE + 5, "b/d": 7, "b/e": PIECE, "empty": 0}
    source = Source(tmp_path / "source", 4 * PIECE + 5 if kind == "file" else tree)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [*arguments(kill_everywhere, source, scratch, tmp_path), "whole"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    acknowledged = [int(line) for line in done.stdout.split()]
    assert len(acknowledged) > 20
    assert acknowledged == sorted(acknowledged)
    assert set(acknowledged) == {0, 3, 5}


def interrupted(source: Source, target: Path) -> None:
    """A download of pieces 0 and 2 whole and half of piece 1; piece 0 is covered by a checkpoint."""
    store = FileStore.download(source.metainfo, target)
    source.give_pieces(store, [0])
    store.checkpoint()
    source.give_pieces(store, [2])
    source.give_block(store, 1, 0)
    source.give_block(store, 1, 3)
    store.close()


def finish(source: Source, target: Path, *, whole: list[int]) -> int:
    """Go on, check that at least these pieces are there, end it; how many blocks had to be given."""
    store = FileStore.download(source.metainfo, target)
    assert set(whole) <= set(store.have())
    for piece in store.have():
        assert store.read_piece(piece) == source.piece(piece)
    given = source.give_pieces(store)
    store.publish()
    store.close()
    assert source.is_at(target)
    assert names_in(target.parent) == ["data"]
    return given


class TestJournalsThatAreNotOurs:
    @pytest.mark.parametrize("kind", ["missing", "empty", "noise", "newer", "cut in its header"])
    def test_S3_whole_pieces_are_found_again(self, source: Source, target: Path, kind: str) -> None:
        interrupted(source, target)
        journal = target.parent / JOURNAL
        good = journal.read_bytes()
        match kind:
            case "missing":
                journal.unlink()
            case "empty":
                journal.write_bytes(b"")
            case "noise":
                journal.write_bytes(Random(1).randbytes(5000))
            case "newer":
                journal.write_bytes(good[:8] + b"\0\2" + good[10:])
            case "cut in its header":
                journal.write_bytes(good[:100])
        assert peek_journal(target) is None
        assert finish(source, target, whole=[0, 2]) == 4 + 3

    def test_S3_of_another_torrent(self, source: Source, target: Path, tmp_path: Path) -> None:
        """The target's name is the same, the bytes of the first piece too."""
        assert isinstance(source.data, bytes)
        interrupted(source, target)
        other = Source(tmp_path / "other", source.data[:PIECE] + bytes(2 * PIECE))
        assert finish(other, target, whole=[0]) == 8

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_S3_damaged_anywhere(
        self, source: Source, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        target = tmp_path_factory.mktemp("damaged") / "data"
        interrupted(source, target)
        journal = target.parent / JOURNAL
        content = bytearray(journal.read_bytes())
        if data.draw(st.booleans()):
            del content[data.draw(st.integers(0, len(content) - 1)) :]
        else:
            bit = data.draw(st.integers(0, 8 * len(content) - 1))
            content[bit // 8] ^= 1 << bit % 8
        journal.write_bytes(content)
        assert finish(source, target, whole=[0, 2]) in range(5, 8)

    def test_a_copy_of_a_partial_is_hashed_again(self, source: Source, target: Path) -> None:
        """Restored from a backup, the partial may be older than the journal: only hashes can tell."""
        interrupted(source, target)
        store = FileStore.download(source.metainfo, target)
        source.give_block(store, 1, 1)
        store.checkpoint()
        store.close()
        partial = target.parent / HIDDEN
        old = partial.read_bytes()[:PIECE] + bytes(2 * PIECE + 40_000)
        partial.rename(target.parent / "kept")
        partial.write_bytes(old)
        store = FileStore.download(source.metainfo, target)
        assert list(store.have()) == [0]
        assert store.missing_blocks(1) == ((0, 4),)
        store.discard()

    @pytest.mark.parametrize("size", [0, PIECE + 10, 4 * PIECE])
    def test_a_partial_of_another_size_is_hashed_again(self, source: Source, target: Path, size: int) -> None:
        interrupted(source, target)
        os.truncate(target.parent / HIDDEN, size)
        whole = [0] if size == PIECE + 10 else [] if size == 0 else [0, 2]
        assert finish(source, target, whole=whole) == 15 - 4 * len(whole)

    def test_a_partial_that_is_gone(self, source: Source, target: Path) -> None:
        interrupted(source, target)
        (target.parent / HIDDEN).unlink()
        assert finish(source, target, whole=[]) == 15

    def test_a_file_of_a_tree_that_is_gone(self, tree: Source, target: Path) -> None:
        store = FileStore.download(tree.metainfo, target)
        tree.give_pieces(store)
        store.close()
        (target.parent / HIDDEN / "a" / "piece").unlink()
        assert finish(tree, target, whole=[0, 1]) == 4

    def test_a_target_with_other_bytes_keeps_the_partial(self, source: Source, target: Path) -> None:
        interrupted(source, target)
        target.write_bytes(b"mine")
        with pytest.raises(TargetExists):
            FileStore.download(source.metainfo, target)
        target.unlink()
        assert finish(source, target, whole=[0, 2]) == 2 + 3

    def test_progress_of_looking_is_told_and_can_end_it(self, source: Source, target: Path) -> None:
        interrupted(source, target)
        (target.parent / JOURNAL).unlink()
        told: list[tuple[int, int]] = []
        FileStore.download(
            source.metainfo, target, on_progress=lambda done, total: told.append((done, total))
        ).close()
        assert told[-1] == (3 * PIECE, 3 * PIECE)
        (target.parent / JOURNAL).unlink()

        def end(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            FileStore.download(source.metainfo, target, on_progress=end)
        assert finish(source, target, whole=[0, 2]) == 4 + 3
