"""Disks that lie or hang: a node that stands on one is a hostile or a sick node, all else about it is real.

Each is a `run_blocking`, which is where a node meets its disk. It works in the calling task, in no virtual time.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

import trio

from p2pnode.storage import PieceData

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class Lie(enum.Enum):
    """What is wrong with a piece that a liar sends."""

    BLOCKS = "blocks"  # the right list of hashes, and blocks that do not fit it
    HASHES = "hashes"  # a list of hashes that does not fit the piece


class Disk:
    """A disk that works until it is frozen. Then whoever asks it waits for ever."""

    def __init__(self) -> None:
        self._is_frozen = False

    def freeze(self) -> None:
        """Hang from now on."""
        self._is_frozen = True

    async def run_blocking(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Work, in no virtual time."""
        await trio.lowlevel.checkpoint()
        if self._is_frozen:
            await trio.sleep_forever()
        return function(*arguments)


class LyingDisk(Disk):
    """Gives wrong pieces, after whoever reads has checked that they are right. `pieces_forged` counts them."""

    def __init__(self, lie: Lie) -> None:
        super().__init__()
        self._lie = lie
        self.pieces_forged = 0

    async def run_blocking(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Work, and forge every piece that is read."""
        result: Any = await super().run_blocking(function, *arguments)
        if isinstance(result, list):
            result = [self._forged(row) for row in result]
        return result  # type: ignore[no-any-return]

    def _forged(self, row: Any) -> Any:
        match row:
            case (int(piece), PieceData() as data):
                self.pieces_forged += 1
                return piece, forged(data, self._lie)
            case _:
                return row


def forged(data: PieceData, lie: Lie) -> PieceData:
    """The piece with its first byte, or its list of hashes, not what it should be."""
    if lie is Lie.HASHES:
        return PieceData(_flipped(data.block_hashes), data.parts)
    return PieceData(data.block_hashes, (_flipped(data.parts[0]), *data.parts[1:]))


def _flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 0xFF]) + data[1:]
