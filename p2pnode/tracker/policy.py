"""Who may use a tracker, for which torrents, and how often.

`Admission` knows lists; `Pace` knows how often somebody came. Both are pure, and bounded whoever comes.
"""

from __future__ import annotations

from array import array
from collections.abc import Set
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from p2pnode import config
from p2pnode.errors import Refused

__all__ = ["Admission", "Haste", "Pace", "PaceLimits"]

_CELLS: Final = 2**16  # a dozen peers that keep their intervals fit into each


@dataclass(frozen=True, slots=True)
class Admission:
    """Who may announce and scrape what. None for `passkeys` or `allowed`: anybody, or anything."""

    passkeys: Set[str] | None = None
    allowed: Set[bytes] | None = None
    denied: Set[bytes] = frozenset()

    def check_passkey(self, passkey: str | None) -> None:
        """`Refused` for who is unknown to a private tracker."""
        if self.passkeys is not None and passkey not in self.passkeys:
            raise Refused("unknown passkey" if passkey else "this tracker is private: a passkey is needed")

    def allows(self, info_hash: bytes) -> bool:
        """Is this torrent tracked here?"""
        return info_hash not in self.denied and (self.allowed is None or info_hash in self.allowed)

    def check_torrent(self, info_hash: bytes) -> None:
        """`Refused` for a torrent that is not tracked here."""
        if not self.allows(info_hash):
            raise Refused("this torrent is not tracked here")


class Haste(IntEnum):
    """How much too often somebody announces."""

    NONE = 0
    NO_PEERS = 1  # he is heard, and told of nobody
    FLOOD = 2  # he is not heard


@dataclass(frozen=True, slots=True)
class PaceLimits:
    """So many at once, and for ever one in so long: of one peer in one torrent, and of one network."""

    peer_burst: int = config.TRACKER_ANNOUNCES_BURST
    peer_regained_s: float = config.TRACKER_ANNOUNCE_REGAINED_S
    network_burst: int = config.TRACKER_NETWORK_ANNOUNCES_BURST
    network_regained_s: float = 1 / config.TRACKER_NETWORK_ANNOUNCES_PER_S


class Pace:
    """How often each has announced of late.

    Of each, one number is kept: when he will have regained all. Its cell is found by a hash whose key nobody else
    knows (Python's, of bytes), so that nobody can choose whom he shares it with. Those who share one regain together.
    """

    def __init__(self, limits: PaceLimits | None = None) -> None:
        self._limits = limits or PaceLimits()
        self._by_peer = array("d", bytes(8 * _CELLS))
        self._by_network = array("d", bytes(8 * _CELLS))

    def note(self, info_hash: bytes, peer_id: bytes, network: bytes, now: float) -> Haste:
        """Somebody announces now. Who is not heard loses nothing more by it: he is heard again in time."""
        limits = self._limits
        return max(
            _note(self._by_network, hash(network), limits.network_burst, limits.network_regained_s, now),
            _note(
                self._by_peer,
                hash(info_hash + network + peer_id),
                limits.peer_burst,
                limits.peer_regained_s,
                now,
            ),
        )


def _note(cells: array[float], number: int, burst: int, regained_s: float, now: float) -> Haste:
    """The generic cell rate algorithm (ITU-T I.371), with two bursts."""
    cell = number % _CELLS
    regained_at = max(cells[cell], now) + regained_s
    behind = regained_at - now
    if behind > burst * regained_s * config.TRACKER_FLOOD_FACTOR:
        return Haste.FLOOD
    cells[cell] = regained_at
    return Haste.NO_PEERS if behind > burst * regained_s else Haste.NONE
