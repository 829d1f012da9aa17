"""A mirroring peer: what its server lists lands here, now and later, whatever fails in between."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import ConfigError, NetworkError, NoSource, P2PNodeError, Refused, TargetExists
from p2pnode.node.events import FetchCompleted, FetchFailed, NodeEvent, NodeWarning, ServerLost
from p2pnode.node.mirror import mirror_for_ever
from p2pnode.node.node import Node
from p2pnode.node.server_reference import ServerReference
from p2pnode.quic import NoTrust
from p2pnode.testing.nodes import PORT
from p2pnode.wire.communication import FileAnnounce, FileItem
from tests.node.conftest import SERVER, Swarm, Watched, write_random
from tests.node.hand_made import announce, hand_made


async def share(node: Watched, name: str, size: int) -> bytes:
    data = write_random(node.files_dir / name, size)
    await node.node.share(node.files_dir / name)
    return data


async def test_everything_listed_is_fetched_and_what_comes_later_too(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server()
    contents = {f"{number}.bin": await share(server, f"{number}.bin", 20_000 + number) for number in range(5)}
    contents["empty"] = await share(server, "empty", 0)
    mirror = await swarm.start_peer(mirror=True)
    await mirror.wait_for(FetchCompleted, len(contents))
    contents["later"] = await share(server, "later", 30_000)
    await mirror.wait_for(FetchCompleted, len(contents))
    assert {path.name: path.read_bytes() for path in mirror.files_dir.iterdir()} == contents
    await trio.sleep(5 * config.MIRROR_INTERVAL_S)
    assert len(mirror.all(FetchCompleted)) == len(contents)  # none twice


async def test_what_cannot_be_fetched_holds_up_nothing_and_is_tried_again(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server()
    async with hand_made(swarm.network, "10.0.2.1") as nobody:
        link = await nobody.dial((SERVER, PORT))
        await announce(link, FileAnnounce(bytes(32), "a lie", 5, 16384, have=((0, 1),)))
        await share(server, "a.bin", 20_000)
        mirror = await swarm.start_peer(mirror=True)
        assert (await mirror.wait_for(FetchCompleted)).name == "a.bin"
        await mirror.wait_for(FetchFailed, 2)


async def test_a_server_that_goes_and_comes_back_is_mirrored_again(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    state = swarm.root / "server state"
    server = await swarm.start_server(state_dir=state)
    mirror = await swarm.start_peer(mirror=True)
    await server.stop()
    await mirror.wait_for(ServerLost)
    write_random(server.files_dir / "a.bin", 20_000)
    await swarm.start_server(state_dir=state)
    assert (await mirror.wait_for(FetchCompleted)).name == "a.bin"


async def test_a_few_are_fetched_at_a_time(autojump_clock: MockClock, tmp_path: Path) -> None:
    class Slow:
        at_once = at_once_max = fetched = 0

        def offers(self, file_id: bytes) -> bool:
            return False

        async def list_files(self) -> list[FileItem]:
            return [FileItem(bytes([number]) * 32, f"{number}", 5) for number in range(10)]

        async def fetch(self, reference: bytes, *, to: Path) -> FetchCompleted:
            self.at_once += 1
            self.at_once_max = max(self.at_once, self.at_once_max)
            await trio.sleep(1)
            self.at_once -= 1
            self.fetched += 1
            raise NoSource("nobody")

    published: list[NodeEvent] = []
    node = Slow()
    with trio.move_on_after(100):
        await mirror_for_ever(node, tmp_path, published.append)
    assert node.fetched >= 10
    assert node.at_once_max == config.MIRROR_AT_ONCE


async def test_a_list_that_cannot_be_had_is_asked_for_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    class Unreachable:
        asked = 0

        def offers(self, file_id: bytes) -> bool:
            return True

        async def list_files(self) -> list[FileItem]:
            self.asked += 1
            raise NetworkError("gone")

        async def fetch(self, reference: bytes, *, to: Path) -> FetchCompleted:
            raise AssertionError("nothing is listed")

    published: list[NodeEvent] = []
    node = Unreachable()
    with trio.move_on_after(10 * config.MIRROR_INTERVAL_S):
        await mirror_for_ever(node, tmp_path, published.append)
    assert node.asked >= 10
    assert published == []  # the announcer tells that the server is away


class Scripted:
    """A node whose server lists files numbered from 0; fetching raises what `failures` says, or succeeds."""

    def __init__(self, count: int, failures: dict[int, P2PNodeError]) -> None:
        self.items = [FileItem(bytes([number]) * 32, f"{number}", 5) for number in range(count)]
        self.failures = failures
        self.tried: list[int] = []
        self.done: set[bytes] = set()
        self.refusal: P2PNodeError | None = None

    def offers(self, file_id: bytes) -> bool:
        return file_id in self.done

    async def list_files(self) -> list[FileItem]:
        if self.refusal is not None:
            raise self.refusal
        return self.items

    async def fetch(self, reference: bytes, *, to: Path) -> FetchCompleted:
        self.tried.append(reference[0])
        await trio.sleep(1)
        if reference[0] in self.failures:
            raise self.failures[reference[0]]
        self.done.add(reference)
        return FetchCompleted(file_id=reference, name="", size=5, target=to, seconds=1, bytes_fetched=5)


async def test_what_fails_again_and_again_is_tried_later_and_later_and_after_what_was_never_tried(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    node = Scripted(40, {number: NoSource("nobody") for number in range(20)})
    with trio.move_on_after(600):
        await mirror_for_ever(node, tmp_path, lambda event: None)
    assert sorted(node.tried[:40]) == list(range(40))  # all once, before any twice
    assert len(node.done) == 20
    assert 3 <= node.tried.count(0) <= 10


async def test_what_has_the_name_of_another_file_is_tried_again_when_that_changes(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    node = Scripted(1, {0: TargetExists("another file")})
    (tmp_path / "0").write_bytes(b"mine")
    with trio.move_on_after(0.9 * config.MIRROR_OBSTACLE_RETRY_S):
        await mirror_for_ever(node, tmp_path, lambda event: None)
    assert node.tried == [0]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mirror_for_ever, node, tmp_path, lambda event: None)
        await trio.sleep(100)
        assert node.tried == [0, 0]
        (tmp_path / "0").unlink()
        node.failures.clear()
        await trio.sleep(2 * config.MIRROR_INTERVAL_S)
        nursery.cancel_scope.cancel()
    assert node.tried == [0, 0, 0]
    assert len(node.done) == 1


async def test_a_list_that_is_refused_is_said_once(autojump_clock: MockClock, tmp_path: Path) -> None:
    node = Scripted(1, {})
    node.refusal = Refused("not for you")
    published: list[NodeEvent] = []
    with trio.move_on_after(100):
        await mirror_for_ever(node, tmp_path, published.append)
    assert [event.text for event in published if isinstance(event, NodeWarning)] == [
        "the server gives no list to mirror: not for you"
    ]


@pytest.mark.parametrize("lacking", ["files_dir", "server"])
def test_mirroring_needs_a_server_and_a_directory(tmp_path: Path, lacking: str) -> None:
    server = ServerReference("10.0.0.1:1", NoTrust()) if lacking == "files_dir" else None
    with pytest.raises(ConfigError):
        Node(mirror=True, server=server, files_dir=None if lacking == "files_dir" else tmp_path)
