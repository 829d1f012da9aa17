from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

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

A, B, C = b"a", b"b", b"c"
COUNT = 8
SIZE = 10
ALL = Bitfield.full(COUNT)
NONE = Bitfield(COUNT)
LIMITS = DownloadLimits(
    peers_at_once=2,
    requests_per_peer=2,
    request_bytes=2 * SIZE,
    ranges_per_request=3,
    retry_after_min_s=1.0,
    peers_at_once_max=2,
)


def only(*pieces: int) -> Bitfield:
    return Bitfield(COUNT, sum(1 << piece for piece in pieces))


def pieces_of(request: RequestPieces) -> list[int]:
    return list(Bitfield.from_ranges(request.ranges, COUNT))


class FirstPiece(Random):
    """Chance that lets every peer start at piece 0."""

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return 0


class Playbook:
    """A download, told events and asked at once for its commands."""

    def __init__(
        self, have: Bitfield = NONE, limits: DownloadLimits = LIMITS, rng: Random | None = None
    ) -> None:
        self.download = Download([SIZE] * COUNT, have=have, rng=rng or FirstPiece(1), limits=limits)
        self.now = 100.0

    def tell(self, *events: Event) -> list[Command]:
        for event in events:
            self.download.receive(event, self.now)
        return list(self.download.commands())

    def requests(self, *events: Event) -> list[RequestPieces]:
        """Tell events that are answered with requests alone."""
        commands = self.tell(*events)
        assert all(isinstance(command, RequestPieces) for command in commands)
        return [command for command in commands if isinstance(command, RequestPieces)]

    def deliver(self, request: RequestPieces) -> list[Command]:
        """The peer gives all of a request."""
        stored: list[Event] = []
        for piece in pieces_of(request):
            stored += [BlockStored(request.peer, piece, SIZE), PieceVerified(request.peer, piece)]
        return self.tell(*stored, RequestFinished(request.request))

    def wait_for_deadline(self) -> list[Command]:
        deadline = self.download.next_deadline()
        assert deadline is not None
        self.now = deadline
        return self.tell(DeadlinePassed())


def test_one_peer_gives_everything_and_it_finishes_once() -> None:
    book = Playbook()
    under_way: list[Command] = book.tell(PeerJoined(A, ALL))
    asked: list[int] = []
    while isinstance(request := under_way.pop(0), RequestPieces):
        asked += pieces_of(request)
        under_way += book.deliver(request)
    assert request == Finish()
    assert under_way == []
    assert sorted(asked) == list(range(COUNT))
    assert book.download.is_finished
    assert book.download.remaining_bytes == 0
    assert book.download.next_deadline() is None
    assert book.tell(PeerJoined(B, ALL), PieceCorrupt(A, 0), DeadlinePassed()) == []


def test_what_is_there_already_is_not_asked_for() -> None:
    book = Playbook(have=~only(3))
    assert book.download.remaining_bytes == SIZE
    [request] = book.requests(PeerJoined(A, ALL))
    assert pieces_of(request) == [3]


def test_a_complete_download_finishes_before_any_event() -> None:
    assert Playbook(have=ALL).tell() == [Finish()]


def test_a_torrent_of_no_pieces_finishes() -> None:
    download = Download([], have=Bitfield(0), rng=Random(1))
    assert list(download.commands()) == [Finish()]


def test_commands_are_given_once() -> None:
    book = Playbook()
    assert len(book.tell(PeerJoined(A, ALL))) == 2
    assert book.tell() == []


def test_requests_are_small_and_few_for_each_peer() -> None:
    book = Playbook()
    requests = book.requests(PeerJoined(A, ALL))
    assert len(requests) == LIMITS.requests_per_peer
    assert all(len(pieces_of(request)) == 2 for request in requests)
    assert book.download.drawn_from(A) == {piece for request in requests for piece in pieces_of(request)}


def test_a_finished_request_makes_room_for_the_next() -> None:
    book = Playbook()
    first, _ = book.requests(PeerJoined(A, ALL))
    [third] = book.deliver(first)
    assert isinstance(third, RequestPieces)
    assert third.request not in (first.request, first.request + 1)


def test_requests_of_one_peer_follow_each_other() -> None:
    first, second = Playbook().requests(PeerJoined(A, ALL))
    assert pieces_of(first) + pieces_of(second) == [0, 1, 2, 3]


def test_downloaders_of_one_seed_start_at_different_pieces() -> None:
    books = [Playbook(rng=Random(seed), limits=replace(LIMITS, request_bytes=SIZE)) for seed in range(50)]
    assert {book.requests(PeerJoined(A, ALL))[0].ranges[0][0] for book in books} == set(range(COUNT))


def test_a_piece_is_asked_of_one_peer_only() -> None:
    book = Playbook()
    of_a = book.requests(PeerJoined(A, ALL))
    of_b = book.requests(PeerJoined(B, ALL))
    asked = [piece for request in of_a + of_b for piece in pieces_of(request)]
    assert sorted(asked) == list(range(COUNT))


def test_only_so_many_peers_draw_at_once() -> None:
    book = Playbook(limits=replace(LIMITS, request_bytes=SIZE))
    book.tell(PeerJoined(A, ALL), PeerJoined(B, ALL))
    assert book.tell(PeerJoined(C, ALL)) == []
    [first, _] = book.requests(PeerLeft(A))
    assert first.peer == C


def test_peers_that_could_all_begin_begin_only_as_far_as_there_is_room() -> None:
    book = Playbook(limits=replace(LIMITS, peers_at_once_max=1, peers_at_once=1, requests_per_peer=1))
    book.tell(PeerJoined(A, ALL), PeerJoined(B, ALL), PeerJoined(C, ALL))
    assert len(book.requests(PeerLeft(A))) == 1


def test_any_idle_peer_may_be_the_next() -> None:
    successors = set()
    for seed in range(30):
        book = Playbook(limits=replace(LIMITS, peers_at_once=1, peers_at_once_max=1), rng=Random(seed))
        book.tell(PeerJoined(A, ALL), PeerJoined(B, ALL), PeerJoined(C, ALL))
        successors.add(book.requests(PeerLeft(A))[0].peer)
    assert successors == {B, C}


def test_a_peer_is_asked_only_for_what_it_has() -> None:
    book = Playbook()
    assert book.tell(PeerJoined(A, NONE)) == []
    [request] = book.requests(PeerHas(A, only(5)))
    assert pieces_of(request) == [5]
    [request] = book.requests(PeerHas(A, only(5, 6)))
    assert pieces_of(request) == [6]


def test_a_peer_that_joins_again_has_what_it_says_last() -> None:
    book = Playbook()
    book.tell(PeerJoined(A, only(0)))
    [request] = book.requests(PeerJoined(A, only(4)))
    assert pieces_of(request) == [4]
    assert book.download.drawn_from(A) == {0, 4}


def test_pieces_of_a_peer_that_left_are_asked_of_another() -> None:
    book = Playbook()
    book.tell(PeerJoined(A, only(0, 1)), BlockStored(A, 0, SIZE))
    assert book.tell(PeerLeft(A)) == []
    assert book.download.peers == frozenset()
    [request] = book.requests(PeerJoined(B, only(0, 1)))
    assert request.peer == B
    assert pieces_of(request) == [0, 1]


def test_blocks_move_a_piece_to_verifying_and_its_hash_to_have() -> None:
    book = Playbook()
    book.tell(PeerJoined(A, only(2)))
    assert book.download.state(2) is PieceState.IN_FLIGHT
    book.tell(BlockStored(A, 2, SIZE - 1))
    assert book.download.state(2) is PieceState.IN_FLIGHT
    book.tell(BlockStored(A, 2, 1))
    assert book.download.state(2) is PieceState.VERIFYING
    book.tell(PieceVerified(A, 2))
    assert book.download.state(2) is PieceState.HAVE
    assert book.download.remaining_bytes == SIZE * (COUNT - 1)


def test_it_is_starved_while_nobody_gives_or_will_give_and_put_off_while_somebody_will() -> None:
    book = Playbook(have=~only(0))

    def state() -> tuple[bool, bool]:
        return book.download.is_starved, book.download.is_put_off

    states = [state()]
    [request] = book.requests(PeerJoined(A, ALL))
    states.append(state())
    book.tell(RequestFailed(request.request, retryable=True))
    states.append(state())
    [again] = book.wait_for_deadline()
    assert isinstance(again, RequestPieces)
    book.tell(RequestFailed(again.request, retryable=False))
    states.append(state())
    [elsewhere] = book.requests(PeerJoined(B, ALL))
    book.tell(BlockStored(B, 0, SIZE), RequestFinished(elsewhere.request))
    states.append(state())
    book.tell(PieceVerified(B, 0))
    states.append(state())
    is_fine, is_starved, is_put_off = (False, False), (True, False), (False, True)
    assert states == [is_starved, is_fine, is_put_off, is_starved, is_fine, is_fine]


# -- failures ----------------------------------------------------------------------------------------------


def test_s7_a_corrupt_piece_goes_elsewhere_and_a_second_one_bans_its_peer() -> None:
    book = Playbook()
    book.tell(PeerJoined(A, only(0, 1)))
    book.tell(BlockStored(A, 0, SIZE))
    book.tell(PieceCorrupt(A, 0))
    assert book.download.banned == frozenset()
    assert book.download.state(0) is PieceState.MISSING
    [request] = book.requests(PeerJoined(B, only(0)))
    assert (request.peer, pieces_of(request)) == (B, [0])
    assert book.tell(PieceCorrupt(A, 1))[-1] == DropPeer(A)
    assert book.download.banned == {A}
    assert book.tell(PeerJoined(A, ALL)) == [DropPeer(A)]
    [request] = book.requests(PeerJoined(C, only(1)))
    assert pieces_of(request) == [1]


def test_s7_what_a_corrupt_piece_s_request_still_owed_is_asked_for_again() -> None:
    book = Playbook()
    [request] = book.requests(PeerJoined(A, only(0, 1)))
    cancelled, again = book.tell(PieceCorrupt(A, 0))
    assert cancelled == CancelRequest(request.request)
    assert isinstance(again, RequestPieces)
    assert (again.peer, pieces_of(again)) == (A, [1])


def test_s7_only_the_peer_that_sent_it_is_charged() -> None:
    book = Playbook()
    book.tell(PeerJoined(A, only(0, 2)), PeerJoined(B, only(1)))
    assert book.tell(PieceCorrupt(A, 0), PieceCorrupt(A, 2))[-1] == DropPeer(A)
    assert book.download.peers == {B}
    assert book.download.drawn_from(B) == {1}


def test_corrupt_pieces_of_a_peer_that_left_still_ban_it() -> None:
    book = Playbook()
    book.tell(PeerJoined(A, only(0)), PeerLeft(A))
    assert book.tell(PieceCorrupt(A, 0), PieceCorrupt(A, 0)) == []
    assert book.download.banned == {A}


def test_a_busy_peer_is_asked_again_after_the_time_it_names() -> None:
    book = Playbook()
    [request] = book.requests(PeerJoined(A, only(0)))
    assert book.tell(RequestFailed(request.request, retryable=True, retry_after_s=7)) == []
    assert book.download.state(0) is PieceState.MISSING
    assert book.download.next_deadline() == book.now + 7
    [again] = book.wait_for_deadline()
    assert isinstance(again, RequestPieces)
    assert again.request != request.request


def test_a_busy_peer_that_names_no_time_is_not_asked_in_a_loop() -> None:
    book = Playbook()
    [request] = book.requests(PeerJoined(A, only(0)))
    assert book.tell(RequestFailed(request.request, retryable=True)) == []
    assert book.download.next_deadline() == book.now + LIMITS.retry_after_min_s


def test_while_a_peer_is_busy_another_one_gives_its_pieces() -> None:
    book = Playbook()
    [request] = book.requests(PeerJoined(A, only(0)), PeerJoined(B, only(0)))
    [other] = book.requests(RequestFailed(request.request, retryable=True, retry_after_s=60))
    assert {request.peer, other.peer} == {A, B}
    assert pieces_of(other) == [0]


def test_a_busy_peer_goes_on_with_its_other_request() -> None:
    book = Playbook()
    first, second = book.requests(PeerJoined(A, ALL))
    assert book.tell(RequestFailed(first.request, retryable=True, retry_after_s=60)) == []
    assert book.download.drawn_from(A) == set(pieces_of(second))
    assert book.deliver(second) == []


def test_refused_pieces_are_not_asked_of_that_peer_again() -> None:
    book = Playbook()
    [request] = book.requests(PeerJoined(A, only(0, 1)))
    assert book.tell(RequestFailed(request.request, retryable=False)) == []
    assert book.tell(PeerHas(A, only(0, 1))) == []
    [other] = book.requests(PeerHas(A, only(0, 1, 2)))
    assert pieces_of(other) == [2]
    [elsewhere] = book.requests(PeerJoined(B, only(0, 1)))
    assert pieces_of(elsewhere) == [0, 1]


def test_who_says_anew_what_it_has_is_asked_for_what_it_refused() -> None:
    book = Playbook()
    [request] = book.requests(PeerJoined(A, only(0, 1)))
    assert book.tell(RequestFailed(request.request, retryable=False)) == []
    [again] = book.requests(PeerJoined(A, only(0, 1)))
    assert pieces_of(again) == [0, 1]


def test_a_request_that_finishes_short_refuses_the_rest() -> None:
    book = Playbook()
    [request] = book.requests(PeerJoined(A, only(0, 1)))
    finished = RequestFinished(request.request)
    assert book.tell(BlockStored(A, 0, SIZE), PieceVerified(A, 0), finished) == []
    assert book.download.state(0) is PieceState.HAVE
    assert book.download.state(1) is PieceState.MISSING
    [elsewhere] = book.requests(PeerJoined(B, only(0, 1)))
    assert pieces_of(elsewhere) == [1]


@pytest.mark.parametrize("verified", [True, False])
def test_a_request_may_end_before_its_last_piece_is_hashed(verified: bool) -> None:
    book = Playbook()
    [request] = book.requests(PeerJoined(A, only(0)))
    book.tell(BlockStored(A, 0, SIZE), RequestFinished(request.request))
    assert book.download.state(0) is PieceState.VERIFYING
    assert book.download.drawn_from(A) == {0}
    if verified:
        book.tell(PieceVerified(A, 0))
        assert book.download.state(0) is PieceState.HAVE
    else:
        assert book.tell(PieceCorrupt(A, 0)) == []
        assert book.download.state(0) is PieceState.MISSING


# -- late events -------------------------------------------------------------------------------------------


def test_events_about_nobody_and_nothing_are_ignored() -> None:
    book = Playbook()
    events: list[Event] = [
        PeerHas(A, ALL),
        PeerLeft(A),
        BlockStored(A, 0, SIZE),
        RequestFinished(77),
        RequestFailed(77, retryable=True),
        DeadlinePassed(),
    ]
    assert book.tell(*events) == []
    assert book.download.next_deadline() is None


def test_a_piece_verified_late_is_a_piece_all_the_same() -> None:
    book = Playbook()
    book.tell(PeerJoined(A, only(0)), PeerLeft(A))
    assert book.tell(PieceVerified(A, 0), PieceVerified(A, 0)) == []
    assert book.download.remaining_bytes == SIZE * (COUNT - 1)


def test_a_piece_verified_late_cancels_the_request_that_only_it_needed() -> None:
    book = Playbook()
    book.tell(PeerJoined(A, only(0)), PeerLeft(A))
    [request] = book.requests(PeerJoined(B, only(0)))
    assert book.tell(PieceVerified(A, 0)) == [CancelRequest(request.request)]
    assert book.download.next_deadline() is None
    assert book.tell(RequestFinished(request.request), BlockStored(B, 0, SIZE)) == []
    assert book.download.next_deadline() is None


def test_a_piece_verified_late_leaves_a_request_for_more_alone() -> None:
    book = Playbook()
    book.tell(PeerJoined(A, only(0)), PeerLeft(A))
    [request] = book.requests(PeerJoined(B, only(0, 1)))
    assert book.tell(PieceVerified(A, 0)) == []
    assert book.download.drawn_from(B) == {1}
    assert book.tell(BlockStored(B, 1, SIZE), PieceVerified(B, 1), RequestFinished(request.request)) == []
    assert book.download.drawn_from(B) == frozenset()


def test_a_piece_verified_late_while_another_hashes_it_changes_nothing_else() -> None:
    book = Playbook()
    book.tell(PeerJoined(A, only(0)), PeerLeft(A))
    [request] = book.requests(PeerJoined(B, only(0)))
    book.tell(BlockStored(B, 0, SIZE), RequestFinished(request.request))
    assert book.tell(PieceVerified(A, 0)) == []
    assert book.download.drawn_from(B) == frozenset()


def test_an_ended_request_leaves_a_piece_that_was_asked_for_again_alone() -> None:
    book = Playbook()
    [first] = book.requests(PeerJoined(A, only(0)))
    book.tell(RequestFailed(first.request, retryable=True))
    [second] = book.wait_for_deadline()
    assert isinstance(second, RequestPieces)
    assert book.tell(RequestFailed(first.request, retryable=False)) == []
    assert book.download.drawn_from(A) == set(pieces_of(second))


# -- silence -----------------------------------------------------------------------------------------------


def wait(book: Playbook, seconds: float) -> list[Command]:
    """Let time pass, as a driver does: from deadline to deadline."""
    commands: list[Command] = []
    until = book.now + seconds
    while (deadline := book.download.next_deadline()) is not None and deadline <= until:
        book.now = max(book.now, deadline)
        commands += book.tell(DeadlinePassed())
    book.now = until
    return commands


def test_what_a_silent_peer_was_asked_for_is_asked_of_an_idle_one() -> None:
    book = Playbook(have=only(0, 1, 2, 3))
    slow = book.requests(PeerJoined(A, ALL))
    commands = book.tell(PeerJoined(B, ALL)) + wait(book, LIMITS.relieve_after_s + 1)
    assert {CancelRequest(request.request) for request in slow} <= set(commands)
    assert book.download.drawn_from(B) == {4, 5, 6, 7}
    assert book.download.drawn_from(A) == frozenset()


def test_who_gives_now_and_then_is_not_relieved() -> None:
    book = Playbook(have=only(0, 1, 2, 3), limits=replace(LIMITS, peers_at_once_max=1, peers_at_once=1))
    slow = book.requests(PeerJoined(A, ALL))
    book.tell(PeerJoined(B, ALL))
    for request in slow:
        for piece in pieces_of(request):
            for _ in range(SIZE):
                assert wait(book, LIMITS.relieve_after_s - 0.2) == []
                assert not any(
                    isinstance(command, CancelRequest) for command in book.tell(BlockStored(A, piece, 1))
                )


def test_pieces_do_not_go_back_and_forth_between_two_silent_peers() -> None:
    book = Playbook(have=only(0, 1, 2, 3))
    book.tell(PeerJoined(A, ALL), PeerJoined(B, ALL))
    asked = [command for command in wait(book, 60) if isinstance(command, RequestPieces)]
    assert len(asked) < 30


def test_only_what_the_idle_peer_has_is_a_reason_to_relieve() -> None:
    book = Playbook(have=only(0, 1, 2, 3))
    book.tell(PeerJoined(A, ALL), PeerJoined(B, only(0, 1)))
    assert wait(book, 60) == []


def test_a_silent_peer_keeps_nobody_from_what_is_missing() -> None:
    """All places are taken by peers that say nothing; one more peer has what is missing too."""
    book = Playbook(limits=replace(LIMITS, peers_at_once_max=1, peers_at_once=1))
    book.tell(PeerJoined(A, ALL), PeerJoined(B, ALL))
    asked = [
        command for command in wait(book, 2 * LIMITS.relieve_after_s) if isinstance(command, RequestPieces)
    ]
    assert {request.peer for request in asked} == {B}


# -- the tail ----------------------------------------------------------------------------------------------

LONG = replace(LIMITS, request_bytes=8 * SIZE)


def test_an_idle_peer_steals_the_rear_of_a_slow_request() -> None:
    book = Playbook(limits=LONG)
    book.download = Download([SIZE] * COUNT, have=NONE, rng=FirstPiece(1), limits=LONG, sequential=True)
    [request] = book.requests(PeerJoined(A, ALL))
    assert pieces_of(request) == list(range(COUNT))
    for _ in range(5):  # 10 bytes a second
        book.now += 0.1
        book.tell(BlockStored(A, 0, 1))
    commands = book.tell(PeerJoined(B, ALL)) + wait(book, 0.2)
    assert ShortenRequest(request.request, ((0, 4),)) in commands  # half: nothing is known of it yet
    assert book.download.drawn_from(B) == {4, 5, 6, 7}
    assert book.download.drawn_from(A) == {0, 1, 2, 3}


def big_book(count: int) -> Playbook:
    """A download of many pieces, all here but the last, so that one of them fits into the budget."""
    book = Playbook()
    book.download = Download([SIZE] * count, have=Bitfield(count), rng=Random(1), limits=LIMITS)
    return book


def test_who_completes_a_piece_asked_of_two_first_wins_and_the_other_is_cancelled() -> None:
    count = 100
    book = big_book(count)
    everything, rest = Bitfield.full(count), set(range(count))
    under_way = [c for c in book.tell(PeerJoined(A, everything)) if isinstance(c, RequestPieces)]
    while len(rest) > 1:
        request = under_way.pop(0)
        for piece in Bitfield.from_ranges(request.ranges, count):
            if len(rest) == 1:
                break
            book.now += 0.01
            given = book.tell(BlockStored(A, piece, SIZE), PieceVerified(A, piece))
            under_way += [c for c in given if isinstance(c, RequestPieces)]
            rest.discard(piece)
    [last] = rest
    book.tell(BlockStored(A, last, 1))
    book.now += 0.4
    commands = book.tell(PeerJoined(B, everything)) + wait(book, 0.5)
    [hedge] = [c for c in commands if isinstance(c, RequestPieces)]
    assert (hedge.peer, hedge.ranges) == (B, ((last, 1),))
    assert book.download.drawn_from(A) == book.download.drawn_from(B) == {last}
    commands = book.tell(BlockStored(B, last, SIZE), PieceVerified(B, last))
    assert isinstance(commands[0], CancelRequest)
    assert commands[1:] == [Finish()]


def test_bytes_that_came_for_nothing_are_counted() -> None:
    book = big_book(100)
    assert book.download.duplicate_budget == 20
    book.tell(PeerJoined(A, Bitfield.full(100)), BytesWasted(A, 7), BytesWasted(A, 4))
    assert book.download.duplicate_bytes == 11


# -- pieces without proofs ---------------------------------------------------------------------------------


def test_a_piece_that_failed_and_that_one_peer_gave_is_his_fault() -> None:
    book = Playbook()
    book.tell(PeerJoined(A, only(0, 1)), BlockStored(A, 0, SIZE))
    book.tell(PieceFailed(0))
    assert book.download.state(0) is PieceState.MISSING
    book.tell(BlockStored(A, 1, SIZE))
    assert book.tell(PieceFailed(1)) == [DropPeer(A)]


def test_a_piece_that_failed_and_that_several_gave_is_asked_whole_of_one() -> None:
    book = Playbook(have=~only(0, 1))
    book.tell(PeerJoined(A, only(0)))
    book.tell(BlockStored(A, 0, 4), PeerLeft(A), PeerJoined(B, only(0)), BlockStored(B, 0, 6))
    _cancelled, again = book.tell(PieceFailed(0))
    assert isinstance(again, RequestPieces)
    assert (again.peer, pieces_of(again)) == (B, [0])
    assert book.download.banned == frozenset()
    book.tell(BlockStored(B, 0, SIZE), PieceFailed(0))
    [elsewhere] = book.requests(PeerJoined(C, only(0, 1)))[1:]
    assert pieces_of(elsewhere) == [0]  # on parole: alone, after the others


# -- what is wanted ----------------------------------------------------------------------------------------


def test_only_what_is_wanted_is_asked_for() -> None:
    book = Playbook()
    book.download = Download([SIZE] * COUNT, have=only(1), rng=Random(1), wanted=only(0, 1, 6))
    assert book.download.remaining_bytes == 2 * SIZE
    asked = {piece for request in book.requests(PeerJoined(A, ALL)) for piece in pieces_of(request)}
    assert asked == {0, 6}
    assert book.tell(BlockStored(A, 0, SIZE), PieceVerified(A, 0)) == []
    assert book.tell(BlockStored(A, 6, SIZE), PieceVerified(A, 6)) == [Finish()]
    assert book.download.state(5) is PieceState.UNWANTED


def test_what_is_more_urgent_is_asked_for_first() -> None:
    book = Playbook()
    limits = replace(LIMITS, request_bytes=SIZE, requests_per_peer=1)
    book.download = Download(
        [SIZE] * COUNT, have=NONE, rng=Random(1), limits=limits, priorities=[0, 0, 1, 0, 0, 2, 0, 0]
    )
    [first] = book.requests(PeerJoined(A, ALL))
    [second] = book.requests(BlockStored(A, 5, SIZE), PieceVerified(A, 5))
    assert [pieces_of(first), pieces_of(second)] == [[5], [2]]


# -- zones -------------------------------------------------------------------------------------------------


def test_what_a_near_peer_has_or_expects_is_not_asked_of_a_far_one_for_a_while() -> None:
    book = Playbook(have=~only(0, 1, 2))
    book.tell(PeerJoined(A, only(0)), PeerComing(A, only(1)))
    [request] = book.requests(PeerJoined(B, ALL, is_near=False))
    assert pieces_of(request) == [2]
    asked = [c for c in wait(book, 10) if isinstance(c, RequestPieces) and c.peer == B]
    assert 1 in {piece for request in asked for piece in pieces_of(request)}
