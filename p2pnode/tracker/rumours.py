"""What nodes say of where others are: believed as far as that can harm nobody.

Whoever fetches asks his peers, too, who has the torrent. An answer may be wrong on purpose: addresses of a third
party that is to be dialed by a whole swarm, or of somebody's own network. So an address counts only where whoever
names it could have met it, and each teller has a few dials that may fail: one is taken for each node that is tried
on his word, and comes back when a node with that very id answers there. One who lies has used them up at once; one
who tells of nodes that left meanwhile gets one back each minute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice

from msgspec.structs import replace

from p2pnode import config
from p2pnode.tracker.addresses import Address, believable_addresses
from p2pnode.tracker.piece_ranges import largest
from p2pnode.wire.communication import NodeItem

__all__ = ["Rumours", "believable"]


def believable(items: Iterable[NodeItem], teller_host: str) -> list[NodeItem]:
    """What a node at `teller_host`, as we see it, says of others: each at the addresses that it may have met.

    Of what they have the longest runs: they say the rest themselves.
    """
    return [
        replace(
            item,
            addresses=believable_addresses(item.addresses, teller_host),
            have=largest(item.have, config.OFFER_RANGES_MAX),
        )
        for item in items
    ]


@dataclass(slots=True)
class _Teller:
    """One who told us of others, and how many dials may still fail on his word."""

    credit: float
    counted_at: float
    heard_at: float
    rumours: dict[tuple[bytes, bytes], NodeItem] = field(default_factory=dict)  # by node id and file id
    tried: set[tuple[bytes, bytes]] = field(default_factory=set)  # those that were given out

    def forget_oldest(self, count: int) -> None:
        """Forget as many rumours, if that is not less than none."""
        for key in list(islice(self.rumours, max(0, count))):
            del self.rumours[key]
            self.tried.discard(key)


class Rumours:
    """All that was heard. Times are seconds on any one clock that never goes back."""

    def __init__(self) -> None:
        self._tellers: dict[bytes, _Teller] = {}  # who spoke last is last

    def hear(self, teller_id: bytes, items: Iterable[NodeItem], now: float) -> None:
        """Note what somebody says, but of nodes that have no address. Of too much, the oldest is forgotten."""
        self._forget(now)
        teller = self._tellers.pop(teller_id, None) or _Teller(config.RUMOUR_DIALS, now, now)
        self._tellers[teller_id] = teller
        teller.heard_at = now
        if len(self._tellers) > config.RUMOUR_TELLERS_MAX:
            del self._tellers[next(iter(self._tellers))]
        for item in items:
            key = item.node_id, item.file_id
            if item.addresses and key not in teller.tried:
                teller.rumours.pop(key, None)
                teller.rumours[key] = item
        teller.forget_oldest(len(teller.rumours) - config.RUMOURS_PER_TELLER_MAX)
        tellers = self._tellers.values()
        for _ in range(sum(len(one.rumours) for one in tellers) - config.RUMOURS_MAX):
            max(tellers, key=lambda one: len(one.rumours)).forget_oldest(1)

    def take(
        self,
        file_ids: Iterable[bytes],
        now: float,
        *,
        known: Iterable[bytes] = (),
        is_linked: Callable[[bytes], bool] = lambda node_id: False,
    ) -> list[NodeItem]:
        """Who may have these torrents, besides the nodes that are `known` otherwise, and may be dialed.

        The same ones are named again until `dialed` tells what came of it. Who is linked need not be dialed.
        """
        self._forget(now)
        wanted, left_out = set(file_ids), set(known)
        found: dict[bytes, NodeItem] = {}
        for teller in self._tellers.values():
            for key, item in teller.rumours.items():
                if item.file_id not in wanted or item.node_id in left_out:
                    continue
                if is_linked(item.node_id) or self._may_try(teller, key, now):
                    found[item.node_id] = _joined(found.get(item.node_id), item)
        return list(found.values())

    def dialed(self, node_id: bytes, address: Address | None) -> None:
        """What came of dialing a node: who named the address where it answered has lost nothing by it."""
        for teller in self._tellers.values():
            for key in [key for key in teller.rumours if key[0] == node_id]:
                item = teller.rumours.pop(key)
                if key in teller.tried:
                    teller.tried.remove(key)
                    teller.credit = min(teller.credit + (address in item.addresses), config.RUMOUR_DIALS)

    def _forget(self, now: float) -> None:
        """Forget those who have said nothing for long."""
        for teller_id, teller in list(self._tellers.items()):
            if now - teller.heard_at < config.RUMOUR_LASTS_S:
                return
            del self._tellers[teller_id]

    def _may_try(self, teller: _Teller, key: tuple[bytes, bytes], now: float) -> bool:
        if key in teller.tried:
            return True
        regained = (now - teller.counted_at) / config.RUMOUR_DIAL_REGAINED_S
        teller.credit = min(teller.credit + regained, config.RUMOUR_DIALS)
        teller.counted_at = now
        if teller.credit < 1:
            return False
        teller.credit -= 1
        teller.tried.add(key)
        return True


def _joined(earlier: NodeItem | None, item: NodeItem) -> NodeItem:
    """One node of which several tell."""
    if earlier is None:
        return item
    addresses: tuple[Address, ...] = tuple(dict.fromkeys(earlier.addresses + item.addresses))
    return replace(earlier, addresses=addresses[: config.ADDRESSES_PER_NODE_MAX])
