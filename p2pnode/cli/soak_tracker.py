"""The tracker that a soak test runs for itself: a real process, which may be started again in the middle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from p2pnode.cli.swarm_nodes import SwarmNode, environment, program

LOOK_INTERVAL_S: Final = 0.1  # between two looks at how far the test is


class OwnTracker:
    """`p2pnode tracker` on loopback, on ports of its own, with its files in `directory`/files."""

    def __init__(self, directory: Path, log_path: Path, nursery: trio.Nursery) -> None:
        self._directory = directory
        self._log_path = log_path
        self._nursery = nursery
        self._node = SwarmNode("tracker", directory)
        self.port = 0

    @property
    def seed_dir(self) -> Path:
        """What it offers."""
        return self._node.files_dir

    async def start(self) -> None:
        """Start it, on the same port as before; returns when all its doors are open. Raises SwarmFailed."""
        self._node = SwarmNode("tracker", self._directory)
        words = ["--quic", str(self.port), "--http", "0", "--udp", "0", "--addr", "127.0.0.1"]
        places = ["--seed-dir", str(self._node.files_dir), "--state-dir", str(self._node.state_dir)]
        log = ["--log-file", str(self._log_path)]
        command = program("tracker", "--json", *words, *places, *log)
        await self._node.start(self._nursery, command, environment())
        self.port = (await self._node.first("listening"))["address"][1]
        await self._node.first("front_ends_ready")

    async def stop(self) -> None:
        """End it kindly."""
        await self._node.stop()

    async def restart(self, times: int, share_done: Callable[[], float], say: Callable[[str], None]) -> None:
        """Start it again so many times, evenly over the test; every second time it is killed as by a power cut."""
        number = 1
        while number <= times:
            await trio.sleep(LOOK_INTERVAL_S)
            if share_done() >= number / (times + 1):
                say(f"the tracker is started again, {number} of {times}")
                await (self._node.stop() if number % 2 else self._node.cut())
                await self.start()
                number += 1
