"""`p2pnode get` from a `p2pnode peer`, beside a pair of `aioquic.asyncio` `serve` and `connect`, in one run.

    python benchmarks/transfer.py [--size-mib 1024] [--rounds 3] [--json]

Real processes over loopback, alternating, so that both see the same machine. Ours reads, hashes, encrypts,
verifies each block, journals, syncs and publishes under a name; theirs reads, encrypts and writes. Prints the
rate of each round, the medians, their ratio, and the peak resident memory of every process.
"""

from __future__ import annotations

import argparse
import contextlib
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
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
MIB = 1024 * 1024


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def peak_rss(process: subprocess.Popen[str]) -> int:
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def running(*command: str, until: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs until the block ends; waits for a line that holds `until`."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if until in line:
                break
        else:
            raise SystemExit(f"{' '.join(command)} ended with {process.wait()}")
        yield process
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def node(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "p2pnode", *arguments]


def measure_asyncio(root: Path, source: Path, size: int) -> dict[str, float]:
    target = root / "asyncio.out"
    port = str(free_port())
    script = str(HERE / "asyncio_pair.py")
    cert, key = str(root / "server.crt"), str(root / "server.key")
    with running(sys.executable, script, "serve", port, str(source), cert, key, until="ready") as server:
        done = subprocess.run(
            [sys.executable, script, "fetch", port, str(target)], capture_output=True, text=True, check=True
        )
        result = json.loads(done.stdout)
        rss = peak_rss(server)
    assert result["bytes"] == size and digest(target) == digest(source)
    target.unlink()
    return {
        "mb_per_s": size / result["seconds"] / 1e6,
        "rss_sender": rss,
        "rss_receiver": result["peak_rss_bytes"],
    }


def measure_p2pnode(root: Path, source: Path, size: int) -> dict[str, float]:
    """One server without files, one peer that has the file, one `get`: peer to peer."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    empty, target = root / "empty", root / "p2pnode.out"
    with contextlib.ExitStack() as stack:
        server = node(
            "server", "--cert", str(root / "server.crt"), "--addr", address,
            "--files-dir", str(empty), "--json",
        )  # fmt: skip
        stack.enter_context(running(*server, until='"listening"'))
        peer = node(
            "peer", "--server-addr", address, "--server-cert", str(root / "server.crt"), "--files-dir",
            str(source.parent), "--json",
        )  # fmt: skip
        sender = stack.enter_context(running(*peer, until='"file_shared"'))
        receiver = subprocess.Popen(
            node(
                "get", source.name, "--server-addr", address, "--server-cert", str(root / "server.crt"),
                "-o", str(target), "--wait", "--json",
            ),
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        events, rss_receiver = [], 0
        assert receiver.stdout is not None
        for line in receiver.stdout:
            events.append(json.loads(line))
            with contextlib.suppress(OSError):
                rss_receiver = max(rss_receiver, peak_rss(receiver))
        if receiver.wait(60) != 0:
            raise SystemExit(f"get ended with {receiver.returncode}: {events[-3:]}")
        rss_sender = peak_rss(sender)
    assert digest(target) == digest(source)
    target.unlink()
    completed = next(event for event in events if event["event"] == "fetch_completed")
    return {
        "mb_per_s": size / completed["seconds"] / 1e6,
        "rss_sender": rss_sender,
        "rss_receiver": rss_receiver,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    size = options.size_mib * MIB
    root = Path(tempfile.mkdtemp(prefix="p2pnode-benchmark-"))
    try:
        os.environ["XDG_STATE_HOME"] = str(root / "state")
        (root / "source").mkdir()
        source = root / "source" / "random.bin"
        with source.open("wb") as file:
            for _ in range(options.size_mib):
                file.write(os.urandom(MIB))
        past = time.time() - 60  # long settled, so that the peer shares it at once
        os.utime(source, (past, past))
        subprocess.run(
            ["bash", str(HERE.parent / "generate_certs.sh")], cwd=root, check=True, capture_output=True
        )
        ways = {"asyncio pair": measure_asyncio, "p2pnode get": measure_p2pnode}
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, measure in ways.items():
                result = measure(root, source, size)
                rounds[name].append(result)
                if options.json:
                    print(json.dumps({"event": "measurement", "name": name, **result}), flush=True)
                else:
                    sender, receiver = result["rss_sender"] / MIB, result["rss_receiver"] / MIB
                    print(
                        f"{name:13}  {result['mb_per_s']:7.1f} MB/s   peak resident: "
                        f"sender {sender:6.1f} MiB, receiver {receiver:6.1f} MiB",
                        flush=True,
                    )
        medians = {
            name: statistics.median(r["mb_per_s"] for r in results) for name, results in rounds.items()
        }
        ratio = medians["p2pnode get"] / medians["asyncio pair"]
        if options.json:
            print(json.dumps({"event": "result", "medians_mb_per_s": medians, "ratio": ratio}))
        else:
            print(f"medians: {medians}, ours ÷ theirs = {ratio:.2f}")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
