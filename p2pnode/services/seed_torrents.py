"""The `.torrent` beside each file that is seeded: v1, one file, one tracker, one web seed, and no list anywhere.

That is the form which every known reader takes, the one in Rust that refuses lists among them. A torrent is
made anew when its file or the tracker's address changed; one that somebody else put there is left alone.
Everything here blocks.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from p2pnode import config
from p2pnode.errors import InvalidData, SourceChanged, StorageError
from p2pnode.storage import confined
from p2pnode.storage.faults import translated
from p2pnode.storage.open_files import read_at
from p2pnode.storage.partial import hidden_name
from p2pnode.storage.reading import read_in_steps
from p2pnode.storage.scanning import Signature
from p2pnode.torrent import (
    TORRENT_SUFFIX,
    FileHashes,
    HashedFile,
    Metainfo,
    PieceHasherV1,
    TorrentVersion,
    create_metainfo,
    piece_length_for,
)
from p2pnode.wire.bencoding import decode

__all__ = ["SeedTorrents", "is_offered", "write_new"]

_CREATED_BY: Final = "p2pnode"  # by this a torrent of ours is known
_log = logging.getLogger(__name__)


def is_offered(name: str) -> bool:
    """Whether a file of that name is for others: dot files are not, partial files among them, nor is no UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return not name.startswith(".")


def write_new(root_fd: int, name: str, data: bytes) -> None:
    """Write a small file anew, to be renamed to what it is called; what is left of an earlier try goes."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=root_fd)
    fd = confined.open_entry(root_fd, name, confined.CREATE_NEW)
    with os.fdopen(fd, "wb") as file:
        file.write(data)


class SeedTorrents:
    """The torrents of one directory, and what was seen of them last time."""

    def __init__(self, directory: Path, announce_url: str) -> None:
        self._directory = directory
        self._announce_url = announce_url
        self._seen: dict[str, tuple[Signature, Signature | None]] = {}  # of a file and of its torrent

    def renew(self, *, settled_only: bool) -> None:
        """Make what is missing or old; with `settled_only`, not of files that are still being written.

        StorageError when the directory cannot be read. What goes wrong with one file is a warning, once
        until that file changes.
        """
        with translated("list", self._directory):
            root_fd = confined.open_root(self._directory)
        try:
            with translated("list", self._directory), os.scandir(root_fd) as entries:
                names = [entry.name for entry in entries if _gets_torrent(entry.name)]
            self._seen = {name: self._seen[name] for name in names if name in self._seen}
            for name in sorted(names):
                self._renew_one(root_fd, name, settled_only)
        finally:
            os.close(root_fd)

    def _renew_one(self, root_fd: int, name: str, settled_only: bool) -> None:
        file = _signature(root_fd, name)
        seen = (file, _signature(root_fd, name + TORRENT_SUFFIX))
        if file is None or seen == self._seen.get(name):
            return
        is_settled = _is_settled(file)
        if settled_only and not is_settled:
            return
        try:
            self._look_at(root_fd, name)
        except (OSError, StorageError, InvalidData) as error:
            _log.warning("no torrent is made for %r: %s", name, error)
        if is_settled:  # otherwise it could change within one tick of its time stamps: look at it again
            self._seen[name] = (file, _signature(root_fd, name + TORRENT_SUFFIX))

    def _look_at(self, root_fd: int, name: str) -> None:
        """Make the torrent of a file that was never looked at, unless the one that is there will do."""
        fd = confined.open_readable(root_fd, name)
        try:
            file = Signature.of(os.fstat(fd))
            old = _OldTorrent.read(root_fd, name + TORRENT_SUFFIX)
            if file.size == 0 or (old is not None and self._will_do(old, name, file)):
                return  # BEP 3 has no torrent of nothing
            new = self._torrent(fd, name, file.size)
            if Signature.of(os.fstat(fd)) != file:
                raise SourceChanged("it was changed while it was hashed")
        finally:
            os.close(fd)
        if old is None or old.data != new:
            hidden = hidden_name(name + TORRENT_SUFFIX, config.PARTIAL_SUFFIX)
            write_new(root_fd, hidden, new)
            os.rename(hidden, name + TORRENT_SUFFIX, src_dir_fd=root_fd, dst_dir_fd=root_fd)

    def _will_do(self, old: _OldTorrent, name: str, file: Signature) -> bool:
        if not old.is_ours:
            if old.size != file.size:
                _log.warning("the torrent beside %r, which is not ours, is of another file", name)
            return True
        fits = (old.name, old.size, old.announce) == (os.fsencode(name), file.size, self._announce_url)
        fits = fits and old.web_seeds == self._web_seeds(name)
        return fits and old.modified_ns > file.changed_ns + config.SETTLE_S * 1e9

    def _web_seeds(self, name: str) -> tuple[str, ...]:
        """Where clients that speak no QUIC get the file (BEP 19): from the tracker itself, if it speaks HTTP."""
        tracker = urlsplit(self._announce_url)
        if tracker.scheme not in ("http", "https"):
            return ()
        return (f"{tracker.scheme}://{tracker.netloc}/files/{quote(name)}",)

    def _torrent(self, fd: int, name: str, size: int) -> bytes:
        piece_length = piece_length_for(size)
        hasher = PieceHasherV1(piece_length)
        for data in read_in_steps(fd, 0, size):
            hasher.update(data)
        return create_metainfo(
            name,
            [HashedFile((name,), FileHashes(size, None, b""))],
            is_directory=False,
            version=TorrentVersion.V1,
            piece_length=piece_length,
            piece_hashes_v1=hasher.finish(),
            trackers=[[self._announce_url]],
            web_seeds=self._web_seeds(name),
            created_by=_CREATED_BY,
        ).encode()


class _OldTorrent:
    """A torrent that lies beside a file already."""

    def __init__(self, data: bytes, modified_ns: int) -> None:
        self.data = data
        self.modified_ns = modified_ns
        metainfo = Metainfo.decode(data)
        self.name = metainfo.raw_name
        self.size = metainfo.size
        self.web_seeds = metainfo.web_seeds
        self.is_ours = metainfo.created_by == _CREATED_BY
        outer = decode(data)
        announce = outer.get(b"announce") if isinstance(outer, dict) else None
        self.announce = announce.decode("utf-8", "replace") if isinstance(announce, bytes) else ""

    @classmethod
    def read(cls, root_fd: int, name: str) -> _OldTorrent | None:
        """None where there is none, and where it is no torrent. `OSError` and StorageError where no file is."""
        try:
            fd = confined.open_readable(root_fd, name)
        except FileNotFoundError:
            return None
        try:
            data = read_at(fd, config.FOREIGN_METAINFO_SIZE_MAX + 1, 0)
            return cls(data, os.fstat(fd).st_mtime_ns)
        except InvalidData:
            return None
        finally:
            os.close(fd)


def _gets_torrent(name: str) -> bool:
    return is_offered(name) and not name.endswith(TORRENT_SUFFIX)


def _signature(root_fd: int, name: str) -> Signature | None:
    """None unless a regular file has that name."""
    try:
        found = os.stat(name, dir_fd=root_fd, follow_symlinks=False)
    except OSError:
        return None
    return Signature.of(found) if stat.S_ISREG(found.st_mode) else None


def _is_settled(file: Signature) -> bool:
    return not 0 <= time.time() - file.changed_ns / 1e9 < config.SETTLE_S
