"""Reads and writes `.torrent` files."""

from __future__ import annotations

from pathlib import Path

from p2pnode.config import METAINFO_SIZE_MAX
from p2pnode.errors import InvalidData, NotFound, StorageError, TargetExists
from p2pnode.torrent.metainfo import Metainfo


def read_torrent_file(path: Path) -> Metainfo:
    """Read a `.torrent` of any version.

    Raises NotFound, StorageError, or InvalidData for what is larger than 64 MiB or no torrent; each names the
    file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(METAINFO_SIZE_MAX + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no file {str(path)!r}") from None
    except OSError as error:
        raise StorageError(f"cannot read {str(path)!r}: {error.strerror}") from None
    try:
        return Metainfo.decode(data, size_max=METAINFO_SIZE_MAX)
    except InvalidData as error:
        raise type(error)(f"{str(path)!r}: {error}") from None


def write_torrent_file(path: Path, metainfo: Metainfo) -> None:
    """Write a `.torrent`; what is there already stays: TargetExists, or StorageError."""
    try:
        with path.open("xb") as file:
            file.write(metainfo.encode())
    except FileExistsError:
        raise TargetExists(f"{str(path)!r} is there already: give another -o, or remove it") from None
    except OSError as error:
        raise StorageError(f"cannot write {str(path)!r}: {error.strerror}") from None
