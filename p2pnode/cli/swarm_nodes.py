"""The nodes of a swarm on this machine: each a real process, told by its arguments, heard by its events."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from p2pnode.errors import P2PNodeError

_STOP_PATIENCE_S: Final = 10.0  # a node that has not ended so long after SIGTERM is killed
Event = dict[str, Any]


class SwarmFailed(P2PNodeError):
    """The swarm did not bring about what it should."""


class SwarmNode:
    """One child process. `events` has all that it said so far; its log is `directory`/log.txt."""

    def __init__(self, name: str, directory: Path, zone: str = "") -> None:
        self.name = name
        self.zone = zone
        self.directory = directory
        self.files_dir = directory / "files"
        self.state_dir = directory / "state"
        self.events: list[Event] = []
        self._process: trio.Process | None = None
        self._changed = trio.Event()

    async def start(
        self, nursery: trio.Nursery, command: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        """Start what says its events on stdout, and begin to listen to it."""
        log = (self.directory / "log.txt").open("wb")
        with log:
            self._process = await nursery.start(
                partial(
                    trio.run_process,
                    command,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=environment,
                    check=False,
                )
            )
        nursery.start_soon(self._listen)

    @property
    def node_id(self) -> str:
        """In hex; empty until it listens."""
        return next((event["node_id"] for event in self.events if event["event"] == "listening"), "")

    async def first(self, kind: str) -> Event:
        """Wait for the first event of a kind; SwarmFailed when the node ends before."""
        await self._wait_until(lambda: any(event["event"] == kind for event in self.events))
        return next(event for event in self.events if event["event"] == kind)

    async def wait_for_items(self, names: frozenset[str]) -> None:
        """Wait until it has all of these whole; SwarmFailed when it ends before."""
        await self._wait_until(lambda: names <= self.items())

    async def _wait_until(self, is_so: Callable[[], bool]) -> None:
        assert self._process is not None
        while not is_so():
            if self._process.returncode is not None:
                raise SwarmFailed(f"{self.name} ended with {self._process.returncode}: {self._last_words()}")
            await self._changed.wait()

    async def stop(self) -> None:
        """End the process, kindly first."""
        if self._process is None:
            return
        with trio.move_on_after(_STOP_PATIENCE_S):
            self._process.terminate()
            await self._process.wait()
        if self._process.returncode is None:
            self._process.kill()

    def kill(self) -> None:
        """End the process as a power cut would."""
        assert self._process is not None
        self._process.kill()

    def items(self) -> frozenset[str]:
        """The names of what it has whole: its own from the start, or fetched to the last event."""
        names: dict[str, set[str]] = {"file_shared": set(), "fetch_started": set(), "fetch_completed": set()}
        for event in self.events:
            if event["event"] in names:
                names[event["event"]].add(event["name"])
        return frozenset(names["file_shared"] - names["fetch_started"] | names["fetch_completed"])

    async def _listen(self) -> None:
        """Take its stdout line by line until it ends."""
        assert self._process is not None
        assert self._process.stdout is not None
        rest = b""
        with (self.directory / "events.jsonl").open("wb", buffering=0) as record:
            async for data in self._process.stdout:
                record.write(data)
                *lines, rest = (rest + data).split(b"\n")
                self.events += [json.loads(line) for line in lines]
                self._notify()
        await self._process.wait()
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _last_words(self) -> str:
        lines = (self.directory / "log.txt").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def program(*arguments: str) -> list[str]:
    """The command line of this very p2pnode, without the user's file of settings."""
    return [sys.executable, "-m", "p2pnode", "--config", os.devnull, *arguments]


def environment(delay_s: float = 0.0, loss: float = 0.0) -> dict[str, str]:
    """Ours, without settings that are not meant for these nodes; with a worse network, if it shall be one."""
    ours = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("P2PNODE_") or key == "P2PNODE_BATCH"
    }
    return ours | ({"P2PNODE_IMPAIR": f"{delay_s},{loss}"} if delay_s or loss else {})
