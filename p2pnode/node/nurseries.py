"""A nursery whose expected failures come out bare.

trio wraps whatever a nursery raises in an exception group. Two tasks on one stream both fail when it ends, and
the caller wants the one reason. Only errors of `errors.py` are unwrapped: a defect of ours stays in its group,
with every traceback.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from p2pnode.errors import P2PNodeError, leaves


@asynccontextmanager
async def open_flat_nursery() -> AsyncIterator[trio.Nursery]:
    """Like `trio.open_nursery`, but the first `P2PNodeError` is raised itself when nothing worse happened."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        errors = list(leaves(group))
        expected = [error for error in errors if isinstance(error, P2PNodeError)]
        if expected and all(isinstance(error, P2PNodeError | trio.Cancelled) for error in errors):
            raise expected[0] from None
        raise
