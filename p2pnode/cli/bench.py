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
from typing import Final

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
from p2pnode.errors import NetworkError, StorageError
from p2pnode.testing import machine_rates

ETHERNET: Final = 1452  # bytes of a datagram where no more than that gets through
DISK_SIZE_MAX: Final = 256 * config.MIB  # written to measure a disk
_TICKET: Final = re.compile(r"p2pnode get (\S+)")


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
    gigabits = rates["stream, 1452 bytes"] * 8 / 1e9
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


async def _stream(datagram_size_max: int, size: int) -> float:
    """Bytes a second of a bare stream between two processes."""
    command = [sys.executable, "-m", "p2pnode.testing.stream_pair"]
    limit = str(datagram_size_max)
    async with _process([*command, "serve", limit, str(size)]) as lines:
        port = await _first(lines, re.compile(r"(\d+)"))
        async with _process([*command, "fetch", limit, port]) as answers:
            received, seconds, _cpu = (await _first(answers, re.compile(r"(\d+ \S+ \S+)"))).split()
    return int(received) / float(seconds)


@asynccontextmanager
async def _process(
    command: list[str], variables: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[AsyncIterator[str]]:
    """A process that is ended with the block; what it prints, line by line."""
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                command,
                stdout=subprocess.PIPE,
                capture_stderr=True,
                env=environment() | dict(variables),
                check=False,
            )
        )
        yield _lines(process)
        nursery.cancel_scope.cancel()


async def _lines(process: trio.Process) -> AsyncIterator[str]:
    assert process.stdout is not None
    rest = ""
    async for data in process.stdout:
        *lines, rest = (rest + data.decode(errors="replace")).split("\n")
        for line in lines:
            yield line


async def _first(lines: AsyncIterator[str], wanted: re.Pattern[str]) -> str:
    """The first line that is wanted: its first group."""
    async for line in lines:
        if match := wanted.search(line):
            return match[1]
    raise NetworkError("a process of this measurement ended too early")


async def _get(directory: Path, size: int) -> float:
    """Bytes a second of `p2pnode get` from `p2pnode share`, as the former measures it."""
    source = directory / "source.bin"
    with source.open("wb") as file:
        for start in range(0, size, config.MIB):
            file.write(os.urandom(min(config.MIB, size - start)))
    state = {"XDG_STATE_HOME": str(directory / "state")}
    async with _process(program("share", str(source)), state) as lines:
        ticket = await _first(lines, _TICKET)
        get = program("get", ticket, "-o", str(directory / "target.bin"), "--json")
        async with _process(get, state) as events:
            async for line in events:
                event = json.loads(line)
                if event["event"] == "fetch_completed":
                    return size / float(event["seconds"])
    raise NetworkError("the get of this measurement did not complete")
