"""One download from many peers, as a machine: `receive` events, drain `commands`, mind `next_deadline`.

Each event has its direct consequence at once: whoever gave is asked for more, what nobody gives any more is asked of
others. All that time alone brings about (who is silent, who is idle while others are slow, what was expected and did
not come) is seen to by a look at everything, a few times a second while something is under way.

What to ask next is `picker`'s to say, how much `pipeline`'s, from whom to take something away `tail`'s; `ledger` keeps
what was asked of whom. What a cancelled request gave of a piece stays in the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import assert_never

from p2pnode import config
from p2pnode.swarm.asking import Asking, DownloadLimits
from p2pnode.swarm.availability import Availability
from p2pnode.swarm.commands import Command, DropPeer, Finish
from p2pnode.swarm.conduct import Conduct
from p2pnode.swarm.events import (
    BlockStored,
    BytesWasted,
    DeadlinePassed,
    Event,
    PeerComing,
    PeerHas,
    PeerId,
    PeerJoined,
    PeerLeft,
    PieceCorrupt,
    PieceFailed,
    PieceVerified,
    RequestFailed,
    RequestFinished,
)
from p2pnode.swarm.ledger import Ledger
from p2pnode.swarm.peer import Peer
from p2pnode.swarm.picker import Picker
from p2pnode.swarm.piece_map import PieceState
from p2pnode.torrent.bitfield import Bitfield

__all__ = ["Download", "DownloadLimits"]


class Download:
    """The decisions of one download.

    `piece_sizes` are the bytes of each piece, `have` the pieces that are verified and written already; of the others
    only the `wanted` are asked for (None: all), those of the highest of `priorities` first (one for each piece; None:
    all equal), or in their order (`sequential`). `own_id` is by what the peers know us: the nodes of a swarm that know
    each other begin with different parts. Times are seconds on any one clock that never goes back.
    """

    def __init__(
        self,
        piece_sizes: Sequence[int],
        *,
        have: Bitfield,
        rng: Random,
        limits: DownloadLimits | None = None,
        wanted: Bitfield | None = None,
        sequential: bool = False,
        priorities: Sequence[int] | None = None,
        own_id: PeerId = b"",
    ) -> None:
        self._limits = limits = limits or DownloadLimits()
        self._own_id = own_id
        self._ledger = Ledger(piece_sizes, have, wanted)
        self._availability = Availability()
        self._picker = Picker(
            piece_sizes,
            self._availability,
            rng,
            ranges_max=limits.ranges_per_request,
            sequential=sequential,
            priorities=priorities,
        )
        self._conduct = Conduct()
        self._asking = Asking(self._ledger, self._availability, self._picker, self._conduct, limits, rng)
        self._peers = self._asking.peers
        self._is_something_free = False  # that was asked of somebody, and can be asked of others
        self._finish_when_complete()

    # -- what a driver calls -------------------------------------------------------------------------------

    def receive(self, event: Event, now: float) -> None:
        """Take in what happened at time `now`."""
        if not self.is_finished:
            self._apply(event, now)
            self._ask(now)

    def commands(self) -> Iterator[Command]:
        """Give each command once, in order."""
        commands, self._asking.commands = self._asking.commands, []
        return iter(commands)

    def next_deadline(self) -> float | None:
        """When to send `DeadlinePassed` if nothing happens before; None: never."""
        return None if self.is_finished else self._asking.looks_at

    # -- how it stands -------------------------------------------------------------------------------------

    @property
    def is_finished(self) -> bool:
        """Whether every piece that is wanted is here."""
        return self._ledger.pieces.is_complete

    @property
    def is_starved(self) -> bool:
        """Whether only new peers or pieces can help: nothing is under way, and nobody asked us to wait."""
        return not self._is_under_way and self._asking.looks_at is None and not self.is_finished

    @property
    def is_put_off(self) -> bool:
        """Whether nothing is under way because those who could give asked us to wait."""
        return not self._is_under_way and self._asking.looks_at is not None and not self.is_finished

    @property
    def _is_under_way(self) -> bool:
        return bool(self._ledger.requests or self._ledger.verifier)

    @property
    def remaining_bytes(self) -> int:
        """The bytes of all wanted pieces that are not verified and written."""
        return self._ledger.remaining_bytes

    @property
    def duplicate_bytes(self) -> int:
        """The bytes that came for nothing."""
        return self._asking.budget.spent

    @property
    def duplicate_budget(self) -> int:
        """The bytes that may come for nothing: beyond, no piece is asked of two peers."""
        return self._asking.budget.limit

    @property
    def peers(self) -> frozenset[PeerId]:
        """Whoever joined and neither left nor was dropped."""
        return frozenset(self._peers)

    @property
    def banned(self) -> frozenset[PeerId]:
        """Whoever was proven to have sent too many bad pieces."""
        return self._conduct.banned

    def state(self, piece: int) -> PieceState:
        """Where one piece stands."""
        return self._ledger.pieces.state(piece)

    def drawn_from(self, peer: PeerId) -> frozenset[int]:
        """The pieces that `peer` was asked for and that are not verified yet."""
        known = self._peers.get(peer)
        return self._ledger.drawn_from(known) if known is not None else frozenset()

    # -- events --------------------------------------------------------------------------------------------

    def _apply(self, event: Event, now: float) -> None:
        match event:
            case BlockStored():
                self._block_stored(event, now)
            case PieceVerified():
                self._piece_verified(event, now)
            case RequestFinished():
                # Whoever says "that was all" and owes pieces does not have them to give.
                self._request_ended(event.request, now, refused=True)
            case RequestFailed():
                self._request_failed(event, now)
            case BytesWasted():
                self._asking.budget.spend(event.length)
            case PieceCorrupt():
                self._piece_corrupt(event, now)
            case PieceFailed():
                self._piece_failed(event, now)
            case DeadlinePassed():
                pass  # the time alone tells
            case PeerJoined() | PeerHas() | PeerComing() | PeerLeft():
                self._apply_of_peer(event, now)
            case _:
                assert_never(event)

    def _apply_of_peer(self, event: PeerJoined | PeerHas | PeerComing | PeerLeft, now: float) -> None:
        match event:
            case PeerHas():
                self._peer_has(event, now)
            case PeerComing():
                self._peer_coming(event, now)
            case PeerJoined():
                self._peer_joined(event, now)
            case PeerLeft():
                self._forget(event.peer, now)
            case _:
                assert_never(event)

    def _peer_joined(self, event: PeerJoined, now: float) -> None:
        if self._conduct.is_banned(event.peer):
            self._asking.commands.append(DropPeer(event.peer))
            return
        peer = self._peers.get(event.peer)
        if peer is None:
            peer = self._peers[event.peer] = Peer(event.peer, 0, is_complete=False, is_near=event.is_near)
        peer.is_near = event.is_near
        peer.refused_bits = 0  # it says anew what it gives
        self._asking.zone.joined(peer, now)
        self._know(peer, event.have)
        self._share_out()
        self._asking.ask(peer, now)

    def _peer_has(self, event: PeerHas, now: float) -> None:
        peer = self._peers.get(event.peer)
        if peer is None:
            return
        self._know(peer, Bitfield(event.have.piece_count, peer.have_bits | event.have.bits))
        if peer.is_complete:
            self._share_out()
        self._asking.ask(peer, now)

    def _know(self, peer: Peer, have: Bitfield) -> None:
        peer.got(have.bits)
        peer.is_complete = have.is_complete
        self._availability.recount(peer)

    def _peer_coming(self, event: PeerComing, now: float) -> None:
        peer = self._peers.get(event.peer)
        if peer is not None:
            lasts_s = min(
                max(config.COMING_LASTS_S, 3 * self._asking.times.usual_max_s), config.COMING_LASTS_MAX_S
            )
            peer.expects(event.pieces.bits, now + lasts_s)
            self._availability.recount(peer)

    def _share_out(self) -> None:
        """Those near peers that need pieces too, as far as we know each other, take equal shares of the file."""
        mates = [peer.id for peer in self._peers.values() if peer.is_near and not peer.is_complete]
        self._picker.share(self._own_id, mates)

    def _block_stored(self, event: BlockStored, now: float) -> None:
        request = self._ledger.stored(event.peer, event.piece, event.length, now)
        if request is None:
            return
        request.peer.times_relieved = 0
        self._asking.zone.stored(request.peer, event.length, now)
        if event.piece not in request.owed:
            self._asking.times.add(now - request.asked_at)
            self._asking.ask(request.peer, now)

    def _piece_verified(self, event: PieceVerified, now: float) -> None:
        owing = self._ledger.verified(event.piece, now)
        for request in owing:
            # Whoever is at it just now gives it for nothing; in a long request it is one piece among many.
            if request.peer.id != event.peer and (len(owing) > 1 or request.is_hedge or not request.owed):
                self._asking.cancel(request, now)
                self._is_something_free = True
        self._asking.budget.end_hedge(event.piece, now)
        self._conduct.piece_verified(event.piece)
        self._finish_when_complete()
        if owing and not self.is_finished:
            self._ask_again(event.peer, now)

    def _piece_corrupt(self, event: PieceCorrupt, now: float) -> None:
        """The piece is asked of others, and so is the rest of the request that it spoilt."""
        self._conduct.blame(event.peer)
        self._refuse(event.peer, 1 << event.piece)
        for request in self._ledger.spoilt(event.piece, event.peer):
            self._asking.cancel(request, now)
        self._is_something_free = True
        self._judge(event.peer, now)

    def _piece_failed(self, event: PieceFailed, now: float) -> None:
        guilty = self._conduct.piece_failed(event.piece, self._ledger.givers(event.piece))
        for request in self._ledger.failed(event.piece):
            self._asking.cancel(request, now)
        self._asking.budget.end_hedge(event.piece, now)
        self._is_something_free = True
        if guilty is not None:
            self._refuse(guilty, 1 << event.piece)
            self._judge(guilty, now)

    def _request_failed(self, event: RequestFailed, now: float) -> None:
        peer = self._request_ended(event.request, now, refused=not event.retryable)
        if peer is not None and event.retryable:
            wait_s = min(event.retry_after_s, self._limits.retry_after_max_s)
            peer.asked_again_at = now + max(wait_s, self._limits.retry_after_min_s)

    def _ask_again(self, peer_id: PeerId, now: float) -> None:
        if (peer := self._peers.get(peer_id)) is not None:
            self._asking.ask(peer, now)

    def _ask(self, now: float) -> None:
        """What follows from what happened, and from the time."""
        if self.is_finished:
            return
        looks_at = self._asking.looks_at
        if looks_at is not None and looks_at <= now:
            self._asking.look(now)
        elif self._is_something_free:
            self._asking.ask_everybody(now)
        self._is_something_free = False
        self._asking.schedule(now)

    # -- endings -------------------------------------------------------------------------------------------

    def _request_ended(self, request_id: int, now: float, *, refused: bool) -> Peer | None:
        """Forget a request; what it still owes is missing. Gives the peer, if the request was under way."""
        request = self._ledger.requests.get(request_id)
        if request is None:
            return None
        owed_bits = self._asking.end(request, now)
        self._is_something_free |= owed_bits > 0
        if refused:
            request.peer.refused_bits |= owed_bits
        return request.peer

    def _refuse(self, peer_id: PeerId, bits: int) -> None:
        if (peer := self._peers.get(peer_id)) is not None:
            peer.refused_bits |= bits

    def _judge(self, peer_id: PeerId, now: float) -> None:
        if self._conduct.is_banned(peer_id) and peer_id in self._peers:
            self._forget(peer_id, now)
            self._asking.commands.append(DropPeer(peer_id))

    def _forget(self, peer_id: PeerId, now: float) -> None:
        peer = self._peers.pop(peer_id, None)
        if peer is None:
            return
        for request in peer.requests:
            for piece in request.owed:
                self._asking.budget.end_hedge(piece, now)
        self._ledger.forget(peer, now)
        self._availability.forget(peer)
        self._share_out()
        self._is_something_free = True

    def _finish_when_complete(self) -> None:
        if self.is_finished:
            self._asking.commands.append(Finish())
