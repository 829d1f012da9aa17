"""What is measured of one transfer, and what a way to make one is."""

from __future__ import annotations

import hashlib
import os
import socket
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from p2pnode.testing.machine_rates import warm_page_cache

MB: Final = 1_000_000
MIB: Final = 1024 * 1024
PROJECT: Final = Path(__file__).resolve().parent.parent
START_LIMIT_S: Final = 120.0  # for starting, hashing and handshakes
RATE_MIN: Final = 1 * MB  # bytes a second, below which a transfer hangs

_PAST_S: Final = 60.0  # a file that changed a moment ago is not shared yet


class Failed(Exception):
    """A way did not deliver; the text says why, on one line."""


@dataclass(frozen=True)
class Sample:
    """One transfer. CPU time (user and system) is that of the transfer alone, without the start of a process."""

    mb_per_s: float
    cpu_s_sender: float
    cpu_s_receiver: float
    rss_mb_sender: float
    rss_mb_receiver: float

    @property
    def cpu_s_busier(self) -> float:
        """Of the side that would be the limit if each had a core for itself."""
        return max(self.cpu_s_sender, self.cpu_s_receiver)


@dataclass(frozen=True)
class Measurement:
    """All rounds of one way with one size. A MB is 10**6 bytes; memory is the peak of the worst round."""

    name: str
    samples: Sequence[Sample]

    @property
    def median_mb_per_s(self) -> float:
        """The rate of the median round."""
        return statistics.median(sample.mb_per_s for sample in self.samples)

    def to_json(self) -> dict[str, object]:
        """The line of `--json`. CPU seconds are medians."""
        samples = self.samples
        return {
            "event": "measurement",
            "name": self.name,
            "mb_per_s": [round(sample.mb_per_s, 2) for sample in samples],
            "median_mb_per_s": round(self.median_mb_per_s, 2),
            "cpu_s_sender": round(statistics.median(sample.cpu_s_sender for sample in samples), 3),
            "cpu_s_receiver": round(statistics.median(sample.cpu_s_receiver for sample in samples), 3),
            "rss_mb_sender": round(max(sample.rss_mb_sender for sample in samples), 1),
            "rss_mb_receiver": round(max(sample.rss_mb_receiver for sample in samples), 1),
        }


class Place:
    """A directory with the file to move, a certificate for localhost, and room for what arrives."""

    def __init__(self, root: Path, size: int) -> None:
        self.root = root
        self.size = size
        self.source = root / "source" / "random.bin"
        self.target = root / "arrived.bin"
        self.certificate = root / "server.crt"
        self.key = root / "server.key"
        self.source.parent.mkdir(parents=True)
        self._digest = self._write_source()
        subprocess.run(["bash", PROJECT / "generate_certs.sh"], cwd=root, check=True, capture_output=True)

    @property
    def time_limit_s(self) -> float:
        """Who takes longer for a transfer hangs."""
        return START_LIMIT_S + self.size / RATE_MIN

    def _write_source(self) -> bytes:
        digest = hashlib.sha256()
        with self.source.open("wb") as file:
            for start in range(0, self.size, MIB):
                data = os.urandom(min(MIB, self.size - start))
                digest.update(data)
                file.write(data)
        past = time.time() - _PAST_S
        os.utime(self.source, (past, past))
        return digest.digest()

    def warm(self) -> None:
        """Have the memory touched that the target will need: all ways write into a page cache that is as warm."""
        warm_page_cache(self.root, self.size)

    def check_target(self) -> None:
        """Every byte arrived, and nothing else. Removes it. `Failed`."""
        with self.target.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        self.target.unlink()
        if digest != self._digest:
            raise Failed("what arrived is not what was sent")


class Way(Protocol):
    """A way to move the source of a `Place` to its target."""

    @property
    def name(self) -> str:
        """As in --only."""
        ...

    @property
    def title(self) -> str:
        """As in the table."""
        ...

    @property
    def is_ours(self) -> bool:
        """Whether its failure is a defect of this project."""
        ...

    def why_not(self) -> str | None:
        """What is missing to run it here; None when it can run."""
        ...

    def measure(self, place: Place) -> Sample:
        """Do it once, and compare what arrived. `Failed`."""
        ...


def free_port(kind: socket.SocketKind = socket.SOCK_DGRAM) -> int:
    """A port on 127.0.0.1 that nobody uses at this moment."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
