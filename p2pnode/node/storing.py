"""From a request's stream to the store: runs of blocks wait here, a bounded number of bytes, for a thread to take them.

While a thread verifies and writes, the next bytes arrive; it then takes all that came meanwhile in one hop. So the
hops become fewer and larger the busier it is. One thread at a time works on one store: two would only wait for each
other, for the file's lock in the kernel and, after every hash of a block, for the interpreter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import trio

from p2pnode import config
from p2pnode.errors import HashMismatch, P2PNodeError
from p2pnode.node.blocking import RunBlocking
from p2pnode.storage import FileStore, WholePiece


class PieceMismatch(HashMismatch):
    """A source sent a wrong piece; `piece` says which."""

    def __init__(self, piece: int, text: str) -> None:
        super().__init__(text)
        self.piece = piece


@dataclass(frozen=True, slots=True)
class Run:
    """Whole blocks of one piece, from `offset` in it; `hashes` is the piece's list, before its first blocks."""

    piece: int
    offset: int
    data: bytes
    hashes: bytes = b""


@dataclass(frozen=True, slots=True)
class Stored:
    """Blocks that are verified, written and journalled; `is_complete`: so is their whole piece, now.

    `new` of the `size` bytes were not here before: a piece may come from two sources at once.
    """

    piece: int
    size: int
    is_complete: bool
    new: int


class Storing:
    """The one door of a download to its store, for all its requests."""

    def __init__(self, store: FileStore, run_blocking: RunBlocking) -> None:
        self.store = store
        self._run_blocking = run_blocking
        self._one_thread = trio.Lock()

    async def write(self, runs: Sequence[Run]) -> tuple[list[Stored], P2PNodeError | None]:
        """Store runs in order up to the first that cannot be; give what was stored, and what was wrong with that."""
        async with self._one_thread:
            return await self._run_blocking(_store, self.store, runs)


class RunQueue:
    """The runs of one request that wait for a thread: one task puts, one takes. Then comes the end, or an error.

    What is put before an error is taken before it is raised: what came stays, whatever came after it.
    """

    def __init__(self) -> None:
        self._runs: list[Run] = []
        self._size = 0
        self._ended = False
        self._error: P2PNodeError | None = None
        self._changed = trio.Condition()

    async def put(self, run: Run) -> None:
        """Add a run; waits while `STORE_AHEAD` bytes are waiting."""
        async with self._changed:
            while self._size >= config.STORE_AHEAD:
                await self._changed.wait()
            self._runs.append(run)
            self._size += len(run.data)
            self._changed.notify()

    async def end(self, error: P2PNodeError | None = None) -> None:
        """Nothing more comes, because of `error` if there is one."""
        async with self._changed:
            self._ended, self._error = True, error
            self._changed.notify()

    async def take(self) -> list[Run]:
        """Wait for runs, and take all that are here; none: it is the end. Raises the error that ended it."""
        async with self._changed:
            while not self._runs and not self._ended:
                await self._changed.wait()
            if not self._runs and self._error is not None:
                raise self._error
            runs, self._runs, self._size = self._runs, [], 0
            self._changed.notify()
            return runs


def _store(store: FileStore, runs: Sequence[Run]) -> tuple[list[Stored], P2PNodeError | None]:
    """In a thread: verify, write and journal."""
    stored = []
    try:
        for one in _store_each(store, runs):
            stored.append(one)
    except P2PNodeError as error:
        return stored, error
    return stored, None


def _store_each(store: FileStore, runs: Sequence[Run]) -> Iterator[Stored]:
    """Pieces that came whole are stored many at once, as small files are; the rest run by run."""
    whole: list[WholePiece] = []
    for run in _joined(runs):
        if run.hashes and len(run.data) == store.metainfo.piece(run.piece).length:
            whole.append(WholePiece(run.piece, run.hashes, run.data))
            continue
        yield from _store_whole(store, whole)
        whole = []
        yield _store_one(store, run)
    yield from _store_whole(store, whole)


def _store_whole(store: FileStore, pieces: Sequence[WholePiece]) -> Iterator[Stored]:
    while pieces:
        old = [store.bytes_in(piece.index, 0, -(-len(piece.data) // config.BLOCK_SIZE)) for piece in pieces]
        try:
            count = store.write_pieces(pieces)
        except HashMismatch as error:
            raise PieceMismatch(pieces[0].index, str(error)) from None
        for piece, size_old in zip(pieces[:count], old, strict=False):
            yield Stored(piece.index, len(piece.data), True, len(piece.data) - size_old)
        pieces = pieces[count:]


def _store_one(store: FileStore, run: Run) -> Stored:
    if run.hashes and not store.begin_piece(run.piece, run.hashes):
        raise PieceMismatch(run.piece, f"the block hashes of piece {run.piece} do not fold to its root")
    first, count = run.offset // config.BLOCK_SIZE, -(-len(run.data) // config.BLOCK_SIZE)
    old = store.bytes_in(run.piece, first, count)
    try:
        is_complete = store.write_blocks(run.piece, first, run.data)
    except HashMismatch as error:
        raise PieceMismatch(run.piece, str(error)) from None
    return Stored(run.piece, len(run.data), is_complete, len(run.data) - old)


def _joined(runs: Iterable[Run]) -> Iterator[Run]:
    """The same bytes in as few runs as can be: each costs a write, a record in the journal and some events."""
    together: list[Run] = []
    end = 0
    for run in runs:
        if together and (run.piece, run.offset) != (together[0].piece, end):
            yield _one_of(together)
            together = []
        together.append(run)
        end = run.offset + len(run.data)
    if together:
        yield _one_of(together)


def _one_of(together: list[Run]) -> Run:
    first = together[0]
    if len(together) == 1:
        return first
    return Run(first.piece, first.offset, b"".join([run.data for run in together]), first.hashes)
