"""Lines that a person types, with editing and a history, or that come through a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

import trio

from p2pnode.config import MIB
from p2pnode.errors import ConfigError

LINE_SIZE_MAX: Final = 1 * MIB  # bytes, from a pipe: more is no line
HISTORY_LINES_MAX: Final = 1000
_READ_SIZE: Final = 65_536


class Lines(Protocol):
    """Where lines come from."""

    async def read(self) -> str | None:
        """The next line without its end; None at the end of input. ConfigError for one that is too long."""
        ...


@contextmanager
def open_lines(prompt: str, history: Path) -> Iterator[Lines]:
    """Lines of standard input: edited where somebody sits at a terminal, as they come anywhere else."""
    if sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        with _terminal_as_it_was(), _history(history):
            yield _EditedLines(prompt)
    else:
        yield PipedLines(sys.stdin.fileno())


class _EditedLines:
    """The interpreter's own `input`, which edits lines by readline. It waits in a thread that is left behind."""

    def __init__(self, prompt: str) -> None:
        self._prompt = prompt

    async def read(self) -> str | None:
        return await trio.to_thread.run_sync(_input, self._prompt, abandon_on_cancel=True)


def _input(prompt: str) -> str | None:
    try:
        return input(prompt)
    except EOFError:
        return None


class PipedLines:
    """Lines from a descriptor. `sys.stdin` itself would be locked by a thread that is left behind."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()
        self._has_ended = False

    async def read(self) -> str | None:
        """The next line; what is not UTF-8 in it is replaced."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0 and not self._has_ended:
            searched = len(self._buffer)
            if searched > LINE_SIZE_MAX:
                self._buffer.clear()
                raise ConfigError(f"a line is longer than {LINE_SIZE_MAX} bytes")
            data = await trio.to_thread.run_sync(os.read, self._fd, _READ_SIZE, abandon_on_cancel=True)
            self._buffer += data
            self._has_ended = not data
        if end < 0:
            end = len(self._buffer)
            if not end:
                return None
        line = self._buffer[:end].decode("utf-8", "replace")
        del self._buffer[: end + 1]
        return line


@contextmanager
def _terminal_as_it_was() -> Iterator[None]:
    """A thread that still waits for a line has set the terminal to its needs: set it back."""
    import termios

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextmanager
def _history(path: Path) -> Iterator[None]:
    """Earlier lines, and these for the next time, for nobody else to read. Without a file there are just none."""
    import readline

    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        readline.read_history_file(path)
    readline.set_history_length(HISTORY_LINES_MAX)
    try:
        yield
    finally:
        with suppress(OSError):
            readline.write_history_file(path)
