"""Tables of numbers in flat memory: millions of rows, a few bytes for each, and no object for the collector to visit.

A row has a number, its slot. Slot 0 is nobody's, and its row all zero: memory that was never written says "none".
"""

from __future__ import annotations

from array import array
from mmap import mmap
from typing import Final

__all__ = ["Chains", "Rings", "Slots", "cells", "column", "power_of_two"]

_GROWTH: Final = 1024  # rows that are added at once


def column() -> array[int]:
    """One number of 32 bits for each row."""
    return array("I")


def cells(count: int) -> memoryview[int]:
    """As many numbers of 32 bits, all zero. Where none was written yet, they take no memory."""
    return memoryview(mmap(-1, 4 * count)).cast("I")


def power_of_two(count: int) -> int:
    """The smallest that is not less than `count`."""
    return 1 << max(0, count - 1).bit_length()


class Slots:
    """Which rows of some columns are in use; those that were given back are taken first."""

    def __init__(self, *columns: array[int]) -> None:
        self._columns = columns
        self._room = 0
        self._free = column()
        self.end = 1  # every slot in use is below
        self._grow()

    def __len__(self) -> int:
        return self.end - 1 - len(self._free)

    def take(self) -> int:
        """A slot that is not in use; its row may hold anything."""
        if self._free:
            return self._free.pop()
        slot = self.end
        if slot == self._room:
            self._grow()
        self.end += 1
        return slot

    def give_back(self, slot: int) -> None:
        """It is not in use any more."""
        self._free.append(slot)

    def _grow(self) -> None:
        self._room += _GROWTH
        for one in self._columns:
            one.frombytes(bytes(one.itemsize * _GROWTH))


class Chains:
    """A hash table of slots. Who looks one up walks the chain of its number, and compares."""

    def __init__(self, count: int) -> None:
        """For about `count` slots."""
        size = power_of_two(count)
        self._mask = size - 1
        self._first = cells(size)
        self.following = column()  # by slot

    def first(self, number: int) -> int:
        """The first slot of a chain; `following` has the next, and 0 at its end."""
        return self._first[number & self._mask]

    def add(self, number: int, slot: int) -> None:
        """Put a slot into the chain of its number."""
        cell = number & self._mask
        self.following[slot] = self._first[cell]
        self._first[cell] = slot

    def remove(self, number: int, slot: int) -> None:
        """Take out one that is in."""
        cell, following = number & self._mask, self.following
        one = self._first[cell]
        if one == slot:
            self._first[cell] = following[slot]
            return
        while following[one] != slot:
            one = following[one]
        following[one] = following[slot]


class Rings:
    """Slots in rings, in the order they came or were renewed. A slot is in one ring; all takes constant time.

    A number names a ring. Rings whose numbers fall together are one: enough where numbers are a hash whose key
    nobody else knows.
    """

    def __init__(self, count: int) -> None:
        """About `count` rings."""
        size = power_of_two(count)
        self._mask = size - 1
        self._newest = cells(size)
        self._sizes = cells(size)
        self.older = column()  # by slot; of the oldest, the newest
        self.newer = column()
        self.columns = self.older, self.newer

    def size(self, number: int) -> int:
        """How many slots a ring has."""
        return self._sizes[number & self._mask]

    def oldest(self, number: int) -> int:
        """Who was renewed longest ago; 0: nobody is in this ring."""
        return self.newer[self._newest[number & self._mask]]

    def add(self, number: int, slot: int) -> None:
        """Put a slot into a ring, as its newest."""
        ring = number & self._mask
        newest = self._newest[ring]
        if newest:
            oldest = self.newer[newest]
            self.older[slot], self.newer[slot] = newest, oldest
            self.newer[newest] = self.older[oldest] = slot
        else:
            self.older[slot] = self.newer[slot] = slot
        self._newest[ring] = slot
        self._sizes[ring] += 1

    def remove(self, number: int, slot: int) -> None:
        """Take a slot out of the ring that it is in."""
        ring = number & self._mask
        older, newer = self.older[slot], self.newer[slot]
        self.newer[older], self.older[newer] = newer, older
        if self._newest[ring] == slot:
            self._newest[ring] = older if older != slot else 0
        self._sizes[ring] -= 1

    def renew(self, number: int, slot: int) -> None:
        """Make a slot the newest of the ring that it is in."""
        if self._newest[number & self._mask] != slot:
            self.remove(number, slot)
            self.add(number, slot)
