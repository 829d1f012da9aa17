"""The race of a swarm of processes: all peers are told to fetch one file at the same moment."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import trio

from p2pnode.cli.swarm_nodes import SwarmNode
from p2pnode.errors import REMOTE_FAULTS
from p2pnode.node.operator import open_operator
from p2pnode.testing.swarm_plan import Incident, Progress

LOOK_INTERVAL_S: Final = 0.05  # between two looks at how far the peers are


@dataclass(frozen=True)
class Finish:
    """How one peer came out: seconds from the start, and what its fetch says of itself."""

    seconds: float
    sources: Mapping[str, int]  # bytes by node id
    duplicate_bytes: int


class Race:
    """Lets the server push `name` to all, and kills whom it should; `finishes` gets how each peer came out."""

    def __init__(
        self,
        name: str,
        size: int,
        server: SwarmNode,
        peers: Sequence[SwarmNode],
        kills: Sequence[tuple[Incident, SwarmNode]],
        finishes: dict[str, Finish],
    ) -> None:
        self._name = name
        self._size = size
        self._server = server
        self._peers = peers
        self._kills = kills
        self._finishes = finishes
        self._started = 0.0

    async def run(self) -> None:
        """Until every peer that is not to be killed has it; SwarmFailed when one of them ends before."""
        await self._wait_listed()
        self._started = trio.current_time()
        victims = [victim for _, victim in self._kills]
        async with trio.open_nursery() as beside:
            beside.start_soon(self._push)
            for kill, victim in self._kills:
                beside.start_soon(self._kill_in_time, kill, victim)
            async with trio.open_nursery() as waiting:
                for peer in self._peers:
                    if peer not in victims:
                        waiting.start_soon(self._wait_for, peer)
            beside.cancel_scope.cancel()

    async def _wait_listed(self) -> None:
        async with open_operator(self._server.state_dir) as operator:
            while True:
                if any(item.name == self._name for item in await operator.list_files(self._name)):
                    return
                await trio.sleep(LOOK_INTERVAL_S)

    async def _push(self) -> None:
        try:
            async with (
                open_operator(self._server.state_dir) as operator,
                aclosing(operator.push(self._name, "all")) as reports,
            ):
                async for _ in reports:
                    pass  # the peers themselves tell more
        except REMOTE_FAULTS:
            return  # it was killed in the middle; the peers go on

    async def _wait_for(self, peer: SwarmNode) -> None:
        event = await peer.first("fetch_completed")
        seconds = trio.current_time() - self._started
        self._finishes[peer.name] = Finish(seconds, event["sources"], event.get("duplicate_bytes", 0))

    async def _kill_in_time(self, kill: Incident, victim: SwarmNode) -> None:
        while True:
            await trio.sleep(LOOK_INTERVAL_S)
            if kill.when.has_come(self._progress()):
                victim.kill()
                return

    def _progress(self) -> Progress:
        """What pieces they have is not known here, only how many bytes."""
        shares = [self._share(peer) for peer in self._peers]
        return Progress(
            seconds=trio.current_time() - self._started,
            completed=len(self._finishes),
            median_share=statistics.median(shares),
        )

    def _share(self, peer: SwarmNode) -> float:
        """How much of it one peer has, 0 … 1, to its last word."""
        for event in reversed(peer.events):
            if event["event"] == "fetch_completed":
                return 1.0
            if event["event"] == "fetch_progress":
                return float(event["bytes_done"] / self._size)
        return 0.0
