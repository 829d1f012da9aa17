"""A server with a real certificate, and files old enough to be shared at once."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import Program, program

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Served:
    """A running server and how to reach it."""

    program: Program
    address: str
    certificate: Path

    @classmethod
    @asynccontextmanager
    async def start(
        cls, root: Path, certificate: Path, address: str = "127.0.0.1:0"
    ) -> AsyncIterator[Served]:
        """A server with its directories below `root`; at the same address and root it is the same node."""
        files = ["--files-dir", root / "server_files"]
        arguments = ["server", "--cert", certificate, "--addr", address, *files]
        async with program(*arguments, state=root / "server") as running:
            host, port = (await running.wait_for("listening"))["address"]
            yield cls(running, f"{host}:{port}", certificate)

    @property
    def options(self) -> list[str]:
        return ["--server-addr", self.address, "--server-cert", str(self.certificate)]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certificates")
    subprocess.run(["bash", REPOSITORY / "generate_certs.sh"], cwd=directory, check=True, capture_output=True)
    return directory / "server.crt"


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[[str, int], Path]:
    """Writes a file of pseudo-random bytes that has been settled for a while."""

    def make(name: str, size: int) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(name).randbytes(size))
        past = time.time() - 60
        os.utime(path, (past, past))
        return path

    return make


@pytest.fixture
async def server(tmp_path: Path, certificate: Path) -> AsyncIterator[Served]:
    async with Served.start(tmp_path, certificate) as served:
        yield served
