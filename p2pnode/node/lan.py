"""Nodes in the same network find each other by multicast (BEP 14), without any server.

What we have and what we look for is said in the same words, seldom: at the start, every few minutes, and when there
is a reason. Who hears that somebody looks for what he has answers him alone, at once. Nothing that is heard is
believed but that a node may be at that very address.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from math import inf
from typing import Final

import trio

from p2pnode import config
from p2pnode.node.discovery import Ourselves
from p2pnode.node.lan_sockets import Group, is_near, open_groups
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.quic import Address
from p2pnode.quic.budget import Budget
from p2pnode.wire.communication import NodeItem
from p2pnode.wire.local_search import LocalSearch, decode, encode, short_hash

OpenGroups = Callable[[str], Awaitable[Sequence[Group]]]

_Found = dict[bytes, dict[Address, float]]
"""By node id, where it said that it is, and when it said so last."""


class LanDiscovery:
    """A `Discovery` in this network."""

    keeps_private: Final = False

    def __init__(self, open_groups: OpenGroups = open_groups) -> None:
        self._open_groups = open_groups
        self._cookie = os.urandom(8).hex()
        self._told_at: dict[bytes, float] = {}  # by short hash, no longer than it matters
        self._to_tell: dict[bytes, None] = {}
        self._something_to_tell = trio.Event()
        self._looked_for: dict[bytes, _Found] = {}  # by short hash, what was looked for last is last
        self._answers = Budget(config.LAN_ANSWERS_PER_S, config.LAN_ANSWERS_BURST)
        self._offered: frozenset[bytes] = frozenset()
        self._offered_at = -inf

    async def run(self, ourselves: Ourselves) -> None:
        """Run until cancelled. `NetworkError` where there is no multicast."""
        groups = await self._open_groups(ourselves.listen_address[0])
        try:
            async with open_flat_nursery() as nursery:
                for group in groups:
                    nursery.start_soon(self._hear_for_ever, group, ourselves)
                    nursery.start_soon(self._hear_answers_for_ever, group, ourselves)
                nursery.start_soon(self._tell_for_ever, groups, ourselves)
                nursery.start_soon(self._repeat_for_ever, ourselves)
        finally:
            for group in groups:
                group.close()

    # -- what the node says --------------------------------------------------------------------------------

    def look_for(self, file_id: bytes) -> None:
        """Ask for this, unless that was asked a moment ago; remember who answers."""
        name = short_hash(file_id)
        self._looked_for[name] = self._looked_for.pop(name, {})
        if len(self._looked_for) > config.LAN_LOOKED_FOR_MAX:
            del self._looked_for[next(iter(self._looked_for))]
        self._tell(name)

    def offer(self, file_id: bytes) -> None:
        """Say that we have this."""
        self._offered_at = -inf
        self._tell(short_hash(file_id))

    def withdraw(self, file_id: bytes) -> None:
        """Say nothing: whoever asks hears only of what we have."""
        self._offered_at = -inf

    def found(self, file_id: bytes) -> Iterator[NodeItem]:
        """Who said lately that he has it, or looks for it."""
        since = trio.current_time() - config.LAN_FOUND_LASTS_S
        for node_id, heard in self._looked_for.get(short_hash(file_id), {}).items():
            addresses = tuple(address for address, heard_at in heard.items() if heard_at >= since)
            if addresses:
                yield NodeItem(node_id, addresses, file_id, is_fetching=True)

    # -- telling -------------------------------------------------------------------------------------------

    def _tell(self, name: bytes) -> None:
        if trio.current_time() - self._told_at.get(name, -inf) >= config.LAN_TORRENT_INTERVAL_S:
            self._to_tell[name] = None
            self._something_to_tell.set()

    async def _repeat_for_ever(self, ourselves: Ourselves) -> None:
        while True:
            for file_id in islice(ourselves.offered(), config.LAN_TORRENTS_MAX):
                self._tell(short_hash(file_id))
            await trio.sleep(config.LAN_INTERVAL_S)

    async def _tell_for_ever(self, groups: Sequence[Group], ourselves: Ourselves) -> None:
        while True:
            await self._something_to_tell.wait()
            await trio.sleep(config.LAN_GATHER_S)
            self._something_to_tell = trio.Event()
            now = trio.current_time()
            earliest = now - config.LAN_TORRENT_INTERVAL_S
            self._told_at = {name: told_at for name, told_at in self._told_at.items() if told_at > earliest}
            names = list(self._to_tell)
            self._to_tell.clear()
            self._told_at.update(dict.fromkeys(names, now))
            for group in groups:
                for part in _parts(names):
                    await group.say(self._datagram(part, ourselves, group))

    def _datagram(self, names: Iterable[bytes], ourselves: Ourselves, group: Group) -> bytes:
        port = ourselves.listen_address[1]
        return encode(LocalSearch(port, tuple(names), self._cookie, ourselves.node_id), group.name)

    # -- hearing -------------------------------------------------------------------------------------------

    async def _hear_for_ever(self, group: Group, ourselves: Ourselves) -> None:
        while True:
            datagram, sender = await group.hear()
            search = self._note_untrusted(datagram, sender, ourselves)
            if search is None:
                continue
            ours = self._offered_names(ourselves).intersection(search.info_hashes)
            if ours and self._answers.spend(trio.current_time()):
                await group.answer(self._datagram(sorted(ours), ourselves, group), sender)

    async def _hear_answers_for_ever(self, group: Group, ourselves: Ourselves) -> None:
        while True:
            self._note_untrusted(*await group.hear_answer(), ourselves)

    def _note_untrusted(self, datagram: bytes, sender: Address, ourselves: Ourselves) -> LocalSearch | None:
        """Remember what helps us; gives what another node said near us, None for all the rest."""
        search = decode(datagram)
        if search is None or search.node_id is None or search.port in config.PORTS_NEVER_DIALED:
            return None
        if search.node_id == ourselves.node_id or search.cookie == self._cookie or not is_near(sender[0]):
            return None
        for name in search.info_hashes:
            if (found := self._looked_for.get(name)) is not None:
                heard = found[search.node_id] = found.pop(search.node_id, {})
                heard.pop((sender[0], search.port), None)
                heard[sender[0], search.port] = trio.current_time()
                if len(heard) > config.ADDRESSES_PER_NODE_MAX:
                    del heard[next(iter(heard))]
                if len(found) > config.LAN_FOUND_MAX:
                    del found[next(iter(found))]
        return search

    def _offered_names(self, ourselves: Ourselves) -> frozenset[bytes]:
        """Short hashes of what we offer, looked up no more often than somebody could care."""
        now = trio.current_time()
        if now - self._offered_at >= config.LAN_OFFERED_REFRESH_S:
            self._offered = frozenset(map(short_hash, ourselves.offered()))
            self._offered_at = now
        return self._offered


def _parts(names: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(names), config.LAN_HASHES_MAX):
        yield names[start : start + config.LAN_HASHES_MAX]
