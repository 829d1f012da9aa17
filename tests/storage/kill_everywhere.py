"""A process that is killed at every system call that changes a disk; run by `test_survival.py`.

    kill_everywhere.py SOURCE SCRATCH METAINFO [whole]

`whole`: pieces are stored whole, several at once, instead of block by block.

For n = 1, 2, 3, …: a child downloads from SOURCE (a file or a tree) to a new directory in SCRATCH, and is
killed by SIGKILL at its n-th such call; a write is half done then. Then another child goes on and checks
everything. It ends when a child got through unharmed. Writes for each n how many blocks were acknowledged
before the kill.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from p2pnode.config import BLOCK_SIZE
from p2pnode.storage import FileStore, WholePiece, publishing
from p2pnode.torrent.metainfo import Metainfo

CHANGING = (
    "pwrite", "fsync", "fdatasync", "rename", "link", "unlink", "ftruncate", "mkdir", "open", "fchmod",
)  # fmt: skip

TOGETHER = 3  # pieces that are stored with one call
Download = Callable[[Metainfo, FileStore, Path, Callable[[int, int], None]], None]


def kill_before(count: int) -> None:
    """The `count`-th changing call from now on kills this process. The call that publishes is among them,
    though it is not one of `os`."""
    calls = itertools.count(1)

    def killing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: object, **named: object) -> Any:
            if next(calls) == count:
                tear(real, *arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return call

    for name in CHANGING:
        setattr(os, name, killing(getattr(os, name)))
    publishing._rename_without_replacing = killing(publishing._rename_without_replacing)


def tear(real: Callable[..., Any], *arguments: Any) -> None:
    """A write that is interrupted may have done half of its work."""
    if real.__name__ == "pwrite":
        fd, data, offset = arguments
        real(fd, data[: len(data) // 2], offset)


def download(
    metainfo: Metainfo, source: FileStore, target: Path, acknowledge: Callable[[int, int], None]
) -> None:
    """Fetch what is missing block by block, with a checkpoint now and then, and publish."""
    store = FileStore.download(metainfo, target)
    for piece in range(metainfo.piece_count):
        found = source.read_piece(piece)
        for first, count in store.missing_blocks(piece):
            assert store.begin_piece(piece, found.block_hashes)
            for block in range(first, first + count):
                store.write_blocks(
                    piece, block, b"".join(found.parts)[block * BLOCK_SIZE : (block + 1) * BLOCK_SIZE]
                )
                acknowledge(piece, block)
        if piece % 2:
            store.checkpoint()
    store.publish()
    store.close()


def download_whole(
    metainfo: Metainfo, source: FileStore, target: Path, acknowledge: Callable[[int, int], None]
) -> None:
    """The same by whole pieces, `TOGETHER` at a time."""
    store = FileStore.download(metainfo, target)
    missing = list(~store.have())
    while missing:
        pieces = [whole_piece(source, piece) for piece in missing[:TOGETHER]]
        count = store.write_pieces(pieces)
        for piece in missing[:count]:
            acknowledge(piece, 0)
        missing = missing[count:]
        store.checkpoint()
    store.publish()
    store.close()


def whole_piece(source: FileStore, piece: int) -> WholePiece:
    found = source.read_piece(piece)
    return WholePiece(piece, found.block_hashes, b"".join(found.parts))


def check(
    download: Download,
    metainfo: Metainfo,
    source: FileStore,
    target: Path,
    acknowledged: set[tuple[int, int]],
) -> None:
    """Nothing that was acknowledged is fetched again, and what comes out is right."""

    def acknowledge(piece: int, block: int) -> None:
        assert (piece, block) not in acknowledged, f"block {block} of piece {piece} was fetched again"

    download(metainfo, source, target, acknowledge)
    published = FileStore.share(metainfo, target)
    for piece in range(metainfo.piece_count):
        assert published.read_piece(piece) == source.read_piece(piece)
    left = sorted(path.name for path in target.parent.iterdir())
    assert left in (["data"], [".data.p2pnode-journal", "data"]), left


def in_child(work: Callable[[], None]) -> int:
    """The status of a child that did the work."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        work()
        status = 0
    finally:
        if status:
            sys.excepthook(*sys.exc_info())
        os._exit(status)


def kill_at(
    count: int, download: Download, metainfo: Metainfo, source: FileStore, target: Path
) -> tuple[int, int]:
    """Kill a download at its `count`-th call and check what follows; its status, and the blocks it had."""
    reader, writer = os.pipe()

    def acknowledge(piece: int, block: int) -> None:
        os.write(writer, b"%d %d\n" % (piece, block))

    def attempt() -> None:
        kill_before(count)
        download(metainfo, source, target, acknowledge)

    status = in_child(attempt)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        acknowledged = {(int(piece), int(block)) for piece, block in map(str.split, pipe)}
    assert in_child(lambda: check(download, metainfo, source, target, acknowledged)) == 0, (
        f"killed at {count}"
    )
    return status, len(acknowledged)


def main(source_path: Path, scratch: Path, metainfo: Metainfo, download: Download) -> None:
    source = FileStore.share(metainfo, source_path)
    for count in itertools.count(1):
        directory = scratch / str(count)
        directory.mkdir()
        status, acknowledged = kill_at(count, download, metainfo, source, directory / "data")
        sys.stdout.write(f"{acknowledged}\n")
        sys.stdout.flush()  # or the next child writes it too
        if status == 0:
            return
        assert status == -signal.SIGKILL, status


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        Metainfo.decode(Path(sys.argv[3]).read_bytes()),
        download_whole if sys.argv[4:] == ["whole"] else download,
    )
