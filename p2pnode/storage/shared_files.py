"""The files of a torrent where the user keeps them, for reading."""

from __future__ import annotations

import os
from array import array
from pathlib import Path

from p2pnode.errors import SourceChanged
from p2pnode.storage import confined
from p2pnode.storage.scanning import Signature
from p2pnode.torrent.layout import TorrentFile
from p2pnode.torrent.metainfo import Metainfo


class SharedFiles:
    """Opens the files of `metainfo` by index in the file or directory at `path`.

    A tree that was shared has the names that the torrent says; one that was downloaded has those that were
    made safe.
    """

    def __init__(self, metainfo: Metainfo, path: Path) -> None:
        self._metainfo = metainfo
        self._path = path
        self._seen = array("q", [0]) * len(metainfo.files)  # hashes of signatures, 0: not opened yet

    def open(self, index: int) -> int:
        """A descriptor of a file. `OSError` where the system refuses, StorageError for no regular file."""
        file = self._metainfo.files[index]
        if not self._metainfo.is_directory:
            return confined.open_shared(self._path, ())
        original = _original_parts(file)
        if original == file.path:
            return confined.open_shared(self._path, file.path)
        try:
            return confined.open_shared(self._path, original)
        except FileNotFoundError:
            return confined.open_shared(self._path, file.path)

    def open_unchanged(self, index: int) -> int:
        """The same; SourceChanged when the file is gone, has another size than the torrent says, or was
        written or replaced since it was opened first."""
        shown = "/".join(self._metainfo.files[index].path)
        try:
            fd = self.open(index)
        except FileNotFoundError:
            raise SourceChanged(f"{shown!r} is gone") from None
        found = os.fstat(fd)
        seen = hash(Signature.of(found)) or 1
        self._seen[index] = self._seen[index] or seen
        if found.st_size != self._metainfo.files[index].size or seen != self._seen[index]:
            os.close(fd)
            raise SourceChanged(f"{shown!r} was changed after it was shared")
        return fd


def _original_parts(file: TorrentFile) -> tuple[str, ...]:
    if any(part in (b"", b".", b"..") or b"/" in part or b"\0" in part for part in file.raw_path):
        return file.path
    return tuple(map(os.fsdecode, file.raw_path))
