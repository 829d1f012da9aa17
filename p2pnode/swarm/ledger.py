"""What was asked of whom, and how much of it came.

Invariant: a piece is VERIFYING exactly if some peer gave the last of it and stays; IN_FLIGHT exactly if it is not, and
one or two requests owe it. What nobody answers for any more is MISSING again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count

from p2pnode.swarm.events import PeerId
from p2pnode.swarm.peer import Peer, Request
from p2pnode.swarm.piece_map import PieceMap, PieceState, bits_of
from p2pnode.torrent.bitfield import Bitfield

__all__ = ["Ledger"]


class Ledger:
    """The state of every piece and of every request of one download."""

    def __init__(self, piece_sizes: Sequence[int], have: Bitfield, wanted: Bitfield | None) -> None:
        self.piece_sizes = piece_sizes
        self.pieces = PieceMap(have, wanted)
        missing = Bitfield(have.piece_count, self.pieces.missing_bits)
        self.remaining_bytes = sum(piece_sizes[piece] for piece in missing)
        self.requests: dict[int, Request] = {}
        self.giving: set[PeerId] = set()  # the peers that owe something
        self.verifier: dict[int, Peer] = {}  # who gave the last of a piece that is VERIFYING
        self._ids = count(1)
        self._owed: dict[int, list[Request]] = {}  # for each piece that requests owe
        self._stored: dict[int, int] = {}  # bytes that came of a piece since it was MISSING
        self._givers: dict[int, set[PeerId]] = {}  # who gave bytes of a piece that is not HAVE

    # -- what is known -------------------------------------------------------------------------------------

    def owing(self, piece: int) -> list[Request]:
        """The requests that owe a piece."""
        return self._owed.get(piece, [])

    def owing_peers(self, piece: int) -> list[Peer]:
        """Who owes a piece."""
        return [request.peer for request in self.owing(piece)]

    def missing_bytes(self, piece: int) -> int:
        """How much of a piece is still to come."""
        return self.piece_sizes[piece] - self._stored.get(piece, 0)

    def givers(self, piece: int) -> set[PeerId]:
        """Who gave bytes of a piece."""
        return self._givers.get(piece, set())

    def drawn_from(self, peer: Peer) -> frozenset[int]:
        """What a peer was asked for, and is not verified."""
        verifying = {piece for piece, giver in self.verifier.items() if giver is peer}
        return frozenset(verifying.union(*(request.owed for request in peer.requests)))

    # -- what happens --------------------------------------------------------------------------------------

    def open(self, peer: Peer, pieces: list[int], now: float, *, is_hedge: bool = False) -> Request:
        """Ask a peer for pieces that are MISSING, or for a second time for some that are IN_FLIGHT."""
        if not is_hedge:
            self.pieces.move(pieces, PieceState.IN_FLIGHT)
        was_idle = not peer.owed_bytes
        request = Request(
            next(self._ids), peer, pieces, bits_of(pieces), now, set(pieces), was_idle, is_hedge=is_hedge
        )
        for piece in pieces:
            self._owed.setdefault(piece, []).append(request)
            peer.owed_bytes += self.piece_sizes[piece]
        if was_idle:
            peer.pace.asked(now)
        peer.requests.append(request)
        peer.next_piece = pieces[-1] + 1
        self.requests[request.id] = request
        self.giving.add(peer.id)
        return request

    def stored(self, peer_id: PeerId, piece: int, length: int, now: float) -> Request | None:
        """Bytes came; gives the request that brought them, if it still owes the piece."""
        if self.pieces.state(piece) is PieceState.HAVE:
            return None
        self._givers.setdefault(piece, set()).add(peer_id)
        request = next((owing for owing in self.owing(piece) if owing.peer.id == peer_id), None)
        if request is None:
            return None
        peer = request.peer
        is_first = request.was_idle and not request.gave_bytes
        request.gave_bytes = True
        peer.pace.stored(length, now, asked_at=request.asked_at if is_first else None)
        stored = self._stored.get(piece, 0) + length
        self._stored[piece] = stored
        if stored >= self.piece_sizes[piece] and self.pieces.state(piece) is PieceState.IN_FLIGHT:
            self.pieces.move([piece], PieceState.VERIFYING)
            self._settle(request, piece, now)
            self.verifier[piece] = peer
        return request

    def verified(self, piece: int, now: float) -> list[Request]:
        """A piece is here; gives the requests that still owed it."""
        state = self.pieces.state(piece)
        if state is PieceState.HAVE:
            return []
        self.verifier.pop(piece, None)
        if state is not PieceState.UNWANTED:
            self.remaining_bytes -= self.piece_sizes[piece]
        owing = list(self.owing(piece))
        for request in owing:
            self._settle(request, piece, now)
        self._stored.pop(piece, None)
        self._givers.pop(piece, None)
        self.pieces.move([piece], PieceState.HAVE)
        return owing

    def failed(self, piece: int) -> list[Request]:
        """Nothing of a piece is here any more; gives the requests that owe it."""
        self._stored.pop(piece, None)
        self._givers.pop(piece, None)
        self._give_up_verifying([piece])
        return list(self.owing(piece))

    def spoilt(self, piece: int, peer_id: PeerId) -> list[Request]:
        """A peer sent bytes of a piece that are wrong; gives its requests that owe it."""
        if (verifier := self.verifier.get(piece)) is not None and verifier.id == peer_id:
            self._give_up_verifying([piece])
        return [request for request in self.owing(piece) if request.peer.id == peer_id]

    def end(self, request: Request, now: float, *, conclude: bool = False) -> int:
        """A request is over; what nobody else owes is MISSING again. Gives all that it owed, as a set.

        `conclude`: nothing more is heard of what it completed either.
        """
        del self.requests[request.id]
        peer = request.peer
        peer.requests.remove(request)
        owed = list(request.owed)
        for piece in owed:
            self._settle(request, piece, now)
        if conclude:
            self._give_up_verifying([piece for piece in request.pieces if self.verifier.get(piece) is peer])
        self._put_back(piece for piece in owed if self.pieces.state(piece) is PieceState.IN_FLIGHT)
        return bits_of(owed)

    def shorten(self, request: Request, cut: int, now: float) -> list[int]:
        """Take back all pieces of a request from its `cut`th on, and give them; they are MISSING again."""
        rear = request.pieces[cut:]
        del request.pieces[cut:]
        request.bits = bits_of(request.pieces)
        for piece in rear:
            self._settle(request, piece, now)
        self._put_back(rear)
        return rear

    def forget(self, peer: Peer, now: float) -> None:
        """A peer is gone, and all its requests with it."""
        for request in list(peer.requests):
            self.end(request, now)
        self._give_up_verifying([piece for piece, giver in self.verifier.items() if giver is peer])

    # -- steps ---------------------------------------------------------------------------------------------

    def _settle(self, request: Request, piece: int, now: float) -> None:
        """A request does not owe a piece any more."""
        request.owed.remove(piece)
        peer = request.peer
        peer.owed_bytes -= self.piece_sizes[piece]
        if not peer.owed_bytes:
            peer.pace.idle(now)
            self.giving.discard(peer.id)
        owing = self._owed[piece]
        owing.remove(request)
        if not owing:
            del self._owed[piece]

    def _give_up_verifying(self, pieces: Iterable[int]) -> None:
        """Nobody tells what became of the hashing of these any more."""
        unsure = [piece for piece in pieces if self.verifier.pop(piece, None) is not None]
        self.pieces.move((piece for piece in unsure if piece in self._owed), PieceState.IN_FLIGHT)
        self._put_back(unsure)

    def _put_back(self, pieces: Iterable[int]) -> None:
        """What nobody owes any more is MISSING."""
        nobodys = [piece for piece in pieces if piece not in self._owed]
        for piece in nobodys:
            self._stored.pop(piece, None)
        self.pieces.move(nobodys, PieceState.MISSING)
