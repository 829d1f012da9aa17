"""Logs: for people on stderr, and as JSON lines in a file for whoever runs a service.

A line of the file is one object: `time` (UTC, ISO 8601), `level`, `logger`, `message`, and what the record was given
besides; of requests `language`, `kind`, `peer`, `seconds`, `outcome`. What others sent is escaped in both. The file
says no less than INFO, so that it has every request. At `LOG_FILE_SIZE_MAX` it is renamed to `NAME.1`, that to
`NAME.2` and so on up to `LOG_FILES_KEPT`. A disk that is full costs lines, never the program.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from p2pnode.cli.console import Console
from p2pnode.config import MIB
from p2pnode.errors import StorageError

LOG_FILE_SIZE_MAX: Final = 16 * MIB  # about 80,000 requests …
LOG_FILES_KEPT: Final = 4  # … and so many files beside the one that grows: 80 MiB at most
_OFF: Final = frozenset({"-", "none", ""})
_OWN_ATTRIBUTES: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_Function = TypeVar("_Function", bound=Callable[..., Any])


class ConsoleFormatter(logging.Formatter):
    """`WARNING p2pnode.quic: …`, a record on one line, safe for a terminal; a traceback keeps its lines."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Escape what others may have put into it."""
        from p2pnode.torrent.names import printable  # slow to import, and most runs log nothing

        return printable(super().formatMessage(record))


class JsonFormatter(logging.Formatter):
    """One JSON object, ASCII only: no name of a remote can break a line or colour a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The record with everything in its `extra`."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _OWN_ATTRIBUTES}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class LogFile(logging.Handler):
    """Appends JSON lines to `path`, each with one write; what cannot be written is lost, and said once.

    Several processes may append to one file; each counts what it finds there, so it stays bounded.
    """

    def __init__(self, path: Path, warn: Callable[[str], None], *, size_max: int = LOG_FILE_SIZE_MAX) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._path = path
        self._warn = warn
        self._size_max = size_max
        self._is_torn = False
        self._file = path.open("ab", buffering=0)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, in a new file when this one is full."""
        data = (b"\n" if self._is_torn else b"") + self.format(record).encode() + b"\n"
        try:
            if self._file.tell() + len(data) > self._size_max and self._file.tell() > 0:
                self._rotate()
            written = self._file.write(data)
        except OSError as error:
            self._lost(error.strerror or str(error))
            return
        if written != len(data):
            self._is_torn = True  # the next line shall not become a part of this one
            self._lost("no room for a whole line")
        else:
            self._is_torn = False

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def _rotate(self) -> None:
        """Rename what there is, the oldest away; raises OSError."""
        if self._path.exists():  # else the last try came so far, and the old files shall not be shifted again
            for number in range(LOG_FILES_KEPT - 1, -1, -1):
                source = self._numbered(number)
                if source.exists():
                    source.replace(self._numbered(number + 1))
        fresh = self._path.open("ab", buffering=0)
        self._file.close()
        self._file = fresh

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

    def _lost(self, reason: str) -> None:
        self._warn(f"{self._path}: {reason}; lines of the log are lost until that is better")
        self._warn = lambda _text: None  # a full disk is said once: not for every line


def log_to_console(level: str) -> None:
    """Send records of `level` and above to stderr; nothing changes where somebody else set logging up."""
    handler = logging.StreamHandler()
    handler.setFormatter(ConsoleFormatter())
    handler.setLevel(level.upper())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    if level != "debug":
        # aioquic warns of each mistake of a remote: that would let strangers write on our terminal.
        logging.getLogger("quic").setLevel(logging.ERROR)


@contextmanager
def log_to_file(path: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Send records to a file as well, INFO and above at least. Raises StorageError when it cannot be opened."""
    root = logging.getLogger()
    try:
        handler = LogFile(path, warn)
    except OSError as error:
        raise StorageError(f"cannot write the log {path}: {error.strerror}") from None
    before = root.level
    root.setLevel(min(before, logging.INFO))
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        handler.close()


def log_file_option(default: str | None) -> Callable[[_Function], _Function]:
    """`--log-file`: the verb runs with its log open. Without a default there is no file unless it is asked for.

    A file that was named must be writable; of the default one it is only said when it is not.
    """
    option = click.option(
        "--log-file",
        metavar="PATH",
        default=default,
        show_default=default is not None,
        help="Where JSON lines go, one for each request too; - for nowhere."
        + ("" if default else "  [none]"),
    )

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def call(*args: Any, log_file: str | None, **values: Any) -> Any:
            if log_file is None or log_file.lower() in _OFF:
                return function(*args, **values)
            console = click.get_current_context().find_object(Console)
            assert console is not None, "Verb gives each function a Console"
            path = Path(os.path.abspath(log_file))  # noqa: PTH100 (a link keeps its name)
            if log_file == default and not _can_write(path):
                console.warn(f"cannot write {path}: no log is kept; --log-file PATH names another place")
                return function(*args, **values)
            with log_to_file(path, console.warn):
                return function(*args, **values)

        return option(call)  # type: ignore[return-value]

    return decorate


def _can_write(path: Path) -> bool:
    try:
        path.open("ab").close()
    except OSError:
        return False
    return True
