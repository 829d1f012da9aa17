"""Which torrents have peers."""

from __future__ import annotations

from typing import Final

from p2pnode.tracker.flat_tables import Chains, Slots, column

__all__ = ["TorrentTable"]

_HASH_SIZE: Final = 20
_DOWNLOADS_MAX: Final = 2**32 - 1


class TorrentTable:
    """Torrents by info hash. Each is known by a slot, as long as it is in."""

    def __init__(self, count: int) -> None:
        """For about `count` torrents."""
        self._chains = Chains(count)
        self._hashes = bytearray()
        self._found = b"", 0  # what was found last: an answer asks for one torrent again and again
        self.downloads = column()  # by torrent: how often one was announced
        self.first_pool = column()  # by torrent; 0: it has none
        self._slots = Slots(self._chains.following, self.downloads, self.first_pool)

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, info_hash: bytes) -> int:
        """0 if it is not in."""
        if self._found[0] == info_hash:
            return self._found[1]
        following, hashes = self._chains.following, self._hashes
        torrent = self._chains.first(hash(info_hash))
        while torrent and hashes[torrent * _HASH_SIZE : (torrent + 1) * _HASH_SIZE] != info_hash:
            torrent = following[torrent]
        if torrent:
            self._found = info_hash, torrent
        return torrent

    def add(self, info_hash: bytes) -> int:
        """Take in one that is not in."""
        torrent = self._slots.take()
        missing = self._slots.end * _HASH_SIZE - len(self._hashes)
        if missing > 0:
            self._hashes += bytes(missing)
        self._hashes[torrent * _HASH_SIZE : (torrent + 1) * _HASH_SIZE] = info_hash
        self._chains.add(hash(info_hash), torrent)
        self.downloads[torrent] = self.first_pool[torrent] = 0
        return torrent

    def remove(self, torrent: int) -> None:
        """Forget one that has no pools any more."""
        self._found = b"", 0
        self._chains.remove(hash(self.info_hash(torrent)), torrent)
        self._slots.give_back(torrent)

    def info_hash(self, torrent: int) -> bytes:
        """Which torrent it is."""
        return bytes(self._hashes[torrent * _HASH_SIZE : (torrent + 1) * _HASH_SIZE])

    def count_download(self, torrent: int) -> None:
        """One more peer has all of it."""
        self.downloads[torrent] = min(self.downloads[torrent] + 1, _DOWNLOADS_MAX)
