"""A bounded number of open files, lent out to threads, and reads and writes that go all the way.

A tree may have 100,000 files and a process 1,024 descriptors: a file is opened when it is needed and closed
once more than `idle_max` of them lie about unused. A descriptor that is lent out is never closed under its
borrower. Everything is positional, so threads share a descriptor without sharing a place in the file.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from p2pnode.errors import NotFound

_OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


def _refuse(index: int) -> int:
    raise NotFound("the store is closed")


class OpenFiles:
    """The files of one torrent by their index; `opener(index)` opens one that is not open yet."""

    def __init__(self, opener: Callable[[int], int], idle_max: int) -> None:
        self._opener = opener
        self._idle_max = idle_max
        self._lock = threading.Lock()
        self._lent: dict[int, tuple[int, int]] = {}  # index → (descriptor, borrowers)
        self._idle: OrderedDict[int, int] = OrderedDict()  # index → descriptor, the longest unused first

    @contextmanager
    def borrow(self, index: int) -> Iterator[int]:
        """The descriptor of file `index`, open until the body ends. Raises what `opener` raises."""
        fd = self._take(index)
        try:
            yield fd
        finally:
            self._give_back(index)

    def reopen(self, opener: Callable[[int], int], idle_max: int) -> None:
        """From now on the files are found by another opener; those that are lent out stay as they are."""
        with self._lock:
            self._opener, self._idle_max = opener, idle_max
            self._trim(0)

    def close(self) -> None:
        """Close what is unused now, and the rest as it comes back; nothing can be opened any more."""
        self.reopen(_refuse, 0)

    def _take(self, index: int) -> int:
        with self._lock:
            if index in self._lent:
                fd, borrowers = self._lent[index]
            else:
                fd, borrowers = self._idle.pop(index, -1), 0
                if fd < 0:
                    fd = self._open(index)
            self._lent[index] = (fd, borrowers + 1)
            return fd

    def _open(self, index: int) -> int:
        try:
            return self._opener(index)
        except OSError as error:
            if not self._idle or error.errno not in _OUT_OF_DESCRIPTORS:
                raise
        self._trim(0)
        return self._opener(index)

    def _give_back(self, index: int) -> None:
        with self._lock:
            fd, borrowers = self._lent.pop(index)
            if borrowers > 1:
                self._lent[index] = (fd, borrowers - 1)
                return
            self._idle[index] = fd
            self._trim(self._idle_max)

    def _trim(self, idle_max: int) -> None:
        while len(self._idle) > idle_max:
            _, fd = self._idle.popitem(last=False)
            os.close(fd)


def read_at(fd: int, size: int, offset: int) -> bytes:
    """`size` bytes from `offset` on; fewer only where the file ends."""
    data = os.pread(fd, size, offset)
    if len(data) == size or not data:
        return data
    parts = [data]
    missing = size - len(data)
    while missing and (data := os.pread(fd, missing, offset + size - missing)):
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


def write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`, however short the single writes are."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written
