"""What a node is made of: settings that make no sense are refused before anything starts."""

from __future__ import annotations

import socket

import pytest
import trio

from p2pnode import config
from p2pnode.errors import ConfigError, NotFound
from p2pnode.node.events import NodeEvent, NodeWarning
from p2pnode.node.node import Node
from p2pnode.quic import udp_options


@pytest.mark.parametrize("what", ["name", "zone"])
@pytest.mark.parametrize("word", ["n" * (config.WORD_LENGTH_MAX + 1), "\udcff", "a\nb"])
def test_a_word_that_cannot_be_announced_is_refused(what: str, word: str) -> None:
    with pytest.raises(ConfigError, match=what):
        Node(**{what: word})  # type: ignore[arg-type]


def test_the_longest_word_will_do() -> None:
    Node(name="n" * config.WORD_LENGTH_MAX, zone="z" * config.WORD_LENGTH_MAX)


def test_the_name_of_a_host_is_cut_where_it_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "h" * 300)
    assert Node()._name == "h" * config.WORD_LENGTH_MAX


def warnings_in(channel: trio.MemoryReceiveChannel[NodeEvent]) -> list[str]:
    """The texts of the warnings published so far."""
    events = [channel.receive_nowait() for _ in range(channel.statistics().current_buffer_used)]
    return [event.text for event in events if isinstance(event, NodeWarning)]


@pytest.mark.parametrize(("role", "said_at_start"), [("peer", 1), ("client", 0)])
async def test_how_the_kernel_could_be_faster_is_said_once_and_to_who_transfers(
    monkeypatch: pytest.MonkeyPatch, role: str, said_at_start: int
) -> None:
    monkeypatch.setattr(udp_options, "SOCKET_BUFFER_SIZE", 2**30)  # no kernel gives that
    node = Node(role=role, listen=("127.0.0.1", 0))
    async with node.events() as channel, node:
        at_start = warnings_in(channel)
        assert len(at_start) == said_at_start
        for _ in range(2):
            with pytest.raises(NotFound):
                await node.fetch("no server knows this name")
        [hint] = at_start + warnings_in(channel)
        assert "sysctl -w net.core.rmem_max=1073741824" in hint
