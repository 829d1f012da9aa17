"""A torrent's announces, in virtual time and to trackers that can be dead, silent, or started again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import AddressError, ConfigError, ConnectFailed, Refused
from p2pnode.node.blocking import in_threads
from p2pnode.quic import Address
from p2pnode.services.announcer import AnnouncedTorrent, Progress, TorrentAnnouncer
from p2pnode.services.http_server import serve_http
from p2pnode.services.outbound import Author
from p2pnode.services.request_log import RequestLog
from p2pnode.services.seed_files import SeedFiles
from p2pnode.services.tracker import Language, Tracker, TrackerOptions
from p2pnode.services.tracker_clients import AnnounceRequest, TrackerAnswer, TrackerClients
from p2pnode.services.tracker_clients.client import believable_peers
from p2pnode.services.tracker_http import application
from p2pnode.services.tracker_udp import UdpTracker
from p2pnode.tracker.announces import Announce, AnnounceEvent, SwarmCounts, SwarmPeer
from p2pnode.tracker.schedule import TrackerState

A, B, C = (f"http://{name}.example/announce" for name in "abc")
INFO_HASH = b"h" * 20
INTERVAL_S = 1800
STARTED, REGULAR, COMPLETED, STOPPED = (
    AnnounceEvent.STARTED,
    AnnounceEvent.NONE,
    AnnounceEvent.COMPLETED,
    AnnounceEvent.STOPPED,
)


def new_tracker() -> Tracker:
    return Tracker(TrackerOptions(pace=None, interval_s=INTERVAL_S), rng=Random(1))


@dataclass
class Site:
    """One tracker in the world: the real registry, behind a door of this test."""

    tracker: Tracker = field(default_factory=new_tracker)
    failure: Exception | None = None
    answers_after_s: float = 0.0
    warning: str = ""
    other_peers: tuple[SwarmPeer, ...] = ()
    announces: list[tuple[float, AnnounceRequest]] = field(default_factory=list)

    @property
    def events(self) -> list[AnnounceEvent]:
        return [request.event for _, request in self.announces]

    def counts(self) -> SwarmCounts:
        return self.tracker.scrape([INFO_HASH], passkey=None, language=Language.HTTP)[INFO_HASH]


@dataclass
class Client:
    """A `TrackerClient` of a peer at `host`."""

    site: Site
    host: str

    async def announce(self, request: AnnounceRequest) -> TrackerAnswer:
        self.site.announces.append((trio.current_time(), request))
        await trio.sleep(self.site.answers_after_s)
        if self.site.failure is not None:
            raise self.site.failure
        answer = self.site.tracker.announce(
            Announce(
                request.info_hash,
                request.peer_id,
                (self.host, 40_000),
                request.port,
                left=request.left,
                event=request.event,
                numwant=request.numwant,
            ),
            passkey=None,
            language=Language.HTTP,
        )
        return TrackerAnswer(
            answer.interval_s,
            answer.interval_min_s,
            answer.counts.complete,
            answer.counts.incomplete,
            believable_peers((*answer.peers, *self.site.other_peers), "9.9.9.9"),
            self.site.warning,
        )

    async def scrape(self, info_hashes: Sequence[bytes]) -> dict[bytes, SwarmCounts]:
        raise NotImplementedError


class World:
    """Trackers by URL."""

    def __init__(self, *urls: str) -> None:
        self.sites = {url: Site() for url in urls}
        self.authors: dict[str, Author] = {}

    def __getitem__(self, url: str) -> Site:
        return self.sites[url]

    def peer(
        self, number: int, *tiers: tuple[str, ...], left: int = 100, typed: tuple[str, ...] = ()
    ) -> Peer:
        return Peer(self, number, tiers or (tuple(self.sites),), left, typed)


class Peer:
    """One who announces, and what he found."""

    def __init__(
        self, world: World, number: int, tiers: tuple[tuple[str, ...], ...], left: int, typed: tuple[str, ...]
    ) -> None:
        self.progress = Progress(0, 0, left)
        self.host = f"8.8.0.{number}"
        self.found: list[Address] = []
        self._world = world
        torrent = AnnouncedTorrent(INFO_HASH, tiers, b"-PN0001-%012d" % number, 6881, typed)
        self.announcer = TorrentAnnouncer(
            torrent, self._open_client, lambda: self.progress, self.found.extend, Random(number)
        )

    def _open_client(self, url: str, author: Author) -> Client:
        self._world.authors[url] = author
        return Client(self._world[url], self.host)

    def complete(self) -> None:
        self.progress = Progress(0, self.progress.left, 0)
        self.announcer.complete()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Peer]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.announcer.run)
            await settle()
            yield self
            self.announcer.stop()


async def settle() -> None:
    """Let everything happen that takes no time."""
    await trio.testing.wait_all_tasks_blocked()


# -- a life ------------------------------------------------------------------------------------------------


async def test_two_find_each_other_through_a_tracker(autojump_clock: MockClock) -> None:
    world = World(A)
    async with world.peer(1, left=0).running(), world.peer(2).running() as leech:
        assert leech.found == [("8.8.0.1", 6881)]
        assert world[A].counts() == SwarmCounts(1, 1, 0)
    assert world[A].counts() == SwarmCounts(0, 0, 0)


async def test_started_regular_completed_stopped_each_with_how_far_we_are(autojump_clock: MockClock) -> None:
    world = World(A)
    async with world.peer(1).running() as peer:
        peer.progress = Progress(7, 60, 40)
        await trio.sleep(INTERVAL_S + 1)
        peer.complete()
        await settle()
        assert world[A].counts() == SwarmCounts(1, 0, 1)
    assert world[A].events == [STARTED, REGULAR, COMPLETED, STOPPED]
    requests = [request for _, request in world[A].announces]
    assert [(r.uploaded, r.downloaded, r.left) for r in requests] == [
        (0, 0, 100),
        (7, 60, 40),
        (0, 40, 0),
        (0, 40, 0),
    ]
    assert [request.numwant for request in requests] == [50, 50, 50, 0]
    assert len({request.key for request in requests}) == 1
    assert {(request.info_hash, request.port) for request in requests} == {(INFO_HASH, 6881)}


async def test_who_is_cancelled_says_that_he_leaves(autojump_clock: MockClock) -> None:
    world = World(A)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.peer(1).announcer.run)
        await settle()
        nursery.cancel_scope.cancel()
    assert world[A].events == [STARTED, STOPPED]
    assert world[A].counts() == SwarmCounts(0, 0, 0)


async def test_leaving_takes_a_moment_at_most_whatever_the_trackers_do(autojump_clock: MockClock) -> None:
    world = World(A, B, C)
    async with world.peer(1, (A,), (B,), (C,)).running():  # nobody has peers, so all are told
        world[A].answers_after_s = inf
        world[B].answers_after_s = 0.5
        world[C].failure = ConnectFailed("gone")
        began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(config.ANNOUNCE_STOPPED_TIMEOUT_S)
    assert [world[url].events for url in (A, B, C)] == [[STARTED, STOPPED]] * 3  # and none waited for another
    assert world[B].counts() == SwarmCounts(0, 0, 0)


async def test_who_stops_while_a_first_announce_is_under_way_may_be_known_and_says_so(
    autojump_clock: MockClock,
) -> None:
    world = World(A)
    world[A].answers_after_s = 1
    async with world.peer(1).running():
        pass
    assert world[A].events == [STARTED, STOPPED]


async def test_who_stops_before_he_starts_says_nothing(autojump_clock: MockClock) -> None:
    world = World(A)
    peer = world.peer(1)
    peer.announcer.stop()
    await peer.announcer.run()
    assert world[A].announces == []


async def test_without_trackers_nothing_is_done_until_the_end(autojump_clock: MockClock) -> None:
    world = World()
    async with world.peer(1, ()).running() as peer:
        assert peer.announcer.next_announce() is None
        assert peer.announcer.trackers == ()


async def test_we_are_no_peer_of_ours(autojump_clock: MockClock) -> None:
    world = World(A)
    ours = b"-PN0001-%012d" % 1
    world[A].other_peers = (SwarmPeer(ours, "8.8.0.99", 6881), SwarmPeer(b"", "8.8.0.2", 6881))
    async with world.peer(1).running() as peer:
        assert peer.found == [("8.8.0.2", 6881)]


# -- trackers that fail ------------------------------------------------------------------------------------


async def test_a_silent_tracker_is_given_a_minute_and_the_next_tier_is_asked(
    autojump_clock: MockClock,
) -> None:
    world = World(A, B)
    world[A].answers_after_s = inf
    async with world.peer(1, (A,), (B,)).running() as peer:
        await trio.sleep(config.ANNOUNCE_TIMEOUT_S + 1)
        (asked_at, _), (next_at, _) = world[A].announces[0], world[B].announces[0]
        assert next_at - asked_at == config.ANNOUNCE_TIMEOUT_S
        first, second = peer.announcer.trackers
        assert (first.status.state, first.status.reason) == (TrackerState.FAILING, "no answer within 60 s")
        assert second.status.state is TrackerState.WORKING


async def test_T13_when_all_are_dead_the_transfer_keeps_its_peers_and_they_are_asked_until_one_is_back(
    autojump_clock: MockClock,
) -> None:
    world = World(A, B)
    async with world.peer(1, left=0).running(), world.peer(2).running() as leech:
        assert leech.found == [("8.8.0.1", 6881)]
        asked = len(world[A].announces) + len(world[B].announces)
        world[A].failure, world[B].failure = ConnectFailed("gone"), Refused("not here")
        await trio.sleep(24 * 3600)
        assert leech.found == [("8.8.0.1", 6881)]
        tries = len(world[A].announces) + len(world[B].announces) - asked
        assert 4 * 20 <= tries <= 4 * 60  # two peers, two trackers: hourly in the end, no oftener
        assert all(report.status.failures > 20 for report in leech.announcer.trackers)
        world[A].failure = world[B].failure = None
        await trio.sleep(3600)
        assert world[A].counts().complete + world[B].counts().complete >= 1
        assert {report.status.state for report in leech.announcer.trackers} & {TrackerState.WORKING}


async def test_T13_a_tracker_that_was_started_again_knows_us_after_an_interval(
    autojump_clock: MockClock,
) -> None:
    world = World(A)
    async with world.peer(1, left=0).running(), world.peer(2).running():
        world[A].tracker = new_tracker()
        assert world[A].counts() == SwarmCounts(0, 0, 0)
        await trio.sleep(INTERVAL_S + 1)
        assert world[A].counts() == SwarmCounts(1, 1, 0)


async def test_T13_of_two_that_disagree_both_count(autojump_clock: MockClock) -> None:
    world = World(A, B)
    async with (
        world.peer(1, (B,), left=0).running(),  # whom only B knows
        world.peer(2, (A,), (B,)).running() as leech,
    ):
        assert leech.found == [("8.8.0.1", 6881)]
        assert world[A].events == [STARTED]
        assert [report.peer_count for report in leech.announcer.trackers] == [0, 1]


async def test_who_needs_peers_is_told_of_new_ones_before_the_interval_is_over(
    autojump_clock: MockClock,
) -> None:
    world = World(A)
    async with world.peer(1).running() as peer, world.peer(2, left=0).running():
        assert peer.found == []
        peer.announcer.need_peers()
        await trio.sleep(INTERVAL_S - 1)
        assert peer.found == [("8.8.0.2", 6881)]


@pytest.mark.parametrize(
    "failure", [AddressError("no such host"), ConfigError("pip install"), Refused("\x1b[2Jno\nsuch torrent")]
)
async def test_why_a_tracker_fails_is_shown_and_safe_to_show(
    autojump_clock: MockClock, failure: Exception
) -> None:
    world = World(A)
    world[A].failure = failure
    async with world.peer(1).running() as peer:
        (report,) = peer.announcer.trackers
        assert report.status.state is TrackerState.FAILING
        assert report.status.reason.isprintable()
        assert report.peer_count is None
        assert peer.announcer.next_announce() == pytest.approx(trio.current_time() + 45, abs=15)


async def test_what_a_tracker_says_is_shown(autojump_clock: MockClock) -> None:
    world = World(A)
    world[A].warning = "going \x1b[2Jdown"
    async with world.peer(1, left=0).running(), world.peer(2).running() as leech:
        (report,) = leech.announcer.trackers
        assert (report.complete, report.incomplete, report.peer_count) == (1, 1, 1)
        assert report.warning == "going \\x1b[2Jdown"
        assert report.status.url == A


async def test_T10_what_the_user_typed_is_told_from_what_the_torrent_says(autojump_clock: MockClock) -> None:
    world = World(A, B)
    async with world.peer(1, (A,), (B,), typed=(B,)).running():
        pass
    assert world.authors == {A: Author.TORRENT, B: Author.USER}


# -- real ones ---------------------------------------------------------------------------------------------


async def test_over_http_and_udp_to_real_trackers_of_ours(tmp_path: Path) -> None:
    tracker, log = new_tracker(), RequestLog()
    files = SeedFiles(tmp_path, "http://x/announce", run_blocking=in_threads())
    send_found, found = trio.open_memory_channel[Address](inf)
    left = {1: 0, 2: 100}
    async with trio.open_nursery() as nursery:
        ((_, http_port),) = await nursery.start(
            serve_http, application(tracker, files, log), [("127.0.0.1", 0)]
        )
        ((_, udp_port),) = await nursery.start(UdpTracker(tracker, log).serve, [("127.0.0.1", 0)])
        urls = (f"http://127.0.0.1:{http_port}/announce", f"udp://127.0.0.1:{udp_port}/announce")

        def announcer(number: int, url: str) -> TorrentAnnouncer:
            def tell(addresses: Sequence[Address]) -> None:
                for address in addresses:
                    send_found.send_nowait(address)

            peer_id = b"-PN0001-%012d" % number
            torrent = AnnouncedTorrent(INFO_HASH, ((url,),), peer_id, 6880 + number, typed=[url])
            clients = TrackerClients(Random(number))
            return TorrentAnnouncer(
                torrent, clients.client, lambda: Progress(0, 0, left[number]), tell, Random(number)
            )

        async with trio.open_nursery() as announcers:
            seed = announcer(1, urls[0])
            announcers.start_soon(seed.run)
            while seed.trackers[0].status.state is not TrackerState.WORKING:
                await trio.lowlevel.checkpoint()
            leech = announcer(2, urls[1])
            announcers.start_soon(leech.run)
            assert await found.receive() == ("127.0.0.1", 6881)
            assert counts_of(tracker) == SwarmCounts(1, 1, 0)
            left[2] = 0
            leech.complete()
            while counts_of(tracker).complete < 2:
                await trio.lowlevel.checkpoint()
            seed.stop()
            leech.stop()
        assert counts_of(tracker) == SwarmCounts(0, 0, 0)
        nursery.cancel_scope.cancel()


def counts_of(tracker: Tracker) -> SwarmCounts:
    counts: dict[bytes, Any] = tracker.scrape([INFO_HASH], passkey=None, language=Language.HTTP)
    return counts[INFO_HASH]
