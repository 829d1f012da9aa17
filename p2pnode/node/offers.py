"""What this node says that it has: the items it shares, and whatever it is fetching.

A torrent that is both is shared: what of it is fetched a second time is nobody's concern. One that is fetched is
announced before its first piece is there, so that of two who fetch the same at least one finds the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from p2pnode import config
from p2pnode.node.events import NodeEvent, NodeWarning
from p2pnode.node.presence import Presence
from p2pnode.torrent import Bitfield, Metainfo, printable
from p2pnode.tracker import largest
from p2pnode.wire.communication import FileAnnounce


@dataclass(frozen=True)
class Offer:
    """A torrent and the pieces of it that we have; None: we neither have nor fetch it any more."""

    metainfo: Metainfo
    have: Bitfield | None
    is_fetching: bool = False

    @property
    def file_id(self) -> bytes:
        """The torrent's id."""
        return self.metainfo.file_id

    def message(self) -> FileAnnounce:
        """What a server is told of it; of too many runs of pieces, the longest."""
        metainfo = self.metainfo
        return FileAnnounce(
            metainfo.file_id,
            metainfo.name,
            metainfo.size,
            metainfo.piece_length,
            have=() if self.have is None else largest(self.have.ranges(), config.RANGES_PER_MESSAGE_MAX),
            pieces_root=None if metainfo.is_directory else metainfo.files[0].pieces_root,
            is_directory=metainfo.is_directory,
            is_fetching=self.is_fetching,
        )


class Offers:
    """All that we offer. `tell(offer)` is called with each that comes, changes or goes."""

    def __init__(
        self, presence: Presence, tell: Callable[[Offer], None], publish: Callable[[NodeEvent], None]
    ) -> None:
        self._presence = presence
        self._tell = tell
        self._publish = publish
        self._shared: dict[bytes, Offer] = {}
        self._in_swarms: dict[bytes, Offer] = {}

    def __iter__(self) -> Iterator[Offer]:
        return iter(list({**self._in_swarms, **self._shared}.values()))

    def get(self, file_id: bytes) -> Offer | None:
        """What we offer of this torrent, if we do."""
        return self._shared.get(file_id) or self._in_swarms.get(file_id)

    def bytes_left(self, file_id: bytes) -> int | None:
        """How many bytes of a torrent that we offer are missing."""
        offer = self.get(file_id)
        if offer is None or offer.have is None:
            return None
        return sum(offer.metainfo.piece(index).length for index in ~offer.have)

    def share_changed(self, metainfo: Metainfo, offered: bool) -> None:
        """An item is shared whole from now on, or no longer."""
        have = Bitfield.full(metainfo.piece_count) if offered else None
        self._change(self._shared, Offer(metainfo, have))

    def swarm_changed(self, metainfo: Metainfo, have: Bitfield | None, *, is_fetching: bool) -> None:
        """A fetch has these pieces now; it is over and they stay, or are gone (None)."""
        self._change(self._in_swarms, Offer(metainfo, have, is_fetching and have is not None))

    def _change(self, offers: dict[bytes, Offer], offer: Offer) -> None:
        file_id = offer.file_id
        before = self.get(file_id)
        if offer.have is None:
            offers.pop(file_id, None)
        else:
            offers[file_id] = offer
        now = self.get(file_id)
        if now != before:
            self._note(before, now)
            self._tell(now or offer)

    def _note(self, before: Offer | None, now: Offer | None) -> None:
        """Keep our own registry right. Which pieces a fetch has by now, others hear over their links."""
        if now is None:
            assert before is not None
            self._presence.withdraw_own(before.file_id)
        elif before is None or before.is_fetching != now.is_fetching:
            reason = self._presence.offer_own(now.message())
            if reason is not None:
                name = printable(now.metainfo.name)
                self._publish(NodeWarning(text=f"{name!r} is not listed: {reason}"))
