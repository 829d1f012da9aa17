"""The guard around everything that a remote can make raise: it ends one connection and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from p2pnode.errors import P2PNodeError

_logger = logging.getLogger("p2pnode.quic")

P = ParamSpec("P")
T = TypeVar("T")


class Escape(Exception):
    """Something came out of aioquic, or of a certificate, that should not have: hostile input, or a bug."""


def guard(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call into aioquic. Whatever escapes becomes an `Escape`, which ends that one connection.

    The only broad `except` of the project. Everything a remote sends passes through such calls; what is
    raised there must not reach the nursery that serves all the others.
    """
    try:
        return call(*args, **kwargs)
    except P2PNodeError:
        raise
    except Exception as error:
        _logger.warning("escaped from %s: %r", getattr(call, "__qualname__", call), error, exc_info=error)
        raise Escape(f"{type(error).__name__}: {error}") from error
