"""What the requests under way may hold in memory: all together, those of one node, and those of one network.

Node keys cost nothing, so what one node may hold bounds nobody who makes many; addresses cost something.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from p2pnode import config
from p2pnode.errors import Busy

BUSY_RETRY_S = 1.0  # about as long as a request takes


class Reservation:
    """What is set aside for one request."""

    def __init__(self, memory: UploadMemory, node_id: bytes, network: str, size: int) -> None:
        self._memory = memory
        self._node_id = node_id
        self._network = network
        self._size = size
        memory.change(node_id, network, size)

    def keep(self, size: int) -> None:
        """Give back all that is beyond `size`."""
        if size < self._size:
            self._memory.change(self._node_id, self._network, size - self._size)
            self._size = size


class UploadMemory:
    """The books of a node."""

    def __init__(self) -> None:
        self._total = 0
        self._of_node: Counter[bytes] = Counter()
        self._of_network: Counter[str] = Counter()

    @contextmanager
    def reserved(self, node_id: bytes, network: str, size: int) -> Iterator[Reservation]:
        """Set aside what a request of a node may hold. `Busy` where there is no room."""
        if not self._has_room(node_id, network, size):
            raise Busy("too many transfers at once", retry_after_s=BUSY_RETRY_S)
        reservation = Reservation(self, node_id, network, size)
        try:
            yield reservation
        finally:
            reservation.keep(0)

    def _has_room(self, node_id: bytes, network: str, size: int) -> bool:
        """A network that has nothing yet may use what is kept back from those that do."""
        held = self._total + size
        if not self._of_network[network]:
            return held <= 2 * config.UPLOAD_MEMORY_MAX
        return (
            held <= config.UPLOAD_MEMORY_MAX
            and self._of_network[network] + size <= config.UPLOAD_MEMORY_PER_NETWORK_MAX
            and self._of_node[node_id] + size <= config.UPLOAD_MEMORY_PER_NODE_MAX
        )

    def change(self, node_id: bytes, network: str, size: int) -> None:
        """So much more is held, or less."""
        self._total += size
        self._of_node[node_id] += size
        self._of_network[network] += size
        if not self._of_node[node_id]:
            del self._of_node[node_id]
        if not self._of_network[network]:
            del self._of_network[network]
