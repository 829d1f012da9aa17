"""Random worlds around a `Download`: whatever peers do and in whatever order it is heard, it ends well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import Enum, auto
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.swarm import (
    BlockStored,
    BytesWasted,
    CancelRequest,
    Command,
    DeadlinePassed,
    Download,
    DownloadLimits,
    DropPeer,
    Event,
    Finish,
    PeerComing,
    PeerHas,
    PeerJoined,
    PeerLeft,
    PieceCorrupt,
    PieceFailed,
    PieceVerified,
    RequestFailed,
    RequestFinished,
    RequestPieces,
    ShortenRequest,
)
from p2pnode.swarm.piece_map import PieceState
from p2pnode.torrent.bitfield import Bitfield

HONEST = b"honest"
LIMITS = DownloadLimits(
    peers_at_once=3,
    requests_per_peer=2,
    request_bytes=25,
    ranges_per_request=3,
    retry_after_min_s=1.0,
    relieve_after_s=2.0,
)


class Conduct(Enum):
    """What a peer does when it is its turn."""

    GIVE = auto()  # a block, or the end of a request
    LIE = auto()
    SPOIL = auto()  # as LIE, but only the whole piece tells
    BUSY = auto()
    REFUSE = auto()
    STOP_SHORT = auto()
    LEAVE = auto()  # or be left, since nothing came from it
    HAVE_MORE = auto()


class World:
    """Peers that answer requests one step at a time, and a driver that may hear of it late."""

    def __init__(self, sizes: list[int], have: int, conducts: list[Conduct], rng: Random) -> None:
        self.sizes = sizes
        self.everything = Bitfield.full(len(sizes))
        self.rng = rng
        self.now = 0.0
        self.requests: dict[int, RequestPieces] = {}
        self.owed: dict[int, list[tuple[int, int]]] = {}  # by request: (piece, the next byte of it)
        self.stored: dict[int, int] = {}  # bytes of a piece that are here
        self.told: Counter[int] = (
            Counter()
        )  # of these, what the download was told of, perhaps by who had left
        self.spoilt: set[int] = set()
        self.present: dict[bytes, int] = {}  # what each peer says it has
        self.refused: dict[bytes, int] = {}
        self.heard_late: list[Event] = []
        self.verified = Bitfield(len(sizes), have & self.everything.bits)
        self.finishes = 0
        self.conducts = {f"peer {number}".encode(): conduct for number, conduct in enumerate(conducts)}
        self.conducts[HONEST] = Conduct.GIVE
        self.download = Download(sizes, have=self.verified, rng=rng, limits=LIMITS, own_id=b"own")
        self.carry_out()

    def tell(self, event: Event) -> None:
        if isinstance(event, PieceVerified):
            self.verified = self.verified.adding(event.piece)
        elif isinstance(event, BlockStored):
            self.told[event.piece] += event.length
        elif isinstance(event, PieceFailed):
            del self.told[event.piece]
        self.download.receive(event, self.now)
        self.carry_out()
        self.check()

    def carry_out(self) -> None:
        for command in self.download.commands():
            assert not self.finishes, "nothing comes after Finish"
            self.carry_out_one(command)

    def carry_out_one(self, command: Command) -> None:
        match command:
            case RequestPieces(request, peer, ranges):
                asked = Bitfield.from_ranges(ranges, len(self.sizes))
                assert asked.bits, "a request asks for something"
                assert peer not in self.download.banned
                assert not asked.bits & ~self.present[peer], "nobody is asked for what it lacks"
                assert not asked.bits & self.refused.get(peer, 0), "nobody is asked for what it refused"
                assert not asked & self.verified, "no piece is asked for that is here"
                assert len(ranges) <= LIMITS.ranges_per_request
                assert len(asked) == 1 or sum(self.sizes[p] for p in asked) <= LIMITS.request_bytes
                self.requests[request] = command
                self.owed[request] = [(piece, self.stored.get(piece, 0)) for piece in asked]
                self.check_duplicates()
                of_peer = [
                    r
                    for r, owed in self.owed.items()
                    if self.requests[r].peer == peer and any(self.is_outstanding(piece) for piece, _ in owed)
                ]
                assert len(of_peer) <= LIMITS.requests_per_peer
            case CancelRequest(request):
                del self.owed[request]
            case ShortenRequest(request, ranges):
                kept = set(Bitfield.from_ranges(ranges, len(self.sizes)))
                pieces = [piece for piece, _ in self.owed[request]]
                assert pieces, "what is over is not shortened"
                self.owed[request] = [
                    (piece, offset) for piece, offset in self.owed[request] if piece in kept
                ]
                assert pieces[: len(self.owed[request])] == [piece for piece, _ in self.owed[request]]
            case DropPeer(peer):
                assert peer != HONEST
                self.vanish(peer)
            case Finish():
                self.finishes += 1

    def is_outstanding(self, piece: int) -> bool:
        """Whether the download has still to hear of bytes of a piece; its hash may be under way."""
        return piece not in self.verified and self.told[piece] < self.sizes[piece]

    def check_duplicates(self) -> None:
        """No piece is under way more than twice, and what may come twice of all of them is within the budget."""
        under_way = [part for owed in self.owed.values() for part in owed]
        pieces = [piece for piece, _ in under_way]
        twice = {piece for piece in pieces if pieces.count(piece) > 1}
        assert all(pieces.count(piece) == 2 for piece in twice)
        at_risk = sum(self.sizes[piece] - self.stored.get(piece, 0) for piece in twice - set(self.verified))
        assert self.download.duplicate_bytes + at_risk <= self.download.duplicate_budget or not twice

    def check(self) -> None:
        have = [piece for piece in range(len(self.sizes)) if self.download.state(piece) is PieceState.HAVE]
        assert have == list(self.verified)
        assert self.download.remaining_bytes == sum(self.sizes[piece] for piece in ~self.verified)
        assert self.download.is_finished == self.verified.is_complete == (self.finishes == 1)
        drawn = {piece for peer in self.present for piece in self.download.drawn_from(peer)}
        busy = {PieceState.IN_FLIGHT, PieceState.VERIFYING}
        in_work = {piece for piece in range(len(self.sizes)) if self.download.state(piece) in busy}
        assert in_work == drawn
        assert self.finishes or not (self.download.is_starved and self.download.is_put_off)
        deadline = self.download.next_deadline()
        assert deadline is None or deadline > self.now, "a deadline that has passed would spin"

    def vanish(self, peer: bytes) -> None:
        self.present.pop(peer, None)
        self.refused.pop(peer, None)
        for request in [r for r in self.owed if self.requests[r].peer == peer]:
            del self.owed[request]

    # -- what may happen next ------------------------------------------------------------------------------

    def step(self) -> None:
        """Let one thing happen that chance picks."""
        peer = self.rng.choice(sorted(self.conducts))
        happenings: list[Callable[[], None]] = [
            self.pass_time,
            self.hear_late,
            lambda: self.join(peer),
            lambda: self.act(peer),
            lambda: self.act(peer),
            lambda: self.act(HONEST),
        ]
        self.rng.choice(happenings)()

    def join(self, peer: bytes) -> None:
        if peer in self.present:
            return
        some = Bitfield(len(self.sizes), self.rng.getrandbits(len(self.sizes)))
        have = self.everything if peer == HONEST else some
        self.present[peer] = have.bits
        self.tell(PeerJoined(peer, have, is_near=self.rng.random() < 0.7))

    def pass_time(self) -> None:
        """Half a second; the honest peer is never slower than that for long."""
        until = self.now + 0.5
        while (deadline := self.download.next_deadline()) is not None and deadline <= until:
            self.now = deadline
            self.tell(DeadlinePassed())
        self.now = until
        self.act(HONEST)

    def hear_late(self) -> None:
        if self.heard_late:
            self.tell(self.heard_late.pop(self.rng.randrange(len(self.heard_late))))

    def act(self, peer: bytes) -> None:
        conduct = self.conducts[peer]
        if conduct is Conduct.LEAVE and peer in self.present:
            self.leave(peer)
        elif conduct is Conduct.HAVE_MORE and peer in self.present:
            more = Bitfield(len(self.sizes), self.rng.getrandbits(len(self.sizes)))
            if self.rng.random() < 0.5:
                self.tell(PeerComing(peer, more))
            else:
                self.present[peer] |= more.bits
                self.tell(PeerHas(peer, more))
        requests = [request for request in self.owed if self.requests[request].peer == peer]
        if requests and peer in self.present:
            self.answer(requests[0], conduct)

    def leave(self, peer: bytes) -> None:
        """What it had sent may be heard of when it is gone."""
        for request in [r for r in self.owed if self.requests[r].peer == peer]:
            if self.owed[request] and self.conducts[peer] is not Conduct.SPOIL:
                piece, offset = self.owed[request][0]
                if piece not in self.spoilt:
                    size = self.sizes[piece] - offset
                    self.heard_late += [BlockStored(peer, piece, size), PieceVerified(peer, piece)]
            self.heard_late.append(RequestFinished(request))
        self.vanish(peer)
        self.tell(PeerLeft(peer))

    def answer(self, request: int, conduct: Conduct) -> None:
        match conduct:
            case Conduct.GIVE | Conduct.HAVE_MORE | Conduct.SPOIL:
                self.give(request, is_spoilt=conduct is Conduct.SPOIL)
            case Conduct.LIE:
                peer = self.requests[request].peer
                if self.owed[request]:
                    piece = self.owed[request][0][0]
                    self.refuse(peer, [piece])
                    self.tell(PieceCorrupt(peer, piece))
                    assert request not in self.owed
            case Conduct.BUSY:
                del self.owed[request]
                self.tell(RequestFailed(request, retryable=True, retry_after_s=self.rng.choice([0.0, 3.0])))
            case Conduct.REFUSE:
                self.refuse(self.requests[request].peer, [piece for piece, _ in self.owed.pop(request)])
                self.tell(RequestFailed(request, retryable=False))
            case Conduct.STOP_SHORT:
                if self.rng.random() < 0.5:
                    self.give(request)
                else:
                    self.refuse(self.requests[request].peer, [piece for piece, _ in self.owed.pop(request)])
                    self.tell(RequestFinished(request))
            case Conduct.LEAVE:
                pass

    def refuse(self, peer: bytes, pieces: list[int]) -> None:
        self.refused[peer] = self.refused.get(peer, 0) | sum(1 << piece for piece in pieces)

    def give(self, request: int, *, is_spoilt: bool = False) -> None:
        """A few bytes of the first piece that is owed, or the end."""
        peer, owed = self.requests[request].peer, self.owed[request]
        if not owed:
            del self.owed[request]
            self.tell(RequestFinished(request))
            return
        piece, offset = owed[0]
        end = self.rng.randint(offset + 1, self.sizes[piece])
        owed[0] = (piece, end)
        if end == self.sizes[piece]:
            owed.pop(0)
        stored = self.sizes[piece] if piece in self.verified else self.stored.get(piece, 0)
        if end > stored:
            self.stored[piece] = end
            self.spoilt |= {piece} if is_spoilt else set()
            self.tell(BlockStored(peer, piece, end - max(offset, stored)))
        if stored > offset:
            self.tell(BytesWasted(peer, min(end, stored) - offset))
        if end == self.sizes[piece] and piece not in self.verified:
            self.hash(peer, piece)

    def hash(self, peer: bytes, piece: int) -> None:
        if piece not in self.spoilt:
            self.tell(PieceVerified(peer, piece))
            return
        self.spoilt.remove(piece)
        del self.stored[piece]
        self.tell(PieceFailed(piece))


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    have=st.integers(0, 2**12 - 1),
    conducts=st.lists(st.sampled_from(Conduct), max_size=5),
    seed=st.integers(0, 2**32),
    steps=st.integers(0, 200),
)
def test_it_ends_well_while_one_honest_peer_stays(
    sizes: list[int], have: int, conducts: list[Conduct], seed: int, steps: int
) -> None:
    world = World(sizes, have, conducts, Random(seed))
    for _ in range(steps):
        world.step()
    world.join(HONEST)
    for peer in sorted(world.present.keys() - {HONEST}):
        world.leave(peer)  # they fell silent, and the driver has noticed
    for _ in range(20 * len(sizes) + 200):
        if world.finishes:
            break
        world.pass_time()
    assert world.finishes == 1
    assert world.download.remaining_bytes == 0
    while world.heard_late:
        world.hear_late()
    assert list(world.download.commands()) == []
