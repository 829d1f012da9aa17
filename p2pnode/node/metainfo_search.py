"""Asks sources for a metainfo, several at once, until one gives it.

The first answer counts, so one that cannot be reached or that trickles holds nobody up: after a moment the next
source is asked too, those never asked before the others. When all places are taken, whoever has had one for long
makes room for a source that was never asked; it has its full time later, when there is no such source left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from p2pnode import config
from p2pnode.errors import REMOTE_FAULTS, TimedOut
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.node.patience import Patience
from p2pnode.torrent import Metainfo
from p2pnode.wire.communication import NodeItem

FindSources = Callable[[], Awaitable[list[NodeItem]]]
AskSource = Callable[[NodeItem], Awaitable[Metainfo]]


@dataclass
class _Question:
    """A source that is being asked now."""

    is_first: bool
    since: float
    scope: trio.CancelScope
    over: trio.Event = field(default_factory=trio.Event)


@dataclass
class _Failures:
    """How often a source gave nothing, and when it may be asked again."""

    count: int = 0
    again_at: float = 0.0


class MetainfoSearch:
    """One search; `ask` asks one source, and raises one of `REMOTE_FAULTS` when it gives nothing right."""

    def __init__(self, find_sources: FindSources, ask: AskSource, patience: Patience) -> None:
        self._find_sources = find_sources
        self._ask_source = ask
        self._patience = patience
        self._found: list[Metainfo] = []
        self._asking: dict[bytes, _Question] = {}
        self._failures: dict[bytes, _Failures] = {}

    async def run(self, what: str) -> Metainfo:
        """Search until it is found; `NoSource` when nobody new can be asked for too long."""
        async with open_flat_nursery() as nursery:
            while not self._found:
                sources = await self._find_sources()
                if not any(question.is_first for question in self._asking.values()):
                    self._patience.check(f"nobody gives the metainfo of {what!r}")
                for source in self._in_order(sources):
                    if await self._has_room(source.node_id):
                        question = self._asking[source.node_id] = self._question(source.node_id)
                        nursery.start_soon(self._ask, source, question, nursery.cancel_scope)
                        with trio.move_on_after(config.METAINFO_NEXT_SOURCE_S):
                            await question.over.wait()
                await trio.sleep(self._patience.pause_s)
        return self._found[0]

    def _in_order(self, sources: list[NodeItem]) -> list[NodeItem]:
        """Whoever may be asked now, those first who failed least often."""
        now = trio.current_time()
        nothing = _Failures()
        failures = {source.node_id: self._failures.get(source.node_id, nothing) for source in sources}
        free = [
            source
            for source in sources
            if source.node_id not in self._asking and failures[source.node_id].again_at <= now
        ]
        return sorted(free, key=lambda source: failures[source.node_id].count)

    async def _has_room(self, node_id: bytes) -> bool:
        """Whether one more can be asked; for one who never was, the one who has been asked longest makes room."""
        if len(self._asking) < config.METAINFO_AT_ONCE:
            return True
        longest = min(self._asking.values(), key=lambda question: question.since)
        if node_id in self._failures or trio.current_time() < longest.since + config.METAINFO_ALONE_S:
            return False
        longest.scope.cancel()
        await longest.over.wait()
        return True

    def _question(self, node_id: bytes) -> _Question:
        is_first = node_id not in self._failures
        if is_first:
            self._patience.renew()
        scope = trio.CancelScope(deadline=trio.current_time() + config.METAINFO_TIMEOUT_S)
        return _Question(is_first, trio.current_time(), scope)

    async def _ask(self, source: NodeItem, question: _Question, search: trio.CancelScope) -> None:
        try:
            with question.scope:
                self._found.append(await self._ask_source(source))
                search.cancel()
                return
            self._patience.failed(TimedOut("the source takes too long to send the metainfo"))
        except REMOTE_FAULTS as error:
            self._patience.failed(error)
        failures = self._failures.setdefault(source.node_id, _Failures())
        failures.count += 1
        pause_s = min(config.SOURCES_RETRY_S * 2**failures.count, config.METAINFO_RETRY_MAX_S)
        failures.again_at = trio.current_time() + pause_s
        del self._asking[source.node_id]
        question.over.set()
