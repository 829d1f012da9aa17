"""What became of the downloads of a soak test: how each is classified, and what they come to. No network here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from p2pnode.cli.units import duration_text, rate_text
from p2pnode.errors import Busy, NetworkError, NoSource, P2PNodeError, Refused, RemoteProtocolError, TimedOut


class Status(Enum):
    """How a download came out."""

    OK = "verified"
    RETRY = "timed out, refused, or an error of the server: to be tried again"
    FAIL = "other bytes than the reference has, or no file"
    WARN = "nothing to compare it with, or an error though the file is there"


# What a server that is busy or being restarted brings about.
_PASSING = (TimedOut, NetworkError, Refused, Busy, NoSource, RemoteProtocolError)


@dataclass(frozen=True)
class Download:
    """One download: its number from 1, what became of it, and in how many seconds."""

    iteration: int
    file: str
    status: Status
    reason: str
    size: int
    seconds: float

    @property
    def line(self) -> str:
        """For a person and for `summary.log`."""
        return f"[{self.iteration}] {self.file} {self.status.name}: {self.reason}"


def classify(error: P2PNodeError | None, found: str | None, reference: str | None) -> tuple[Status, str]:
    """What to make of a download that ended with `error` or without, and left a file with the digest `found`.

    Digests are SHA-256 in hex; `found` is None where no file is, `reference` where nobody knows.
    """
    if found is not None and reference is not None and found != reference:
        return Status.FAIL, f"wrong hash: {found[:16]}… instead of {reference[:16]}…"
    if error is None and found is None:
        return Status.FAIL, "no file, though the download says that all is well"
    if error is None:
        return (Status.OK, "verified") if reference else (Status.WARN, "there is no reference hash")
    if found is not None:
        return Status.WARN, f"the file is there, but: {error}"
    if isinstance(error, _PASSING):
        return Status.RETRY, str(error)
    return Status.FAIL, f"no file: {error}"


@dataclass
class FileTally:
    """What the downloads of one file came to; seconds and bytes are those of the good ones."""

    counts: Counter[Status] = field(default_factory=Counter)
    seconds: float = 0.0
    seconds_max: float = 0.0
    size: int = 0

    def row(self) -> tuple[str, ...]:
        """Under `ROW_HEADER`, without the name."""
        counts = [str(self.counts[status]) for status in Status]
        good = self.counts[Status.OK]
        if not good:
            return (*counts, "", "", "")
        rate = self.size / max(self.seconds, 1e-9)
        return (*counts, duration_text(self.seconds / good), duration_text(self.seconds_max), rate_text(rate))


ROW_HEADER: Final = ("file", *(status.name for status in Status), "mean", "longest", "rate")


class Statistics:
    """What all downloads came to so far, in a few numbers for each file: a test may run for days."""

    def __init__(self) -> None:
        self._files: dict[str, FileTally] = {}

    def add(self, download: Download) -> None:
        """Count one."""
        tally = self._files.setdefault(download.file, FileTally())
        tally.counts[download.status] += 1
        if download.status is Status.OK:
            tally.seconds += download.seconds
            tally.seconds_max = max(tally.seconds_max, download.seconds)
            tally.size += download.size

    def count(self, status: Status) -> int:
        """How many came out so."""
        return sum(tally.counts[status] for tally in self._files.values())

    def event(self) -> dict[str, object]:
        """The last event of `--json`."""
        return {"event": "result", **{status.name.lower(): self.count(status) for status in Status}}

    def summary(self) -> str:
        """One line."""
        counts = {status.name: self.count(status) for status in Status}
        words = ", ".join(f"{name} {count}" for name, count in counts.items())
        return f"{sum(counts.values())} downloads: {words}"

    def rows(self) -> list[tuple[str, ...]]:
        """One for each file, in the order in which they first came."""
        return [(name, *tally.row()) for name, tally in self._files.items()]
