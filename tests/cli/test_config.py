from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import P2PNode


def settings(home: Path, text: str) -> None:
    path = home / "config" / "p2pnode" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_says_where_the_file_is_looked_for(p2pnode: P2PNode, own_home: Path) -> None:
    assert p2pnode("config", "path").out == f"{own_home}/config/p2pnode/config.toml\n"


def test_shows_each_value_and_its_source(
    p2pnode: P2PNode, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings(own_home, "server-addr = 'h:1'\n[peer]\nmirror = true\nallow = ['a', 'b']\n")
    monkeypatch.setenv("P2PNODE_ZONE", "rack-7")
    rows = dict.fromkeys(p2pnode("config", "show", "peer").out.splitlines())
    for row in (
        "peer\t--server-addr\th:1\tfile",
        "peer\t--mirror\ttrue\tfile",
        "peer\t--allow\ta b\tfile",
        "peer\t--zone\track-7\tenvironment",
        "peer\t--port\t0\tdefault",
        "peer\t--json\tfalse\tdefault",
    ):
        assert row in rows


def test_shows_every_verb_and_can_be_read_by_programs(p2pnode: P2PNode) -> None:
    verbs = {event["verb"] for event in p2pnode("config", "show", "--json").events}
    assert verbs >= {"server", "peer", "get", "torrent create", "swarm", "config show"}


def test_checks_the_whole_file(p2pnode: P2PNode, own_home: Path) -> None:
    settings(own_home, "[torrent.create]\npiece-lenght = '1M'\n")
    outcome = p2pnode("config", "show")
    assert outcome.code == 2
    assert (
        "[torrent.create]: no option is called 'piece-lenght' (did you mean 'piece-length'?)" in outcome.err
    )


def test_an_unknown_verb_is_a_usage_error(p2pnode: P2PNode) -> None:
    assert p2pnode("config", "show", "pear").code == 2
