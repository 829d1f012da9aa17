"""The loop of a soak test: clients that download again and again, and what becomes of each download."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, Protocol

import trio

from p2pnode.cli.soak_files import digest_of
from p2pnode.cli.soak_result import Download, Status, classify
from p2pnode.cli.units import duration_text
from p2pnode.errors import P2PNodeError, StorageError, TimedOut
from p2pnode.node.blocking import RunBlocking, in_threads

PAUSE_S: Final = 2.0  # between two downloads of a client …
PAUSE_AFTER_RETRY: Final = 2.5  # … so many times longer when the server could not: 5 s
PATIENCE_S: Final = 60.0  # for a download of any size …
RATE_MIN: Final = 1_000_000  # … and bytes a second beyond, which every loopback and most networks carry


class Client(Protocol):
    """Downloads what a tracker has, as `p2pnode client download` does."""

    async def download(self, name: str, target: Path) -> None:
        """Fetch the file with this name; a P2PNodeError says why not."""
        ...


OpenClient = Callable[[], AbstractAsyncContextManager[Client]]


@dataclass(frozen=True)
class Plan:
    """What is fetched, how often and by how many clients at once. Without an end it goes on until interrupted."""

    sizes: Mapping[str, int]  # in bytes, by name
    references: Mapping[str, str]  # SHA-256 in hex, by name
    directory: Path  # where downloads lie until they are looked at
    count: int | None = None
    seconds: float | None = None
    once: bool = False  # each file once, in order
    clients: int = 1
    pause_s: float = PAUSE_S

    def files(self, rng: Random) -> Iterator[tuple[int, str]]:
        """The number and name of each download."""
        names = list(self.sizes)
        number = 0
        end = len(names) if self.once else self.count
        while end is None or number < end:
            number += 1
            yield number, names[number - 1] if self.once else rng.choice(names)


class Soak:
    """Runs a plan; `report` gets each download as it ends."""

    def __init__(
        self,
        plan: Plan,
        open_client: OpenClient,
        report: Callable[[Download], None],
        rng: Random,
        run_blocking: RunBlocking | None = None,
    ) -> None:
        self._plan = plan
        self._open_client = open_client
        self._report = report
        self._files = plan.files(rng)
        self._run_blocking = run_blocking or in_threads()
        self._started = 0.0
        self._done = 0

    @property
    def share_done(self) -> float:
        """How far it is, 0 … 1; 0 where there is no end."""
        plan = self._plan
        count = len(plan.sizes) if plan.once else plan.count
        by_count = self._done / count if count else 0.0
        by_time = (trio.current_time() - self._started) / plan.seconds if plan.seconds else 0.0
        return min(1.0, max(by_count, by_time))

    async def run(self) -> None:
        """Until the plan's end: what is under way then is finished, not cut."""
        self._started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(self._plan.clients):
                nursery.start_soon(self._run_client, self._plan.directory / f"client-{number + 1}")

    async def _run_client(self, directory: Path) -> None:
        await self._run_blocking(_make_directory, directory)
        async with self._open_client() as client:
            for iteration, name in self._files:  # one iterator for all clients: nothing is done twice
                download = await self._download(client, iteration, name, directory / name)
                self._done += 1
                self._report(download)
                if self._is_over():
                    return
                is_retry = download.status is Status.RETRY
                await trio.sleep(self._plan.pause_s * (PAUSE_AFTER_RETRY if is_retry else 1.0))
                if self._is_over():
                    return

    def _is_over(self) -> bool:
        seconds = self._plan.seconds
        return seconds is not None and trio.current_time() - self._started >= seconds

    async def _download(self, client: Client, iteration: int, name: str, target: Path) -> Download:
        size = self._plan.sizes[name]
        started = trio.current_time()
        error: P2PNodeError | None = None
        patience_s = PATIENCE_S + size / RATE_MIN
        with trio.move_on_after(patience_s) as scope:
            try:
                await client.download(name, target)
            except P2PNodeError as raised:
                error = raised
        if scope.cancelled_caught:
            error = TimedOut(f"not done within {duration_text(patience_s)}")
        seconds = trio.current_time() - started
        found = await self._run_blocking(_take, target)
        status, reason = classify(error, found, self._plan.references.get(name))
        if status is Status.OK:
            reason = f"{reason} in {duration_text(seconds)}"
        return Download(iteration, name, status, reason, size, seconds)


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the directory {path}: {error.strerror}") from error


def _take(target: Path) -> str | None:
    """The digest of what was downloaded, which is then removed: a test may fetch terabytes."""
    try:
        digest = digest_of(target)
        target.unlink()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot look at {target}: {error.strerror}") from error
    return digest
