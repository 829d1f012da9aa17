"""`p2pnode soak`: downloads from a tracker again and again, and tells what became of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import click
import trio

from p2pnode.cli.console import Console
from p2pnode.cli.options import DIRECTORY, duration, made_directory, packed, user_state_dir
from p2pnode.cli.progress import address_text
from p2pnode.cli.running import run
from p2pnode.cli.soak_client import open_soak_client
from p2pnode.cli.soak_files import file_set, make_files, reference_digests
from p2pnode.cli.soak_result import ROW_HEADER, Download, Statistics, Status
from p2pnode.cli.soak_run import PAUSE_S, Plan, Soak
from p2pnode.cli.soak_tracker import OwnTracker
from p2pnode.cli.verb import Verb
from p2pnode.errors import ConfigError
from p2pnode.torrent import printable

LOG_DIRECTORY: Final = Path("soak_logs")
_HOURS: Final = 1.0  # unless something else is asked for
_FAILED: Final = 1


@dataclass(frozen=True)
class Choice:
    """What the command line asks for."""

    server: str | None
    port: int
    references: Path | None
    hours: float | None
    count: int | None
    once: bool
    pause_s: float
    clients: int
    restarts: int
    large: bool
    random_seed: int
    log_dir: Path


_options = packed(
    "choice",
    lambda _context, **values: Choice(**values),
    click.option("--server", metavar="HOST", help="The tracker to test.  [default: one of its own]"),
    click.option(
        "--port", type=click.IntRange(1, 65535), default=7001, show_default=True, help="Its QUIC port."
    ),
    click.option(
        "--refs",
        "references",
        type=DIRECTORY,
        help="The files as they should be.  [default: as this test makes them]",
    ),
    click.option("--hours", type=click.FloatRange(0, min_open=True), help="How long.  [1]"),
    click.option("--count", type=click.IntRange(1), help="End after so many downloads."),
    click.option("--once", is_flag=True, help="Each file once, in order: the quick test."),
    click.option(
        "--pause",
        "pause_s",
        type=duration,
        default=str(PAUSE_S),
        show_default=True,
        metavar="TIME",
        help="Between two downloads of a client; after a RETRY 2.5 times that.",
    ),
    click.option(
        "--clients", type=click.IntRange(1, 256), default=1, show_default=True, help="So many at once."
    ),
    click.option(
        "--restarts",
        type=click.IntRange(0),
        default=0,
        help="Start its own tracker again so many times.  [0]",
    ),
    click.option("--large", is_flag=True, help="Also 1 GiB, by the node protocol."),
    click.option("--random-seed", type=int, default=0, help="Of the order of the files.  [0]"),
    click.option(
        "--log-dir",
        type=DIRECTORY,
        default=LOG_DIRECTORY,
        show_default=True,
        help="Where summary.log goes, and the log of its own tracker.",
    ),
)


@click.command(cls=Verb)
@_options
@click.pass_obj
def command(console: Console, *, choice: Choice) -> None:
    """Download from a tracker again and again, and tell what became of it.

    \b
    Examples:
      p2pnode soak --once                          each of six files once, from a tracker of its own
      p2pnode soak --hours 12
      p2pnode soak --count 2000 --clients 8 --pause 0 --restarts 20
      p2pnode soak --server 192.0.2.7 --refs seed  a tracker elsewhere that has the same files

    Each download is OK (verified), RETRY (timed out, refused, or an error of the server), FAIL (other bytes than
    the reference has, or no file) or WARN (nothing to compare it with, or an error though the file is there), and
    a line of soak_logs/summary.log. Exits with 1 only when one is FAIL.
    """
    if choice.restarts and choice.server is not None:
        raise ConfigError("--restarts is for a tracker of its own: leave out --server")
    made_directory(choice.log_dir)
    statistics = Statistics()
    scratch = Path(tempfile.mkdtemp(prefix="p2pnode-soak-"))
    try:
        run(partial(_soak, console, choice, scratch, statistics), console)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        _show(console, statistics)
    if statistics.count(Status.FAIL):
        raise SystemExit(_FAILED)


async def _soak(console: Console, choice: Choice, scratch: Path, statistics: Statistics) -> None:
    sizes = file_set(large=choice.large)
    summary = SummaryLog(choice.log_dir / "summary.log", console)

    def report(download: Download) -> None:
        statistics.add(download)
        summary.add(download)
        if console.json:
            event = asdict(download) | {"status": download.status.name}
            console.event({"event": "download", **event})
        else:
            console.say(printable(download.line))

    async with _tracker(console, choice, scratch) as (address, own):
        plan = Plan(
            sizes=sizes,
            references=await trio.to_thread.run_sync(_references, choice.references, scratch, sizes),
            directory=scratch / "downloads",
            count=choice.count,
            seconds=_seconds(choice),
            once=choice.once,
            clients=choice.clients,
            pause_s=choice.pause_s,
        )
        # A tracker of its own is a new one each time: nobody shall remember it.
        state_dir = user_state_dir() if own is None else scratch / "state"
        open_client = partial(open_soak_client, console, address, state_dir)
        soak = Soak(plan, open_client, report, Random(choice.random_seed))
        async with trio.open_nursery() as nursery:
            if own is not None:
                nursery.start_soon(own.restart, choice.restarts, lambda: soak.share_done, console.say)
            await soak.run()
            nursery.cancel_scope.cancel()


def _references(chosen: Path | None, scratch: Path, sizes: Mapping[str, int]) -> dict[str, str]:
    """The digests of the files as they should be, which are those we make unless others are named."""
    directory = chosen or scratch / "references"
    if chosen is None:
        make_files(directory, sizes)
    digests = reference_digests(directory, sizes)
    if chosen is None:
        shutil.rmtree(directory)
    return digests


@asynccontextmanager
async def _tracker(
    console: Console, choice: Choice, scratch: Path
) -> AsyncIterator[tuple[str, OwnTracker | None]]:
    """The tracker that is tested: its address over QUIC, and itself where it is ours."""
    if choice.server is not None:
        yield address_text((choice.server, choice.port)), None
        return
    async with trio.open_nursery() as nursery:
        own = OwnTracker(scratch / "tracker", choice.log_dir, nursery)
        await trio.to_thread.run_sync(make_files, own.seed_dir, file_set(large=choice.large))
        await own.start()
        address = f"127.0.0.1:{own.port}"
        console.say(f"a tracker of its own answers on {address}")
        try:
            yield address, own
        finally:
            with trio.CancelScope(shield=True):
                await own.stop()


def _seconds(choice: Choice) -> float | None:
    if choice.hours is not None:
        return choice.hours * 3600
    return None if choice.once or choice.count is not None else _HOURS * 3600


class SummaryLog:
    """A line for each download: when, iteration, file, status, reason. A disk that is full ends nothing."""

    def __init__(self, path: Path, console: Console) -> None:
        self._path = path
        self._console = console
        self._is_warned = False

    def add(self, download: Download) -> None:
        """Append one."""
        when = datetime.now(UTC).isoformat(timespec="seconds")
        words = (when, str(download.iteration), download.file, download.status.name, download.reason)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\t".join(map(printable, words)) + "\n")
        except OSError as error:
            if not self._is_warned:
                self._console.warn(
                    f"{self._path}: {error.strerror}; lines of it are lost until that is better"
                )
            self._is_warned = True


def _show(console: Console, statistics: Statistics) -> None:
    if console.json:
        console.event(statistics.event())
        return
    console.rows(ROW_HEADER, statistics.rows())
    console.say(statistics.summary())
