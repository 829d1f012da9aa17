"""`p2pnode bench`: how fast this machine is, how fast p2pnode is on it, and what limits that."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO, Final

import click
import trio

from p2pnode import config
from p2pnode.cli.console import Console
from p2pnode.cli.options import DIRECTORY
from p2pnode.cli.options import size as size_type
from p2pnode.cli.running import run
from p2pnode.cli.swarm_nodes import environment, program
from p2pnode.cli.units import rate_text, size_text
from p2pnode.cli.verb import Verb
from p2pnode.errors import NetworkError, StorageError, TimedOut
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.testing import machine_rates
from p2pnode.torrent import printable

ETHERNET: Final = 1452  # bytes of a datagram where no more than that gets through
DISK_SIZE_MAX: Final = 256 * config.MIB  # written to measure a disk
START_LIMIT_S: Final = 60.0  # for starting, hashing and handshakes of a measurement …
RATE_MIN: Final = config.MIB  # … and bytes a second, below which it hangs
_TICKET: Final = re.compile(r"p2pnode get (\S+)")
_COMPLETED: Final = re.compile(r'(.*"fetch_completed".*)')


@click.command(cls=Verb)
@click.option(
    "--size", type=size_type, metavar="SIZE", default="256M", show_default=True, help="Bytes that are moved."
)
@click.option(
    "--dir", "directory", type=DIRECTORY, help="Where files are written.  [default: a temporary directory]"
)
@click.pass_obj
def command(console: Console, *, size: int, directory: Path | None) -> None:
    """Measure this machine, and p2pnode on it.

    \b
    Examples:
      p2pnode bench                     about 10 seconds
      p2pnode bench --dir /mnt/data     with the disk that your files are on

    Two processes of this machine move bytes over loopback: the bare stream, then `get` with disk, hashes and
    all. Both sides share its cores, so two such machines are at least as fast, if the network between them is.
    """
    run(partial(_bench, console, max(size, config.MIB), directory), console)


async def _bench(console: Console, size: int, parent: Path | None) -> None:
    rates: dict[str, float] = {}

    def show(name: str, rate: float, text: str) -> None:
        rates[name] = rate
        if console.json:
            rate = round(rate / 1e6, 1)
            console.event({"event": "measurement", "name": name, "mb_per_s": [rate], "median_mb_per_s": rate})
        else:
            console.data(f"  {name:<20} {rate_text(rate):>12}   {text}")

    def title(text: str) -> None:
        if not console.json:
            console.data(text)

    with _directory(parent) as directory:
        cores = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}"
        title(f"This machine: {cores}, Python {platform.python_version()}")
        show("AES-128-GCM", machine_rates.encryption(), "one core; each byte, on both sides")
        show("SHA-256", machine_rates.hashing(), "one core; each byte, on both sides")
        show("UDP", await machine_rates.datagrams(), "one core, loopback, by batches")
        disk_size = min(size, DISK_SIZE_MAX)
        show(
            "disk",
            machine_rates.disk(directory, disk_size),
            f"{size_text(disk_size)} written and synced in {directory}",
        )
        title("p2pnode, between two processes here:")
        show("stream, 1452 bytes", await _stream(ETHERNET, size), "QUIC alone, as over Ethernet")
        show(
            "stream",
            await _stream(config.DATAGRAM_SIZE_MAX, size),
            "QUIC alone, datagrams as large as may be",
        )
        show("get", await _get(directory, size), "with disk, hashes and journal")
    if not console.json:
        console.data(_conclusion(rates))


def _conclusion(rates: dict[str, float]) -> str:
    """What a person should make of it."""
    gigabits = min(rates["stream, 1452 bytes"], rates["get"]) * 8 / 1e9
    if rates["disk"] < 1.2 * rates["get"]:
        return "The disk is the limit: a faster one makes `get` faster."
    return f"A network of up to {gigabits:.1f} Gbit/s is the limit; beyond that, a core of this machine is."


@contextmanager
def _directory(parent: Path | None) -> Iterator[Path]:
    try:
        with tempfile.TemporaryDirectory(prefix="p2pnode-bench-", dir=parent) as name:
            yield Path(name)
    except OSError as error:
        raise StorageError(f"cannot write in {parent or tempfile.gettempdir()}: {error.strerror}") from error


@contextmanager
def _time_limit(size: int) -> Iterator[None]:
    """For a measurement that moves `size` bytes. `TimedOut` when it hangs."""
    limit_s = START_LIMIT_S + size / RATE_MIN
    with trio.move_on_after(limit_s) as scope:
        yield
    if scope.cancelled_caught:
        raise TimedOut(f"a process of this measurement hangs: it was not done in {limit_s:.0f} s")


async def _stream(datagram_size_max: int, size: int) -> float:
    """Bytes a second of a bare stream between two processes."""
    command = [sys.executable, "-m", "p2pnode.testing.stream_pair"]
    limit = str(datagram_size_max)
    with _time_limit(size):
        async with _child([*command, "serve", limit, str(size)]) as server:
            port = await server.first(re.compile(r"(\d+)"))
            async with _child([*command, "fetch", limit, port]) as client:
                received, seconds = (await client.first(re.compile(r"(\d+ \S+)"))).split()
    return int(received) / float(seconds)


class _Child:
    """A process of a measurement, heard by its lines."""

    def __init__(self, process: trio.Process, errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors

    async def first(self, wanted: re.Pattern[str]) -> str:
        """The first line that is wanted: its first group. `NetworkError` when it ends before."""
        assert self._process.stdout is not None
        rest = ""
        async for data in self._process.stdout:
            *lines, rest = (rest + data.decode(errors="replace")).split("\n")
            for line in lines:
                if match := wanted.search(line):
                    return match[1]
        code = await self._process.wait()
        raise NetworkError(f"a process of this measurement ended with {code}: {self._last_words()}")

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        return next(
            (printable(line.strip(" |+-")) for line in reversed(lines) if line.strip(" |+-")), "no message"
        )


@asynccontextmanager
async def _child(
    command: list[str], variables: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[_Child]:
    """A process that is ended with the block."""
    with tempfile.TemporaryFile() as errors:
        async with open_flat_nursery() as nursery:
            process = await nursery.start(
                partial(
                    trio.run_process,
                    command,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=environment() | dict(variables),
                    check=False,
                )
            )
            yield _Child(process, errors)
            nursery.cancel_scope.cancel()


async def _get(directory: Path, size: int) -> float:
    """Bytes a second of `p2pnode get` from `p2pnode share`, as the former measures it."""
    source = directory / "source.bin"
    with source.open("wb") as file:
        machine_rates.fill(file, size)
    machine_rates.warm_page_cache(directory, size)
    state = {"XDG_STATE_HOME": str(directory / "state")}
    with _time_limit(size):
        async with _child(program("share", str(source)), state) as share:
            ticket = await share.first(_TICKET)
            command = program("get", ticket, "-o", str(directory / "target.bin"), "--json")
            async with _child(command, state) as get:
                completed = json.loads(await get.first(_COMPLETED))
    return size / float(completed["seconds"])
