"""How long to look for a source before giving up."""

from __future__ import annotations

import trio

from p2pnode import config
from p2pnode.errors import Busy, NoSource, P2PNodeError


class Patience:
    """Ends when nobody was there for `NO_SOURCE_TIMEOUT_S`; an endless one waits for ever."""

    def __init__(self, endless: bool) -> None:
        self.endless = endless
        self.last_failure: P2PNodeError | None = None
        self._since = trio.current_time()

    def renew(self) -> None:
        """Somebody is there: start counting anew."""
        self._since = trio.current_time()

    def failed(self, error: P2PNodeError) -> None:
        """Somebody gave nothing; why, is told in the end. Who is busy is there, and is waited for."""
        self.last_failure = error
        if isinstance(error, Busy):
            self._since = trio.current_time() + min(error.retry_after_s, config.RETRY_AFTER_MAX_S)

    @property
    def pause_s(self) -> float:
        """How long to wait before looking again: a moment at first, longer for who waits without end."""
        is_young = self._waited_s < config.NO_SOURCE_TIMEOUT_S
        return config.SOURCES_RETRY_S if is_young else config.SOURCES_REFRESH_S

    @property
    def _waited_s(self) -> float:
        return trio.current_time() - self._since

    def check(self, problem: str) -> None:
        """Raise `NoSource` with the problem and the last failure when it is over."""
        waited = self._waited_s
        if self.endless or waited < config.NO_SOURCE_TIMEOUT_S:
            return
        why = f" (the last one: {self.last_failure})" if self.last_failure else ""
        raise NoSource(f"{problem} for {waited:.0f} s{why}; --wait waits for a source")
