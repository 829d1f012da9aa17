"""The one door to threads: disk and hashing go through `run_blocking`, which the node is given.

Under a test clock a real thread would let virtual hours pass while it works, so tests give an inline one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, TypeVarTuple

import trio

from p2pnode import config

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class RunBlocking(Protocol):
    """Runs a function that blocks; its exceptions come through unchanged."""

    async def __call__(  # noqa: D102
        self, function: Callable[[*Arguments], Result], *arguments: *Arguments
    ) -> Result: ...


def in_threads() -> RunBlocking:
    """A `run_blocking` over trio's threads, with a bound of its own on how many work at once."""
    limiter = trio.CapacityLimiter(config.DISK_THREADS)

    async def run_blocking(function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        return await trio.to_thread.run_sync(function, *arguments, limiter=limiter)

    return run_blocking
