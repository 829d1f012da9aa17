"""Connection ids of a UDP tracker: who sends one back gets datagrams where he says he is (BEP 15).

Nothing is remembered of those who ask for one. An id is eight bytes: in which second of a two-minute window it was
given, and a keyed hash of that second and the host. So a tracker knows what it must have given to this host, with one
hash, and an id ends after two minutes to the second.

The port is not in it: a router may change that within a minute, and libtorrent announces from several ports with one
id. Who has an id can have answers sent to other ports of his own host, and nowhere else.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from p2pnode import config

__all__ = ["ConnectionIds"]

_WINDOW_S: Final = config.UDP_CONNECTION_LASTS_S
_HASH_SIZE: Final = 7


class ConnectionIds:
    """Gives ids and knows them again. `secret` is up to 64 random bytes, `now` a clock that nobody sets."""

    def __init__(self, secret: bytes) -> None:
        self._keyed = hashlib.blake2b(key=secret, digest_size=_HASH_SIZE)

    def issue(self, host: str, now: float) -> bytes:
        """The id of whoever is at `host`, which is in digits; good from now on."""
        second = int(now)
        return self._id_of(host, second, second % _WINDOW_S)

    def accepts(self, connection_id: bytes, host: str, now: float) -> bool:
        """Whether it was issued to `host` less than two minutes ago."""
        in_window = connection_id[0]
        if in_window >= _WINDOW_S:
            return False
        age = (
            int(now) - in_window
        ) % _WINDOW_S  # of this window, or of the last one if that second is to come
        expected = self._id_of(host, int(now) - age, in_window)
        return hmac.compare_digest(connection_id, expected)

    def _id_of(self, host: str, second: int, in_window: int) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(b"%d %b" % (second, host.encode()))
        return in_window.to_bytes() + keyed.digest()
