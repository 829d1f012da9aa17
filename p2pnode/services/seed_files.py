"""The directory that the tracker itself seeds: one flat share, and a torrent beside each of its files.

Whatever name a request has, only its last component counts, and only a regular file of the directory itself
is ever opened: no path leads out of it, no symbolic link, no dot file (`storage.confined`).
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Final

import trio

from p2pnode import config
from p2pnode.errors import StorageError
from p2pnode.node.blocking import RunBlocking
from p2pnode.services.seed_torrents import SeedTorrents, is_offered, write_new
from p2pnode.storage import confined
from p2pnode.storage.faults import storage_error, translated
from p2pnode.storage.open_files import read_at
from p2pnode.storage.partial import hidden_name
from p2pnode.storage.publishing import publish
from p2pnode.torrent import last_component

__all__ = ["HELLO_CONTENT", "HELLO_NAME", "OpenedFile", "SeedFiles", "asked_name"]

HELLO_NAME: Final = "hello_world.txt"
HELLO_CONTENT: Final = b"Hello World from QUIC Server!\n"

# What an open says of a name that no file of the share has; of a symbolic link, too.
_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO})
_log = logging.getLogger(__name__)


def asked_name(name: str) -> str:
    """What a name means here: what follows its last `/` or `\\`, and the hello file where that is nothing."""
    return HELLO_NAME if not name or name.endswith(("/", "\\")) else last_component(name)


class OpenedFile:
    """A file of the share, open for reading until the `with` block ends; `size` and `modified_ns` as opened."""

    def __init__(self, fd: int, name: str, run_blocking: RunBlocking) -> None:
        found = os.fstat(fd)
        self.name: Final = name
        self.size: Final = found.st_size
        self.modified_ns: Final = found.st_mtime_ns
        self._fd = fd
        self._run_blocking = run_blocking

    def __enter__(self) -> OpenedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    async def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset` on; StorageError when it cannot be read, or has become shorter."""
        return await self._run_blocking(self._read, offset, size)

    def _read(self, offset: int, size: int) -> bytes:
        with translated("read", self.name):
            data = read_at(self._fd, size, offset)
        if len(data) != size:
            raise StorageError(f"cannot read {self.name!r}: it has become shorter")
        return data


class SeedFiles:
    """The files of `directory`; the torrents beside them name `announce_url` as their tracker."""

    def __init__(self, directory: Path, announce_url: str, *, run_blocking: RunBlocking) -> None:
        self._directory = directory
        self._torrents = SeedTorrents(directory, announce_url)
        self._run_blocking = run_blocking
        self._hello_lock = threading.Lock()  # those who ask for it while it is missing make it at once

    async def prepare(self) -> None:
        """Make the directory, the hello file, and the torrents of all that is there.

        StorageError when the directory cannot be made, read or written.
        """
        await self._run_blocking(self._prepare)

    async def run(self) -> None:
        """For ever: make what is missing, and the torrents of files that changed, once they are settled."""
        while True:
            await trio.sleep(config.RESCAN_INTERVAL_S)
            try:
                await self._run_blocking(self._renew)
            except StorageError as error:
                _log.warning("the seeded files cannot be looked after: %s", error)

    async def names(self) -> list[str]:
        """What can be asked for, sorted. StorageError when the directory cannot be read."""
        return await self._run_blocking(self._list)

    async def open(self, name: str) -> OpenedFile | None:
        """The file that a name means, as `asked_name` says; None where there is none for others to see.

        StorageError when it is there but cannot be opened. To be used as a context manager.
        """
        name = asked_name(name)
        fd = await self._run_blocking(self._open, name)
        return None if fd is None else OpenedFile(fd, name, self._run_blocking)

    def _prepare(self) -> None:
        with translated("make", self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
        self._make_hello()
        self._torrents.renew(settled_only=False)

    def _renew(self) -> None:
        self._make_hello()
        self._torrents.renew(settled_only=True)

    def _make_hello(self) -> None:
        with self._hello_lock, translated("make", self._directory / HELLO_NAME):
            root_fd = confined.open_root(self._directory)
            try:
                if not _is_taken(root_fd, HELLO_NAME):
                    hidden = hidden_name(HELLO_NAME, config.PARTIAL_SUFFIX)
                    write_new(root_fd, hidden, HELLO_CONTENT)
                    publish(root_fd, hidden, HELLO_NAME, is_directory=False)
            finally:
                os.close(root_fd)

    def _list(self) -> list[str]:
        with translated("list", self._directory), os.scandir(self._directory) as entries:
            return sorted(
                entry.name
                for entry in entries
                if is_offered(entry.name) and entry.is_file(follow_symlinks=False)
            )

    def _open(self, name: str) -> int | None:
        fd = self._open_entry(name) if is_offered(name) else None
        if fd is None and name == HELLO_NAME:
            self._make_hello()
            fd = self._open_entry(name)
        return fd

    def _open_entry(self, name: str) -> int | None:
        try:
            root_fd = confined.open_root(self._directory)
            try:
                return confined.open_readable(root_fd, name)
            finally:
                os.close(root_fd)
        except StorageError:
            return None  # no file can have that name, or something else has it
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            raise storage_error(error, "open", name) from error


def _is_taken(root_fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=root_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
