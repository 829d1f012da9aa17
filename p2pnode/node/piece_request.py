"""What the machine calls a request: some pieces from one source, in one stream after the other.

A piece of which blocks are here leads a stream of its own, since only the first piece of a stream may begin in its
middle. So most requests are one stream.
"""

from __future__ import annotations

from collections.abc import Callable

import trio
from msgspec.structs import replace

from p2pnode.node.message_stream import MessageStream
from p2pnode.node.requests import OpenStream
from p2pnode.node.transfer import Transfer, open_in_time, requests_for
from p2pnode.storage import FileStore
from p2pnode.torrent import Bitfield

BeginTransfer = Callable[[MessageStream], Transfer]


class PieceRequest:
    """One request under way, to `peer`. Its task runs in `scope`: to cancel that stops the source at once."""

    def __init__(self, peer: bytes, wanted: Bitfield) -> None:
        self.peer = peer
        self.wanted = wanted
        self.scope = trio.CancelScope()
        self._transfer: Transfer | None = None

    def shorten(self, wanted: Bitfield) -> None:
        """Go on with these of its pieces alone, its first ones."""
        self.wanted = wanted
        if self._transfer is not None:
            self._transfer.shorten(wanted)

    async def run(self, store: FileStore, open_stream: OpenStream, begin: BeginTransfer) -> None:
        """Fetch what the store lacks of it. Raises what `Transfer.fetch` raises."""
        for request in requests_for(store, self.wanted.ranges()):
            wanted = Bitfield.from_ranges(request.ranges, self.wanted.piece_count) & self.wanted
            if not wanted.bits:
                return
            stream = await open_in_time(open_stream)
            try:
                self._transfer = begin(stream)
                self._transfer.shorten(self.wanted)
                await self._transfer.fetch(replace(request, ranges=wanted.ranges()))
            finally:
                await stream.aclose()
