from __future__ import annotations

from pathlib import Path

import pytest

from p2pnode.cli.local_servers import LocalServer, find_server, known_server, running_servers
from p2pnode.cli.options import ServerChoice
from p2pnode.errors import ConfigError, NotFound
from p2pnode.node.node import Node

NODE_ID = "ab" * 32


def server(address: str) -> LocalServer:
    return LocalServer(Path("state"), address, NODE_ID)


@pytest.mark.parametrize(
    ("listens_on", "dialed", "is_it"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080", True),
        ("127.0.0.1:8080", "localhost:8080", True),
        ("127.0.0.1:8080", "https://127.0.0.1:8080", True),
        ("0.0.0.0:8080", "127.0.0.1:8080", True),
        ("[::]:8080", "[::1]:8080", True),
        ("192.0.2.7:8080", "192.0.2.7:8080", True),
        ("127.0.0.1:8080", "127.0.0.1:8081", False),
        ("192.0.2.7:8080", "127.0.0.1:8080", False),
        ("0.0.0.0:8080", "files.example.org:8080", False),
    ],
)
def test_knows_by_which_address_it_is_meant(listens_on: str, dialed: str, is_it: bool) -> None:
    assert server(listens_on).answers_to(dialed) is is_it


@pytest.mark.parametrize(
    ("listens_on", "dialed"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("0.0.0.0:8080", "127.0.0.1:8080"),
        ("[::]:8080", "[::1]:8080"),
        ("[2001:db8::7]:8080", "[2001:db8::7]:8080"),
    ],
)
def test_is_dialed_where_it_can_be_reached_and_pinned(listens_on: str, dialed: str) -> None:
    assert server(listens_on).choice() == ServerChoice(dialed, pin=NODE_ID)


def running(state_dir: Path) -> Node:
    return Node(role="server", listen=("127.0.0.1", 0), state_dir=state_dir)


async def test_without_a_server_there_is_none(own_home: Path) -> None:
    stale = own_home / "state" / "p2pnode" / "server-0123456789ab"
    stale.mkdir(parents=True)
    (stale / "server.json").write_text('{"address":"127.0.0.1:1","pid":1,"node_id":"ab"}')
    assert await running_servers() == []
    assert await find_server(None, None) is None
    with pytest.raises(NotFound, match="no server of yours runs on"):
        await find_server(None, stale)


async def test_the_only_one_is_found_and_of_two_that_which_is_asked_for(own_home: Path) -> None:
    state = own_home / "state" / "p2pnode"
    async with running(state / "server-aaaaaaaaaaaa") as first:
        found = await find_server(None, None)
        assert found is not None
        assert found.node_id == first.node_id.hex()
        async with running(state / "server-bbbbbbbbbbbb") as second:
            with pytest.raises(ConfigError, match="several servers of yours run here"):
                await find_server(None, None)
            by_address = await find_server(f"localhost:{second.listen_address[1]}", None)
            by_directory = await find_server(None, state / "server-bbbbbbbbbbbb")
            assert by_address is not None
            assert by_address == by_directory
            assert by_address.node_id == second.node_id.hex()
        assert await find_server("files.example.org:8080", None) is None


async def test_ones_own_server_needs_no_pin_unless_something_else_is_said(own_home: Path) -> None:
    async with running(own_home / "state" / "p2pnode" / "server-aaaaaaaaaaaa") as here:
        address = f"127.0.0.1:{here.listen_address[1]}"
        known = await known_server(ServerChoice(address))
        assert known.pin == here.node_id.hex()
        assert await known_server(ServerChoice(None)) == known
        for said in (
            ServerChoice(address, pin="ab" * 32),
            ServerChoice(address, certificate=Path("server.crt")),
            ServerChoice(address, verify=False),
            ServerChoice("files.example.org:8080"),
        ):
            assert await known_server(said) == said
