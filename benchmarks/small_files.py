"""Many small files in one tree: `p2pnode get` from `p2pnode share`, beside tar over TCP and libtorrent.

Real processes on loopback, all ways in each round, what arrives compared with what was sent. The sender has the
tree hashed before the clock starts; hashing is shown by itself. `transfer` is from the first request to the tree
under its own name, synced; `all` is the whole process of the one who gets, its start and end included. tar and
libtorrent sync nothing by themselves, so `sync -f` comes after them, inside their time.

python -m benchmarks.small_files [--files 10000] [--size 4096] [--rounds 3] [--only get tar-tcp libtorrent-tcp]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import count as count_up
from pathlib import Path
from typing import Any, Final

from benchmarks.measuring import MB, Failed, free_port
from benchmarks.programs import Program, module

FILES_PER_DIRECTORY: Final = 100
TIME_LIMIT_S: Final = 900.0
_PAST_S: Final = 60.0  # a file that changed a moment ago is not shared yet


@dataclass(frozen=True)
class Sample:
    """One run of one way; times in seconds, memory in MB (10**6 bytes), 0 where it is not measured."""

    transfer_s: float
    all_s: float
    hashing_s: float = 0.0
    cpu_s_sender: float = 0.0  # of the transfer, like that of the receiver: what another load does not change
    cpu_s_receiver: float = 0.0
    rss_mb_sender: float = 0.0
    rss_mb_receiver: float = 0.0


class Tree:
    """A tree of `count` files of `size` random bytes, and room for its copy."""

    def __init__(self, root: Path, count: int, size: int) -> None:
        self.root = root
        self.count = count
        self.source = root / "source" / "tree"
        self._targets = (root / f"arrived-{number}" for number in count_up())
        self.target = next(self._targets)
        for number in range(count):
            directory = self.source / f"directory-{number // FILES_PER_DIRECTORY:04}"
            if number % FILES_PER_DIRECTORY == 0:
                directory.mkdir(parents=True)
            path = directory / f"file-{number:06}.bin"
            path.write_bytes(os.urandom(size))
            past = time.time() - _PAST_S
            os.utime(path, (past, past))
        self._digest = _digest(self.source)

    def check_target(self) -> None:
        """Every file arrived, and nothing else. `Failed`. The next way has another target.

        Nothing is removed before the end: some file systems (ext4 without a journal) take ten times as long to
        make files for minutes after as many were removed.
        """
        if _digest(self.target) != self._digest:
            raise Failed("what arrived is not what was sent")
        self.target = next(self._targets)


def _digest(root: Path) -> bytes:
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        digest.update(bytes(path.relative_to(root)))
        if path.is_file():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.digest()


def measure_get(tree: Tree) -> Sample:
    """`p2pnode share`, then `p2pnode get` by its ticket."""
    with _p2pnode(tree.root / "seed", "share", tree.source) as share:
        began_at = time.perf_counter()
        ticket = json.loads(share.wait_for('"ticket"'))["ticket"]
        hashing_s = time.perf_counter() - began_at
        began_at = time.perf_counter()
        with _p2pnode(tree.root / "leech", "get", ticket, "-o", tree.target) as get:
            get.wait_for('"fetch_started"')
            transfer_at = time.perf_counter()
            cpu_at = share.cpu_s(), get.cpu_s()
            get.wait_for('"fetch_completed"')
            transfer_s = time.perf_counter() - transfer_at
            cpu_s = share.cpu_s() - cpu_at[0], get.cpu_s() - cpu_at[1]
            get.wait_end()
            all_s = time.perf_counter() - began_at
            return Sample(transfer_s, all_s, hashing_s, *cpu_s, share.rss_peak() / MB, get.rss_peak() / MB)


@contextmanager
def _p2pnode(state: Path, *arguments: object) -> Iterator[Program]:
    shutil.rmtree(state, ignore_errors=True)  # what was hashed is hashed again
    command = [sys.executable, "-m", "p2pnode", "--json", *arguments]
    with Program(command, time_limit_s=TIME_LIMIT_S, environment={"XDG_STATE_HOME": str(state)}) as program:
        yield program


def measure_tar(tree: Tree) -> Sample:
    """tar into a TCP connection, and out of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        began_at = time.perf_counter()
        with socket.create_connection(listener.getsockname()) as receiving, listener.accept()[0] as sending:
            tree.target.mkdir()
            pack = subprocess.Popen(["tar", "-c", "-C", tree.source, "."], stdout=sending.fileno())
            sending.close()
            subprocess.run(["tar", "-x", "-C", tree.target], stdin=receiving.fileno(), check=True)
            if pack.wait():
                raise Failed("tar failed")
    return _synced(tree, began_at)


def measure_libtorrent(tree: Tree) -> Sample:
    """libtorrent with a v1 torrent; its files are not hashed in the measured time."""
    port = free_port()
    arguments = (tree.source, tree.root / "no.crt", tree.root / "no.key")
    (tree.root / "leech").mkdir(exist_ok=True)
    with Program(
        module("libtorrent_pair", "serve", "tcp", port, *arguments), time_limit_s=TIME_LIMIT_S
    ) as seed:
        seed.wait_for("ready")
        started_at = time.perf_counter()
        fetch = module("libtorrent_pair", "fetch", "tcp", port, tree.target)
        with Program(fetch, time_limit_s=TIME_LIMIT_S) as leech:
            leech.wait_for('"begin"')
            began_at = time.perf_counter()
            leech.wait_for('"end"')
            sample = _synced(tree, began_at)
            return Sample(
                sample.transfer_s,
                time.perf_counter() - started_at,
                rss_mb_sender=seed.rss_peak() / MB,
                rss_mb_receiver=leech.rss_peak() / MB,
            )


def _synced(tree: Tree, began_at: float) -> Sample:
    subprocess.run(["sync", "-f", tree.target], check=True)
    seconds = time.perf_counter() - began_at
    return Sample(seconds, seconds)


WAYS: Final[dict[str, Callable[[Tree], Sample]]] = {
    "get": measure_get,
    "tar-tcp": measure_tar,
    "libtorrent-tcp": measure_libtorrent,
}


def measure(tree: Tree, names: list[str], rounds: int) -> dict[str, list[Sample]]:
    """Each way once a round."""
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            os.sync()  # what the round before left is not waited for in this one
            sample = WAYS[name](tree)
            tree.check_target()
            samples[name].append(sample)
            rate = tree.count / sample.transfer_s
            print(f"round {number + 1}: {name:15} {rate:8,.0f} files/s  {_text(sample)}", file=sys.stderr)
    return samples


def _text(sample: Sample) -> str:
    return "  ".join(f"{name} {value:.2f}" for name, value in asdict(sample).items() if value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=4096, help="bytes of each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--dir", type=Path, help="where files are written meanwhile")
    options = parser.parse_args()
    names = [name for name in options.only if name != "libtorrent-tcp" or find_spec("libtorrent")]
    with tempfile.TemporaryDirectory(prefix="p2pnode-bench-", dir=options.dir) as root:
        tree = Tree(Path(root), options.files, options.size)
        samples = measure(tree, names, options.rounds)
    for name, runs in samples.items():
        result: dict[str, Any] = {"event": "small_files", "name": name, "files": tree.count}
        result["files_per_s"] = round(statistics.median(tree.count / run.transfer_s for run in runs))
        result["files_per_s_in_all"] = round(statistics.median(tree.count / run.all_s for run in runs))
        print(json.dumps(result | {"samples": [asdict(run) for run in runs]}))


if __name__ == "__main__":
    main()
