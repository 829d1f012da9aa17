"""Real `p2pnode` processes with a home of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cli.conftest import Outcome

PROJECT = Path(__file__).resolve().parent.parent.parent
PATIENCE_S = 240  # a hang ends the test; nothing else depends on it
Event = dict[str, Any]


@dataclass
class Running:
    """A process that was started with `--json`, and what it says."""

    process: subprocess.Popen[bytes]

    def first(self, kind: str) -> Event:
        """Read on until an event of this kind comes."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event: Event = json.loads(line)
            if event["event"] == kind:
                return event
        raise AssertionError(f"it ended with {self.process.wait()} before it said {kind}: {self.talk()}")

    def talk(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@dataclass(frozen=True)
class Home:
    """Where the settings and state of one user lie, and the working directory."""

    path: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("P2PNODE_", "XDG_"))}
        xdg = {f"XDG_{name}_HOME": str(self.path / name.lower()) for name in ("CONFIG", "STATE", "CACHE")}
        return kept | xdg | {"PYTHONPATH": str(PROJECT)}

    def run(self, *arguments: str, stdin: bytes = b"") -> Outcome:
        """Run to the end."""
        done = subprocess.run(
            [sys.executable, "-m", "p2pnode", *arguments],
            cwd=self.path,
            env=self.environment,
            input=stdin,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return Outcome(done.returncode, done.stdout.decode(errors="surrogateescape"), done.stderr.decode())

    @contextmanager
    def running(self, *arguments: str, stdin: bytes = b"") -> Iterator[Running]:
        """Run in the background with `--json`; whatever still runs at the end is killed."""
        process = subprocess.Popen(
            [sys.executable, "-m", "p2pnode", *arguments, "--json"],
            cwd=self.path,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None
        with process:
            try:
                process.stdin.write(stdin)
                process.stdin.close()
                yield Running(process)
            finally:
                process.kill()


def new_home(path: Path) -> Home:
    path.mkdir(parents=True, exist_ok=True)
    return Home(path)
