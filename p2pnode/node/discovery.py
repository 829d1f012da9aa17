"""Ways to find nodes without a server: what a node needs of them, and tells them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from p2pnode.quic import Address
from p2pnode.wire.communication import NodeItem


@dataclass(frozen=True)
class Ourselves:
    """Who is to be found: `offered()` gives the file ids of what we have or fetch and may tell anybody."""

    node_id: bytes
    listen_address: Address
    offered: Callable[[], Iterable[bytes]]


class Discovery(Protocol):
    """One such way. Several may run in one node, beside its server or without one.

    Whoever is found counts as found by hearsay: he is believed when he has proven the node id.
    """

    async def run(self, ourselves: Ourselves) -> None:
        """Run until cancelled. Raises `NetworkError` when it cannot work here."""

    def look_for(self, file_id: bytes) -> None:
        """A fetch looks for others who have or fetch this; said again as long as it does."""

    def offer(self, file_id: bytes) -> None:
        """We have or fetch this from now on."""

    def found(self, file_id: bytes) -> Iterable[NodeItem]:
        """Who said that he has or fetches it, with the addresses that he said it from."""
