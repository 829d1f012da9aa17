"""The directories of a tree, each found once for all the files in it, and a few of them kept open.

To walk to a file of a tree component by component costs more than to make it. Whoever makes many small files makes
them directory by directory, so a few open directories are enough.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence

from p2pnode.storage import confined

_KEPT_MAX = 16


class Directories:
    """Opens files below `root_fd` as `confined.open_file` does. Threads may share it."""

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[str, ...], int] = OrderedDict()  # the longest unused first

    def open_file(self, parts: Sequence[str], flags: int, mode: int = 0o666) -> int:
        """A descriptor of the file `parts`; with a creating flag the directories on the way are made too."""
        *directories, name = parts
        with self._lock:  # so that no other thread closes the directory meanwhile
            parent_fd = self._find(tuple(directories), create=bool(flags & os.O_CREAT))
            return confined.open_entry(parent_fd, name, flags, mode)

    def _find(self, parts: tuple[str, ...], *, create: bool) -> int:
        fd = self._open.pop(parts, -1)
        if fd < 0:
            fd = confined.open_directory(self._root_fd, parts, create=create)
        self._open[parts] = fd
        self._trim(_KEPT_MAX)
        return fd

    def close(self) -> None:
        """Close what is open; the root stays its owner's."""
        with self._lock:
            self._trim(0)

    def _trim(self, kept_max: int) -> None:
        while len(self._open) > kept_max:
            _, fd = self._open.popitem(last=False)
            os.close(fd)
