"""Each bottleneck, put between whole nodes, is named by both ends in each of the seconds that it lasts.

What a disk and hashing cost is simulated twice: `inline_blocking` takes virtual time from the transfer, and the
clock of the store's own stopwatches goes on inside the one function or the other only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.node.bottleneck import Bottleneck
from p2pnode.node.events import FetchCompleted, FetchProgress, FetchStarted, UploadProgress
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.rate_limits import RateLimits
from p2pnode.storage import WorkTimes, checking, file_store
from p2pnode.testing.network import LinkProfile
from p2pnode.testing.nodes import PORT, inline_blocking
from p2pnode.torrent import Ticket, TicketNode
from p2pnode.wire.communication import Error, ErrorCode, FileRequest, SendingLimit
from tests.node.conftest import SERVER, Swarm, Watched, eventually, write_random
from tests.node.hand_made import Content, Request, hand_made

SENDER, RECEIVER = "10.0.1.1", "10.0.1.2"
MIB = config.MIB
NARROW = LinkProfile(delay_s=0.02, rate_bytes_per_s=300_000)
LONG = LinkProfile(delay_s=0.5)

Slowed = Callable[[str], None]


@pytest.fixture
def slowed(monkeypatch: pytest.MonkeyPatch) -> Slowed:
    """Makes a function that stores use the only one that takes time, by their stopwatches."""

    def slow(name: str) -> None:
        function = getattr(file_store, name)
        worked_s = 0.0

        def slow_function(*arguments: Any) -> Any:
            nonlocal worked_s
            worked_s += 0.003
            return function(*arguments)

        for module in (file_store, checking):
            if name in vars(module):
                monkeypatch.setattr(module, name, slow_function)
        monkeypatch.setattr(file_store, "WorkTimes", lambda: WorkTimes(lambda: worked_s))

    return slow


class Pair:
    """A sender and a receiver, and what both said while a file went from one to the other."""

    def __init__(self, sender: Watched, receiver: Watched) -> None:
        self.sender = sender
        self.receiver = receiver

    @classmethod
    async def transferring(
        cls,
        swarm: Swarm,
        size: int,
        *,
        sender: dict[str, Any] | None = None,
        receiver: dict[str, Any] | None = None,
        profile: LinkProfile | None = None,
    ) -> Pair:
        """Let a file be fetched, to its end and a bit longer."""
        await swarm.start_server()
        write_random(swarm.root / SENDER / "a.bin", size)
        pair = cls(await swarm.start_peer(**sender or {}), await swarm.start_peer(**receiver or {}))
        shared = await pair.sender.node.share(swarm.root / SENDER / "a.bin")
        if profile is not None:
            swarm.network.set_profile(SENDER, RECEIVER, profile)
        await pair.receiver.node.fetch(shared.file_id, to=pair.receiver.files_dir, wait=True)
        await trio.sleep(3 * config.DIAGNOSIS_INTERVAL_S)
        return pair

    def named_by_receiver(self) -> list[Bottleneck | None]:
        """In each whole second of the fetch."""
        ticks = round(config.DIAGNOSIS_INTERVAL_S / config.PROGRESS_INTERVAL_S)
        return [event.bottleneck for event in self.receiver.all(FetchProgress)[ticks::ticks]]

    def named_by_sender(self) -> list[Bottleneck | None]:
        """In each second in which something was asked of it."""
        return [event.bottleneck for event in self.sender.all(UploadProgress)[:-1]]

    def require(self, *, receiver: Bottleneck, sender: Bottleneck, settled: int = 1) -> None:
        """Both named this all the time, but for the first `settled` seconds; at least three of them."""
        named = self.named_by_receiver()[settled:]
        assert len(named) >= 3
        assert set(named) == {receiver}
        assert set(self.named_by_sender()[settled:-1]) == {sender}
        assert self.receiver.all(FetchCompleted)[0].bottleneck is receiver
        seconds = self.receiver.node.statistics[f"fetch_limited_by_{receiver}_s"]
        assert seconds >= len(named) * config.DIAGNOSIS_INTERVAL_S
        assert self.sender.node.statistics[f"upload_limited_by_{sender}_s"] >= 1


@pytest.mark.parametrize(
    ("function", "named"),
    [("read_at", Bottleneck.SENDER_DISK), ("block_hashes", Bottleneck.SENDER_HASHING)],
)
async def test_a_sender_that_is_slow_to_read_or_hash(
    autojump_clock: MockClock, swarm: Swarm, slowed: Slowed, function: str, named: Bottleneck
) -> None:
    slowed(function)
    pair = await Pair.transferring(swarm, 4 * MIB, sender={"run_blocking": inline_blocking(1.7)})
    pair.require(receiver=named, sender=named, settled=3)


@pytest.mark.parametrize(
    ("function", "named"),
    [("write_at", Bottleneck.RECEIVER_DISK), ("block_hashes", Bottleneck.RECEIVER_HASHING)],
)
async def test_a_receiver_that_is_slow_to_write_or_hash(
    autojump_clock: MockClock, swarm: Swarm, slowed: Slowed, function: str, named: Bottleneck
) -> None:
    slowed(function)
    pair = await Pair.transferring(swarm, 3 * MIB, receiver={"run_blocking": inline_blocking(1.0)})
    named_by_receiver = pair.named_by_receiver()[1:]  # in the first second its queue fills
    assert len(named_by_receiver) >= 3
    assert set(named_by_receiver) == {named}
    assert pair.receiver.all(FetchCompleted)[0].bottleneck is named


async def test_a_narrow_network(autojump_clock: MockClock, swarm: Swarm) -> None:
    pair = await Pair.transferring(swarm, 2 * MIB, profile=NARROW)
    pair.require(receiver=Bottleneck.CONGESTION_WINDOW, sender=Bottleneck.CONGESTION_WINDOW)


async def test_windows_that_are_smaller_than_a_long_path(
    autojump_clock: MockClock, swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow start is the network's; afterwards what may be under way is bounded by us.

    A round trip takes a second, so one of the seconds may fall between two windows.
    """
    monkeypatch.setattr(config, "CONNECTION_SEND_BUFFER", MIB // 4)
    monkeypatch.setattr(config, "SEND_BUFFER_GROWTH_MAX", 1)
    pair = await Pair.transferring(swarm, 4 * MIB, profile=LONG)
    named = pair.named_by_receiver()
    assert named[-6:].count(Bottleneck.FLOW_CONTROL) >= 5
    assert pair.named_by_sender()[-6:-1].count(Bottleneck.FLOW_CONTROL) >= 4


@pytest.mark.parametrize(
    ("who", "named"), [("sender", Bottleneck.SENDER_CPU), ("receiver", Bottleneck.RECEIVER_CPU)]
)
async def test_an_event_loop_that_never_rests(
    autojump_clock: MockClock, swarm: Swarm, who: str, named: Bottleneck
) -> None:
    busy: dict[str, Any] = {who: {"loop_busy_s": trio.current_time}}
    pair = await Pair.transferring(swarm, 2 * MIB, profile=NARROW, **busy)
    by_sender = named if who == "sender" else Bottleneck.CONGESTION_WINDOW
    pair.require(receiver=named, sender=by_sender)


async def test_a_processor_that_something_else_burns(swarm: Swarm) -> None:
    """In real time, with the loop's own measure: both nodes live in the loop that is busy."""

    async def burn() -> None:
        while True:
            until = time.perf_counter() + 0.002
            while time.perf_counter() < until:
                pass
            await trio.lowlevel.checkpoint()

    measured: dict[str, Any] = {"loop_busy_s": None}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(burn)
        pair = await Pair.transferring(swarm, MIB, sender=measured, receiver=measured, profile=NARROW)
        nursery.cancel_scope.cancel()
    assert set(pair.named_by_receiver()) == {Bottleneck.RECEIVER_CPU}
    assert Bottleneck.SENDER_CPU in pair.named_by_sender()


@pytest.mark.parametrize("scope", ["node", "peer"])
@pytest.mark.parametrize(
    ("who", "named"), [("sender", Bottleneck.SENDER_RATE_CAP), ("receiver", Bottleneck.RECEIVER_RATE_CAP)]
)
async def test_a_rate_cap(
    autojump_clock: MockClock, swarm: Swarm, who: str, scope: str, named: Bottleneck
) -> None:
    cap = RateLimits(peer=200_000) if scope == "peer" else RateLimits(up=200_000, down=200_000)
    capped: dict[str, Any] = {who: {"limits": cap}}
    pair = await Pair.transferring(swarm, MIB, **capped)
    assert len(pair.named_by_receiver()) >= 4
    assert set(pair.named_by_receiver()[1:]) == {named}
    if who == "sender":
        assert set(pair.named_by_sender()[1:-1]) == {named}


async def test_sources_that_are_busy_or_gone(autojump_clock: MockClock, swarm: Swarm) -> None:
    await swarm.start_server()
    path = swarm.root / "a.bin"
    write_random(path, MIB)
    content = Content.of(path)
    fetching = await swarm.start_peer()

    async def busy(stream: MessageStream, request: Request) -> None:
        assert isinstance(request, FileRequest)
        if request.metainfo:
            await content.respond(stream, request)
        else:
            await stream.send(Error(ErrorCode.BUSY, retryable=True, retry_after_s=3.0))

    async def named(bottleneck: Bottleneck) -> None:
        async def is_named() -> bool:
            return fetching.all(FetchProgress)[-1].bottleneck is bottleneck

        await fetching.wait_for(FetchProgress)
        await eventually(is_named)
        last = len(fetching.all(FetchProgress))
        await trio.sleep(2)
        assert {event.bottleneck for event in fetching.all(FetchProgress)[last:]} == {bottleneck}

    async with hand_made(swarm.network, "10.0.3.1", busy) as source, trio.open_nursery() as nursery:
        node = TicketNode(source.node_id, (source.address,))
        ticket = Ticket(content.file_id, MIB, "a.bin", (node,), None)
        nursery.start_soon(lambda: fetching.node.fetch(ticket, to=fetching.files_dir, wait=True))
        await fetching.wait_for(FetchStarted)
        await named(Bottleneck.PEER_BUSY)
        swarm.network.block("10.0.3.1", "10.0.1.1")
        await named(Bottleneck.TOO_FEW_SOURCES)
        nursery.cancel_scope.cancel()


async def test_a_requester_that_reads_nothing_is_told_that_it_gives_no_credit(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server()
    write_random(server.files_dir / "a.bin", 8 * MIB)
    shared = await server.node.share(server.files_dir / "a.bin")
    async with hand_made(swarm.network, "10.0.2.1") as node:
        link = await node.dial((SERVER, PORT))
        stream = await link.request()
        await stream.send(FileRequest(shared.file_id, ((0, 256),)))
        progress = await server.wait_for(UploadProgress, 4)
        assert (progress.bottleneck, progress.requests) == (Bottleneck.FLOW_CONTROL, 1)
        assert (progress.node_id, progress.name, progress.size) == (node.node_id, "a.bin", 8 * MIB)
        told = await link.control.receive_as(SendingLimit)
        assert told == SendingLimit(shared.file_id, "flow_control")
        with trio.move_on_after(5) as silence:  # once is enough while nothing changes
            await link.control.receive_as(SendingLimit)
        assert silence.cancelled_caught


async def test_what_a_node_tells_of_a_file_that_nobody_fetches_is_ignored(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server()
    async with hand_made(swarm.network, "10.0.2.1") as node:
        link = await node.dial((SERVER, PORT))
        for word in ("sender_disk", "", "\x1b[31m", "x" * 64):
            await link.tell(SendingLimit(bytes(32), word))
        await trio.sleep(1)
        assert link.connection.is_open
        assert server.node.statistics["links"] == 1
