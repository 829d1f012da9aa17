"""Upload slots for `FileRequest`s: the driver of `swarm.choker`. Without a number of slots nobody is ever choked.

Nobody says here that he is interested: whoever asks is, as long as he is served, and for a while after. A choked one
is answered BUSY until the next re-choke, which is when it is worth asking again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from random import Random

import trio

from p2pnode import config
from p2pnode.errors import Busy
from p2pnode.swarm.choker import (
    BytesGiven,
    BytesTaken,
    Choke,
    Choker,
    ChokerEvent,
    FetchingChanged,
    InterestChanged,
    Unchoke,
)
from p2pnode.swarm.events import DeadlinePassed, PeerLeft


class UploadSlots:
    """Who may be served. `given_to_us` says how many bytes each node gave to the fetches under way."""

    def __init__(
        self,
        slots: int | None,
        rng: Random,
        given_to_us: Callable[[], Mapping[bytes, int] | None],
    ) -> None:
        self._choker = None if slots is None else Choker(slots, rng=rng)
        self._unchoked: set[bytes] = set()
        self._given_to_us = given_to_us
        self._given: Mapping[bytes, int] = {}  # when it was asked last
        self._serving: Counter[bytes] = Counter()
        self._asked_at: dict[bytes, float] = {}  # of those who are, or were, interested
        self._somebody_came = trio.Event()

    @contextmanager
    def serving(self, node_id: bytes) -> Iterator[None]:
        """A request of a node is answered. `Busy` while it is choked."""
        if self._choker is None:
            yield
            return
        now = trio.current_time()
        self._asked_at[node_id] = now
        self._tell(self._choker, InterestChanged(node_id, True))
        self._somebody_came.set()
        if node_id not in self._unchoked:
            rechoke_at = self._choker.next_deadline() or now
            raise Busy(
                "no upload slot is free", retry_after_s=max(config.RETRY_AFTER_MIN_S, rechoke_at - now)
            )
        self._serving[node_id] += 1
        try:
            yield
        finally:
            self._asked_at[node_id] = trio.current_time()
            self._serving[node_id] -= 1
            if not self._serving[node_id]:
                del self._serving[node_id]

    def count(self, node_id: bytes, size: int) -> None:
        """A node took so many bytes of pieces."""
        if self._choker is not None:
            self._tell(self._choker, BytesTaken(node_id, size))

    async def run(self) -> None:
        """Re-choke when it is time, for ever."""
        while self._choker is not None:
            deadline = self._choker.next_deadline()
            if deadline is None:
                self._somebody_came = trio.Event()
                await self._somebody_came.wait()
            else:
                await trio.sleep_until(deadline)
                self._rechoke(self._choker, trio.current_time())
        await trio.sleep_forever()

    def _rechoke(self, choker: Choker, now: float) -> None:
        given = self._given_to_us()
        self._tell(choker, FetchingChanged(given is not None))
        given = given or {}
        for node_id, size in given.items():
            if (more := size - self._given.get(node_id, 0)) > 0:
                self._tell(choker, BytesGiven(node_id, more))
        self._given = dict(given)
        for node_id, asked_at in list(self._asked_at.items()):
            if not self._serving[node_id] and now - asked_at >= config.UPLOAD_INTEREST_LASTS_S:
                self._tell(choker, InterestChanged(node_id, False))
                if now - asked_at >= config.UPLOAD_REMEMBERED_S:
                    del self._asked_at[node_id]
                    self._tell(choker, PeerLeft(node_id))
        self._tell(choker, DeadlinePassed())

    def _tell(self, choker: Choker, event: ChokerEvent) -> None:
        choker.receive(event, trio.current_time())
        for command in choker.commands():
            match command:
                case Choke(peer):
                    self._unchoked.remove(peer)
                case Unchoke(peer):
                    self._unchoked.add(peer)
