"""The peers of each torrent, side by side in flat memory, so that some of them are drawn with one copy.

A pool holds peers of one torrent and one group: alike in all that decides who is told of them. Its rows are in random
order, and stay so: a new one takes the place of any, which goes to the end; the last one takes the place of one that
goes. So any run of them is a fair draw, and nobody chooses his neighbours.

Rows lie in extents of 1, 2, 4 … 256. A pool of up to 256 has one, the smallest that holds it; a larger one has as many
of 256 as it needs.
"""

from __future__ import annotations

from array import array
from random import Random
from typing import Final

from p2pnode.tracker.announces import PEER_ID_SIZE, V4_SIZE, V6_SIZE
from p2pnode.tracker.flat_tables import Slots, column

__all__ = ["GROUP_V6", "PeerPools"]

GROUP_V6: Final = 1
"""The bit of a group's number that says how large its addresses are; the others mean nothing here."""

_PAGE_ORDER: Final = 8
_PAGE: Final = 1 << _PAGE_ORDER
_IN_PAGE: Final = _PAGE - 1


class _Rows:
    """Memory for rows: address, id, and the peer's slot. An extent that is freed is used again for one of its size."""

    def __init__(self, address_size: int) -> None:
        self.address_size = address_size
        self.addresses = bytearray()
        self.peer_ids = bytearray()
        self.slots = column()
        self._free = [column() for _ in range(_PAGE_ORDER + 1)]

    def allocate(self, order: int) -> int:
        """The first of 2**`order` rows."""
        if self._free[order]:
            return self._free[order].pop()
        first, count = len(self.slots), 1 << order
        self.addresses += bytes(self.address_size * count)
        self.peer_ids += bytes(PEER_ID_SIZE * count)
        self.slots.frombytes(bytes(self.slots.itemsize * count))
        return first

    def free(self, first: int, order: int) -> None:
        self._free[order].append(first)

    def write(self, row: int, address: bytes, peer_id: bytes, slot: int) -> None:
        self.write_address(row, address)
        self.peer_ids[row * PEER_ID_SIZE : (row + 1) * PEER_ID_SIZE] = peer_id
        self.slots[row] = slot

    def write_address(self, row: int, address: bytes) -> None:
        self.addresses[row * self.address_size : (row + 1) * self.address_size] = address

    def read(self, first: int, count: int) -> tuple[bytearray, bytearray]:
        """Addresses and ids."""
        size, end = self.address_size, first + count
        return self.addresses[first * size : end * size], self.peer_ids[
            first * PEER_ID_SIZE : end * PEER_ID_SIZE
        ]

    def copy(self, source: int, target: int, count: int = 1) -> None:
        addresses, peer_ids = self.read(source, count)
        size, end = self.address_size, target + count
        self.addresses[target * size : end * size] = addresses
        self.peer_ids[target * PEER_ID_SIZE : end * PEER_ID_SIZE] = peer_ids
        self.slots[target:end] = self.slots[source : source + count]


class PeerPools:
    """All pools. Of each torrent they are a list, which begins where the torrent's owner remembers it."""

    def __init__(self, pool_of: array[int], position_of: array[int], rng: Random) -> None:
        """`pool_of` and `position_of`, by slot of a peer, are kept here and grow with the table of peers."""
        self._pool_of = pool_of
        self._position_of = position_of
        self._random = rng.random
        self._v4, self._v6 = _Rows(V4_SIZE), _Rows(V6_SIZE)
        self._pages: dict[int, array[int]] = {}  # first rows, of pools that are larger than a page
        # By pool.
        self._first = column()  # row, of one that is not larger
        self.counts = column()  # of peers
        self.groups = column()
        self.torrents = column()
        self.following = column()  # the next pool of this torrent; 0: none
        self._slots = Slots(self._first, self.counts, self.groups, self.torrents, self.following)

    def open(self, torrent: int, group: int, following: int) -> int:
        """A pool without peers, before the one that follows."""
        pool = self._slots.take()
        self.counts[pool] = 0
        self.torrents[pool], self.groups[pool], self.following[pool] = torrent, group, following
        return pool

    def close(self, pool: int) -> None:
        """There is no such pool any more. It has no peers, and is in no list."""
        self._slots.give_back(pool)

    def add(self, pool: int, slot: int, address: bytes, peer_id: bytes) -> None:
        """Take a peer into a pool."""
        count = self.counts[pool]
        self._make_room(pool, count)
        self.counts[pool] = count + 1
        position = int(self._random() * (count + 1))
        rows, row = self._rows(pool), self._row(pool, position)
        if position != count:
            end = self._row(pool, count)
            rows.copy(row, end)
            self._position_of[rows.slots[end]] = count
        rows.write(row, address, peer_id, slot)
        self._pool_of[slot], self._position_of[slot] = pool, position

    def remove(self, slot: int) -> None:
        """Take a peer out of its pool."""
        pool, position = self._pool_of[slot], self._position_of[slot]
        last = self.counts[pool] - 1
        if position != last:
            rows, row = self._rows(pool), self._row(pool, position)
            rows.copy(self._row(pool, last), row)
            self._position_of[rows.slots[row]] = position
        self.counts[pool] = last
        self._give_room_back(pool, last)

    def peer_id(self, slot: int) -> bytes:
        """The id of a peer."""
        pool = self._pool_of[slot]
        row = self._row(pool, self._position_of[slot])
        return bytes(self._rows(pool).peer_ids[row * PEER_ID_SIZE : (row + 1) * PEER_ID_SIZE])

    def address(self, slot: int) -> bytes:
        """Where a peer is."""
        pool = self._pool_of[slot]
        return bytes(self._rows(pool).read(self._row(pool, self._position_of[slot]), 1)[0])

    def move(self, slot: int, address: bytes) -> None:
        """A peer has another address, of the same size."""
        pool = self._pool_of[slot]
        self._rows(pool).write_address(self._row(pool, self._position_of[slot]), address)

    def slot(self, pool: int, position: int) -> int:
        """Whose row is at a position; which one that is, is chance."""
        return self._rows(pool).slots[self._row(pool, position)]

    def draw(self, pool: int, count: int, without: int = 0) -> tuple[bytearray, bytearray]:
        """Addresses and ids of `count` peers by chance, never the one in the slot `without`; so many there must be."""
        total = self.counts[pool]
        start = int(self._random() * total)
        if not without:
            return self._read(pool, start, count)
        addresses, peer_ids = self._read(pool, start, count + 1)
        place = min((self._position_of[without] - start) % total, count)
        size = self._rows(pool).address_size
        del addresses[place * size : (place + 1) * size]
        del peer_ids[place * PEER_ID_SIZE : (place + 1) * PEER_ID_SIZE]
        return addresses, peer_ids

    def _read(self, pool: int, start: int, count: int) -> tuple[bytearray, bytearray]:
        """So many from a position on, and from the first again after the last."""
        total, rows = self.counts[pool], self._rows(pool)
        here = min(count, total - start, _PAGE - (start & _IN_PAGE))
        addresses, peer_ids = rows.read(self._row(pool, start), here)
        while here < count:
            start = (start + here) % total
            count -= here
            here = min(count, total - start, _PAGE - (start & _IN_PAGE))
            more_addresses, more_ids = rows.read(self._row(pool, start), here)
            addresses += more_addresses
            peer_ids += more_ids
        return addresses, peer_ids

    def _rows(self, pool: int) -> _Rows:
        return self._v6 if self.groups[pool] & GROUP_V6 else self._v4

    def _row(self, pool: int, position: int) -> int:
        pages = self._pages.get(pool)
        if pages is None:
            return self._first[pool] + position
        return pages[position >> _PAGE_ORDER] + (position & _IN_PAGE)

    def _make_room(self, pool: int, count: int) -> None:
        """For one more than `count`."""
        if count < _PAGE:
            if count & (count - 1) == 0:  # its extent is full
                self._resize(pool, count, count + 1)
        elif count & _IN_PAGE == 0:
            pages = self._pages.setdefault(pool, array("I", (self._first[pool],)))
            pages.append(self._rows(pool).allocate(_PAGE_ORDER))

    def _give_room_back(self, pool: int, count: int) -> None:
        """Of one more than `count`."""
        if count < _PAGE:
            if count & (count - 1) == 0:  # half its extent is enough
                self._resize(pool, count + 1, count)
        elif count & _IN_PAGE == 0:
            self._rows(pool).free(self._pages[pool].pop(), _PAGE_ORDER)
            if count == _PAGE:
                self._first[pool] = self._pages.pop(pool)[0]

    def _resize(self, pool: int, former: int, count: int) -> None:
        """Move a pool of up to a page from the extent for `former` to that for `count`; both may be 0."""
        rows, old = self._rows(pool), self._first[pool]
        if count:
            self._first[pool] = rows.allocate((count - 1).bit_length())
            rows.copy(old, self._first[pool], min(former, count))
        if former:
            rows.free(old, (former - 1).bit_length())
