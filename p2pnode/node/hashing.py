"""Hashing in a thread that shows how far it is, and that can be cancelled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import trio

from p2pnode import config
from p2pnode.node.blocking import RunBlocking
from p2pnode.node.events import HashingProgress, NodeEvent
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.storage import OnProgress

Result = TypeVar("Result")


async def with_progress(
    path: Path,
    work: Callable[[OnProgress], Result],
    *,
    run_blocking: RunBlocking,
    publish: Callable[[NodeEvent], None],
) -> Result:
    """Run `work` in a thread; publish `HashingProgress` of `path` while it takes longer than a moment.

    Cancelled, the thread ends at its next report, so that an interrupt need not wait for a terabyte.
    """
    last = (0, 0)

    def on_progress(done: int, total: int) -> None:
        nonlocal last
        last = (done, total)
        _check_cancelled()

    async def report() -> None:
        while True:
            await trio.sleep(config.PROGRESS_INTERVAL_S)
            publish(HashingProgress(path=path, bytes_done=last[0], bytes_total=last[1]))

    async with open_flat_nursery() as nursery:
        nursery.start_soon(report)
        result = await run_blocking(work, on_progress)
        nursery.cancel_scope.cancel()
    return result


def _check_cancelled() -> None:
    try:
        trio.from_thread.check_cancelled()
    except RuntimeError:
        return  # run inline, by a test: the loop cannot have cancelled us meanwhile
