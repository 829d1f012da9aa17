"""Processes, watched from outside through /proc: CPU time and peak memory of whoever runs there."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Self

from benchmarks.measuring import MB, PROJECT, Failed, Place, Sample

END_TIMEOUT_S: Final = 10.0

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class Program:
    """A child process whose standard output is read line by line. Ends with the block."""

    def __init__(
        self, command: Sequence[object], *, time_limit_s: float, environment: dict[str, str] | None = None
    ) -> None:
        """When it runs longer than `time_limit_s` it is killed, and `Failed` is raised."""
        self._command = [str(word) for word in command]
        self._environment = os.environ | (environment or {})
        self._time_limit_s = time_limit_s
        self._rss_peak = 0
        self._drain: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=PROJECT,
            env=self._environment,
        )
        self._watchdog = threading.Timer(self._time_limit_s, self._process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.cancel()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._drain is not None:
            self._drain.join()
        self._process.stdout.close()
        self._errors.close()

    def wait_for(self, text: str) -> str:
        """The first line that holds `text`; what came before it is lost. `Failed` when there is none."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._look_at_memory()
            if text in line:
                return line
        raise Failed(self._last_words())

    def drain(self) -> None:
        """From now on nobody waits for its lines: read them away, or it would wait for us once the pipe is full."""
        assert self._process.stdout is not None
        self._drain = threading.Thread(target=deque, args=(self._process.stdout, 0), daemon=True)
        self._drain.start()

    def wait_end(self) -> None:
        """Wait until it ends by itself. `Failed` when it did so with an error."""
        if self._process.wait() != 0:
            raise Failed(self._last_words())

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip(" |+-") for line in self._errors]  # without the frame of an exception group
        message = next((line.strip() for line in reversed(lines) if line.strip()), "no message")
        return f"{' '.join(self._command[:4])} … ended with {code}: {message}"

    def cpu_s(self) -> float:
        """User and system time so far; of a process that ended too, until the block ends."""
        with open(f"/proc/{self._process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def rss(self) -> int:
        """Bytes that are resident now."""
        return self._memory()["VmRSS"]

    def rss_peak(self) -> int:
        """The most bytes that were ever resident, as far as was looked."""
        self._look_at_memory()
        return self._rss_peak

    def _look_at_memory(self) -> None:
        with contextlib.suppress(OSError):
            self._rss_peak = max(self._rss_peak, self._memory().get("VmHWM", 0))  # 0: it has just ended

    def _memory(self) -> dict[str, int]:
        with open(f"/proc/{self._process.pid}/status", encoding="ascii") as file:
            lines = [line.split() for line in file if line.startswith("Vm")]
        return {name.rstrip(":"): int(kib) * 1024 for name, kib, _ in lines}


def module(name: str, *arguments: object) -> list[object]:
    """The command that runs one of the pairs in `benchmarks.ways`."""
    return [sys.executable, "-m", f"benchmarks.ways.{name}", *arguments]


def measure_pair(
    place: Place, sender_command: Sequence[object], receiver_command: Sequence[object]
) -> Sample:
    """A sender that says `ready`, and a receiver that keeps a `Receipt`."""
    with Program(sender_command, time_limit_s=place.time_limit_s) as sender:
        sender.wait_for("ready")
        with Program(receiver_command, time_limit_s=place.time_limit_s) as receiver:
            receiver.wait_for('"begin"')
            began_at = sender.cpu_s(), receiver.cpu_s()
            end: dict[str, Any] = json.loads(receiver.wait_for('"end"'))
            return Sample(
                mb_per_s=place.size / end["seconds"] / MB,
                cpu_s_sender=sender.cpu_s() - began_at[0],
                cpu_s_receiver=receiver.cpu_s() - began_at[1],
                rss_mb_sender=sender.rss_peak() / MB,
                rss_mb_receiver=receiver.rss_peak() / MB,
            )
