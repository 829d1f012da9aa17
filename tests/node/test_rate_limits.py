"""Rate limits of whole nodes, in virtual time: what arrives in ten seconds, whoever sets the limit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import ConfigError
from p2pnode.node.events import FetchCompleted, FetchProgress, FetchSourceLost, FetchStarted, UploadFinished
from p2pnode.node.operator import open_operator
from p2pnode.node.rate_limits import RateLimit, RateLimits, Throttles
from tests.node.conftest import SERVER, Swarm, Watched, eventually, write_random

KIB, MIB = config.KIB, config.MIB
PEER = "10.0.1.1"
OTHER = "10.0.1.2"
WIRE_OVERHEAD = 0.08  # of full packets: headers, acknowledgements of the other way, hashes


# -- the parts ---------------------------------------------------------------------------------------------


async def taking(take: Callable[[int], object], size: int, seconds: float) -> int:
    """How many bytes a task that always wants more is given."""
    taken = 0
    with trio.move_on_after(seconds):
        while True:
            await take(size)  # type: ignore[misc]
            taken += size
    return taken


async def test_those_who_wait_are_served_in_turn(autojump_clock: MockClock) -> None:
    limit = RateLimit(10_000)
    taken_at: list[tuple[float, int]] = []

    async def one(number: int) -> None:
        while True:
            await limit.take(limit.step)
            taken_at.append((trio.current_time(), number))

    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(one, number)
    assert len(taken_at) * limit.step == pytest.approx(100_000, rel=0.02)
    for (earlier, _), (later, _) in pairwise(taken_at):  # never two at once
        assert later - earlier == pytest.approx(limit.step / 10_000)
    for turn in range(0, len(taken_at) - 4, 4):
        assert {number for _, number in taken_at[turn : turn + 4]} == {0, 1, 2, 3}
    assert limit.waited_s == pytest.approx(40, rel=0.02)


async def test_whoever_gives_up_waiting_has_taken_nothing(autojump_clock: MockClock) -> None:
    limit = RateLimit(1_000)
    with trio.move_on_after(0.3):
        await limit.take(500)
    await limit.take(500)
    assert trio.current_time() == pytest.approx(0.5)
    assert limit.waited_s == pytest.approx(0.5)


async def test_without_limits_nothing_waits(autojump_clock: MockClock) -> None:
    throttle = Throttles(RateLimits()).upload(b"a")
    await throttle.take(1 << 40)
    assert (trio.current_time(), throttle.step, throttle.bytes_per_s, throttle.waited_s) == (0, None, None, 0)


async def test_a_transfer_goes_by_the_lowest_of_its_limits(autojump_clock: MockClock) -> None:
    throttles = Throttles(RateLimits(up=100_000, peer=20_000))
    slow = throttles.upload(b"a")
    assert (slow.bytes_per_s, slow.step) == (20_000, 1000)
    assert await taking(slow.take, 1000, 10) == pytest.approx(200_000, rel=0.02)
    assert slow.waited_s == pytest.approx(10)


async def test_a_peer_has_one_limit_however_many_requests_it_makes(autojump_clock: MockClock) -> None:
    throttles = Throttles(RateLimits(peer=20_000))
    taken: dict[bytes, int] = {b"a": 0, b"b": 0}

    async def one(node_id: bytes) -> None:
        got = await taking(throttles.upload(node_id).take, 1000, 10)
        taken[node_id] += got

    async with trio.open_nursery() as nursery:
        for node_id in (b"a", b"a", b"a", b"b"):
            nursery.start_soon(one, node_id)
    assert taken == {b"a": pytest.approx(200_000, rel=0.02), b"b": pytest.approx(200_000, rel=0.02)}


async def test_one_small_request_after_the_other_does_not_get_around_a_peers_limit(
    autojump_clock: MockClock,
) -> None:
    throttles = Throttles(RateLimits(peer=1_000_000))
    for _ in range(100):
        await throttles.upload(b"a").take(10_000)
    assert trio.current_time() == pytest.approx(1.0)


@pytest.mark.parametrize("rate", [0, 1, config.RATE_LIMIT_MIN - 1, -5e6, float("nan")])
def test_a_limit_under_which_sources_would_count_as_dead_is_refused(rate: float) -> None:
    for limits in ({"up": rate}, {"down": rate}, {"peer": rate}):
        with pytest.raises(ConfigError, match="too low: 1024 is the least"):
            RateLimits(**limits)


@pytest.mark.parametrize(
    ("limits", "window"),
    [
        (RateLimits(), config.STREAM_RECEIVE_WINDOW),
        (RateLimits(up=5000), config.STREAM_RECEIVE_WINDOW),
        (RateLimits(down=5000), config.STREAM_RECEIVE_WINDOW_MIN),
        (RateLimits(down=1e6, peer=4e5), 100_000),
        (RateLimits(down=1e9), config.STREAM_RECEIVE_WINDOW),
    ],
)
def test_a_low_limit_lets_sources_send_little_ahead(limits: RateLimits, window: int) -> None:
    assert limits.receive_window == window


# -- whole nodes -------------------------------------------------------------------------------------------


@dataclass
class Meter:
    """Bytes of a growing count, noted ten times a second."""

    count: Callable[[], int]
    notes: list[tuple[float, int]] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            self.notes.append((trio.current_time(), self.count()))
            await trio.sleep(0.1)

    def windows(self, seconds: float = 10.0, skip_s: float = 1.0) -> list[int]:
        """What every window of `seconds` brought, from `skip_s` after the first byte on."""
        first = next(at for at, count in self.notes if count > self.notes[0][1])
        begun = [index for index, (at, _) in enumerate(self.notes) if at >= first + skip_s]
        span = round(seconds / 0.1)
        return [self.notes[i + span][1] - self.notes[i][1] for i in begun if i + span < len(self.notes)]


@asynccontextmanager
async def metered(count: Callable[[], int]) -> AsyncIterator[Meter]:
    meter = Meter(count)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(meter.run)
        yield meter
        nursery.cancel_scope.cancel()


def bytes_done(watched: Watched) -> int:
    """What the fetches of a node have stored, as they report it."""
    latest = {event.file_id: event.bytes_done for event in watched.all(FetchProgress)}
    return sum(latest.values())


async def fetching(watched: Watched, name: str, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await watched.node.fetch(name, to=watched.files_dir)
        raise AssertionError("the file is too small for the test")


async def offered(swarm: Swarm, size: int, **options: object) -> Watched:
    """A server that offers `a.bin`."""
    server = await swarm.start_server(**options)
    write_random(server.files_dir / "a.bin", size)
    await server.node.share(server.files_dir / "a.bin")
    return server


LIMITED = ["server up", "server peer", "peer down", "peer peer"]


async def two_strangers(swarm: Swarm) -> list[Watched]:
    """Two peers that cannot reach each other: whatever comes to them is the server's."""
    swarm.network.block(PEER, OTHER)
    return [await swarm.start_peer(), await swarm.start_peer()]


def limited(by: str, side: str, rate: float) -> dict[str, RateLimits]:
    """The options of one side's node, when `by` says whose limit it is and which."""
    whose, kind = by.split()
    return {"limits": RateLimits(**{kind: rate})} if whose == side else {}


@pytest.mark.parametrize("by", LIMITED)
@pytest.mark.parametrize("rate", [30_000, 400_000])
async def test_any_ten_seconds_bring_what_the_limit_says(
    autojump_clock: MockClock, swarm: Swarm, by: str, rate: int
) -> None:
    await offered(swarm, 16 * rate, **limited(by, "server", rate))
    peer = await swarm.start_peer(**limited(by, "peer", rate))
    wire = swarm.network.counters(SERVER, PEER)
    async with metered(lambda: bytes_done(peer)) as stored, metered(lambda: wire.bytes_delivered) as sent:
        await fetching(peer, "a.bin", 15)
    blocks = config.BLOCK_SIZE  # what is stored comes in whole ones
    ahead = RateLimits(peer=rate).receive_window if by.startswith("peer") else 0  # of what is taken from QUIC
    for window in stored.windows():
        assert window == pytest.approx(10 * rate, abs=0.01 * 10 * rate + blocks)
    for window in sent.windows():
        assert 0.95 * 10 * rate <= window <= (1 + WIRE_OVERHEAD) * 10 * rate + ahead


@pytest.mark.parametrize("by", LIMITED)
async def test_below_one_block_a_second_everything_arrives_and_nobody_counts_as_stalled(
    autojump_clock: MockClock, swarm: Swarm, by: str
) -> None:
    """It takes longer than all timeouts, and the source has handed over everything long before."""
    rate, size = 2 * KIB, 320 * KIB
    server = await offered(swarm, size, **limited(by, "server", rate))
    peer = await swarm.start_peer(**limited(by, "peer", rate))
    wire = swarm.network.counters(SERVER, PEER)
    async with metered(lambda: wire.bytes_delivered) as sent:
        done = await peer.node.fetch("a.bin", to=peer.files_dir)
    assert done.target.read_bytes() == (server.files_dir / "a.bin").read_bytes()
    assert done.seconds == pytest.approx(size / rate, rel=0.05)
    assert peer.all(FetchSourceLost) == []
    assert server.node.statistics["bytes_sent"] == size  # no byte was sent twice
    for window in sent.windows(100, skip_s=20):
        assert window == pytest.approx(100 * rate, rel=0.15)  # packets are small, and hold less each


@pytest.mark.parametrize("rate", [4 * KIB, 60_000])
async def test_two_peers_share_what_a_server_may_give(
    autojump_clock: MockClock, swarm: Swarm, rate: int
) -> None:
    await offered(swarm, 60 * rate, limits=RateLimits(up=rate))
    peers = await two_strangers(swarm)
    async with trio.open_nursery() as nursery:
        for peer in peers:
            nursery.start_soon(fetching, peer, "a.bin", 50)
    shares = [bytes_done(peer) for peer in peers]
    assert sum(shares) == pytest.approx(50 * rate, rel=0.05, abs=4 * config.BLOCK_SIZE)
    assert abs(shares[0] - shares[1]) <= max(0.02 * sum(shares), 2 * config.BLOCK_SIZE)


async def test_a_limit_of_each_peer_is_no_limit_of_all(autojump_clock: MockClock, swarm: Swarm) -> None:
    rate = 200_000
    await offered(swarm, 20 * rate, limits=RateLimits(peer=rate))
    peers = await two_strangers(swarm)
    async with trio.open_nursery() as nursery:
        for peer in peers:
            nursery.start_soon(fetching, peer, "a.bin", 10)
    for peer in peers:
        assert bytes_done(peer) == pytest.approx(10 * rate, rel=0.05)


async def test_what_is_taken_from_several_sources_stays_within_the_limit(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    rate = 1_000_000
    server = await offered(swarm, 20 * rate)
    for host in ("10.0.1.1", "10.0.1.2", "10.0.1.3"):
        write_random(swarm.root / host / "a.bin", 20 * rate)
        await swarm.start_peer()
    await eventually(lambda: has_sources(server, 4))
    peer = await swarm.start_peer(limits=RateLimits(down=rate))
    async with metered(lambda: bytes_done(peer)) as stored:
        done = await peer.node.fetch("a.bin", to=peer.files_dir)
    assert len(done.sources) > 1
    assert done.seconds == pytest.approx(20, rel=0.05)
    for window in stored.windows():
        assert window == pytest.approx(10 * rate, rel=0.05)


async def test_a_source_that_gives_what_the_limit_lets_it_is_not_relieved(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """No piece is whole before a while that else means that a source is slow."""
    server = await offered(swarm, 64 * KIB)
    write_random(swarm.root / PEER / "a.bin", 64 * KIB)
    await swarm.start_peer()
    await eventually(lambda: has_sources(server, 2))
    peer = await swarm.start_peer(limits=RateLimits(down=2 * KIB))
    done = await peer.node.fetch("a.bin", to=peer.files_dir)
    assert len(done.sources) == 1
    assert done.seconds == pytest.approx(32, rel=0.05)


async def has_sources(server: Watched, count: int) -> bool:
    return any(item.sources >= count for item in await server.node.list_files("a.bin"))


@pytest.mark.parametrize("by", LIMITED)
async def test_interrupted_below_one_block_a_second_it_goes_on_from_the_last_block(
    autojump_clock: MockClock, swarm: Swarm, by: str
) -> None:
    """Two requests at once have brought one block each, of pieces of two."""
    await offered(swarm, 20 * MIB, **limited(by, "server", 2 * KIB))
    peer = await swarm.start_peer(**limited(by, "peer", 2 * KIB))
    await fetching(peer, "a.bin", 25)
    await fetching(peer, "a.bin", 25)
    again = peer.all(FetchStarted)[1]
    assert again.bytes_resumed == 2 * config.BLOCK_SIZE
    assert bytes_done(peer) > again.bytes_resumed


async def test_a_file_is_whole_however_often_it_was_interrupted(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await offered(swarm, 96 * KIB, limits=RateLimits(up=2 * KIB))
    peer = await swarm.start_peer()
    for _ in range(2):
        await fetching(peer, "a.bin", 20)
    done = await peer.node.fetch("a.bin", to=peer.files_dir)
    assert done.target.read_bytes() == (server.files_dir / "a.bin").read_bytes()


async def test_a_server_gives_what_it_pushes_within_its_limit(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    rate = 100_000
    server = await offered(
        swarm, 10 * rate, limits=RateLimits(up=rate), state_dir=swarm.root / "state", lock_state=False
    )
    peers = await two_strangers(swarm)
    began_at = trio.current_time()
    async with (
        open_operator(swarm.root / "state") as operator,
        aclosing(operator.push("a.bin", "all")) as told,
    ):
        async for _ in told:
            pass
    seconds = trio.current_time() - began_at
    for peer in peers:
        assert len(peer.all(FetchCompleted)) == 1
    given = server.node.statistics["bytes_sent"]
    assert seconds == pytest.approx(given / rate, rel=0.05)


@pytest.mark.parametrize("by", LIMITED)
async def test_questions_and_metainfo_do_not_wait_for_file_bytes(
    autojump_clock: MockClock, swarm: Swarm, by: str
) -> None:
    rate = 2 * KIB
    server = await offered(swarm, 24 * MIB, **limited(by, "server", rate))  # more than one request
    write_random(server.files_dir / "tree" / "b.bin", 0)
    for number in range(300):
        write_random(server.files_dir / "tree" / f"{number}", 0)
    await server.node.share(server.files_dir / "tree")
    peer = await swarm.start_peer(**limited(by, "peer", rate))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetching, peer, "a.bin", 100)
        await trio.sleep(60)
        began_at = trio.current_time()
        assert {item.name for item in await peer.node.list_files()} == {"a.bin", "tree"}
        await peer.node.fetch("tree", to=peer.files_dir)
        assert trio.current_time() - began_at < 1
    assert peer.all(FetchSourceLost) == []


async def test_what_was_waited_for_limits_is_told(autojump_clock: MockClock, swarm: Swarm) -> None:
    server = await offered(swarm, MIB, limits=RateLimits(up=100_000))
    peer = await swarm.start_peer(limits=RateLimits(down=50_000))
    done = await peer.node.fetch("a.bin", to=peer.files_dir)
    assert 15 < done.limit_waited_s < 2 * done.seconds  # two requests at once
    assert all(upload.limit_waited_s < upload.seconds for upload in server.all(UploadFinished))
    given, taken = server.node.statistics, peer.node.statistics
    assert (given["limit_up_bytes_per_s"], given["limit_down_bytes_per_s"]) == (100_000, 0)
    assert (taken["limit_up_bytes_per_s"], taken["limit_down_bytes_per_s"]) == (0, 50_000)
    assert taken["limit_down_waited_s"] == pytest.approx(done.limit_waited_s)
    assert (
        given["limit_up_waited_s"] > sum(upload.limit_waited_s for upload in server.all(UploadFinished)) > 0
    )
