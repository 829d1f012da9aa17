"""How a download begins: what is at the target already, what an interrupted one left, and whether there is room."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from p2pnode.errors import MetainfoError, StorageError, TargetExists
from p2pnode.storage.block_map import BlockMap
from p2pnode.storage.faults import translated
from p2pnode.storage.journal import Journal
from p2pnode.storage.partial import Partial
from p2pnode.storage.recovery import recover
from p2pnode.storage.threads import OnProgress
from p2pnode.storage.verification import has_right_sizes, verify_path
from p2pnode.torrent.bitfield import Bitfield
from p2pnode.torrent.metainfo import Metainfo
from p2pnode.torrent.selection import pieces_of


@dataclass(slots=True)
class Unfinished:
    """What only a download has: its hidden files, its journal, and what is not on the device yet."""

    partial: Partial
    journal: Journal
    unsynced_files: set[int] = field(default_factory=set)
    unsynced_bytes: int = 0
    unsynced_since: float | None = None  # when `checkpoint_due` first saw them
    bytes_beside: int = 0  # here, but not of what is wanted


def require_v2(metainfo: Metainfo) -> None:
    """MetainfoError for a torrent that is v1 only."""
    if metainfo.info_hash_v2 is None:
        raise MetainfoError(
            f"{metainfo.name!r} is a v1 torrent: its blocks have no hashes, so it cannot be stored yet"
        )


def begin(
    metainfo: Metainfo, target: Path, files: Collection[int] | None, on_progress: OnProgress | None
) -> tuple[Bitfield, BlockMap, Unfinished] | None:
    """The pieces that are wanted, those that are here, and the means to go on; None: the target has it all.

    Errors as `FileStore.download` says.
    """
    if target.name in {"", ".."}:
        raise StorageError(f"{os.fspath(target)!r} is not the name of a file")
    with translated("write", target):
        partial = Partial(metainfo, target, files)
        try:
            if partial.target_exists():
                if _is_same(metainfo, target, on_progress):
                    partial.remove()
                    partial.close()
                    return None
                if not partial.find_earlier():
                    raise TargetExists(f"{os.fspath(target)!r} exists with other content and is left alone")
            wanted = pieces_of(metainfo, partial.wanted)
            return wanted, *_start(metainfo, partial, wanted, on_progress)
        except BaseException:
            partial.close()
            raise


def _is_same(metainfo: Metainfo, target: Path, on_progress: OnProgress | None) -> bool:
    return has_right_sizes(metainfo, target) and verify_path(metainfo, target, on_progress).is_good


def _start(
    metainfo: Metainfo, partial: Partial, wanted: Bitfield, on_progress: OnProgress | None
) -> tuple[BlockMap, Unfinished]:
    blocks = recover(metainfo, partial, on_progress)
    try:
        partial.require_room(blocks.bytes_missing(wanted))
        beside = sum(metainfo.piece(piece).length for piece in blocks.have - wanted)
        return blocks, Unfinished(partial, partial.start_journal(blocks), bytes_beside=beside)
    except (OSError, StorageError):
        if blocks.is_empty:
            partial.remove()
        raise
