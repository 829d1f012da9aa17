"""Who is there until when, and who has what.

A node is there from its announce until its presence expires or it says bye; when its link breaks, it may be
back in a moment, so it stays a little longer. Its files are there as long as it is.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import inf
from typing import Final

from p2pnode import config
from p2pnode.tracker.addresses import Address, known_addresses, network_of, visible_addresses
from p2pnode.tracker.file_index import FileIndex, Holding
from p2pnode.wire.communication import (
    FileAcknowledge,
    FileAnnounce,
    FileItem,
    NodeItem,
    PeerReport,
    PresenceAnnounce,
)

__all__ = ["LOCAL_HOST", "Asker", "NodeRegistry", "NodeRegistryLimits"]

LOCAL_HOST: Final = "127.0.0.1"
"""Where a node asks itself from: it may be told everything that can be dialled."""


@dataclass(frozen=True, slots=True)
class NodeRegistryLimits:
    """How much a registry holds; what comes above is refused, never pushed in at another's expense."""

    nodes: int = config.NODES_MAX
    nodes_per_network: int = config.NODES_PER_NETWORK_MAX
    files_per_node: int = config.FILES_PER_NODE_MAX
    offers: int = config.OFFERS_MAX
    ranges: int = config.OFFER_RANGES_TOTAL_MAX
    lasts_after_link_lost_s: float = config.PRESENCE_AFTER_LINK_LOST_S


@dataclass(frozen=True, slots=True)
class Asker:
    """Who wants to know, and the host that his packets come from. He is never in his own answer."""

    node_id: bytes
    host: str


@dataclass(slots=True)
class _Node:
    presence: PresenceAnnounce
    observed_host: str | None  # None for a node that is not to be dialled: ourselves
    addresses: tuple[Address, ...]
    since: float
    expires_at: float
    queued_at: float = inf  # when its entry in the queue of expiries comes up


class NodeRegistry:
    """All nodes that announced themselves, and their files.

    Times are seconds on any one clock that never goes back.
    """

    def __init__(self, limits: NodeRegistryLimits | None = None) -> None:
        self._limits = limits or NodeRegistryLimits()
        self._nodes: dict[bytes, _Node] = {}
        self._nodes_by_network: Counter[str] = Counter()
        self._files = FileIndex(
            files_per_node_max=self._limits.files_per_node,
            offers_max=self._limits.offers,
            ranges_total_max=self._limits.ranges,
        )
        # (when to look, node id): no node expires before the first. Entries may be early, so that announcing
        # again adds none; only the one that a node names in `queued_at` counts.
        self._expiries: list[tuple[float, bytes]] = []

    # -- nodes ---------------------------------------------------------------------------------------------

    def announce_presence(
        self,
        node_id: bytes,
        presence: PresenceAnnounce,
        *,
        observed: Address | None,
        now: float,
        lasts_s: float,
    ) -> str | None:
        """A node is there for `lasts_s` from now on, in place of what it said before.

        `observed` is the address that its packets came from; None keeps it out of every answer about where
        to dial. Gives the reason if it is refused.
        """
        known = self._nodes.get(node_id)
        host = observed[0] if observed is not None else None
        if reason := self._objection(known, host):
            return reason
        addresses: tuple[Address, ...] = ()
        if observed is not None:
            addresses = known_addresses(observed, presence.addresses, presence.listen_port)
        node = _Node(presence, host, addresses, since=now, expires_at=now + lasts_s)
        if known is not None:
            node.since, node.queued_at = known.since, known.queued_at
            self._count_host(known.observed_host, -1)
        self._count_host(host, +1)
        self._nodes[node_id] = node
        self._queue_expiry(node_id, node)
        return None

    def prolong_presence(self, node_id: bytes, now: float, lasts_s: float) -> None:
        """A node that is known is there for `lasts_s` from now on; one that is not stays unknown."""
        if (node := self._nodes.get(node_id)) is not None:
            node.expires_at = now + lasts_s

    def _objection(self, known: _Node | None, host: str | None) -> str | None:
        if known is None and len(self._nodes) >= self._limits.nodes:
            return "this node knows as many others as it can hold"
        moved = known is None or known.observed_host != host
        if moved and host and self._nodes_by_network[network_of(host)] >= self._limits.nodes_per_network:
            return f"{self._limits.nodes_per_network} nodes at one address are enough"
        return None

    def _count_host(self, host: str | None, change: int) -> None:
        if host is not None:
            network = network_of(host)
            self._nodes_by_network[network] += change
            if not self._nodes_by_network[network]:
                del self._nodes_by_network[network]

    def link_lost(self, node_id: bytes, now: float) -> None:
        """The last link to a node broke: unless it announces again, it is gone soon."""
        node = self._nodes.get(node_id)
        if node is None:
            return
        node.expires_at = min(node.expires_at, now + self._limits.lasts_after_link_lost_s)
        self._queue_expiry(node_id, node)

    def forget_node(self, node_id: bytes) -> None:
        """A node said bye: it is gone, and its files with it."""
        node = self._nodes.pop(node_id, None)
        if node is None:
            return
        self._count_host(node.observed_host, -1)
        self._files.withdraw_all(node_id)

    def expire(self, now: float) -> list[bytes]:
        """Forget every node whose presence is over; gives their ids."""
        gone = []
        while self._expiries and self._expiries[0][0] <= now:
            when, node_id = heapq.heappop(self._expiries)
            node = self._nodes.get(node_id)
            if node is None or node.queued_at != when:
                continue  # it left, or an earlier entry replaced this one
            if node.expires_at <= now:
                self.forget_node(node_id)
                gone.append(node_id)
            else:
                node.queued_at = inf
                self._queue_expiry(node_id, node)
        return gone

    def _queue_expiry(self, node_id: bytes, node: _Node) -> None:
        if node.expires_at < node.queued_at:
            node.queued_at = node.expires_at
            heapq.heappush(self._expiries, (node.expires_at, node_id))

    def next_deadline(self) -> float | None:
        """Before this time `expire` has nothing to do; None: never."""
        return self._expiries[0][0] if self._expiries else None

    # -- files ---------------------------------------------------------------------------------------------

    def announce_file(self, node_id: bytes, announce: FileAnnounce) -> FileAcknowledge:
        """A node has or fetches a file, in place of what it said of it before; no pieces is a withdrawal."""
        reason: str | None = None
        # What is empty has no pieces to name, and what is being fetched may have none yet.
        if not announce.have and announce.size and not announce.is_fetching:
            self._files.withdraw(node_id, announce.file_id)
        elif node_id in self._nodes:
            reason = self._files.offer(node_id, announce)
        else:
            reason = "announce your presence first"
        return FileAcknowledge(announce.file_id, accepted=reason is None, reason=reason or "")

    def share(self, node_id: bytes, announce: FileAnnounce) -> str | None:
        """This very node has or fetches a file. Gives the reason if it cannot be listed."""
        return self._files.offer(node_id, announce, is_own=True)

    def unshare(self, node_id: bytes, file_id: bytes) -> None:
        """This very node offers a file no longer."""
        self._files.withdraw(node_id, file_id)

    # -- answers -------------------------------------------------------------------------------------------

    def sources(
        self,
        asker: Asker,
        *,
        file_id: bytes | None = None,
        pieces_root: bytes | None = None,
        limit: int = config.SOURCES_PER_MESSAGE_MAX,
    ) -> tuple[NodeItem, ...]:
        """At most `limit` nodes that have or fetch the file with this id, then those that have the same bytes.

        Those who share it come first, and take at most half the places while there are enough who fetch it. Who is
        named goes by turns: however many there are, an answer costs no more, and everybody is named equally often.
        """
        return tuple(islice(self._sources(asker, file_id, pieces_root, limit), limit))

    def _sources(
        self, asker: Asker, file_id: bytes | None, pieces_root: bytes | None, limit: int
    ) -> Iterator[NodeItem]:
        for file in self._files.find(file_id, pieces_root):
            for node_id in file.take_turns(limit, without=asker.node_id):
                yield self._item(node_id, file.facts.file_id, file.holders[node_id], asker)

    def _item(self, node_id: bytes, file_id: bytes, holding: Holding, asker: Asker) -> NodeItem:
        return NodeItem(
            node_id,
            self.addresses(node_id, asker),
            file_id,
            holding.ranges,
            self._nodes[node_id].presence.zone,
            holding.is_fetching,
        )

    def addresses(self, node_id: bytes, asker: Asker) -> tuple[Address, ...]:
        """Where the asker can dial a node, the observed address first; empty if nowhere."""
        node = self._nodes.get(node_id)
        if node is None or node.observed_host is None:
            return ()
        return visible_addresses(node.addresses, node.observed_host, asker.host)

    def list_files(
        self, prefix: str = "", after: bytes = b"", limit: int = config.LIST_PAGE_MAX
    ) -> tuple[tuple[FileItem, ...], bytes]:
        """A page of the files whose names start with `prefix`, by name and then id.

        Beside it the `after` of the next page, b"" if this is the last. Any bytes are a valid `after`.
        """
        return self._files.page(prefix, after, limit)

    def peers(self, now: float) -> list[PeerReport]:
        """Whoever is there, by name and then id, with all addresses: for operators.

        A client counts while it has or fetches something: one that only asks is nobody's peer.
        """
        reports = [
            PeerReport(
                node_id,
                node.presence.name,
                node.presence.role,
                node.addresses,
                files=self._files.offers_of(node_id),
                zone=node.presence.zone,
                agent=node.presence.agent,
                connected_s=max(0.0, now - node.since),
            )
            for node_id, node in self._nodes.items()
            if node.presence.role != "client" or self._files.offers_of(node_id)
        ]
        return sorted(reports, key=lambda report: (report.name, report.node_id))
