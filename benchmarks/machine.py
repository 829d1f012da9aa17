"""The machine and the programs that a measurement was made with, and what else ran there."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

import p2pnode
from benchmarks.measuring import PROJECT

PACKAGES: Final = ("aioquic", "trio", "cryptography", "qh3", "libp2p", "libtorrent")
SYSTEM_PATHS: Final = "/usr/sbin:/usr/local/sbin:/sbin"  # where daemons are, often not in PATH

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def find_program(name: str) -> str | None:
    """The path of an installed program."""
    return shutil.which(name) or shutil.which(name, path=SYSTEM_PATHS)


def describe() -> list[str]:
    """Lines that name everything a figure depends on."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        f"{_cpu_model()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB",
        f"Linux {platform.release()}, {platform.python_implementation()} {platform.python_version()}",
        f"p2pnode {p2pnode.__version__} ({_commit()})",
        ", ".join(_versions()),
    ]


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    return _first_line("git", "-C", str(PROJECT), "describe", "--always", "--dirty") or "no git"


def _versions() -> list[str]:
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    if nginx := _first_line("nginx", "-v"):
        versions.append(nginx.removeprefix("nginx version: ").replace("/", " "))
    if curl := _first_line("curl", "--version"):
        versions.append(" ".join(curl.split()[:2]))
    return versions


def _first_line(program: str, *arguments: str) -> str:
    path = find_program(program)
    if path is None:
        return ""
    done = subprocess.run([path, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else ""


class OtherLoad:
    """How many cores were busy with what is not ours: figures of a busy machine mean little."""

    def __init__(self) -> None:
        self._began_at = time.monotonic()
        self._others_s = _busy_s() - _own_s()

    def cores(self) -> float:
        """The mean since this object was made; only once all processes of a measurement have ended."""
        return max(0.0, (_busy_s() - _own_s() - self._others_s) / (time.monotonic() - self._began_at))


def _busy_s() -> float:
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_S


def _own_s() -> float:
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in own)
