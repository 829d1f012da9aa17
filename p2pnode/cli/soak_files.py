"""The files that a soak test fetches: always the same names, sizes and bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Final

from p2pnode.config import MIB
from p2pnode.errors import StorageError

SIZES: Final[Mapping[str, int]] = {
    "hello_world.txt": 30,
    "small.txt": 35,
    "data.json": 39,
    "medium.bin": 500_000,
    "log.txt": 1_500_000,
    "large.bin": 20_000_000,
}
LARGE: Final[Mapping[str, int]] = {"huge.bin": 1024 * MIB}  # with `--large`: by the node protocol alone

_TEXTS: Final = {
    "hello_world.txt": b"Hello World from QUIC Server!\n",
    "small.txt": b"A small file, to see that it works\n",
    "data.json": b'{"name": "p2pnode", "values": [1, 2]}\n\n',
}


def file_set(*, large: bool) -> dict[str, int]:
    """Names and sizes in bytes, in the order of `--once`."""
    return {**SIZES, **(LARGE if large else {})}


def make_files(directory: Path, sizes: Mapping[str, int]) -> None:
    """Write those that are missing or of another size. Runs in a thread; raises StorageError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, size in sizes.items():
            path = directory / name
            if not path.exists() or path.stat().st_size != size:
                _write(path, _contents(name, size))
    except OSError as error:
        raise StorageError(f"cannot make the files of the test in {directory}: {error.strerror}") from error


def reference_digests(directory: Path, names: Mapping[str, int]) -> dict[str, str]:
    """SHA-256 in hex of those that are there, by name. Runs in a thread; raises StorageError."""
    try:
        return {name: digest_of(directory / name) for name in names if (directory / name).is_file()}
    except OSError as error:
        raise StorageError(f"cannot read the references in {directory}: {error.strerror}") from error


def digest_of(path: Path) -> str:
    """SHA-256 in hex; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, contents: Iterator[bytes]) -> None:
    unfinished = path.with_name(f".{path.name}")
    with unfinished.open("wb") as file:
        file.writelines(contents)
    unfinished.replace(path)


def _contents(name: str, size: int) -> Iterator[bytes]:
    if name in _TEXTS:
        yield _TEXTS[name]
    elif name == "log.txt":
        yield from _log_lines(size)
    else:
        rng = Random(name)
        for done in range(0, size, MIB):
            yield rng.randbytes(min(MIB, size - done))


def _log_lines(size: int) -> Iterator[bytes]:
    """Lines of a server's log, the last one cut."""
    number = 0
    while size > 0:
        line = b"2026-01-01T00:00:%02d INFO request %07d answered\n" % (number % 60, number)
        yield line[:size]
        size -= len(line)
        number += 1
