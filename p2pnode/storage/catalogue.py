"""What was hashed before: so that a start with a terabyte of shared files reads none of them.

An item's path and fingerprint lead to its canonical metainfo. All of it can be computed again, so a database
that is damaged is set aside and begun anew, and one that cannot be used is done without.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    path BLOB PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    metainfo BLOB NOT NULL
) WITHOUT ROWID
"""
_BUSY_TIMEOUT_S = 5.0  # another process of the same user writes one row at a time
_DAMAGED = frozenset(
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA}
)
_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class Catalogue:
    """The database at `path`, made where missing. Several threads may use it; no method ever raises for
    what is wrong with the database."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection = self._open()

    def lookup(self, path: Path, fingerprint: bytes) -> bytes | None:
        """The canonical metainfo of the item at `path`; None when it is new or changed."""

        def find(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute(
                "SELECT metainfo FROM items WHERE path = ? AND fingerprint = ?", (bytes(path), fingerprint)
            ).fetchone()
            return row[0] if row is not None and isinstance(row[0], bytes) else None

        return self._attempt(find)

    def remember(self, path: Path, fingerprint: bytes, metainfo: bytes) -> None:
        """The item at `path` has this metainfo as long as it has this fingerprint."""
        row = (bytes(path), fingerprint, metainfo)
        self._attempt(lambda connection: connection.execute("REPLACE INTO items VALUES (?, ?, ?)", row))

    def forget(self, path: Path) -> None:
        """The item at `path` is gone."""
        self._attempt(
            lambda connection: connection.execute("DELETE FROM items WHERE path = ?", (bytes(path),))
        )

    def close(self) -> None:
        """Give the file back; the catalogue must not be used afterwards."""
        with self._lock:
            self._connection.close()

    def _attempt(self, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        with self._lock:
            try:
                return work(self._connection)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    _log.warning("the catalogue %s is of no use now: %s", self._path, error)
                    return None
            self._connection.close()
            self._set_aside()
            self._connection = self._open()
            try:
                return work(self._connection)
            except sqlite3.DatabaseError as error:
                _log.warning("the catalogue %s is of no use: %s", self._path, error)
                return None

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect(str(self._path))
        except sqlite3.DatabaseError as error:
            if _is_damage(error):
                self._set_aside()
        try:
            return self._connect(str(self._path))
        except sqlite3.DatabaseError as error:
            _log.warning("cannot use the catalogue %s, so nothing is remembered: %s", self._path, error)
            return self._connect(":memory:")

    def _connect(self, name: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            name, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(_SCHEMA)
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection

    def _set_aside(self) -> None:
        """Keep the damaged file for whoever wants to look at it, under a name that nobody opens."""
        aside = self._path.with_name(self._path.name + ".damaged")
        _log.warning("the catalogue %s is damaged; it is set aside as %s", self._path, aside.name)
        with suppress(OSError):  # where it cannot be moved, opening it again fails, which is provided for
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            self._path.replace(aside)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", None)  # absent on errors that the module itself makes
    return code is not None and code & 0xFF in _DAMAGED
