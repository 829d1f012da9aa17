"""The same work on many things, on all cores, with the results in order.

hashlib lets go of the interpreter while it hashes a block, so threads are enough.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias, TypeVar

__all__ = ["OnProgress", "in_threads"]

OnProgress: TypeAlias = Callable[[int, int], object]
"""Called with (bytes done, bytes in all); what it raises ends the work and is raised from it."""

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def in_threads(
    work: Callable[[_Task], _Result], tasks: Iterable[_Task], *, threads: int | None = None
) -> Generator[tuple[_Task, _Result], None, None]:
    """Each task with its result, in order, worked on by as many threads as there are cores.

    Tasks are drawn as they are needed, a few for each thread ahead. The first error ends it, and so does
    closing the generator: what has not begun never does, what has is waited for.
    """
    count = threads or os.cpu_count() or 1
    waiting: deque[tuple[_Task, Future[_Result]]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="p2pnode-hash") as pool:
        try:
            for task in tasks:
                waiting.append((task, pool.submit(work, task)))
                if len(waiting) >= 2 * count:
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        finally:
            for _, future in waiting:
                future.cancel()


def _first(waiting: deque[tuple[_Task, Future[_Result]]]) -> tuple[_Task, _Result]:
    task, future = waiting.popleft()
    return task, future.result()
