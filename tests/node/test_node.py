"""What a node is made of: settings that make no sense are refused before anything starts."""

from __future__ import annotations

import socket

import pytest

from p2pnode import config
from p2pnode.errors import ConfigError
from p2pnode.node.node import Node


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
