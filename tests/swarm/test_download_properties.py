"""Random worlds around a `Download`: whatever peers do and in whatever order it is heard, it ends well."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.swarm import (
    BlockStored,
    CancelRequest,
    Command,
    DeadlinePassed,
    Download,
    DownloadLimits,
    DropPeer,
    Event,
    Finish,
    PeerHas,
    PeerJoined,
    PeerLeft,
    PieceCorrupt,
    PieceVerified,
    RequestFailed,
    RequestFinished,
    RequestPieces,
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
        self.owed: dict[int, list[tuple[int, int]]] = {}  # by request: (piece, bytes to come)
        self.stored: dict[tuple[int, int], int] = {}
        self.present: set[bytes] = set()
        self.banned: set[bytes] = set()
        self.heard_late: list[Event] = []
        self.verified = Bitfield(len(sizes), have & self.everything.bits)
        self.finishes = 0
        self.conducts = {f"peer {number}".encode(): conduct for number, conduct in enumerate(conducts)}
        self.conducts[HONEST] = Conduct.GIVE
        self.download = Download(sizes, have=self.verified, rng=rng, limits=LIMITS)
        self.carry_out()

    def tell(self, event: Event) -> None:
        if isinstance(event, PieceVerified):
            self.verified = self.verified.adding(event.piece)
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
                assert peer in self.present
                asked = Bitfield.from_ranges(ranges, len(self.sizes))
                under_way = {piece for owed in self.owed.values() for piece, _ in owed}
                assert not asked & self.verified, "no piece is asked for that is here"
                assert under_way.isdisjoint(asked), "no piece is asked for twice at once"
                assert len(ranges) <= LIMITS.ranges_per_request
                assert len(asked) == 1 or sum(self.sizes[p] for p in asked) <= LIMITS.request_bytes
                self.requests[request] = command
                self.owed[request] = [(piece, self.sizes[piece]) for piece in asked]
                of_peer = [r for r in self.owed if self.requests[r].peer == peer]
                assert len(of_peer) <= LIMITS.requests_per_peer
                assert len({self.requests[r].peer for r in self.owed}) <= LIMITS.peers_at_once
            case CancelRequest(request):
                del self.owed[request]
            case DropPeer(peer):
                assert peer != HONEST
                self.vanish(peer)
            case Finish():
                self.finishes += 1

    def check(self) -> None:
        have = [piece for piece in range(len(self.sizes)) if self.download.state(piece) is PieceState.HAVE]
        assert have == list(self.verified)
        assert self.download.remaining_bytes == sum(self.sizes[piece] for piece in ~self.verified)
        assert self.download.is_finished == self.verified.is_complete == (self.finishes == 1)
        drawn = [piece for peer in self.present for piece in self.download.drawn_from(peer)]
        assert len(drawn) == len(set(drawn))
        busy = {PieceState.IN_FLIGHT, PieceState.VERIFYING}
        in_work = {piece for piece in range(len(self.sizes)) if self.download.state(piece) in busy}
        assert in_work == set(drawn)
        deadline = self.download.next_deadline()
        assert deadline is None or deadline > self.now, "a deadline that has passed would spin"

    def vanish(self, peer: bytes) -> None:
        self.present.discard(peer)
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
        self.present.add(peer)
        some = Bitfield(len(self.sizes), self.rng.getrandbits(len(self.sizes)))
        self.tell(PeerJoined(peer, self.everything if peer == HONEST else some))

    def pass_time(self) -> None:
        """Half a second; the honest peer is never slower than that for long."""
        self.now += 0.5
        self.act(HONEST)
        self.tell(DeadlinePassed())

    def hear_late(self) -> None:
        if self.heard_late:
            self.tell(self.heard_late.pop(self.rng.randrange(len(self.heard_late))))

    def act(self, peer: bytes) -> None:
        conduct = self.conducts[peer]
        if conduct is Conduct.LEAVE and peer in self.present:
            self.leave(peer)
        elif conduct is Conduct.HAVE_MORE and peer in self.present:
            self.tell(PeerHas(peer, Bitfield(len(self.sizes), self.rng.getrandbits(len(self.sizes)))))
        requests = [request for request in self.owed if self.requests[request].peer == peer]
        if requests and peer in self.present:
            self.answer(requests[0], conduct)

    def leave(self, peer: bytes) -> None:
        """What it had sent may be heard of when it is gone."""
        for request in [r for r in self.owed if self.requests[r].peer == peer]:
            if self.owed[request]:
                piece, size = self.owed[request][0]
                self.heard_late += [BlockStored(peer, piece, size), PieceVerified(peer, piece)]
            self.heard_late.append(RequestFinished(request))
        self.vanish(peer)
        self.tell(PeerLeft(peer))

    def answer(self, request: int, conduct: Conduct) -> None:
        match conduct:
            case Conduct.GIVE | Conduct.HAVE_MORE:
                self.give(request)
            case Conduct.LIE:
                peer = self.requests[request].peer
                piece = self.owed[request][0][0] if self.owed[request] else 0
                self.tell(PieceCorrupt(peer, piece))
                assert peer in self.download.banned
            case Conduct.BUSY:
                del self.owed[request]
                self.tell(RequestFailed(request, retryable=True, retry_after_s=self.rng.choice([0.0, 3.0])))
            case Conduct.REFUSE:
                del self.owed[request]
                self.tell(RequestFailed(request, retryable=False))
            case Conduct.STOP_SHORT:
                if self.rng.random() < 0.5:
                    self.give(request)
                else:
                    del self.owed[request]
                    self.tell(RequestFinished(request))
            case Conduct.LEAVE:
                pass

    def give(self, request: int) -> None:
        """A few bytes of the first piece that is owed, or the end."""
        peer, owed = self.requests[request].peer, self.owed[request]
        if not owed:
            del self.owed[request]
            self.tell(RequestFinished(request))
            return
        piece, left = owed[0]
        length = self.rng.randint(1, left)
        owed[0] = (piece, left - length)
        if length == left:
            owed.pop(0)
        self.tell(BlockStored(peer, piece, length))
        if length == left:
            self.tell(PieceVerified(peer, piece))


@settings(max_examples=150, deadline=None)
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
    for peer in sorted(world.present - {HONEST}):
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
