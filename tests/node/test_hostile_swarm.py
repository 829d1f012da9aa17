"""Nodes that take part in a swarm to no good: they talk and give nothing, and keep nobody from those who do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.node.events import NodeBanned
from p2pnode.node.message_stream import MessageStream
from p2pnode.wire.communication import Error, ErrorCode, Have
from tests.node.conftest import Swarm
from tests.node.hand_made import Content, HandMadeNode, Request, Serve, serve_nothing
from tests.node.test_hostile import Hostile, a_trickle


async def refuse(stream: MessageStream, request: Request) -> None:
    await stream.send(Error(ErrorCode.NOT_FOUND, "not here"))


def has_nothing(content: Content) -> tuple[Have, Serve]:
    return Have(content.file_id, whole=True), refuse


def refuses(content: Content) -> tuple[Have, Serve]:
    return has_everything(content), refuse


def is_silent(content: Content) -> tuple[Have, Serve]:
    return has_everything(content), serve_nothing


def trickles(content: Content) -> tuple[Have, Serve]:
    return has_everything(content), a_trickle(content)


def has_everything(content: Content) -> Have:
    return Have(content.file_id, ((0, content.metainfo.piece_count),), whole=True)


@pytest.mark.parametrize("useless", [has_nothing, refuses, is_silent, trickles])
async def test_T6_those_who_give_nothing_keep_no_honest_source_out(
    autojump_clock: MockClock,
    swarm: Swarm,
    monkeypatch: pytest.MonkeyPatch,
    useless: Callable[[Content], tuple[Have, Serve]],
) -> None:
    """Three times as many as a download has links; the honest source comes last."""
    monkeypatch.setattr(config, "SOURCES_LINKED_MAX", 4)
    await swarm.start_server()
    hostile = Hostile(swarm)
    leecher = await swarm.start_peer()
    word, serve = useless(hostile.content)

    async def insist(node: HandMadeNode) -> None:
        link = await node.dial(leecher.node.listen_address)
        while True:
            await link.tell(word)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for number in range(12):
            node = HandMadeNode(swarm.network, f"10.0.2.{number}", serve)
            await nursery.start(node.run)
            nursery.start_soon(insist, node)

        async def join_later() -> None:
            await trio.sleep(5)
            await hostile.start_honest()

        nursery.start_soon(join_later)
        with trio.fail_after(4 * config.STALL_TIMEOUT_S):
            done = await leecher.node.fetch(hostile.content.metainfo, to=leecher.files_dir)
        nursery.cancel_scope.cancel()
    assert done.target.read_bytes() == hostile.data
    assert leecher.all(NodeBanned) == []
