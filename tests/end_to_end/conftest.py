"""A server with a real certificate, and files old enough to be shared at once."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import AsyncIterator, Callable
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
    async with program(
        "server", "--cert", certificate, "--addr", "127.0.0.1:0", "--files-dir", tmp_path / "server_files",
        state=tmp_path / "server",
    ) as running:  # fmt: skip
        listening = await running.wait_for("listening")
        host, port = listening["address"]
        yield Served(running, f"{host}:{port}", certificate)
