"""A whole swarm of real nodes in one process, in virtual time: how fast, how wasteful, how hard to kill.

::

    result = simulate(SwarmPlan(peers=8, size=10_000_000, incidents=(Incident.parse("server@50%"),)))
    assert not result.problems
    assert result.ratio < 1.25

Everything is what runs in production but the UDP socket, the clock and the threads of the disk: a simulated
network carries the datagrams (`Network`), trio's `MockClock` jumps from one event to the next, and files are
read, hashed and written in the calling task, in no virtual time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from ipaddress import ip_address
from itertools import compress, cycle
from math import inf
from operator import or_
from pathlib import Path
from random import Random
from typing import Final

import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import StorageError
from p2pnode.testing.disks import Disk, Lie, LyingDisk
from p2pnode.testing.network import HostProfile, LinkProfile, Network
from p2pnode.testing.swarm_hosts import FILE_NAME, Coordinator, Host, Leecher, Source
from p2pnode.testing.swarm_plan import SERVER, Happening, Incident, Progress, SwarmPlan
from p2pnode.testing.swarm_result import Befallen, Sample, SwarmResult
from p2pnode.torrent import Bitfield, Ticket

__all__ = ["OnProgress", "run_swarm", "simulate", "virtual_clock"]

MEMORY_DISK: Final = Path("/dev/shm")  # a file system in memory, where there is one
SAMPLES: Final = 250  # looks at the swarm in the least time that it can take, if they are …
SAMPLE_S_MIN, SAMPLE_S_MAX = 0.005, 0.25  # … no closer and no farther apart than that
TICK_S: Final = 0.005  # datagrams are handed over together so often, which spares a quarter of the work …
TICKS_PER_DELAY: Final = 4  # … but no more seldom than so often in the time from host to host
LIMIT_S: Final = 60.0  # a swarm is given up after so long …
LIMIT_BOUNDS: Final = 20  # … and so many times the least time

OnProgress = Callable[[Progress], None]


def simulate(
    plan: SwarmPlan, *, directory: Path | None = None, on_progress: OnProgress | None = None
) -> SwarmResult:
    """Run a swarm to its end, or until nothing more can be hoped for; from a program without an event loop.

    `directory` is for the files, which are left there; without it they are in memory, or in a temporary
    directory, and removed. `on_progress` is called again and again. `StorageError` when there is no room.
    """
    return trio.run(
        partial(run_swarm, plan, directory=directory, on_progress=on_progress),
        clock=virtual_clock(),
    )


def virtual_clock() -> MockClock:
    """A clock that jumps to the next event as soon as nothing is left to do: for an event loop of simulations."""
    return MockClock(autojump_threshold=0)


async def run_swarm(
    plan: SwarmPlan, *, directory: Path | None = None, on_progress: OnProgress | None = None
) -> SwarmResult:
    """The same inside an event loop with a `virtual_clock`."""
    with _scratch(directory, (plan.peers + 1) * plan.size) as root:
        return await _Simulation(plan, root, on_progress or (lambda _: None)).run()


@contextmanager
def _scratch(directory: Path | None, size: int) -> Iterator[Path]:
    """A directory with room for `size` bytes."""
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        yield directory
        return
    parent = MEMORY_DISK if os.access(MEMORY_DISK, os.W_OK) and _has_room(MEMORY_DISK, size) else None
    if parent is None and not _has_room(Path(tempfile.gettempdir()), size):
        raise StorageError(
            f"{tempfile.gettempdir()} has no room for {size} bytes: set TMPDIR, or take a smaller file"
        )
    with tempfile.TemporaryDirectory(prefix="p2pnode-sim-", dir=parent) as name:
        yield Path(name)


def _has_room(directory: Path, size: int) -> bool:
    return shutil.disk_usage(directory).free > size * 1.05 + config.MIB


@dataclass(frozen=True, slots=True)
class _Traffic:
    """UDP payload so far: what reached leechers, and what went from one zone to another. Bytes."""

    received: int
    wide: int


class _Simulation:
    """One run."""

    def __init__(self, plan: SwarmPlan, root: Path, on_progress: OnProgress) -> None:
        self._plan = plan
        self._file = root / FILE_NAME
        self._on_progress = on_progress
        path = LinkProfile(delay_s=plan.delay_s, loss=plan.loss, mtu=plan.mtu)
        self._network = Network(
            seed=plan.random_seed, profile=path, tick_s=min(TICK_S, plan.delay_s / TICKS_PER_DELAY)
        )
        self._server = Coordinator(self._network, *self._place(SERVER, 1), disk=Disk(), role="server")
        self._sources = [
            Source(self._network, *self._place(name, number), disk=disk, file=self._file)
            for number, (name, disk) in enumerate(_source_disks(plan), 2)
        ]
        self._leechers = [
            Leecher(self._network, *self._place(name, number), directory=root / name, disk=Disk())
            for number, name in enumerate(plan.peer_names, 1 + 256)
        ]
        self._hosts: list[Host] = [self._server, *self._sources, *self._leechers]
        self._pending = list(plan.incidents)
        self._befallen: list[Befallen] = []
        self._samples: list[Sample] = []

    async def run(self) -> SwarmResult:
        """All of it."""
        began_at = time.perf_counter()
        await trio.lowlevel.checkpoint()
        digest = _write_random(self._file, self._plan.size, Random(self._plan.random_seed))
        async with self._network, trio.open_nursery() as nursery:
            self._nursery = nursery
            await self._start()
            before = self._traffic()
            self._t0 = trio.current_time()
            await self._fetch()
            traffic = self._traffic()
            for host in self._hosts:
                host.stop()
        complete = [leecher for leecher in self._leechers if leecher.completed is not None]
        corrupt = tuple(leecher.name for leecher in complete if _sha256(leecher.path) != digest)
        return SwarmResult(
            plan=self._plan,
            seconds=max(leecher.over_at for leecher in self._awaited) - self._t0,
            completions={leecher.name: leecher.over_at - self._t0 for leecher in complete},
            failures={leecher.name: leecher.failure for leecher in self._awaited if leecher.failure},
            corrupt=corrupt,
            duplicate_bytes=sum(leecher.duplicate_bytes for leecher in self._leechers),
            received_bytes=traffic.received - before.received,
            wide_bytes=traffic.wide - before.wide,
            given=self._given(complete),
            banned=self._banned(),
            befallen=tuple(self._befallen),
            samples=tuple(self._samples),
            real_seconds=time.perf_counter() - began_at,
        )

    # -- before ----------------------------------------------------------------------------------------------

    def _place(self, name: str, number: int) -> tuple[str, str, str, int]:
        """Name, zone, address and seed of a host; shapes its links."""
        address = str(ip_address("10.0.0.0") + number)
        rates, zone = self._plan.rates_of(name), self._plan.zone_of(name)
        self._network.set_host(address, HostProfile(rates.up_bytes_per_s, rates.down_bytes_per_s, zone=zone))
        if zone:
            self._network.set_zone_gateway(zone, self._plan.gateway_rate, self._plan.gateway_rate)
        return name, zone, address, self._plan.random_seed + number

    async def _start(self) -> None:
        """Start everybody who is there at first; they are registered, and the server knows who has the file."""
        await self._nursery.start(self._server.live)
        for host in [*self._sources, *self._leechers]:
            host.server = self._server.reference
            if host.name not in self._plan.late_names:
                await self._nursery.start(host.live)
        self._metainfo = self._sources[0].metainfo
        while not await self._server.lists(sources=len(self._sources)):  # noqa: ASYNC110 (it does not say when)
            await trio.sleep(SAMPLE_S_MAX)

    # -- meanwhile -------------------------------------------------------------------------------------------

    async def _fetch(self) -> None:
        """Have all leechers fetch, and let happen what is planned, until those who can have it or time is over."""
        plan = self._plan
        for leecher in self._leechers:
            if leecher.name not in plan.late_names:
                leecher.tell(self._metainfo.file_id)
        pause_s = max(SAMPLE_S_MIN, min(SAMPLE_S_MAX, plan.bound_s / SAMPLES))
        limit_s = LIMIT_S + LIMIT_BOUNDS * plan.bound_s
        while any(leecher.over_at == inf for leecher in self._awaited):
            progress = self._look()
            for incident in [each for each in self._pending if each.when.has_come(progress)]:
                self._pending.remove(incident)
                await self._befall(incident, progress.seconds)
            self._on_progress(progress)
            if progress.seconds > limit_s:
                self._give_up(limit_s)
            await trio.sleep(pause_s)
        self._on_progress(self._look())

    @property
    def _awaited(self) -> list[Leecher]:
        """Those who shall complete."""
        return [leecher for leecher in self._leechers if leecher.name not in self._plan.lost_names]

    def _look(self) -> Progress:
        """Take a sample, and sum it up."""
        seconds, count = trio.current_time() - self._t0, self._metainfo.piece_count
        pieces = [leecher.pieces(self._metainfo.file_id) for leecher in self._leechers]
        self._samples.append(Sample(seconds, tuple(len(have) / count if have else 0.0 for have in pieces)))
        union = reduce(or_, [have for have in pieces if have], Bitfield.from_ranges((), count))
        fetching = [leecher.is_told for leecher in self._leechers]
        return Progress(
            seconds,
            completed=sum(leecher.completed is not None for leecher in self._leechers),
            median_share=statistics.median(list(compress(self._samples[-1].shares, fetching)) or [0.0]),
            has_union=union.is_complete,
        )

    async def _befall(self, incident: Incident, seconds: float) -> None:
        self._befallen.append(Befallen(incident, seconds))
        for host in self._hosts:
            if incident.befalls(host.name):
                match incident.what:
                    case Happening.KILL:
                        self._network.kill(host.address)
                        host.stop()
                    case Happening.FREEZE:
                        host.disk.freeze()
                    case Happening.START:
                        assert isinstance(host, Leecher), "the plan was checked"
                        host.tell(await self._reference())
                        self._nursery.start_soon(host.live)

    async def _reference(self) -> bytes | Ticket:
        """How somebody who comes later is told of the file: a ticket of a leecher when there is no server."""
        if self._server.node is not None:
            return self._metainfo.file_id
        nodes = (leecher.node for leecher in self._leechers if leecher.pieces(self._metainfo.file_id))
        giver = next(node for node in nodes if node is not None)
        return await giver.ticket(self._metainfo.file_id)

    def _give_up(self, limit_s: float) -> None:
        for leecher in self._awaited:
            if leecher.over_at == inf:
                leecher.give_up(f"it was not done after {limit_s:.0f} s")

    # -- after -----------------------------------------------------------------------------------------------

    def _traffic(self) -> _Traffic:
        down = (self._network.host_counters(leecher.address).down for leecher in self._leechers)
        up = (self._network.zone_counters(zone).up for zone in {host.zone for host in self._hosts})
        return _Traffic(
            received=sum(counters.bytes_out for counters in down),
            wide=sum(counters.bytes_out for counters in up),
        )

    @property
    def _names(self) -> dict[bytes, str]:
        """By node id."""
        return {node_id: host.name for host in self._hosts for node_id in host.node_ids}

    def _banned(self) -> dict[str, tuple[str, ...]]:
        """Who was banned, and by whom."""
        names, banned = self._names, defaultdict[str, list[str]](list)
        for host in self._hosts:
            for node_id in host.banned:
                banned[names[node_id]].append(host.name)
        return {name: tuple(by) for name, by in sorted(banned.items())}

    def _given(self, complete: Iterable[Leecher]) -> dict[str, int]:
        """Bytes of the file that each host gave to those who have it now."""
        names = self._names
        given = Counter({host.name: 0 for host in self._hosts})
        for leecher in complete:
            assert leecher.completed is not None, "they are complete"
            for node_id, size in leecher.completed.sources.items():
                given[names[node_id]] += size
        return dict(given)


def _source_disks(plan: SwarmPlan) -> Iterator[tuple[str, Disk]]:
    """Who has the file at the start, and with what disk: every other liar lies in another way."""
    yield from ((name, Disk()) for name in plan.seed_names)
    yield from zip(plan.liar_names, map(LyingDisk, cycle(Lie)), strict=False)


def _write_random(path: Path, size: int, rng: Random) -> str:
    """Make the file; its SHA-256."""
    digest = hashlib.sha256()
    try:
        with path.open("wb") as file:
            for start in range(0, size, config.MIB):
                data = rng.randbytes(min(config.MIB, size - start))
                digest.update(data)
                file.write(data)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
