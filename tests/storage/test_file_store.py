from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.config import BLOCK_SIZE
from p2pnode.errors import (
    AlreadyInProgress,
    DiskFull,
    LocalProtocolError,
    MetainfoError,
    NotFound,
    SourceChanged,
    StorageError,
    TargetExists,
)
from p2pnode.storage import FileStore, StoreState, hash_path, peek_journal
from p2pnode.storage.journal import Header
from p2pnode.torrent.creation import TorrentVersion, create_metainfo
from p2pnode.torrent.merkle import PieceHasherV1
from tests.storage.content import (
    PIECE,
    Source,
    bytes_of,
    hashed,
    metainfo_of,
    names_in,
    random_bytes,
    unchanging,
)

PROJECT = Path(__file__).parents[2]
HIDDEN = ".data.p2pnode-part"
JOURNAL = ".data.p2pnode-journal"
EDGES = [0, 1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 40_000]


def test_v1_alone_cannot_be_stored(tmp_path: Path) -> None:
    hasher = PieceHasherV1(PIECE)
    hasher.update(b"x")
    metainfo = create_metainfo(
        "data",
        [hashed(b"x", PIECE, "data")],
        is_directory=False,
        version=TorrentVersion.V1,
        piece_length=PIECE,
        piece_hashes_v1=hasher.finish(),
    )
    with pytest.raises(MetainfoError, match="v1"):
        FileStore.download(metainfo, tmp_path / "data")
    with pytest.raises(MetainfoError, match="v1"):
        FileStore.share(metainfo, tmp_path / "data")
    assert names_in(tmp_path) == []


class TestShare:
    def test_everything_is_here(self, source: Source) -> None:
        assert source.store.have().is_complete
        assert source.store.bytes_stored == source.metainfo.size
        assert source.store.blocks_stored(0) == 4
        assert source.store.publish() == source.path
        source.store.discard()
        assert source.is_at(source.path)

    def test_it_is_not_opened_before_it_is_read(self, tmp_path: Path) -> None:
        store = FileStore.share(metainfo_of("data", b"x"), tmp_path / "nowhere")
        with pytest.raises(SourceChanged, match="gone"):
            store.read_piece(0)

    def test_a_read_leaves_nothing_open(self, tree: Source) -> None:
        before = len(os.listdir("/dev/fd"))
        for index in range(tree.metainfo.piece_count):
            tree.piece(index)
        assert len(os.listdir("/dev/fd")) == before

    @pytest.mark.parametrize("change", ["truncated", "overwritten", "grown", "deleted", "replaced"])
    def test_S8_what_was_changed_is_not_served(self, source: Source, change: str) -> None:
        good = source.piece(0)
        assert isinstance(source.data, bytes)
        match change:
            case "truncated":
                os.truncate(source.path, PIECE // 2)
            case "overwritten":
                with source.path.open("r+b") as file:
                    file.write(b"other")
            case "grown":
                source.path.write_bytes(source.data + b"x")
            case "deleted":
                source.path.unlink()
            case "replaced":
                source.path.with_name("new").write_bytes(source.data)
                source.path.with_name("new").replace(source.path)
        with pytest.raises(SourceChanged):
            source.piece(0)
        if change == "replaced":  # the same bytes: a store that is opened now serves them
            assert FileStore.share(source.metainfo, source.path).read_piece(0) == good

    def test_S8_a_change_before_the_first_read_is_seen_by_the_hash(self, source: Source) -> None:
        with source.path.open("r+b") as file:
            file.write(b"other")
        with pytest.raises(SourceChanged, match="piece 0"):
            source.piece(0)
        assert isinstance(source.data, bytes)
        assert bytes_of(source.piece(1)) == source.data[PIECE : 2 * PIECE]

    def test_links_are_followed(self, source: Source, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(source.path)
        assert FileStore.share(source.metainfo, tmp_path / "link").read_piece(0) == source.piece(0)

    def test_names_that_are_not_safe_elsewhere_are_found(self, tmp_path: Path) -> None:
        tree = Source(tmp_path / "s", {"a:b": 10, "con": 20}, "tree")
        assert [file.path for file in tree.metainfo.files] == [("a_b",), ("_con",)]
        assert [bytes_of(tree.piece(i)) for i in (0, 1)] == [random_bytes(10, "a:b"), random_bytes(20, "con")]
        store = FileStore.download(tree.metainfo, tmp_path / "copy")
        tree.give_pieces(store)
        store.publish()
        assert names_in(tmp_path / "copy") == ["_con", "a_b"]
        assert store.read_piece(0) == tree.piece(0)

    def test_a_closed_one_gives_nothing(self, source: Source) -> None:
        source.store.close()
        source.store.close()
        with pytest.raises(NotFound):
            source.piece(0)


class TestDownload:
    @pytest.mark.parametrize("size", EDGES)
    def test_S12_sizes(self, tmp_path: Path, target: Path, size: int) -> None:
        data = random_bytes(size)
        (tmp_path / "origin").write_bytes(data)
        metainfo = hash_path(tmp_path / "origin")
        origin = FileStore.share(metainfo, tmp_path / "origin")
        store = FileStore.download(metainfo, target)
        for index in range(metainfo.piece_count):
            piece = origin.read_piece(index)
            assert store.begin_piece(index, piece.block_hashes)
            assert store.write_blocks(index, 0, bytes_of(piece))
        assert store.publish() == target
        assert target.read_bytes() == data
        assert names_in(target.parent) == ["data"]
        store.close()

    def test_S12_a_tree(self, tree: Source, target: Path) -> None:
        store = FileStore.download(tree.metainfo, target)
        tree.give_pieces(store)
        store.publish()
        assert tree.is_at(target)
        assert store.read_piece(0) == tree.piece(0)
        store.close()
        assert names_in(target.parent) == ["data"]
        assert hash_path(target) != tree.metainfo

    def test_S12_many_files(self, tmp_path: Path, target: Path) -> None:
        tree = Source(tmp_path / "s", {f"{i % 7}/{i}": 10 + i for i in range(300)}, "tree")
        open_before = len(os.listdir("/dev/fd"))
        store = FileStore.download(tree.metainfo, target)
        tree.give_pieces(store)
        assert len(os.listdir("/dev/fd")) < open_before + 100
        store.publish()
        assert tree.is_at(target)
        store.close()

    def test_a_sparse_file_takes_no_room_before_its_bytes_come(self, tmp_path: Path, target: Path) -> None:
        with (tmp_path / "sparse").open("wb") as file:
            file.truncate(64 * config.MIB)
        store = FileStore.download(hash_path(tmp_path / "sparse"), target)
        found = (target.parent / HIDDEN).stat()
        assert found.st_size == 64 * config.MIB
        assert found.st_blocks * 512 < config.MIB
        store.close()

    def test_pieces_are_served_before_it_is_complete(self, source: Source, target: Path) -> None:
        store = FileStore.download(source.metainfo, target)
        source.give_pieces(store, [2])
        assert store.read_piece(2) == source.piece(2)
        with pytest.raises(NotFound):
            store.read_piece(1)
        assert (list(store.have()), store.bytes_stored) == ([2], PIECE)
        store.close()

    def test_blocks_are_counted_from_the_start(self, source: Source, target: Path) -> None:
        store = FileStore.download(source.metainfo, target)
        for block, count in ((2, 0), (0, 1), (1, 3), (3, 4)):
            source.give_block(store, 0, block)
            assert store.blocks_stored(0) == count
        source.give_block(store, 3, 2)
        assert store.missing_blocks(3) == ((0, 2),)
        assert store.bytes_stored == PIECE + 40_000 - 2 * BLOCK_SIZE
        store.close()

    def test_executable_files_can_be_executed(self, tmp_path: Path, target: Path) -> None:
        plain = metainfo_of("data", {"run": b"#!", "read": b"text"})
        raw = plain.encode().replace(
            b"d0:d6:lengthi2e", b"d0:d4:attr1:x6:lengthi2e".replace(b"d0:d", b"d0:d")
        )
        metainfo = type(plain).decode(raw)
        assert [file.is_executable for file in metainfo.files] == [False, True]
        store = FileStore.download(metainfo, target)
        for index, data in enumerate((b"text", b"#!")):
            assert store.begin_piece(index, metainfo.piece(index).root or b"")
            assert store.write_blocks(index, 0, data)
        store.publish()
        store.close()
        assert os.access(target / "run", os.X_OK)
        assert not (target / "read").stat().st_mode & 0o111

    def test_a_file_with_the_same_bytes_is_success(self, source: Source, target: Path) -> None:
        target.write_bytes(source.path.read_bytes())
        store = FileStore.download(source.metainfo, target)
        assert store.have().is_complete
        assert store.publish() == target
        assert not store.checkpoint_due(1e9)
        store.checkpoint()
        store.discard()
        assert source.is_at(target)
        assert names_in(target.parent) == ["data"]

    def test_a_tree_with_the_same_bytes_is_success(self, tree: Source) -> None:
        store = FileStore.download(tree.metainfo, tree.path)
        assert store.have().is_complete
        store.close()

    def test_a_target_of_another_size_is_refused_without_reading_it(
        self, source: Source, target: Path
    ) -> None:
        hashed: list[int] = []
        target.write_bytes(bytes(source.metainfo.size + 1))
        with pytest.raises(TargetExists):
            FileStore.download(source.metainfo, target, on_progress=lambda done, total: hashed.append(done))
        assert hashed == []

    @pytest.mark.parametrize("kind", ["other bytes", "other size", "directory", "fifo", "dangling link"])
    def test_S6_anything_else_there_is_left_alone(self, source: Source, target: Path, kind: str) -> None:
        match kind:
            case "other bytes":
                target.write_bytes(bytes(source.metainfo.size))
            case "other size":
                target.write_bytes(b"x")
            case "directory":
                target.mkdir()
            case "fifo":
                os.mkfifo(target)
            case "dangling link":
                target.symlink_to("nowhere")
        before = unchanging(target)
        with pytest.raises(TargetExists):
            FileStore.download(source.metainfo, target)
        assert unchanging(target) == before
        assert names_in(target.parent) == ["data"]

    @pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "short"])
    def test_long_names_have_hidden_ones_too(self, source: Source, target: Path, name: str) -> None:
        target = target.with_name(name)
        store = FileStore.download(source.metainfo, target)
        assert all(entry.startswith(".") for entry in names_in(target.parent))
        source.give_pieces(store, [0])
        store.close()
        assert peek_journal(target) == source.metainfo
        store = FileStore.download(source.metainfo, target)
        assert list(store.have()) == [0]
        source.give_pieces(store)
        store.publish()
        store.close()
        assert names_in(target.parent) == [name]

    def test_a_directory_that_is_not_there(self, source: Source, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="not there"):
            FileStore.download(source.metainfo, tmp_path / "nowhere" / "data")
        with pytest.raises(StorageError, match="not the name of a file"):
            FileStore.download(source.metainfo, Path("/"))

    def test_a_download_without_a_block_leaves_nothing(
        self, source: Source, tree: Source, target: Path
    ) -> None:
        for origin in (source, tree):
            store = FileStore.download(origin.metainfo, target)
            assert store.begin_piece(0, origin.piece(0).block_hashes)
            store.close()
            assert names_in(target.parent) == []

    def test_discard(self, source: Source, tree: Source, target: Path) -> None:
        for origin in (source, tree):
            store = FileStore.download(origin.metainfo, target)
            origin.give_pieces(store)
            store.discard()
            assert names_in(target.parent) == []

    def test_a_closed_one_refuses(self, source: Source, target: Path) -> None:
        store = FileStore.download(source.metainfo, target)
        source.give_block(store, 0, 0)
        store.close()
        with pytest.raises(StorageError, match="closed"):
            source.give_block(store, 0, 1)
        with pytest.raises(StorageError, match="closed"):
            store.checkpoint()

    def test_threads_share_it(self, source: Source, target: Path) -> None:
        """Each block is written by two threads at once, while a third makes checkpoints."""
        store = FileStore.download(source.metainfo, target)
        blocks = [(p, b) for p in range(4) for b in range(source.metainfo.piece(p).block_count)]
        done = threading.Event()

        def write(order: int) -> None:
            for piece, block in Random(order).sample(blocks, len(blocks)):
                source.give_block(store, piece, block)

        def keep() -> None:
            while not done.is_set():
                store.checkpoint()

        writers = [threading.Thread(target=write, args=(order,)) for order in (1, 2)]
        keeper = threading.Thread(target=keep)
        for thread in (*writers, keeper):
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        keeper.join()
        store.close()
        store = FileStore.download(source.metainfo, target)
        assert store.have().is_complete
        store.publish()
        store.close()
        assert source.is_at(target)

    def test_F7_a_disk_that_hangs_holds_up_no_question(
        self, source: Source, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What an event loop asks is answered while a thread waits for the disk, in data or in journal."""
        store = FileStore.download(source.metainfo, target)
        source.give_block(store, 0, 0)
        hanging, release = threading.Event(), threading.Event()
        real = os.pwrite

        def pwrite(fd: int, data: bytes, offset: int) -> int:
            hanging.set()
            release.wait()
            return real(fd, data, offset)

        def ask() -> None:
            assert store.missing_blocks(0) == ((1, 3),)
            assert not list(store.have())
            assert not store.checkpoint_due(0.0)
            assert store.bytes_stored == BLOCK_SIZE
            answered.set()

        for piece in (0, 1):  # the data of a block, the hashes of a piece
            answered = threading.Event()
            hanging.clear()
            release.clear()
            with monkeypatch.context() as patch:
                patch.setattr(os, "pwrite", pwrite)
                writer = threading.Thread(target=source.give_block, args=(store, piece, 0 if piece else 1))
                asker = threading.Thread(target=ask, daemon=True)
                writer.start()
                hanging.wait()
                asker.start()
                asker.join(10)
                release.set()
                writer.join()
            assert answered.is_set()
            store.discard()
            store = FileStore.download(source.metainfo, target)
            source.give_block(store, 0, 0)
        store.discard()


class TestResume:
    def test_it_goes_on(self, source: Source, target: Path) -> None:
        store = FileStore.download(source.metainfo, target)
        source.give_pieces(store, [1])
        source.give_block(store, 0, 2)
        store.close()
        assert names_in(target.parent) == [JOURNAL, HIDDEN]
        assert peek_journal(target) == source.metainfo
        store = FileStore.download(source.metainfo, target)
        assert list(store.have()) == [1]
        assert store.missing_blocks(0) == ((0, 2), (3, 1))
        assert source.give_pieces(store) == 3 + 4 + 3
        store.publish()
        assert source.is_at(target)
        store.close()

    def test_a_partly_written_piece_keeps_its_hashes(self, source: Source, target: Path) -> None:
        store = FileStore.download(source.metainfo, target)
        source.give_block(store, 0, 0)
        store.close()
        store = FileStore.download(source.metainfo, target)
        assert store.write_blocks(0, 1, bytes_of(source.piece(0))[BLOCK_SIZE:])
        store.close()

    def test_journals_stay_small(self, source: Source, target: Path) -> None:
        """However often it is interrupted, a start writes what counts and no more."""
        for block in range(4):
            store = FileStore.download(source.metainfo, target)
            source.give_block(store, 0, block)
            store.close()
        FileStore.download(source.metainfo, target).close()
        assert (target.parent / JOURNAL).stat().st_size < len(source.metainfo.encode()) + 150

    def test_no_journal_no_metainfo(self, target: Path) -> None:
        assert peek_journal(target) is None
        (target.parent / JOURNAL).write_bytes(b"")
        assert peek_journal(target) is None
        (target.parent / JOURNAL).write_bytes(Header(1, bytes(32), b"no metainfo").encode())
        assert peek_journal(target) is None

    def test_S6_a_planted_journal_is_not_read(self, source: Source, target: Path) -> None:
        store = FileStore.download(source.metainfo, target)
        source.give_block(store, 0, 0)
        store.close()
        journal = target.parent / JOURNAL
        journal.rename(target.parent / "elsewhere")
        journal.symlink_to(target.parent / "elsewhere")
        assert peek_journal(target) is None
        journal.unlink()
        os.mkfifo(journal)  # who opens it for reading waits for ever
        with ThreadPoolExecutor(1) as executor:
            peeked = executor.submit(peek_journal, target)
            try:
                assert peeked.result(timeout=5) is None
            finally:
                os.close(os.open(journal, os.O_RDWR))  # lets go whoever waits


class TestOneAtATime:
    def test_S10_a_second_one_in_this_process_is_refused(self, source: Source, target: Path) -> None:
        store = FileStore.download(source.metainfo, target)
        with pytest.raises(AlreadyInProgress):
            FileStore.download(source.metainfo, target)
        source.give_pieces(store)
        store.publish()
        store.close()
        FileStore.download(source.metainfo, target).close()

    def test_S10_a_second_process_is_refused(self, source: Source, target: Path) -> None:
        store = FileStore.download(source.metainfo, target)
        program = (
            "import sys; from pathlib import Path; from p2pnode.errors import AlreadyInProgress\n"
            "from p2pnode.storage import FileStore, peek_journal\n"
            "target = Path(sys.argv[1])\n"
            "try: FileStore.download(peek_journal(target), target)\n"
            "except AlreadyInProgress as error: print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(target)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "being fetched already" in done.stdout
        store.close()


class TestPublish:
    def test_not_before_it_is_complete(self, source: Source, target: Path) -> None:
        store = FileStore.download(source.metainfo, target)
        with pytest.raises(LocalProtocolError):
            store.publish()
        store.close()

    @pytest.mark.parametrize("is_noticed_late", [False, True])
    def test_S8_what_somebody_else_changed_is_not_published_but_hashed_anew(
        self, source: Source, target: Path, is_noticed_late: bool
    ) -> None:
        store = FileStore.download(source.metainfo, target)
        source.give_pieces(store, None if is_noticed_late else [0, 1])
        store.checkpoint()
        with (target.parent / HIDDEN).open("r+b") as file:
            file.write(b"other")
        with pytest.raises(SourceChanged):
            store.read_piece(0)
        assert store.read_piece(1) == source.piece(1)
        if not is_noticed_late:
            with pytest.raises(StorageError, match=r"changed by somebody else .*; run it again"):
                source.give_pieces(store, [2, 3])
        with pytest.raises(StorageError, match=r"changed by somebody else .*; run it again"):
            store.publish()
        store.close()
        assert not target.exists()
        again = FileStore.download(source.metainfo, target)
        assert list(again.have()) == ([1, 2, 3] if is_noticed_late else [1])
        source.give_pieces(again)
        again.publish()
        assert source.is_at(target)
        again.close()

    def test_S8_of_a_tree_only_the_file_that_was_changed_is_hashed_anew(
        self, tree: Source, target: Path
    ) -> None:
        store = FileStore.download(tree.metainfo, target)
        tree.give_pieces(store)
        store.checkpoint()
        with (target.parent / HIDDEN / "z" / "big").open("r+b") as file:
            file.write(b"other")
        big = next(index for index, file in enumerate(tree.metainfo.files) if file.path == ("z", "big"))
        first, *rest = tree.metainfo.pieces_of(big)
        with pytest.raises(SourceChanged):
            store.read_piece(first)
        store.close()
        hashed: list[int] = []
        again = FileStore.download(
            tree.metainfo, target, on_progress=lambda done, total: hashed.append(total)
        )
        assert list(~again.have()) == [first]
        assert set(hashed) == {3 * PIECE}
        assert again.missing_blocks(rest[0]) == ()
        again.close()

    @pytest.mark.parametrize("kind", ["file", "directory", "link"])
    def test_S6_a_target_that_appeared_is_left_alone(
        self, source: Source, tree: Source, target: Path, kind: str
    ) -> None:
        for origin in (source, tree):
            store = FileStore.download(origin.metainfo, target)
            origin.give_pieces(store)
            match kind:
                case "file":
                    target.write_bytes(b"mine")
                case "directory":
                    target.mkdir()
                case "link":
                    target.symlink_to("/nowhere")
            before = unchanging(target)
            with pytest.raises(TargetExists):
                store.publish()
            assert unchanging(target) == before
            store.close()
            target.rmdir() if kind == "directory" else target.unlink()
            store = FileStore.download(origin.metainfo, target)
            assert store.have().is_complete
            store.publish()
            assert origin.is_at(target)
            store.close()
            target.rename(target.with_name(f"published {origin.path.name}"))

    def test_S6_a_directory_that_was_deleted(self, source: Source, target: Path) -> None:
        store = FileStore.download(source.metainfo, target)
        source.give_pieces(store)
        for name in names_in(target.parent):
            (target.parent / name).unlink()
        target.parent.rmdir()
        with pytest.raises(StorageError, match="not there"):
            store.publish()
        store.close()

    def test_a_start_after_the_rename_tidies_up(self, source: Source, target: Path) -> None:
        """Killed between giving it its name and removing what is hidden."""
        store = FileStore.download(source.metainfo, target)
        source.give_pieces(store)
        store.close()
        os.link(target.parent / HIDDEN, target)
        FileStore.download(source.metainfo, target).close()
        assert names_in(target.parent) == ["data"]
        assert source.is_at(target)


class TestCheckpoints:
    def test_due_by_age(self, source: Source, target: Path) -> None:
        store = FileStore.download(source.metainfo, target)
        assert not store.checkpoint_due(0.0)
        source.give_block(store, 0, 0)
        assert not store.checkpoint_due(100.0)
        assert not store.checkpoint_due(100.0 + config.CHECKPOINT_INTERVAL_S - 0.01)
        assert store.checkpoint_due(100.0 + config.CHECKPOINT_INTERVAL_S)
        store.checkpoint()
        assert not store.checkpoint_due(1000.0)
        store.close()

    def test_nothing_is_synced_twice(
        self, tree: Source, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FileStore.download(tree.metainfo, target)
        synced: list[int] = []
        monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_ino))
        counts = []
        for pieces in ([0], [1], []):  # pieces of different files; the journal is synced with each
            tree.give_pieces(store, pieces)
            store.checkpoint()
            counts.append(len(synced))
        assert counts == [2, 4, 4]
        store.discard()

    def test_due_by_size(self, source: Source, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("p2pnode.storage.file_store.CHECKPOINT_BYTES", PIECE)
        store = FileStore.download(source.metainfo, target)
        source.give_block(store, 0, 0)
        assert not store.checkpoint_due(0.0)
        source.give_pieces(store, [0])
        assert store.checkpoint_due(0.0)
        store.close()


def test_S2_a_checkpoint_covers_only_what_came_before_its_sync(
    source: Source, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Block 1 is written while the device is still busy with block 0; then the power fails."""
    store = FileStore.download(source.metainfo, target)
    source.give_block(store, 0, 0)
    real = os.fdatasync
    calls = 0

    def fdatasync(fd: int) -> None:
        nonlocal calls
        calls += 1
        real(fd)
        if calls == 1:
            source.give_block(store, 0, 1)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fdatasync)
        store.checkpoint()
    assert calls == 2
    assert not store.checkpoint_due(0.0)
    assert store.checkpoint_due(config.CHECKPOINT_INTERVAL_S)
    store.close()
    with (target.parent / HIDDEN).open("r+b") as file:
        file.write(bytes(2 * BLOCK_SIZE))
    store = FileStore.download(source.metainfo, target)
    assert store.missing_blocks(0) == ((1, 3),)
    store.discard()


Fault = Callable[..., Any]


def failing(real: Callable[..., Any], code: int, *, at: int, times: int = 1) -> Fault:
    """`real`, but calls `at` … `at + times - 1` fail with `code`."""
    calls = 0

    def call(*arguments: object, **named: object) -> Any:
        nonlocal calls
        calls += 1
        if at <= calls < at + times:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **named)

    return call


class TestFaults:
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
    @pytest.mark.parametrize("at", [1, 2, 3, 4])
    def test_S4_S5_a_write_that_fails_can_be_tried_again(
        self, source: Source, target: Path, monkeypatch: pytest.MonkeyPatch, code: int, at: int
    ) -> None:
        """Writes of a piece: its hashes, data, run, and again data and run."""
        store = FileStore.download(source.metainfo, target)
        expected = DiskFull if code in (errno.ENOSPC, errno.EDQUOT) else StorageError
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", failing(os.pwrite, code, at=at))
            with pytest.raises(expected, match="data"):
                source.give_block(store, 0, 0)
                source.give_block(store, 0, 1)
        source.give_pieces(store)
        store.close()
        store = FileStore.download(source.metainfo, target)
        assert store.have().is_complete
        store.publish()
        store.close()
        assert source.is_at(target)

    def test_S5_short_writes_are_continued(
        self, source: Source, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.pwrite
        store = FileStore.download(source.metainfo, target)
        monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:1000], offset))
        source.give_pieces(store)
        store.close()
        store = FileStore.download(source.metainfo, target)
        assert store.have().is_complete
        store.discard()

    def test_S5_a_sync_that_fails_is_never_believed_later(
        self, source: Source, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FileStore.download(source.metainfo, target)
        source.give_pieces(store, [0])
        store.checkpoint()
        source.give_pieces(store, [1, 2])
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", failing(os.fdatasync, errno.EIO, at=1))
            with pytest.raises(StorageError, match="cannot be trusted"):
                store.checkpoint()
        for attempt in (store.checkpoint, lambda: source.give_pieces(store, [3]), store.publish):
            with pytest.raises(StorageError, match="did not keep"):
                attempt()
        assert not store.checkpoint_due(1e9)
        assert store.read_piece(0) == source.piece(0)
        store.close()
        with (target.parent / HIDDEN).open("r+b") as file:  # what the device has of piece 1
            file.seek(PIECE)
            file.write(bytes(PIECE))
        store = FileStore.download(source.metainfo, target)
        assert list(store.have()) == [0, 2]
        assert source.give_pieces(store) == 4 + 3
        store.publish()
        store.close()
        assert source.is_at(target)

    def test_F1_no_descriptor_for_a_checkpoint_is_not_a_failing_device(
        self, tree: Source, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("p2pnode.storage.file_store._IDLE_FILES_OF_DOWNLOAD", 0)
        store = FileStore.download(tree.metainfo, target)
        tree.give_pieces(store, [0])
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", failing(os.open, errno.EMFILE, at=1))
            with pytest.raises(StorageError, match="too many open files"):
                store.checkpoint()
        synced: list[int] = []
        monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_ino))
        store.checkpoint()
        first = tree.metainfo.files[tree.metainfo.piece(0).file_index]
        assert target.parent.joinpath(HIDDEN, *first.path).stat().st_ino in synced
        store.discard()

    def test_S4_no_room_is_known_before_the_first_byte(
        self, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = Source(tmp_path / "source", 3 * PIECE)
        real = os.fstatvfs(0)
        room = 2 * PIECE

        def fstatvfs(fd: int) -> os.statvfs_result:
            values = list(real)
            values[1:5] = [1, 10 * PIECE, room, room]
            return os.statvfs_result(values)

        monkeypatch.setattr(os, "fstatvfs", fstatvfs)
        with pytest.raises(DiskFull, match=f"{PIECE:,} are missing"):
            FileStore.download(source.metainfo, target)
        assert names_in(target.parent) == []
        room = 3 * PIECE
        store = FileStore.download(source.metainfo, target)
        source.give_pieces(store, [0, 1])
        store.close()
        room = PIECE - 1
        with pytest.raises(DiskFull, match=" 1 are missing"):
            FileStore.download(source.metainfo, target)
        room = PIECE
        store = FileStore.download(source.metainfo, target)
        assert list(store.have()) == [0, 1]
        store.close()

    def test_S4_a_limit_on_file_sizes_is_a_clear_error(self, source: Source, target: Path) -> None:
        program = (
            "import resource, signal, sys; from pathlib import Path\n"
            "from p2pnode.errors import StorageError\n"
            "from p2pnode.storage import FileStore, hash_path\n"
            "metainfo = hash_path(Path(sys.argv[1]))\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
            "try: FileStore.download(metainfo, Path(sys.argv[2]))\n"
            "except StorageError as error: print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(source.path), str(target)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "larger than the file system or a limit" in done.stdout
        assert names_in(target.parent) == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_S2_a_power_cut_keeps_what_it_likes_and_nothing_false_is_believed(
    source: Source, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Of what no checkpoint covers the device may have any blocks, and any length of the journal."""
    target = tmp_path_factory.mktemp("cut") / "data"
    blocks = [(p, b) for p in range(4) for b in range(source.metainfo.piece(p).block_count)]
    order = data.draw(st.permutations(blocks))
    covered = data.draw(st.integers(0, len(order)))
    written = data.draw(st.integers(covered, len(order)))
    journal, partial = target.parent / JOURNAL, target.parent / HIDDEN
    store = FileStore.download(source.metainfo, target)
    for piece, block in order[:covered]:
        source.give_block(store, piece, block)
    store.checkpoint()
    synced = journal.stat().st_size
    for piece, block in order[covered:written]:
        source.give_block(store, piece, block)
    if written == 0:
        store.discard()
        return
    store.close()
    os.truncate(journal, data.draw(st.integers(synced, journal.stat().st_size)))
    with partial.open("r+b") as file:
        for piece, block in order[covered:written]:
            if data.draw(st.booleans()):
                file.seek(piece * PIECE + block * BLOCK_SIZE)
                file.write(bytes(len(source.block(piece, block))))
    store = FileStore.download(source.metainfo, target)
    for piece, block in order[:covered]:
        assert all(not first <= block < first + count for first, count in store.missing_blocks(piece))
    found = partial.read_bytes()
    for piece, block in blocks:
        if all(not first <= block < first + count for first, count in store.missing_blocks(piece)):
            start = piece * PIECE + block * BLOCK_SIZE
            expected = source.block(piece, block)
            assert found[start : start + len(expected)] == expected
    source.give_pieces(store)
    store.publish()
    store.close()
    assert source.is_at(target)


class TestWholePieces:
    """Many pieces with one call, as small files come."""

    CONTENTS: ClassVar = {f"{directory}/{name}": 100 for directory in "ab" for name in range(20)} | {
        "a/x": PIECE + 1
    }

    @pytest.fixture
    def many(self, tmp_path: Path) -> Source:
        return Source(tmp_path / "source", self.CONTENTS)

    def test_one_write_of_the_journal_and_one_for_each_file(
        self, many: Source, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FileStore.download(many.metainfo, target)
        pieces = [many.whole(index) for index in range(many.metainfo.piece_count)]
        writes: list[int] = []
        real = os.pwrite
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", lambda fd, data, at: (writes.append(at), real(fd, data, at))[1])
            patch.setattr(os, "ftruncate", None)  # never called
            assert store.write_pieces([piece for piece in pieces if len(piece.data) == 100]) == 40
        assert len(writes) == 41
        many.give_whole(store)
        store.publish()
        store.close()
        assert many.is_at(target)

    def test_they_survive_without_a_checkpoint(self, many: Source, target: Path) -> None:
        store = FileStore.download(many.metainfo, target)
        many.give_whole(store)
        store.close()
        store = FileStore.download(many.metainfo, target)
        assert store.have().is_complete
        store.publish()
        store.close()
        assert many.is_at(target)

    def test_S2_lost_data_that_no_checkpoint_covers_is_not_believed(self, many: Source, target: Path) -> None:
        store = FileStore.download(many.metainfo, target)
        many.give_whole(store)
        store.close()
        hidden = target.parent / HIDDEN
        (hidden / "a" / "0").write_bytes(bytes(100))
        (hidden / "a" / "1").write_bytes(b"")
        (hidden / "a" / "x").write_bytes(b"short")
        store = FileStore.download(many.metainfo, target)
        assert many.give_whole(store) == 4
        store.publish()
        store.close()
        assert many.is_at(target)

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
    @pytest.mark.parametrize("at", [1, 5, 41])
    def test_S4_S5_a_write_that_fails_can_be_tried_again(
        self, many: Source, target: Path, monkeypatch: pytest.MonkeyPatch, code: int, at: int
    ) -> None:
        """The first file, a later one, the journal."""
        store = FileStore.download(many.metainfo, target)
        pieces = [piece for piece in map(many.whole, range(42)) if len(piece.data) == 100]
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", failing(os.pwrite, code, at=at))
            if at == 5:
                assert store.write_pieces(pieces) == 4
            else:
                with pytest.raises(DiskFull if code == errno.ENOSPC else StorageError):
                    store.write_pieces(pieces)
        assert len(store.have()) == (4 if at == 5 else 0)
        many.give_whole(store)
        store.close()
        store = FileStore.download(many.metainfo, target)
        assert store.have().is_complete
        store.publish()
        store.close()
        assert many.is_at(target)

    def test_M5_what_is_planted_is_not_written_through(
        self, many: Source, target: Path, tmp_path: Path
    ) -> None:
        store = FileStore.download(many.metainfo, target)
        mine = tmp_path / "mine"
        mine.write_bytes(b"mine")
        (target.parent / HIDDEN / "a").mkdir()
        (target.parent / HIDDEN / "a" / "0").symlink_to(mine)
        (target.parent / HIDDEN / "b").symlink_to(tmp_path)
        pieces = {
            many.metainfo.files[many.metainfo.piece(i).file_index].path: many.whole(i) for i in range(42)
        }
        for path in (("a", "0"), ("b", "0")):
            with pytest.raises(StorageError, match="symbolic link"):
                store.write_pieces([pieces[path]])
        store.close()
        assert mine.read_bytes() == b"mine"
        assert not (tmp_path / "0").exists()

    def test_threads_share_it(self, many: Source, target: Path) -> None:
        store = FileStore.download(many.metainfo, target)
        pieces = [many.whole(index) for index in range(many.metainfo.piece_count)]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(store.write_pieces, [pieces, pieces[::-1], pieces, pieces])) == [42] * 4
        assert store.bytes_stored == many.metainfo.size
        store.publish()
        store.close()
        assert many.is_at(target)


def test_state_table_covers_every_state() -> None:
    from p2pnode.storage.file_store import _MOVES

    assert set(_MOVES) == set(StoreState)
