"""A whole swarm on this machine, ours and libtorrent's one after the other: real processes, one file.

    python -m benchmarks.local_swarm [--peers 4] [--size-mib 512] [--rounds 3] [--json]

One seed; the time from the word to begin until the last peer has every byte under its name. libtorrent's nodes
speak TCP in the clear, and are told of each other at the beginning, as ours are by their server.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final

import libtorrent as alerts

from benchmarks.measuring import MIB, PROJECT, Failed, Place, free_port
from benchmarks.ways import libtorrent_pair as engine

TIME_LIMIT_S: Final = 600.0


def ours(peers: int, size: int, directory: Path) -> float:
    """Seconds until the last peer has it."""
    command = [sys.executable, "-m", "p2pnode", "swarm", "--json", "--dir", str(directory)]
    command += ["--peers", str(peers), "--size", str(size)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=TIME_LIMIT_S)
    if done.returncode != 0:
        raise Failed(f"p2pnode swarm ended with {done.returncode}: {done.stderr.strip().splitlines()[-1]}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def libtorrent(peers: int, place: Place) -> float:
    """The same of libtorrent's."""
    torrent = engine.torrent_of(place.root)
    if not torrent.exists():
        engine.make_torrent(place.source, torrent)
    ports = [free_port(socket.SOCK_STREAM) for _ in range(peers + 1)]
    directories = [place.source.parent, *(place.root / f"peer-{number}" for number in range(1, peers + 1))]
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(_Node(torrent, directory, port, ports[:number]))
            for number, (port, directory) in enumerate(zip(ports, directories, strict=True))
        ]
        for node in nodes:
            node.expect("ready")
        started = time.monotonic()
        for node in nodes:
            node.tell("go")
        for node in nodes[1:]:
            node.expect("done")
        seconds = time.monotonic() - started
    origin = _digest(place.source)
    for directory in directories[1:]:
        arrived = directory / place.source.name
        if _digest(arrived) != origin:
            raise Failed("what libtorrent's peer has is not what its seed has")
        arrived.unlink()
    return seconds


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


class _Node:
    """A process that is one of libtorrent's nodes; it connects to the ports of those that came before it."""

    def __init__(self, torrent: Path, directory: Path, port: int, others: Sequence[int]) -> None:
        words = ["node", str(torrent), str(directory), str(port), *map(str, others)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.local_swarm", *words],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> _Node:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._pipe(self._process.stdin), self._pipe(self._process.stdout)):
            pipe.close()

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe

    def tell(self, word: str) -> None:
        print(word, file=self._pipe(self._process.stdin), flush=True)

    def expect(self, word: str) -> None:
        if (line := self._pipe(self._process.stdout).readline().strip()) != word:
            raise Failed(f"a node of libtorrent said {line!r} instead of {word!r}")


def run_node(torrent: Path, directory: Path, port: int, others: Sequence[int]) -> None:
    """What such a process does."""
    is_seed = not others
    session = engine.a_session("tcp", port)
    engine.wait_for(session, alerts.listen_succeeded_alert)
    handle = engine.add(session, torrent, directory, is_complete=is_seed)
    if not is_seed:
        engine.wait_for(session, alerts.torrent_checked_alert)
    print("ready", flush=True)
    sys.stdin.readline()
    for other in others:
        handle.connect_peer(("127.0.0.1", other))
    if not is_seed:
        engine.wait_for(session, alerts.torrent_finished_alert)
        handle.flush_cache()
        engine.wait_for(session, alerts.cache_flushed_alert)
        print("done", flush=True)
    sys.stdin.read()


def main() -> None:
    if sys.argv[1:2] == ["node"]:
        torrent, directory, port, *others = sys.argv[2:]
        run_node(Path(torrent), Path(directory), int(port), [int(other) for other in others])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=int, default=4)
    parser.add_argument("--size-mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    size = options.size_mib * MIB
    seconds: dict[str, list[float]] = {"p2pnode": [], "libtorrent": []}
    with tempfile.TemporaryDirectory(prefix="p2pnode-local-swarm-") as directory:
        place = Place(Path(directory) / "place", size)
        for _ in range(options.rounds):
            seconds["libtorrent"].append(libtorrent(options.peers, place))
            seconds["p2pnode"].append(ours(options.peers, size, Path(directory)))
    medians = {name: statistics.median(rounds) for name, rounds in seconds.items()}
    ratio = medians["p2pnode"] / medians["libtorrent"]
    if options.json:
        print(
            json.dumps(
                {"event": "local_swarm", "peers": options.peers, "size": size, **seconds, "ratio": ratio}
            )
        )
        return
    for name, rounds in seconds.items():
        print(f"{name:<12} {medians[name]:6.2f} s   ({', '.join(f'{value:.2f}' for value in rounds)})")
    print(f"p2pnode ÷ libtorrent: {ratio:.2f}")


if __name__ == "__main__":
    main()
