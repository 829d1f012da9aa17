"""Connection ids of a UDP tracker: who sends one back gets datagrams where he says he is (BEP 15).

Nothing is remembered of those who ask for one. An id is eight bytes: in which second of a two-minute window it was
given, and a keyed hash of that second and the address. So a tracker knows what it must have given to this address,
with one hash, and an id ends after two minutes to the second.

The port belongs to the address: programs behind one router do not speak for each other.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from p2pnode import config
from p2pnode.tracker.addresses import Address

__all__ = ["ConnectionIds"]

_WINDOW_S: Final = config.UDP_CONNECTION_LASTS_S
_HASH_SIZE: Final = 7


class ConnectionIds:
    """Gives ids and knows them again. `secret` is up to 64 random bytes, `now` a clock that nobody sets."""

    def __init__(self, secret: bytes) -> None:
        self._keyed = hashlib.blake2b(key=secret, digest_size=_HASH_SIZE)

    def issue(self, address: Address, now: float) -> bytes:
        """The id of whoever is at `address`, good from now on."""
        second = int(now)
        return self._id_of(address, second, second % _WINDOW_S)

    def accepts(self, connection_id: bytes, address: Address, now: float) -> bool:
        """Whether it was issued to `address` less than two minutes ago."""
        in_window = connection_id[0]
        if in_window >= _WINDOW_S:
            return False
        age = (
            int(now) - in_window
        ) % _WINDOW_S  # of this window, or of the last one if that second is to come
        expected = self._id_of(address, int(now) - age, in_window)
        return hmac.compare_digest(connection_id, expected)

    def _id_of(self, address: Address, second: int, in_window: int) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(b"%d %d %b" % (second, address[1], address[0].encode()))
        return in_window.to_bytes() + keyed.digest()
