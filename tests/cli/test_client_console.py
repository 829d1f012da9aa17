"""The console against a tracker in memory, which has an AI service and knows peers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from p2pnode.assembly.tracker_client import TrackerClient, TrackerTrust
from p2pnode.cli.client_console import ClientConsole
from p2pnode.cli.client_talk import Talk
from p2pnode.cli.console import Console
from p2pnode.node.node import Node
from p2pnode.node.server_reference import ServerReference
from p2pnode.quic import Credentials, Endpoint, NodeKey, Stream
from p2pnode.testing.network import Network
from p2pnode.testing.nodes import inline_blocking
from tests.services.hand_made_tracker import CLIENT, TRACKER, HandMadeTracker, Request, say, tracker_at

ADDRESS = f"{TRACKER[0]}:{TRACKER[1]}"
INFO_HASH = bytes(range(20))


class Typed:
    """Lines that are there already."""

    def __init__(self, *lines: str) -> None:
        self._lines = list(lines)

    async def read(self) -> str | None:
        return self._lines.pop(0) if self._lines else None


async def answer(stream: Stream, request: Request) -> None:
    if "query" in request:
        await say(stream, {"answer": f"you said:\n{request['query']}\x1b[31m"})
    else:
        peers = [{"ip": "192.0.2.7", "port": 6881}, {"ip": "x\x1b[31m", "port": 1}]
        await say(stream, {"interval": 60, "peers": peers})


def no_node(_server: ServerReference) -> Node:
    raise AssertionError("nothing is so large here")


@asynccontextmanager
async def talking(*, as_json: bool = False) -> AsyncIterator[tuple[HandMadeTracker, Talk]]:
    async with Network(seed=1) as network, tracker_at(network, answer) as tracker:
        socket = network.socket(CLIENT)
        async with Endpoint(socket, Credentials.from_node_key(NodeKey.generate())) as endpoint:
            trust = TrackerTrust(Path(), lambda _: None, verify=False)
            client = TrackerClient(endpoint, trust, no_node, lambda _: None, None, inline_blocking())
            yield tracker, Talk(client, Console(json=as_json), ADDRESS, True)
        socket.close()


async def test_a_question_goes_with_what_was_said_before_and_its_answer_is_escaped(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    async with talking() as (tracker, talk):
        await ClientConsole(talk).run(Typed("one", "  two  ", "/clear", "three"))
    assert capsys.readouterr().out.splitlines() == [
        line for word in ("one", "two", "three") for line in ("you said:", f"{word}\\x1b[31m")
    ]
    contexts = [[message["role"] for message in request["context"]] for request in tracker.requests]
    assert contexts == [[], ["user", "assistant"], []]
    assert tracker.requests[1]["context"][0] == {"role": "user", "content": "one"}


@pytest.mark.parametrize("as_json", [True, False])
async def test_peers_are_those_that_the_tracker_told_of(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    async with talking(as_json=as_json) as (_, talk):
        await talk.client.at(ADDRESS).session.announce(INFO_HASH, left=1, event="started")
        await ClientConsole(talk).run(Typed("/peers", "hello", "/status"))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    if as_json:
        events: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
        assert events[0] == {
            "event": "tracker_peer",
            "info_hash": INFO_HASH.hex(),
            "address": "192.0.2.7:6881",
        }
        assert [event["event"] for event in events[1:]] == ["tracker_peer", "answer", "tracker_status"]
        assert events[-1]["messages"] == 2
        assert events[-1]["connected"] is True
    else:
        rows = out.splitlines()
        assert rows[0] == f"{INFO_HASH.hex()}\t192.0.2.7:6881"
        assert rows[1] == f"{INFO_HASH.hex()}\tx\\x1b[31m:1"


async def test_a_line_that_means_nothing_is_said_and_the_next_one_is_read(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    async with talking() as (tracker, talk):
        await ClientConsole(talk).run(Typed("a\0b", "/download \0", "", "hello", "/quit", "unheard"))
    assert capsys.readouterr().err.count("NUL byte") == 2
    assert len(tracker.requests) == 1
