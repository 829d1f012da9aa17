"""Real `p2pnode` processes: started, watched through their `--json` events, ended or killed."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from tests.support.batching import BATCHING

REPOSITORY = Path(__file__).resolve().parents[2]
WAIT_S = 60.0  # no step of a test takes nearly so long; a longer one hangs

Event = dict[str, Any]


def _fits(event: Event, wanted: Event) -> bool:
    return all(
        key in event and (value(event[key]) if callable(value) else event[key] == value)
        for key, value in wanted.items()
    )


class Program:
    """A running `p2pnode`, all lines and events that it printed, and everything it said."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.events: list[Event] = []
        self.said = ""
        self._news = trio.Event()
        self._ended = trio.Event()

    async def read_events(self) -> None:
        """Collect the events until the process closes its output."""
        rest = b""
        assert self.process.stdout is not None
        async for data in self.process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            self.lines.extend(line.decode() for line in lines)
            self.events.extend(json.loads(line) for line in lines if line.startswith(b"{"))
            self._wake()
        self._ended.set()
        self._wake()

    async def read_talk(self) -> None:
        """Collect what it says on stderr."""
        assert self.process.stderr is not None
        async for data in self.process.stderr:
            self.said += data.decode()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def find(self, name: str, /, **fields: Any) -> Event | None:
        """The first event of this name with these fields; a field may be a function that judges the value."""
        return next((event for event in self.events if _fits(event, {"event": name, **fields})), None)

    async def wait_for(self, name: str, /, **fields: Any) -> Event:
        """Wait for such an event."""
        with trio.fail_after(WAIT_S):
            while (event := self.find(name, **fields)) is None:
                assert not self._ended.is_set(), f"ended without {name} {fields}: {self.events} {self.said}"
                await self._news.wait()
        return event

    async def first_line(self) -> str:
        """Wait for the first line on stdout."""
        with trio.fail_after(WAIT_S):
            while not self.lines:
                assert not self._ended.is_set(), f"ended without a line: {self.said}"
                await self._news.wait()
        return self.lines[0]

    async def wait_for_bytes(self) -> None:
        """Wait until a fetch has verified its first bytes."""
        await self.wait_for("fetch_progress", bytes_done=lambda done: done > 0)

    async def wait(self) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""
        with trio.fail_after(WAIT_S):
            await self._ended.wait()
            return await self.process.wait()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal."""
        self.process.send_signal(number)


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it printed."""

    code: int
    stdout: bytes
    said: str

    @property
    def out(self) -> str:
        return self.stdout.decode()

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def events(self) -> list[Event]:
        return [json.loads(line) for line in self.lines]

    def only(self, name: str) -> Event:
        """The one event of this name."""
        [event] = [event for event in self.events if event["event"] == name]
        return event

    def error(self, code: int) -> str:
        """The one line that says why it failed; before it, only whom it was connected to or where it listens."""
        assert self.code == code, (self.code, self.said)
        assert self.stdout == b""
        *before, line = self.said.splitlines()
        assert len(before) <= 1, self.said
        assert all(" listens on " in talk or talk.startswith("connected to ") for talk in before), self.said
        assert line.startswith("p2pnode: ")
        return line.removeprefix("p2pnode: ")


def _environment(state: Path, more: dict[str, str] | None) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("P2PNODE_")}
    return inherited | {
        "XDG_STATE_HOME": str(state / "state"),
        "XDG_CONFIG_HOME": str(state / "config"),
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUNBUFFERED": "1",
        "P2PNODE_BATCH": "1" if BATCHING.get() else "0",
        **(more or {}),
    }


def run_now(*arguments: str | Path, state: Path) -> Outcome:
    """Run `p2pnode ARGUMENTS` to its end, outside of any event loop."""
    command = [sys.executable, "-m", "p2pnode", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, env=_environment(state, None), timeout=WAIT_S)
    return Outcome(done.returncode, done.stdout, done.stderr.decode())


async def run(
    *arguments: str | Path,
    state: Path,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    stdin: bytes = b"",
    prefix: Sequence[str] = (),
) -> Outcome:
    """Run `p2pnode ARGUMENTS` to its end; `prefix` is a command that runs the rest of its line."""
    command = [*prefix, sys.executable, "-m", "p2pnode", *map(str, arguments)]
    with trio.fail_after(WAIT_S):
        done = await trio.run_process(
            command,
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=cwd,
            env=_environment(state, env),
        )
    return Outcome(done.returncode, done.stdout, done.stderr.decode())


@asynccontextmanager
async def program(
    *arguments: str | Path,
    state: Path,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    as_json: bool = True,
    prefix: Sequence[str] = (),
) -> AsyncIterator[Program]:
    """Run `p2pnode --json ARGUMENTS` with all XDG directories below `state`; killed at the end of the block.

    `prefix` is a command that runs the rest of its line.
    """
    flags = ["--json"] if as_json else []
    process = await trio.lowlevel.open_process(
        [*prefix, sys.executable, "-m", "p2pnode", *flags, *map(str, arguments)],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=_environment(state, env),
    )
    running = Program(process)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.read_events)
        nursery.start_soon(running.read_talk)
        try:
            yield running
        finally:
            with trio.CancelScope(shield=True):
                if process.poll() is None:
                    process.kill()
                await process.wait()


class Watched:
    """A program that runs for many tests, outside of any event loop; a thread reads what it prints."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._news: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._seen: list[Event] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._news.put(json.loads(line))
        self._news.put(None)

    def wait_for(self, name: str, /, **fields: Any) -> Event:
        """Wait for an event of this name with these fields."""
        wanted = {"event": name, **fields}
        found = [event for event in self._seen if _fits(event, wanted)]
        while not found:
            event = self._news.get(timeout=WAIT_S)
            assert event is not None, f"ended without {wanted}: {self._seen}"
            self._seen.append(event)
            found = [event] if _fits(event, wanted) else []
        return found[0]

    def kill(self) -> None:
        """End it, and the thread that reads it."""
        self._process.kill()
        self._reader.join()


@contextmanager
def watched(*arguments: str | Path, state: Path) -> Iterator[Watched]:
    """As `program`, for fixtures that live longer than one test."""
    command = [sys.executable, "-m", "p2pnode", "--json", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=_environment(state, None)
    )
    with process:
        running = Watched(process)
        try:
            yield running
        finally:
            running.kill()
