"""The operator's door: a socket for the server's own user."""

from __future__ import annotations

import os
import stat
from contextlib import aclosing
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pnode.errors import NotFound
from p2pnode.node.operator import SOCKET_NAME, open_operator
from tests.node.conftest import Swarm, write_random


async def test_an_operator_sees_files_and_peers(autojump_clock: MockClock, swarm: Swarm) -> None:
    server = await swarm.start_server(state_dir=swarm.root / "state")
    peer = await swarm.start_peer(name="alice")
    write_random(peer.files_dir / "a.bin", 100)
    await peer.node.share(peer.files_dir / "a.bin")
    await trio.sleep(1)
    async with open_operator(swarm.root / "state") as operator:
        assert [item.name for item in await operator.list_files()] == ["a.bin"]
        assert await operator.list_files("b") == []
        [report] = await operator.list_peers()
    assert (report.name, report.node_id, report.files) == ("alice", peer.node.node_id, 1)
    assert server.node.statistics["links"] == 1


async def test_only_its_user_may_open_it(autojump_clock: MockClock, swarm: Swarm) -> None:
    server = await swarm.start_server(state_dir=swarm.root / "state")
    socket = swarm.root / "state" / SOCKET_NAME
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    await server.stop()
    assert not socket.exists()


async def test_no_other_task_runs_while_new_files_are_for_its_user_only(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The umask is the whole process's: a file that another task made meanwhile would get it too."""
    usual = os.umask(0o022)
    seen = set()

    async def look_for_ever() -> None:
        while True:
            seen.add(mask := os.umask(0o022))
            os.umask(mask)
            await trio.lowlevel.checkpoint()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look_for_ever)
            await swarm.start_server(state_dir=swarm.root / "state")
            nursery.cancel_scope.cancel()
    finally:
        os.umask(usual)
    assert seen == {0o022}


async def test_a_socket_that_a_killed_server_left_is_replaced(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    (swarm.root / "state").mkdir()
    (swarm.root / "state" / SOCKET_NAME).write_bytes(b"")
    await swarm.start_server(state_dir=swarm.root / "state")
    async with open_operator(swarm.root / "state") as operator:
        assert await operator.list_files() == []


async def test_a_state_directory_of_any_depth_will_do(autojump_clock: MockClock, swarm: Swarm) -> None:
    """The name of a Unix socket has 108 bytes at most."""
    deep = swarm.root / ("d" * 100) / ("e" * 100)
    await swarm.start_server(state_dir=deep)
    async with open_operator(deep) as operator:
        assert await operator.list_peers() == []


async def test_where_no_server_runs_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no server of yours runs"):
        async with open_operator(tmp_path):
            pass


async def test_an_operator_who_leaves_in_the_middle_harms_nothing(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server(state_dir=swarm.root / "state")
    peer = await swarm.start_peer()
    data = write_random(server.files_dir / "a.bin", 300_000)
    await server.node.share(server.files_dir / "a.bin")
    async with (
        open_operator(swarm.root / "state") as operator,
        aclosing(operator.push("a.bin", "all")) as told,
    ):
        assert (await anext(told)).state == "accepted"
    await trio.sleep(10)
    assert (peer.files_dir / "a.bin").read_bytes() == data
    async with open_operator(swarm.root / "state") as operator:
        assert len(await operator.list_peers()) == 1
