"""Which files there are, and which nodes have which pieces of them.

A file is here as long as somebody has or fetches it, and listed while it may be had whole: somebody has all of
it, or those who fetch it hold together as many pieces as it has.

Its id stands for exactly one name, size and so on, but who says them truly cannot be told here. So nobody is
refused for his word, or a stranger who came first would shut out everybody honest: a list shows what most holders
say. What this node has itself it has verified, so its own word counts above all others and is never refused for
want of room.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter

from p2pnode import config
from p2pnode.tracker import piece_ranges
from p2pnode.tracker.turns import Turns
from p2pnode.wire.communication import FileAnnounce, FileItem, PieceRanges

__all__ = ["FileIndex", "Holding", "IndexedFile"]


@dataclass(frozen=True, slots=True)
class Holding:
    """What one node has of a file: its longest runs of pieces, and how many pieces it said in all."""

    ranges: PieceRanges
    piece_count: int
    is_fetching: bool


@dataclass(slots=True)
class IndexedFile:
    """A file, and by node id what each node has of it."""

    facts: FileAnnounce  # what is shown of it, without its pieces: as we say, or else as most holders do
    holders: dict[bytes, Holding] = field(default_factory=dict)
    own_node_id: bytes | None = None  # ours, if we share it
    is_listed: bool = False
    _sharing: Turns = field(default_factory=Turns)
    _fetching: Turns = field(default_factory=Turns)
    _pieces_fetched: int = 0  # by all who fetch it
    _words: dict[bytes, FileAnnounce] = field(default_factory=dict)  # by node id, its facts
    _votes: Counter[FileAnnounce] = field(default_factory=Counter)  # by facts, in the order they first came

    def note_word(self, node_id: bytes, facts: FileAnnounce | None) -> None:
        """What a holder says, in place of what it said; None: it is none any more."""
        former = self._words.pop(node_id, None)
        if facts is not None:
            self._words[node_id] = facts = self.facts if facts == self.facts else facts  # one copy of many
            self._votes[facts] += 1
        if former is not None:
            self._votes[former] -= 1
            if not self._votes[former]:
                del self._votes[former]

    def hold(self, node_id: bytes, holding: Holding | None) -> Holding | None:
        """What a node has, in place of what it had, which is given back; None: nothing."""
        former = self.holders.pop(node_id, None)
        if former is not None and former.is_fetching:
            self._pieces_fetched -= former.piece_count
        if holding is not None:
            self.holders[node_id] = holding
            now, before = self._sharing, self._fetching
            if holding.is_fetching:
                now, before = before, now
                self._pieces_fetched += holding.piece_count
            before.discard(node_id)
            now.add(node_id)
        else:
            self._sharing.discard(node_id)
            self._fetching.discard(node_id)
        return former

    @property
    def sharing_count(self) -> int:
        """How many nodes offer it, and do not fetch it themselves."""
        return len(self._sharing)

    @property
    def fetching_count(self) -> int:
        """How many nodes fetch it, and give what they have of it."""
        return len(self._fetching)

    @property
    def may_be_whole(self) -> bool:
        """Whether it can be had: from one node, or perhaps from those who fetch it.

        How many pieces a tree has cannot be told from its size: it has at least so many.
        """
        return bool(self._sharing) or self._pieces_fetched * self.facts.piece_length >= self.facts.size

    def take_turns(self, count: int, without: bytes = b"") -> list[bytes]:
        """At most `count` holders, those first who share it; half the places are for those who fetch it."""
        of_sharing = max(count - len(self._fetching), (count + 1) // 2)
        sharing = self._sharing.take(of_sharing, without)
        return sharing + self._fetching.take(count - len(sharing), without)

    def settled_facts(self) -> FileAnnounce:
        """What counts now; among equals, what came first."""
        if self.own_node_id is not None:
            return self._words[self.own_node_id]
        return max(self._votes.items(), key=itemgetter(1))[0]

    @property
    def key(self) -> bytes:
        """Its place in the list: by name, then by id. Names hold no NUL."""
        return _utf8(self.facts.name) + b"\0" + self.facts.file_id


class FileIndex:
    """All files that are offered, by id, by pieces root and in the order of their names."""

    def __init__(self, *, files_per_node_max: int, offers_max: int, ranges_total_max: int) -> None:
        self._files_per_node_max = files_per_node_max
        self._offers_max = offers_max
        self._ranges_total_max = ranges_total_max
        self._files: dict[bytes, IndexedFile] = {}
        self._ids_by_root: dict[bytes, set[bytes]] = {}
        self._ids_by_node: dict[bytes, set[bytes]] = {}
        self._keys: list[bytes] = []  # sorted
        self._offer_count = 0
        self._range_count = 0

    def offer(self, node_id: bytes, announce: FileAnnounce, *, is_own: bool = False) -> str | None:
        """Note what a node has of a file, in place of what it had. Gives the reason if that is refused.

        `is_own`: it is this very node, whose word is true and for whom there is always room.
        """
        have = piece_ranges.largest(announce.have, config.OFFER_RANGES_MAX)
        if reason := _malformation(announce) or (None if is_own else self._excess(node_id, announce, have)):
            return reason
        facts = _facts(announce)
        file = self._files.get(announce.file_id)
        if file is None:
            file = self._files[announce.file_id] = IndexedFile(facts)
            self._list(file)
        if is_own:
            file.own_node_id = node_id
        pieces = sum(count for _, count in announce.have)
        self._hold(file, node_id, Holding(have, pieces, announce.is_fetching))
        file.note_word(node_id, facts)
        self._settle(file)
        return None

    def withdraw(self, node_id: bytes, file_id: bytes) -> None:
        """A node no longer offers a file."""
        file = self._files.get(file_id)
        if file is None or node_id not in file.holders:
            return
        self._hold(file, node_id, None)
        of_node = self._ids_by_node[node_id]
        of_node.remove(file_id)
        if not of_node:
            del self._ids_by_node[node_id]
        if file.own_node_id == node_id:
            file.own_node_id = None
        file.note_word(node_id, None)
        if file.holders:
            self._settle(file)
        else:
            self._unlist(file)
            del self._files[file_id]

    def withdraw_all(self, node_id: bytes) -> None:
        """A node is gone."""
        for file_id in list(self._ids_by_node.get(node_id, ())):
            self.withdraw(node_id, file_id)

    def offers_of(self, node_id: bytes) -> int:
        """How many files a node offers."""
        return len(self._ids_by_node.get(node_id, ()))

    def find(self, file_id: bytes | None, pieces_root: bytes | None) -> Iterator[IndexedFile]:
        """The file with this id, then those others that have the same bytes."""
        if file_id in self._files:
            yield self._files[file_id]
        if pieces_root is not None:
            for same_bytes in sorted(self._ids_by_root.get(pieces_root, set()) - {file_id}):
                yield self._files[same_bytes]

    def page(self, prefix: str, after: bytes, limit: int) -> tuple[tuple[FileItem, ...], bytes]:
        """At most `limit` rows whose names start with `prefix`, and the `after` of the next page or b""."""
        wanted = _utf8(prefix)
        start = max(bisect_left(self._keys, wanted), bisect_right(self._keys, after))
        keys = []
        for key in self._keys[start : start + limit + 1]:
            if not key.startswith(wanted):
                break
            keys.append(key)
        more = len(keys) > limit > 0
        keys = keys[:limit]
        return tuple(self._row(key) for key in keys), keys[-1] if more else b""

    def _row(self, key: bytes) -> FileItem:
        _, _, file_id = key.partition(b"\0")
        file = self._files[file_id]
        facts = file.facts
        return FileItem(
            facts.file_id,
            facts.name,
            facts.size,
            sources=file.sharing_count,
            is_directory=facts.is_directory,
            fetching=file.fetching_count,
        )

    def _excess(self, node_id: bytes, announce: FileAnnounce, have: PieceRanges) -> str | None:
        """Why there is no room for this offer, if there is none."""
        file = self._files.get(announce.file_id)
        held = file.holders.get(node_id) if file is not None else None
        if held is None and self.offers_of(node_id) >= self._files_per_node_max:
            return f"one node may announce {self._files_per_node_max} files here"
        if held is None and self._offer_count >= self._offers_max:
            return "this node knows as many files as it can hold"
        if self._range_count - (len(held.ranges) if held else 0) + len(have) > self._ranges_total_max:
            return "this node knows as many pieces as it can hold"
        return None

    def _settle(self, file: IndexedFile) -> None:
        """Show of a file what counts now."""
        facts = file.settled_facts()
        if facts != file.facts or file.may_be_whole != file.is_listed:
            self._unlist(file)
            file.facts = facts
            self._list(file)

    def _list(self, file: IndexedFile) -> None:
        if file.facts.pieces_root is not None:
            self._ids_by_root.setdefault(file.facts.pieces_root, set()).add(file.facts.file_id)
        file.is_listed = file.may_be_whole
        if file.is_listed:
            insort(self._keys, file.key)

    def _unlist(self, file: IndexedFile) -> None:
        facts = file.facts
        if file.is_listed:
            del self._keys[bisect_left(self._keys, file.key)]
        if facts.pieces_root is not None:
            same_bytes = self._ids_by_root[facts.pieces_root]
            same_bytes.remove(facts.file_id)
            if not same_bytes:
                del self._ids_by_root[facts.pieces_root]

    def _hold(self, file: IndexedFile, node_id: bytes, holding: Holding | None) -> None:
        """Note what a node has of a file, and count it."""
        former = file.hold(node_id, holding)
        if former is not None:
            self._offer_count -= 1
            self._range_count -= len(former.ranges)
        if holding is not None:
            self._offer_count += 1
            self._range_count += len(holding.ranges)
            self._ids_by_node.setdefault(node_id, set()).add(file.facts.file_id)


def _malformation(announce: FileAnnounce) -> str | None:
    """What is wrong with an announce, whoever says it."""
    if not piece_ranges.are_well_formed(announce.have):
        return "the piece ranges are malformed"
    if not announce.name or "\0" in announce.name or len(_utf8(announce.name)) > config.NAME_LENGTH_MAX:
        return "the name is empty, too long or malformed"
    return None


def _facts(announce: FileAnnounce) -> FileAnnounce:
    """What is the same whoever announces the file, if he is honest."""
    return FileAnnounce(
        announce.file_id,
        announce.name,
        announce.size,
        announce.piece_length,
        pieces_root=announce.pieces_root,
        is_directory=announce.is_directory,
    )


def _utf8(name: str) -> bytes:
    """The bytes that names are sorted by; a local name may hold what is not text."""
    return name.encode("utf-8", "surrogatepass")
