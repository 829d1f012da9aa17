"""Hashing what the user shares, on all cores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from p2pnode.errors import SourceChanged
from p2pnode.storage import confined
from p2pnode.storage.faults import translated
from p2pnode.storage.open_files import OpenFiles
from p2pnode.storage.reading import STEP, hash_blocks, read_in_steps
from p2pnode.storage.scanning import Item, Signature, find_item
from p2pnode.storage.threads import OnProgress, in_threads
from p2pnode.torrent.creation import HashedFile, canonical_metainfo
from p2pnode.torrent.merkle import HASH_SIZE, FileHashes, PieceHasherV1, merkle_root, piece_leaf_count
from p2pnode.torrent.metainfo import Metainfo
from p2pnode.torrent.pieces import block_count, piece_length_for

_IDLE_FILES = 16
_BATCH_FILES = 64  # of small files in one task: handing over a task costs more than hashing one of them


def hash_path(path: Path, on_progress: OnProgress | None = None, *, threads: int | None = None) -> Metainfo:
    """The canonical metainfo of the file or tree at `path`; `find_item(path).skipped` says what is left out.

    NotFound, StorageError where it cannot be read, SourceChanged when it changes meanwhile, MetainfoError for
    what no torrent can describe.
    """
    return hash_item(find_item(path), on_progress, threads=threads)


def hash_item(item: Item, on_progress: OnProgress | None = None, *, threads: int | None = None) -> Metainfo:
    """The canonical metainfo of an item as it was found; errors as `hash_path` says."""
    files = hash_files(item, piece_length_for(item.size), on_progress, threads=threads)
    return canonical_metainfo(_name(item), files, is_directory=item.is_directory)


def hash_files(
    item: Item, piece_length: int, on_progress: OnProgress | None = None, *, threads: int | None = None
) -> list[HashedFile]:
    """The v2 hashes of the files of an item, in pieces of this length; errors as `hash_path` says."""
    roots = [bytearray() for _ in item.files]
    done = 0
    with translated("read", item.path), _Reading(item) as source:
        batches = _batches(item, piece_length)
        with closing(in_threads(source.piece_roots, batches, threads=threads)) as results:
            for batch, found in results:
                for stretch, piece_roots in zip(batch, found, strict=True):
                    roots[stretch.file_index] += piece_roots
                    done += stretch.length
                if on_progress is not None:
                    on_progress(done, item.size)
    _require_unchanged(item)
    return [
        HashedFile(
            file.parts or (_name(item),),
            FileHashes.of_pieces(file.signature.size, piece_length, bytes(found)),
            file.is_executable,
        )
        for file, found in zip(item.files, roots, strict=True)
    ]


def hash_pieces_v1(
    item: Item, piece_length: int, on_progress: OnProgress | None = None, *, aligned: bool
) -> bytes:
    """The SHA-1 piece hashes of an item (BEP 3), 20 bytes each; with `aligned` every file starts at a piece,
    as in a hybrid torrent. One hash runs through all bytes, so this takes one core. Errors as `hash_path`."""
    hasher = PieceHasherV1(piece_length)
    done = 0
    with translated("read", item.path), _Reading(item) as source:
        for index in sorted(range(len(item.files)), key=lambda i: [p.encode() for p in item.files[i].parts]):
            if aligned:
                hasher.align()
            with source.files.borrow(index) as fd:
                for data in read_in_steps(fd, 0, item.files[index].signature.size):
                    hasher.update(data)
                    done += len(data)
                    if on_progress is not None:
                        on_progress(done, item.size)
    if aligned and len(item.files) > 1:
        hasher.align()
    _require_unchanged(item)
    return hasher.finish()


def _name(item: Item) -> str:
    return item.path.name or item.path.resolve().name


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Whole pieces of a file that are read one after the other."""

    file_index: int
    offset: int
    length: int
    piece_length: int
    leaf_count: int


def _stretches(item: Item, piece_length: int) -> Iterator[_Stretch]:
    step = max(piece_length, STEP)
    for index, file in enumerate(item.files):
        size = file.signature.size
        leaf_count = piece_leaf_count(size, piece_length)
        for offset in range(0, size, step):
            yield _Stretch(index, offset, min(step, size - offset), piece_length, leaf_count)


def _batches(item: Item, piece_length: int) -> Iterator[list[_Stretch]]:
    """Stretches, of small files many together, so that each batch is worth a thread's while."""
    batch: list[_Stretch] = []
    size = 0
    for stretch in _stretches(item, piece_length):
        batch.append(stretch)
        size += stretch.length
        if size >= STEP or len(batch) == _BATCH_FILES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class _Reading:
    """The files of an item, opened as they are needed; each must still be the one that was found."""

    def __init__(self, item: Item) -> None:
        self._item = item
        self.files = OpenFiles(self._open, _IDLE_FILES)

    def __enter__(self) -> _Reading:
        return self

    def __exit__(self, *_: object) -> None:
        self.files.close()

    def _open(self, index: int) -> int:
        file = self._item.files[index]
        try:
            fd = confined.open_shared(self._item.path, file.parts)
        except FileNotFoundError:
            raise _changed(self._item) from None
        if Signature.of(os.fstat(fd)) != file.signature:
            os.close(fd)
            raise _changed(self._item)
        return fd

    def piece_roots(self, batch: list[_Stretch]) -> list[bytes]:
        """The roots of the pieces of each stretch, 32 bytes for each piece."""
        return [self._piece_roots(stretch) for stretch in batch]

    def _piece_roots(self, stretch: _Stretch) -> bytes:
        with self.files.borrow(stretch.file_index) as fd:
            hashes = hash_blocks(fd, stretch.offset, stretch.length)
        if len(hashes) != block_count(stretch.length) * HASH_SIZE:
            raise _changed(self._item)
        size = block_count(stretch.piece_length) * HASH_SIZE
        return b"".join(
            merkle_root(hashes[start : start + size], stretch.leaf_count)
            for start in range(0, len(hashes), size)
        )


def _require_unchanged(item: Item) -> None:
    if find_item(item.path, item.select).fingerprint != item.fingerprint:
        raise _changed(item)


def _changed(item: Item) -> SourceChanged:
    return SourceChanged(f"{os.fspath(item.path)!r} was changed while it was hashed")
