"""The tracker that a soak test runs for itself: a real process, which may be started again in the middle."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import trio

from p2pnode.cli.swarm_nodes import environment, program
from p2pnode.errors import P2PNodeError

LOOK_INTERVAL_S: Final = 0.1  # between two looks at how far the test is
STOP_PATIENCE_S: Final = 10.0  # a tracker that has not ended so long after SIGTERM is killed


class TrackerDied(P2PNodeError):
    """The tracker ended by itself, which no download can bring about if all is well."""


class OwnTracker:
    """`p2pnode tracker` on loopback, with its files in `directory`/seed; its logs go to `log_dir`."""

    def __init__(self, directory: Path, log_dir: Path, nursery: trio.Nursery) -> None:
        self.seed_dir = directory / "seed"
        self._state_dir = directory / "state"
        self._log_dir = log_dir
        self._nursery = nursery
        self._process: trio.Process | None = None
        self.port = 0

    async def start(self) -> None:
        """Start it, on the same port as before; returns when all its doors are open. Raises TrackerDied."""
        doors = ["--quic", str(self.port), "--http", "0", "--udp", "0", "--addr", "127.0.0.1"]
        places = ["--seed-dir", str(self.seed_dir), "--state-dir", str(self._state_dir)]
        log = ["--log-file", str(self._log_dir / "tracker.log")]
        command = program("tracker", "--json", *doors, *places, *log)
        with self._errors_path.open("ab") as errors:
            process = await trio.lowlevel.open_process(
                command, stdout=subprocess.PIPE, stderr=errors, env=environment()
            )
        self._process = process
        assert process.stdout is not None
        events = _events(process.stdout)
        async for event in events:
            if event["event"] == "listening":
                self.port = event["address"][1]
            elif event["event"] == "front_ends_ready":
                self._nursery.start_soon(self._attend, process, events)
                return
        raise await self._death(process)

    async def stop(self) -> None:
        """End it kindly, if it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        with trio.move_on_after(STOP_PATIENCE_S):
            await process.wait()
        process.kill()
        await process.wait()

    async def cut(self) -> None:
        """End it as a power cut would."""
        process, self._process = self._process, None
        assert process is not None
        process.kill()
        await process.wait()

    async def restart(self, times: int, share_done: Callable[[], float], say: Callable[[str], None]) -> None:
        """Start it again so many times, evenly over the test; every second time it is cut, not stopped."""
        number = 1
        while number <= times:
            await trio.sleep(LOOK_INTERVAL_S)
            if share_done() >= number / (times + 1):
                say(f"the tracker is started again, {number} of {times}")
                await (self.stop() if number % 2 else self.cut())
                await self.start()
                number += 1

    @property
    def _errors_path(self) -> Path:
        return self._log_dir / "tracker.err"

    async def _attend(self, process: trio.Process, events: AsyncIterator[dict[str, Any]]) -> None:
        """Let what it says pass by, so that it need not wait for us; it must not end before it is told to."""
        async for _ in events:
            pass
        if process is self._process:
            raise await self._death(process)

    async def _death(self, process: trio.Process) -> TrackerDied:
        code = await process.wait()
        lines = self._errors_path.read_text(errors="replace").strip().splitlines()
        words = lines[-1].strip(" |") if lines else "it said nothing"
        return TrackerDied(f"the tracker ended with {code}: {words} (all it said is in {self._errors_path})")


async def _events(stream: trio.abc.ReceiveStream) -> AsyncIterator[dict[str, Any]]:
    """What a process says with `--json`, to its end."""
    rest = b""
    async for data in stream:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield json.loads(line)
