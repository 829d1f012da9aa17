"""Who is named next: of many, each question gets a few, and everybody's turn comes equally often."""

from __future__ import annotations

__all__ = ["Turns"]


class Turns:
    """Distinct node ids in a circle; `take` goes on where the last one ended.

    All in constant time, or in that of what is taken. Taking by turns needs no chance, and nobody gets more turns
    by choosing his id.
    """

    def __init__(self) -> None:
        self._node_ids: list[bytes] = []
        self._places: dict[bytes, int] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._node_ids)

    def add(self, node_id: bytes) -> None:
        """Take a node in; one that is in already stays where it is."""
        if node_id not in self._places:
            self._places[node_id] = len(self._node_ids)
            self._node_ids.append(node_id)

    def discard(self, node_id: bytes) -> None:
        """Leave a node out; the last one takes its place."""
        place = self._places.pop(node_id, None)
        if place is None:
            return
        last = self._node_ids.pop()
        if last != node_id:
            self._node_ids[place] = last
            self._places[last] = place

    def take(self, count: int, without: bytes = b"") -> list[bytes]:
        """The next `count` of them, or all; never the one that asks himself (`without`)."""
        total = len(self._node_ids)
        count = min(count, total - (without in self._places))
        taken: list[bytes] = []
        while len(taken) < count:
            self._next %= total
            node_id = self._node_ids[self._next]
            self._next += 1
            if node_id != without:
                taken.append(node_id)
        return taken
