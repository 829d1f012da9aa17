"""Ways to find nodes without a server: what a node needs of them, and tells them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from p2pnode.quic import Address
from p2pnode.wire.communication import NodeItem


@dataclass(frozen=True)
class Ourselves:
    """Who is to be found, and what a way to find others may ask of its node.

    `offered()` gives the file ids of what we have or fetch and may tell anybody. `bytes_left(file_id)` is what is
    missing of it, None while nothing is known of it. `meet(address)` links to whatever node answers at an address
    and gives its id, proven; one of `REMOTE_FAULTS` when none does.
    """

    node_id: bytes
    listen_address: Address
    offered: Callable[[], Iterable[bytes]]
    bytes_left: Callable[[bytes], int | None]
    meet: Callable[[Address], Awaitable[bytes]]


class Discovery(Protocol):
    """One such way. Several may run in one node, beside its server or without one.

    Whoever is found counts as found by hearsay: he is believed when he has proven the node id.
    """

    @property
    def keeps_private(self) -> bool:
        """Whether it tells only those whom a private torrent names itself (BEP 27); no other hears of one."""

    async def run(self, ourselves: Ourselves) -> None:
        """Run until cancelled. Raises `NetworkError` when it cannot work here."""

    def look_for(self, file_id: bytes) -> None:
        """A fetch looks for others who have or fetch this; said again as long as it does."""

    def offer(self, file_id: bytes) -> None:
        """We have or fetch this from now on; said again as more of it is here."""

    def withdraw(self, file_id: bytes) -> None:
        """We neither have nor fetch this any more."""

    def found(self, file_id: bytes) -> Iterable[NodeItem]:
        """Who said that he has or fetches it, with the addresses that he said it from."""
