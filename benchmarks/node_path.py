"""What the node costs above the transport: disk, hashes, frames, journal, decisions, without QUIC.

    python benchmarks/node_path.py [--size-mib 1024] [--rounds 3] [--json] [--profile sender|receiver|both]

Three measurements, each in a process of its own: an `Uploader` whose bytes go nowhere, a `Downloader` that is
played what an honest source sends, and both together over a pair of byte streams in memory. Prints CPU seconds
for each GB (10^9 bytes), split into user and system, the rate, and the peak resident memory. The floor of the
receiver is the playing alone; hashing and writing alone are shown beside it, since they are what cannot go away.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import json
import mmap
import os
import pstats
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, cast

import trio

from p2pnode import config
from p2pnode.errors import ConnectionClosed
from p2pnode.node.blocking import in_threads
from p2pnode.node.downloader import Downloader
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.patience import Patience
from p2pnode.node.peer_link import PeerLink
from p2pnode.node.rate_limits import RateLimits, Throttles
from p2pnode.node.sharing import Shared, Shares
from p2pnode.node.transfer import pieces_in
from p2pnode.node.uploader import Uploader
from p2pnode.node.uploads import Uploads
from p2pnode.quic import ConnectionStatistics
from p2pnode.storage import FileStore, hash_path
from p2pnode.torrent import Metainfo
from p2pnode.torrent.merkle import block_hashes
from p2pnode.wire.communication import (
    FileChunk,
    FileRequest,
    FileResponse,
    FileTransferComplete,
    NodeItem,
)
from p2pnode.wire.framing import FrameDecoder, frame

MIB = 1024 * 1024
NODE = b"n" * 32
RECEIVED_AT_ONCE = 256 * 1024  # what `quic.Stream.receive_some` gives at most
MEASUREMENTS = ("sender", "receiver", "both", "playing", "hashing", "writing")
PIPE_SIZE = config.STREAM_RECEIVE_WINDOW


# -- byte streams in memory --------------------------------------------------------------------------------


class Pipe:
    """One direction of a byte stream, bounded, that copies as little as `quic.Stream` does."""

    def __init__(self) -> None:
        self._parts: deque[memoryview] = deque()
        self._held = 0
        self._ended = False
        self._changed = trio.lowlevel.ParkingLot()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        view = memoryview(bytes(data))  # a stream owns what it was given
        for start in range(0, len(view), 64 * 1024):
            while self._held >= PIPE_SIZE:
                await self._changed.park()
            part = view[start : start + 64 * 1024]
            self._parts.append(part)
            self._held += len(part)
            self._changed.unpark_all()

    async def send_eof(self) -> None:
        self._ended = True
        self._changed.unpark_all()
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._parts:
            if self._ended:
                return b""
            await self._changed.park()
        taken, size = [], 0
        while self._parts and size < (max_bytes or RECEIVED_AT_ONCE):
            taken.append(self._parts.popleft())
            size += len(taken[-1])
        self._held -= size
        self._changed.unpark_all()
        return b"".join(taken)


class Paired:
    """One end of two pipes."""

    def __init__(self, outgoing: Pipe, incoming: Pipe) -> None:
        self.send_all, self.send_eof = outgoing.send_all, outgoing.send_eof
        self.receive_some = incoming.receive_some

    async def aclose(self) -> None:
        await self.send_eof()


class Drain:
    """A requester that takes everything and says nothing until the end."""

    def __init__(self) -> None:
        self.bytes_taken = 0
        self._ended = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.bytes_taken += len(data)
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        self._ended.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await self._ended.wait()
        return b""

    async def aclose(self) -> None:
        self._ended.set()


class Playing:
    """An honest source whose answers were made before, and cost nothing but one copy."""

    def __init__(self, metainfo: Metainfo, content: memoryview, hashes: list[bytes]) -> None:
        self._metainfo = metainfo
        self._content = content
        self._hashes = hashes
        self._decoder = FrameDecoder()
        self._parts: Iterator[memoryview] = iter(())

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._decoder.feed(bytes(data))
        while message := self._decoder.next_message():
            if isinstance(message, FileRequest):
                self._parts = self._answer(message)

    def _answer(self, request: FileRequest) -> Iterator[memoryview]:
        yield memoryview(frame(FileResponse(request.file_id, True, self._metainfo.size, 0)))
        sent = 0
        for piece in pieces_in(request.ranges):
            start, length = piece * self._metainfo.piece_length, self._metainfo.piece(piece).length
            hashes = self._hashes[piece]
            for offset in range(0, length, config.CHUNK_SIZE):
                size = min(config.CHUNK_SIZE, length - offset)
                yield memoryview(frame(FileChunk(piece, offset, size, len(hashes) // 32)) + hashes)
                for at in range(start + offset, start + offset + size, RECEIVED_AT_ONCE):
                    yield self._content[at : min(at + RECEIVED_AT_ONCE, start + offset + size)]
                hashes = b""
            sent += length
        yield memoryview(frame(FileTransferComplete(sent)))

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes(next(self._parts, b""))

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


# -- the two sides -----------------------------------------------------------------------------------------


class OneShare:
    """The table of shared items, with one item."""

    def __init__(self, metainfo: Metainfo, path: Path) -> None:
        self.shared = Shared(metainfo, path, FileStore.share(metainfo, path))

    def by_id(self, file_id: bytes) -> Shared | None:
        return self.shared

    def withdraw(self, shared: Shared, reason: str) -> None:
        raise SystemExit(reason)


class LocalLink:
    """A link whose requests are streams in memory."""

    def __init__(self, open_stream: Callable[[], MessageStream]) -> None:
        self._open_stream = open_stream
        self.connection = self
        self.statistics = ConnectionStatistics()
        self.node_id = NODE

    async def request(self) -> MessageStream:
        return self._open_stream()

    async def wait_closed(self) -> ConnectionClosed:
        await trio.sleep_forever()
        raise AssertionError

    def close(self, code: int, reason: str) -> None:
        raise SystemExit(f"the link was closed: {reason}")


def idle() -> float:
    """Seconds for which the event loop was busy: nobody asks here."""
    return 0.0


def local_link() -> PeerLink:
    return cast(PeerLink, LocalLink(lambda: MessageStream(Drain())))


def uploader(metainfo: Metainfo, path: Path) -> Uploader:
    shares = cast(Shares, OneShare(metainfo, path))
    uploads = Uploads(lambda event: None, idle)
    return Uploader(shares, in_threads(), lambda event: None, Throttles(RateLimits()), uploads)


async def send_alone(metainfo: Metainfo, path: Path) -> None:
    """Serve the whole file in requests such as a download makes, two at a time."""
    serving = uploader(metainfo, path)
    count = max(1, config.REQUEST_BYTES // metainfo.piece_length)
    firsts = iter(range(0, metainfo.piece_count, count))

    async def serve() -> None:
        for first in firsts:
            ranges = ((first, min(count, metainfo.piece_count - first)),)
            await serving.serve(MessageStream(Drain()), local_link(), FileRequest(metainfo.file_id, ranges))

    async with trio.open_nursery() as nursery:
        for _ in range(config.REQUESTS_PER_SOURCE):
            nursery.start_soon(serve)
    assert serving.bytes_sent == metainfo.size


async def download(metainfo: Metainfo, target: Path, open_stream: Callable[[], MessageStream]) -> None:
    store = FileStore.download(metainfo, target)
    source = NodeItem(NODE, (("127.0.0.1", 1),), metainfo.file_id, have=((0, metainfo.piece_count),))

    async def find_sources() -> list[NodeItem]:
        return [source]

    async def link_to(item: NodeItem) -> PeerLink:
        return cast(PeerLink, LocalLink(open_stream))

    run_blocking = in_threads()
    options: dict[str, Any] = {
        "find_sources": find_sources, "link_to": link_to, "run_blocking": run_blocking, "rng": Random(1),
        "patience": Patience(endless=False), "publish": lambda event: None, "throttles": Throttles(RateLimits()),
        "busy_s": idle,
    }  # fmt: skip
    await Downloader(store, **options).run()
    await run_blocking(store.publish)
    store.close()


async def both_together(metainfo: Metainfo, path: Path, target: Path) -> None:
    serving = uploader(metainfo, path)
    async with trio.open_nursery() as nursery:

        async def serve(stream: MessageStream) -> None:
            await serving.serve(stream, local_link(), await stream.receive_as(FileRequest))
            await stream.aclose()

        def open_stream() -> MessageStream:
            there, back = Pipe(), Pipe()
            nursery.start_soon(serve, MessageStream(Paired(back, there)))
            return MessageStream(Paired(there, back))

        await download(metainfo, target, open_stream)
        nursery.cancel_scope.cancel()


# -- measuring ---------------------------------------------------------------------------------------------


def measure(what: str, path: Path, profile: bool) -> dict[str, float]:
    """Run one measurement in this process."""
    metainfo = Metainfo.decode((path.parent / "metainfo").read_bytes(), size_max=config.METAINFO_SIZE_MAX)
    target = path.parent / "target"
    run: Callable[[], object]
    with contextlib.ExitStack() as stack:
        if what in ("receiver", "playing", "hashing", "writing"):
            file = stack.enter_context(path.open("rb"))
            content = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
            step = metainfo.piece_length
            pieces = range(0, len(content), step)
            hashes = [block_hashes(content[start : start + step]) for start in pieces]
        if what == "sender":
            run = lambda: trio.run(send_alone, metainfo, path)  # noqa: E731
        elif what == "receiver":
            opened = lambda: MessageStream(Playing(metainfo, content, hashes))  # noqa: E731
            run = lambda: trio.run(download, metainfo, target, opened)  # noqa: E731
        elif what == "playing":
            run = lambda: copy_alone(content)  # noqa: E731
        elif what == "hashing":
            run = lambda: [block_hashes(content[start : start + step]) for start in pieces]  # noqa: E731
        elif what == "writing":
            run = lambda: write_alone(target, content)  # noqa: E731
        else:
            run = lambda: trio.run(both_together, metainfo, path, target)  # noqa: E731
        warm_up(target, metainfo.size)
        rss_before = resident("VmRSS")
        before, started = os.times(), time.perf_counter()
        if profile:
            profiler = cProfile.Profile()
            profiler.runcall(run)
            pstats.Stats(profiler).sort_stats("tottime").print_stats(35)
        else:
            run()
        after, seconds = os.times(), time.perf_counter() - started
    gigabytes = metainfo.size / 1e9
    with contextlib.suppress(FileNotFoundError):
        target.unlink()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "user_s_per_gb": (after.user - before.user) / gigabytes,
        "system_s_per_gb": (after.system - before.system) / gigabytes,
        "mb_per_s": metainfo.size / seconds / 1e6,
        "rss_mb": usage.ru_maxrss / 1024,
        "rss_mb_before": rss_before / 1024,
        "context_switches": float(usage.ru_nvcsw + usage.ru_nivcsw),
    }


def copy_alone(content: memoryview) -> None:
    for at in range(0, len(content), RECEIVED_AT_ONCE):
        bytes(content[at : at + RECEIVED_AT_ONCE])


def warm_up(target: Path, size: int) -> None:
    """Have the page cache's memory touched before: a virtual machine may get it from its host only then, at ten
    times the cost of the write."""
    with target.open("wb", buffering=0) as file:
        for _ in range(size // MIB):
            file.write(bytes(MIB))
    target.unlink()


def write_alone(target: Path, content: memoryview) -> None:
    with target.open("wb", buffering=0) as file:
        for at in range(0, len(content), MIB):
            file.write(content[at : at + MIB])
        os.fdatasync(file.fileno())


def resident(key: str) -> int:
    """Of this process, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--profile", default="")
    parser.add_argument("--only", default="")
    parser.add_argument("--in-process", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process:
        what, path = options.in_process
        print(json.dumps(measure(what, Path(path), options.profile == what)))
        return
    root = Path(tempfile.mkdtemp(prefix="p2pnode-benchmark-", dir=os.environ.get("P2PNODE_BENCH_DIR")))
    try:
        path = root / "random.bin"
        with path.open("wb") as file:
            for _ in range(options.size_mib):
                file.write(os.urandom(MIB))
        (root / "metainfo").write_bytes(hash_path(path).encode())
        names = (
            options.only.split(",")
            if options.only
            else ["sender", "receiver", "both", "playing", "hashing", "writing"]
        )
        for name in names:
            results = []
            for _ in range(options.rounds):
                command = [
                    sys.executable,
                    __file__,
                    "--in-process",
                    name,
                    str(path),
                    "--profile",
                    options.profile,
                ]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                *shown, last = done.stdout.splitlines()
                if shown:
                    print("\n".join(shown))
                results.append(json.loads(last))
            medians = {key: statistics.median(r[key] for r in results) for key in results[0]}
            if options.json:
                print(json.dumps({"event": "measurement", "name": name, **medians}), flush=True)
            else:
                print(
                    f"{name:9} {medians['user_s_per_gb']:6.3f} user + {medians['system_s_per_gb']:6.3f} system s/GB"
                    f"  {medians['mb_per_s']:7.0f} MB/s  {medians['rss_mb']:6.0f} MiB"
                    f" ({medians['rss_mb_before']:.0f} before)  {medians['context_switches']:.0f} switches",
                    flush=True,
                )
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
