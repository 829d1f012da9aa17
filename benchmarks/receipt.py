"""What every receiver does alike: write to the target, take the time, tell whoever measures."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Final

CHUNK_SIZE: Final = 256 * 1024  # bytes that senders read and receivers write at once


class Clock:
    """The time from the request to the last byte written.

    After `end` the process stays until it has been looked at.
    """

    def begin(self) -> None:
        """The next thing is the request."""
        _tell({"event": "begin"})
        self._began_at = time.perf_counter()

    def end(self) -> None:
        """All is in the target."""
        _tell({"event": "end", "seconds": time.perf_counter() - self._began_at})
        sys.stdin.read()


class Receipt(Clock):
    """The clock, and the target for those who do not write it themselves."""

    def __init__(self, target: Path) -> None:
        self.received = 0
        self._file = target.open("wb", buffering=CHUNK_SIZE)

    def write(self, data: bytes) -> None:
        """These bytes arrived."""
        self._file.write(data)
        self.received += len(data)

    def end(self) -> None:
        """All arrived."""
        self._file.close()
        super().end()


def _tell(event: dict[str, object]) -> None:
    print(json.dumps(event), flush=True)
