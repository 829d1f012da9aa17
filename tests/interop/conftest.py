"""A tracker as its users run it, a real process with all its doors, for programs that others wrote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from p2pnode import config
from tests.cli.processes import new_home
from tests.interop.ai_stub import Stub, ai_stub
from tests.torrent.samples import content

# Not 127.0.0.1: libtorrent takes the connection id of a UDP tracker for that of any other on the same host, and other
# tests in this process have theirs there.
HOST = "127.0.0.2"
HELLO = b"Hello World from QUIC Server!\n"
SEEDED = {
    "data.json": b'{"name": "data", "values": [1, 2, 3]}\r\n',
    "medium.bin": content(500_000),
    "largest.bin": content(config.JSON_FILE_SIZE_MAX),
    "too_large.bin": content(config.JSON_FILE_SIZE_MAX + 1),
    "empty.txt": b"",
    "Größe €.txt": b"a name that is not ASCII\n",
}


@dataclass(frozen=True)
class RunningTracker:
    """The ports of a tracker, its certificate, and the AI service that it asks."""

    quic: int
    http: int
    udp: int
    certificate: Path
    ai: Stub
    host: str = HOST


@contextmanager
def running_tracker(path: Path) -> Iterator[RunningTracker]:
    """Run one, with a home of its own at `path`."""
    home = new_home(path)
    seed_dir, state_dir = home.path / "seed", home.path / "state"
    seed_dir.mkdir()
    for name, data in SEEDED.items():
        (seed_dir / name).write_bytes(data)
    doors = ("--addr", HOST, "--quic", "0", "--http", "0", "--udp", "0")
    with ai_stub() as ai:
        places = ("--state-dir", str(state_dir), "--ai-url", f"{ai.url}/v1")
        with home.running("tracker", *doors, *places) as running:
            ports = {
                door["language"]: door["address"][1] for door in running.first("front_ends_ready")["doors"]
            }
            yield RunningTracker(**ports, certificate=state_dir / "tracker.crt", ai=ai)


@pytest.fixture(scope="session")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTracker]:
    with running_tracker(tmp_path_factory.mktemp("tracker")) as running:
        yield running
