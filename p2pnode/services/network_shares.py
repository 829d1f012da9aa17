"""Places for so many at once, of which one network gets its share and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from p2pnode.quic.datagrams import network_of

__all__ = ["NetworkShares"]


class NetworkShares:
    """At most `total_max` places, and `per_network_max` of them for one IPv4 address or IPv6 /64."""

    def __init__(self, total_max: int, per_network_max: int) -> None:
        self._total_max = total_max
        self._per_network_max = per_network_max
        self._taken: Counter[str] = Counter()
        self._total = 0

    @contextmanager
    def place(self, host: str) -> Iterator[bool]:
        """Take a place for `host`, in digits, until the `with` block ends; False: there is none."""
        network = network_of(host)
        if self._total >= self._total_max or self._taken[network] >= self._per_network_max:
            yield False
            return
        self._taken[network] += 1
        self._total += 1
        try:
            yield True
        finally:
            self._total -= 1
            self._taken[network] -= 1
            if not self._taken[network]:
                del self._taken[network]
