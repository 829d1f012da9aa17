"""The state directory: node key, lock, catalogue, and for a server where it listens.

Without a directory a node keeps nothing: a fresh key, no catalogue. A second process on one directory gets one
clear line; the per-user directory of short commands is not locked.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from p2pnode.errors import AlreadyInProgress, StorageError
from p2pnode.quic import NodeKey, format_address


class ServerNote(msgspec.Struct):
    """What a running server leaves for commands on its machine."""

    address: str
    pid: int
    node_id: str


@dataclass
class StateDirectory:
    """An open state directory, or none (`path` is None)."""

    path: Path | None
    locked: bool = True
    _lock_descriptor: int | None = None

    def __enter__(self) -> Self:
        if self.path is not None:
            try:
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
                if self.locked:
                    self._lock_descriptor = _lock(self.path)
            except OSError as error:
                raise StorageError(f"cannot use the state directory {self.path}: {error.strerror}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path is not None and self._lock_descriptor is not None:
            self.note_path.unlink(missing_ok=True)
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)

    def node_key(self) -> NodeKey:
        """The key that is this node's identity, made at first start."""
        return NodeKey.generate() if self.path is None else NodeKey.load_or_create(self.path / "node.key")

    @property
    def catalogue_path(self) -> Path | None:
        """Where the hashes of shared files are remembered."""
        return None if self.path is None else self.path / "catalogue.sqlite"

    @property
    def note_path(self) -> Path:
        """Where a server says that it runs."""
        assert self.path is not None
        return self.path / "server.json"

    def leave_note(self, address: tuple[str, int], node_id: bytes) -> None:
        """Say where the server listens."""
        note = ServerNote(format_address(address), os.getpid(), node_id.hex())
        self.note_path.write_bytes(msgspec.json.encode(note))


def read_note(state_dir: Path) -> ServerNote | None:
    """What the server of this state directory said of itself, if one runs or was killed here."""
    try:
        return msgspec.json.decode((state_dir / "server.json").read_bytes(), type=ServerNote)
    except (OSError, msgspec.DecodeError):
        return None


def _lock(path: Path) -> int:
    """Take the directory's lock; it goes with the process, however that ends."""
    import fcntl  # not on every system; a locked state directory is a POSIX thing

    descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AlreadyInProgress(
            f"another p2pnode runs on {path}: end it, or give this one its own --state-dir"
        ) from None
    return descriptor
