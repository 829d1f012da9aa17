"""Which pieces to ask one peer for next.

What fewest peers have comes first, so that a swarm soon holds the whole file several times over, and nobody asks the
one seed for what another already carries here. Inside one rarity: long runs, since a source reads them in one go and
few requests carry them; from a place of its own for each downloader, so that all hold different parts to give each
other. When each knows the others, those places are equal shares of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from p2pnode.swarm.availability import Availability
from p2pnode.swarm.events import PeerId
from p2pnode.swarm.peer import Peer
from p2pnode.swarm.piece_map import bits_of
from p2pnode.torrent.bitfield import Bitfield, runs_of

__all__ = ["Picker", "nth_one", "rank_among"]

RANDOM_FIRST = 4  # pieces, whoever has them: what is rare comes slowly, and who has nothing can give nothing


class Picker:
    """The order in which the pieces of one download are asked for."""

    def __init__(
        self,
        piece_sizes: Sequence[int],
        availability: Availability,
        rng: Random,
        *,
        ranges_max: int,
        sequential: bool = False,
        priorities: Sequence[int] | None = None,
    ) -> None:
        self._piece_sizes = piece_sizes
        self._availability = availability
        self._rng = rng
        self._ranges_max = ranges_max
        self._sequential = sequential
        self._classes = _classes(priorities or ())
        self._random_left = 0 if sequential else RANDOM_FIRST
        self._rank = self._mates = 0

    def share(self, own: PeerId, mates: Sequence[PeerId]) -> None:
        """Take our part of what nobody near has yet: each mate that does the same takes another one.

        Without an id of our own, that is anything.
        """
        self._rank, self._mates = rank_among(own, mates) if own else (0, len(mates))

    def pick(self, among: int, peer: Peer, size_max: int) -> list[int]:
        """Choose from the set `among`, which is not empty, what to ask `peer` for; ascending.

        At most `size_max` bytes in a bounded number of runs; one piece even if it alone is larger.
        """
        picked: list[int] = []
        runs_left, size_left = self._ranges_max, size_max
        while among and runs_left and size_left > 0:
            pool = self._best(among)
            run = self._run(pool, peer, size_left, is_first=not picked)
            if not run:
                break
            picked += run
            runs_left -= 1
            size_left -= sum(self._piece_sizes[piece] for piece in run)
            among ^= bits_of(run)
            peer.next_piece = run[-1] + 1
        self._random_left = max(0, self._random_left - len(picked))
        return sorted(picked)

    def _best(self, among: int) -> int:
        """Those of which any may be next."""
        for wanted in self._classes:
            if among & wanted:
                among &= wanted
                break
        if self._sequential or self._random_left:
            return among
        return self._availability.rarest(among)

    def _run(self, pool: int, peer: Peer, size_max: int, *, is_first: bool) -> list[int]:
        """Neighbours in `pool` of at most `size_max` bytes; one that is larger if `is_first`."""
        start = self._start(pool, peer)
        bits = pool >> start
        skipped = _lowest_one(bits)
        first = start + skipped
        end = first + _lowest_one(~(bits >> skipped))
        run: list[int] = []
        for piece in range(first, end):
            size_max -= self._piece_sizes[piece]
            if size_max < 0 and (run or not is_first):
                break
            run.append(piece)
        return run

    def _start(self, pool: int, peer: Peer) -> int:
        """Where in `pool` to begin: some of it is there or above.

        What nobody has is cut anew for each question into as many parts as there are mates, of what is left of it:
        all see nearly the same, so each stays in a part of its own to the very end. Within it, at random: two that
        went on and on from one place would ask for the same for ever, since each hears of the other too late.
        """
        if self._sequential:
            return 0
        is_nobodys = not self._random_left and not self._availability.is_expected_near(pool)
        rank, parts = (self._rank, self._mates + 1) if is_nobodys else (0, 1)
        onward = peer.next_piece
        if parts == 1 and onward is not None and pool >> onward & 1:
            return onward
        count = pool.bit_count()
        first, end = rank * count // parts, (rank + 1) * count // parts
        return nth_one(pool, self._rng.randrange(first, end) if first < end else self._rng.randrange(count))


def rank_among(own: PeerId, mates: Iterable[PeerId]) -> tuple[int, int]:
    """How many of `mates` come before us in the order of ids, and how many there are."""
    rank = count = 0
    for mate in mates:
        count += 1
        rank += mate < own
    return rank, count


def nth_one(bits: int, index: int) -> int:
    """The place of the one in `bits` that has `index` ones below it; IndexError if there is none."""
    if not 0 <= index < bits.bit_count():
        raise IndexError(index)
    place, width = 0, bits.bit_length()
    while width > 1:
        half = width // 2
        low = bits & ((1 << half) - 1)
        below = low.bit_count()
        if index < below:
            bits, width = low, half
        else:
            bits, width = bits >> half, width - half
            place, index = place + half, index - below
    return place


def _classes(priorities: Sequence[int]) -> list[int]:
    """The sets of pieces of equal priority, the highest first; none if all are equal."""
    by_priority: dict[int, list[int]] = {}
    for piece, priority in enumerate(priorities):
        by_priority.setdefault(priority, []).append(piece)
    if len(by_priority) < 2:
        return []
    ranges = [runs_of(by_priority[priority]) for priority in sorted(by_priority, reverse=True)]
    return [Bitfield.from_ranges(of_class, len(priorities)).bits for of_class in ranges]


def _lowest_one(bits: int) -> int:
    """The index of the lowest bit that is set."""
    return (bits & -bits).bit_length() - 1
