"""Finds the servers of this user on this machine, so that nobody has to type an address for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pnode.cli.options import ServerChoice, state_root
from p2pnode.errors import ConfigError, NotFound
from p2pnode.node.operator import open_operator
from p2pnode.node.server_reference import split_address
from p2pnode.node.state import read_note

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


@dataclass(frozen=True)
class LocalServer:
    """A server that runs here and takes commands."""

    state_dir: Path
    address: str
    node_id: str

    def answers_to(self, address: str) -> bool:
        """Whether somebody on this machine who dials `address` means this server."""
        host, port = split_address(address)
        own_host, own_port = split_address(self.address)
        is_loopback = host in _LOOPBACK and own_host in (*_LOOPBACK, *_WILDCARDS)
        return port == own_port and (host == own_host or is_loopback)

    def choice(self) -> ServerChoice:
        """How to dial it from here."""
        host, port = split_address(self.address)
        return ServerChoice(
            f"{_WILDCARDS[host]}:{port}" if host in _WILDCARDS else self.address, self.node_id
        )


async def running_servers() -> list[LocalServer]:
    """All that answer in their usual state directories."""
    found = []
    for path in sorted(state_root().glob("server-*")):
        try:
            found.append(await server_on(path))
        except NotFound:
            continue  # it was killed, and its note stayed
    return found


async def server_on(state_dir: Path) -> LocalServer:
    """The server that runs on a state directory; NotFound when none does."""
    async with open_operator(state_dir):
        note = read_note(state_dir)
    if note is None:
        raise NotFound(f"the server on {state_dir} does not say where it listens")
    return LocalServer(state_dir, note.address, note.node_id)


async def find_server(address: str | None, state_dir: Path | None) -> LocalServer | None:
    """The server meant: that of `state_dir`, that which listens on `address`, or the only one that runs.

    None when there is none. Raises NotFound for a `state_dir` without one, ConfigError when several run.
    """
    if state_dir is not None:
        return await server_on(state_dir)
    servers = await running_servers()
    if address is not None:
        servers = [server for server in servers if server.answers_to(address)]
    if len(servers) > 1:
        addresses = ", ".join(server.address for server in servers)
        raise ConfigError(f"several servers of yours run here ({addresses}): say which with --server-addr")
    return servers[0] if servers else None


async def known_server(choice: ServerChoice) -> ServerChoice:
    """The server that is meant, with its node id as its pin where it is this user's own and runs here.

    What the choice says itself of how to trust an address counts first. Without an address the only one here is
    meant, if there is one.
    """
    says_itself = choice.pin is not None or choice.certificate is not None or not choice.verify
    if choice.address is not None and says_itself:
        return choice
    local = await find_server(choice.address, None)
    return choice if local is None else local.choice()
