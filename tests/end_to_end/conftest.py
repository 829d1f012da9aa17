"""A server with a real certificate, and files old enough to be shared at once."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import Program, program, run_now, watched

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL, MEDIUM, LARGE = 70_001, 1_500_000, 32 * 1024 * 1024  # bytes of the files of `settled`


@dataclass
class Served:
    """A running server and how to reach it."""

    program: Program
    address: str
    certificate: Path

    @classmethod
    @asynccontextmanager
    async def start(
        cls, root: Path, certificate: Path, address: str = "127.0.0.1:0", more: Sequence[str | Path] = ()
    ) -> AsyncIterator[Served]:
        """A server with its directories below `root`; at the same address and root it is the same node."""
        files = ["--files-dir", root / "server_files"]
        arguments = ["server", "--cert", certificate, "--addr", address, *files, *more]
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


@pytest.fixture(scope="session")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, int], Path]:
    """Puts a file of pseudo-random bytes somewhere that is shared at once.

    What was changed a moment ago is not shared, and only the kernel sets that time: so it becomes a link to an
    old file, one for each size.
    """
    directory = tmp_path_factory.mktemp("settled")
    for size in (SMALL, MEDIUM, LARGE):
        (directory / str(size)).write_bytes(random.Random(size).randbytes(size))

    def settled(path: Path, size: int) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(directory / str(size))
        return path

    return settled


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


@dataclass(frozen=True)
class Place:
    """A server and a peer that a module's tests ask many things, and that none of them changes.

    The server offers `model.bin` (MEDIUM), `photos/` and its own `twin.bin` (SMALL); the peer, called gpu-1,
    another `twin.bin` (MEDIUM) and `ice\x1b[31m\n\u202egpj.bin` (SMALL).
    """

    state: Path  # of the server's user; who else asks has another one
    address: str
    certificate: Path
    node_id: str
    peer_address: str
    peer_id: str
    peer_files: Path

    @property
    def options(self) -> list[str]:
        return ["--server-addr", self.address, "--server-cert", str(self.certificate)]


HOSTILE_NAME = "ice\x1b[31m\n\u202egpj.bin"  # a terminal would turn red, begin a line, and show "bin.jpg"
HOSTILE_NAME_SHOWN = "ice\\x1b[31m\\n\\u202egpj.bin"


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, certificate: Path, settled: Callable[[Path, int], Path]
) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("place")
    server_files, peer_files = root / "server_files", root / "peer_files"
    settled(server_files / "model.bin", MEDIUM)
    settled(server_files / "twin.bin", SMALL)
    settled(server_files / "photos" / "a.jpg", SMALL)
    settled(server_files / "photos" / "deep" / "b.jpg", SMALL)
    settled(peer_files / "twin.bin", MEDIUM)
    settled(peer_files / HOSTILE_NAME, SMALL)
    serve = ["server", "--cert", certificate, "--addr", "127.0.0.1:0", "--files-dir", server_files]
    with watched(*serve, state=root / "server") as server:
        listening = server.wait_for("listening")
        server.wait_for("file_shared", name="twin.bin")
        host, port = listening["address"]
        options = ["--server-addr", f"{host}:{port}", "--server-cert", certificate, "--name", "gpu-1"]
        with watched("peer", *options, "--files-dir", peer_files, state=root / "peer") as peer:
            at_peer = peer.wait_for("listening")
            peer.wait_for("server_connected")
            peer.wait_for("file_shared", name="twin.bin")
            while run_now("list", "twin", state=root / "server").out.count("twin.bin") < 2:
                pass  # the peer's one is announced, but not listed yet
            yield Place(
                state=root / "server",
                address=f"{host}:{port}",
                certificate=certificate,
                node_id=listening["node_id"],
                peer_address=f"127.0.0.1:{at_peer['address'][1]}",
                peer_id=at_peer["node_id"],
                peer_files=peer_files,
            )
