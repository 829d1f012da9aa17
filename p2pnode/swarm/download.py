"""One download from many peers, as a machine: `receive` events, drain `commands`, mind `next_deadline`.

Each missing piece is asked of one peer at a time, in requests of a few MiB, a few of them in flight with each
of a few peers. What a peer was asked for and did not give becomes missing again when its request ends, when
it leaves, or when it is dropped for a piece that is not what its hash says. Silence is not judged here: only
who waits for the peer's bytes knows whether it is the peer that is slow, or our own disk. But while a peer that
could give is idle, one that completes no piece for a while is relieved: its requests are cancelled, and the
idle one is asked. What it gave of a piece stays in the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import assert_never

from p2pnode import config
from p2pnode.swarm.commands import CancelRequest, Command, DropPeer, Finish, RequestPieces
from p2pnode.swarm.events import (
    BlockStored,
    DeadlinePassed,
    Event,
    PeerHas,
    PeerId,
    PeerJoined,
    PeerLeft,
    PieceCorrupt,
    PieceVerified,
    RequestFailed,
    RequestFinished,
)
from p2pnode.swarm.peer import Peer
from p2pnode.swarm.picker import pick
from p2pnode.swarm.piece_map import PieceMap, PieceState
from p2pnode.torrent.bitfield import Bitfield, Ranges

__all__ = ["Download", "DownloadLimits"]


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """How much a download asks for at once, and how long it leaves a busy peer alone."""

    peers_at_once: int = config.SOURCES_AT_ONCE
    requests_per_peer: int = config.REQUESTS_PER_SOURCE
    request_bytes: int = config.REQUEST_BYTES
    ranges_per_request: int = config.RANGES_PER_MESSAGE_MAX
    retry_after_min_s: float = config.RETRY_AFTER_MIN_S
    retry_after_max_s: float = config.RETRY_AFTER_MAX_S
    relieve_after_s: float = config.RELIEVE_AFTER_S


@dataclass(frozen=True, slots=True)
class _Request:
    """A request under way: whom it went to, and all pieces it asked for."""

    peer: PeerId
    pieces: frozenset[int]


@dataclass(slots=True)
class _Draw:
    """Who was asked for a piece, in which request, and how much of it came."""

    peer: PeerId
    request: int
    bytes_stored: int = 0


class Download:
    """The decisions of one download.

    `piece_sizes` are the bytes of each piece, `have` the pieces that are verified and written already. Times
    are seconds on any one clock that never goes back.
    """

    def __init__(
        self,
        piece_sizes: Sequence[int],
        *,
        have: Bitfield,
        rng: Random,
        limits: DownloadLimits | None = None,
    ) -> None:
        self._piece_sizes = piece_sizes
        self._rng = rng
        self._limits = limits or DownloadLimits()
        self._pieces = PieceMap(have)
        self._remaining_bytes = sum(piece_sizes[piece] for piece in ~have)
        self._peers: dict[PeerId, Peer] = {}
        self._banned: set[PeerId] = set()
        self._requests: dict[int, _Request] = {}
        self._request_ids = count(1)
        self._draws: dict[int, _Draw] = {}  # for each piece IN_FLIGHT or VERIFYING
        self._relieve_at: float | None = None  # when the next slow peer is relieved, as things stand
        self._commands: list[Command] = []
        self._finish_when_complete()

    # -- what a driver calls -------------------------------------------------------------------------------

    def receive(self, event: Event, now: float) -> None:
        """Take in what happened at time `now`."""
        if self.is_finished:
            return
        self._apply(event, now)
        self._ask(now)

    def commands(self) -> Iterator[Command]:
        """Give each command once, in order."""
        commands, self._commands = self._commands, []
        return iter(commands)

    def next_deadline(self) -> float | None:
        """When to send `DeadlinePassed` if nothing happens before; None: never."""
        if self.is_finished:
            return None
        deadlines = [peer.asked_again_at for peer in self._peers.values()] + [self._relieve_at]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    # -- how it stands -------------------------------------------------------------------------------------

    @property
    def is_finished(self) -> bool:
        """Whether every piece is here."""
        return self._pieces.is_complete

    @property
    def is_starved(self) -> bool:
        """Whether only new peers or pieces can help: nothing is under way, and nobody asked us to wait."""
        return not self._draws and self.next_deadline() is None and not self.is_finished

    @property
    def is_put_off(self) -> bool:
        """Whether nothing is under way because those who could give asked us to wait."""
        return not self._draws and self.next_deadline() is not None

    @property
    def remaining_bytes(self) -> int:
        """The bytes of all pieces that are not verified and written."""
        return self._remaining_bytes

    @property
    def peers(self) -> frozenset[PeerId]:
        """Whoever joined and neither left nor was dropped."""
        return frozenset(self._peers)

    @property
    def banned(self) -> frozenset[PeerId]:
        """Whoever sent a corrupt piece."""
        return frozenset(self._banned)

    def state(self, piece: int) -> PieceState:
        """Where one piece stands."""
        return self._pieces.state(piece)

    def drawn_from(self, peer: PeerId) -> frozenset[int]:
        """The pieces that `peer` was asked for and that are not verified yet."""
        known = self._peers.get(peer)
        return frozenset(known.in_flight | known.verifying) if known is not None else frozenset()

    # -- events --------------------------------------------------------------------------------------------

    def _apply(self, event: Event, now: float) -> None:
        match event:
            case PeerJoined():
                self._peer_joined(event)
            case PeerHas():
                if (peer := self._peers.get(event.peer)) is not None:
                    peer.have |= event.have
            case PeerLeft():
                self._forget(event.peer)
            case BlockStored():
                self._block_stored(event)
            case PieceVerified():
                self._piece_verified(event, now)
            case PieceCorrupt():
                self._banned.add(event.peer)
                self._drop(event.peer)
            case RequestFinished():
                # Whoever says "that was all" and owes pieces does not have them to give.
                self._end_request(event.request, refused=True)
            case RequestFailed():
                self._request_failed(event, now)
            case DeadlinePassed():
                pass  # the time alone tells
            case _:
                assert_never(event)

    def _peer_joined(self, event: PeerJoined) -> None:
        if event.peer in self._banned:
            self._commands.append(DropPeer(event.peer))
        elif (peer := self._peers.get(event.peer)) is not None:
            peer.have = event.have
        else:
            nothing = Bitfield(event.have.piece_count)
            start = self._rng.randrange(len(self._piece_sizes))
            self._peers[event.peer] = Peer(event.have, refused=nothing, first_piece=start)

    def _block_stored(self, event: BlockStored) -> None:
        draw = self._draws.get(event.piece)
        if draw is None or draw.peer != event.peer:
            return
        peer = self._peers[draw.peer]
        draw.bytes_stored += event.length
        if draw.bytes_stored >= self._piece_sizes[event.piece] and event.piece in peer.in_flight:
            self._pieces.move(event.piece, PieceState.VERIFYING)
            peer.in_flight.remove(event.piece)
            peer.verifying.add(event.piece)

    def _piece_verified(self, event: PieceVerified, now: float) -> None:
        if (peer := self._peers.get(event.peer)) is not None:
            peer.progress_at, peer.was_relieved = now, False
        if self._pieces.state(event.piece) is PieceState.HAVE:
            return
        draw = self._undraw(event.piece)
        self._pieces.move(event.piece, PieceState.HAVE)
        self._remaining_bytes -= self._piece_sizes[event.piece]
        if draw is not None and draw.peer != event.peer:
            self._cancel_if_needless(draw)
        self._finish_when_complete()

    def _request_failed(self, event: RequestFailed, now: float) -> None:
        peer = self._end_request(event.request, refused=not event.retryable)
        if peer is not None and event.retryable:
            wait_s = min(event.retry_after_s, self._limits.retry_after_max_s)
            peer.asked_again_at = now + max(wait_s, self._limits.retry_after_min_s)

    # -- endings -------------------------------------------------------------------------------------------

    def _end_request(self, request: int, *, refused: bool) -> Peer | None:
        """Forget a request; what it still owes is missing. Gives the peer, if the request was under way."""
        ended = self._requests.pop(request, None)
        if ended is None:
            return None
        peer = self._peers[ended.peer]
        peer.requests.remove(request)
        owed = self._owed(request, ended) & peer.in_flight
        self._put_back(owed)
        if refused:
            for piece in owed:
                peer.refused = peer.refused.adding(piece)
        return peer

    def _cancel_if_needless(self, draw: _Draw) -> None:
        """End the request of a piece that came from somebody else, if that was all that it still owed."""
        request = self._requests.get(draw.request)
        if request is not None and not self._owed(draw.request, request):
            self._end_request(draw.request, refused=False)
            self._commands.append(CancelRequest(draw.request))

    def _owed(self, request_id: int, request: _Request) -> frozenset[int]:
        """The pieces of a request that are not verified; a piece may be under way in a later request too."""
        return frozenset(
            piece for piece in request.pieces & self._draws.keys() if self._draws[piece].request == request_id
        )

    def _drop(self, peer: PeerId) -> None:
        if peer in self._peers:
            self._forget(peer)
            self._commands.append(DropPeer(peer))

    def _forget(self, peer_id: PeerId) -> None:
        peer = self._peers.get(peer_id)
        if peer is None:
            return
        self._put_back(peer.in_flight | peer.verifying)
        for request in peer.requests:
            del self._requests[request]
        del self._peers[peer_id]

    def _put_back(self, pieces: Iterable[int]) -> None:
        for piece in pieces:
            self._undraw(piece)
            self._pieces.move(piece, PieceState.MISSING)

    def _undraw(self, piece: int) -> _Draw | None:
        draw = self._draws.pop(piece, None)
        if draw is not None:
            self._peers[draw.peer].in_flight.discard(piece)
            self._peers[draw.peer].verifying.discard(piece)
        return draw

    def _finish_when_complete(self) -> None:
        if self.is_finished:
            self._commands.append(Finish())

    # -- requests ------------------------------------------------------------------------------------------

    def _ask(self, now: float) -> None:
        """Keep those busy who give already, then turn to others while there is room for them."""
        for peer in self._peers.values():
            if peer.asked_again_at is not None and peer.asked_again_at <= now:
                peer.asked_again_at = None
        giving = [peer_id for peer_id, peer in self._peers.items() if peer.requests]
        idle = [peer_id for peer_id, peer in self._peers.items() if not peer.requests]
        self._rng.shuffle(idle)
        for peer_id in giving:
            self._ask_peer(peer_id, now)
        room = self._limits.peers_at_once - len(giving)
        for peer_id in idle:
            if room <= 0:
                break
            self._ask_peer(peer_id, now)
            room -= bool(self._peers[peer_id].requests)
        self._relieve_slow_ones(idle, now)

    def _relieve_slow_ones(self, idle: list[PeerId], now: float) -> None:
        """Ask those who have stayed idle for what the slowest ones hold; each takes the place of one of them.

        Who was relieved relieves nobody before it has completed a piece, so pieces do not go back and forth.
        """
        self._relieve_at = None
        slowest = sorted(
            (peer_id for peer_id, peer in self._peers.items() if peer.requests and not peer.verifying),
            key=lambda peer_id: self._peers[peer_id].progress_at,
        )
        for peer_id in slowest:
            relief = next((other for other in idle if self._can_relieve(other, peer_id)), None)
            if relief is None:
                continue
            slow = self._peers[peer_id]
            slow_at = slow.progress_at + self._limits.relieve_after_s
            if slow_at > now:
                self._relieve_at = slow_at
                return
            slow.was_relieved = True
            for request in sorted(slow.requests):
                self._end_request(request, refused=False)
                self._commands.append(CancelRequest(request))
            self._ask_peer(relief, now)

    def _can_relieve(self, peer_id: PeerId, slow_id: PeerId) -> bool:
        """Whether an idle peer can take over something that another one was asked for."""
        peer = self._peers[peer_id]
        is_free = not peer.requests and not peer.was_relieved and peer.asked_again_at is None
        if not is_free:
            return False
        offered = peer.offered
        return any(piece in offered for piece in self._peers[slow_id].in_flight)

    def _ask_peer(self, peer_id: PeerId, now: float) -> None:
        """Fill up the requests of one peer, unless it asked us to wait."""
        peer = self._peers[peer_id]
        while peer.asked_again_at is None and len(peer.requests) < self._limits.requests_per_peer:
            ranges = pick(
                self._pieces.missing & peer.offered,
                peer.first_piece,
                self._piece_sizes,
                size_max=self._limits.request_bytes,
                ranges_max=self._limits.ranges_per_request,
            )
            if not ranges:
                return
            if not peer.requests:
                peer.progress_at = now
            self._request(peer_id, peer, ranges)

    def _request(self, peer_id: PeerId, peer: Peer, ranges: Ranges) -> None:
        request = next(self._request_ids)
        pieces = [piece for first, length in ranges for piece in range(first, first + length)]
        self._requests[request] = _Request(peer_id, frozenset(pieces))
        for piece in pieces:
            self._pieces.move(piece, PieceState.IN_FLIGHT)
            self._draws[piece] = _Draw(peer_id, request)
        peer.requests.add(request)
        peer.in_flight.update(pieces)
        self._commands.append(RequestPieces(request, peer_id, ranges))
