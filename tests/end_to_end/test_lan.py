"""Without any server: real processes that find each other by real multicast, in a network of their own.

The network is a namespace that has nothing but its loopback interface, so that nobody else hears of it. Where
namespaces are not permitted, the loopback interface of this machine serves.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from tests.end_to_end.conftest import MEDIUM, SMALL
from tests.support.processes import program, run

Settled = Callable[[Path, int], Path]

BRING_UP_LOOPBACK = """
import fcntl, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
with socket.socket() as some:
    fcntl.ioctl(some, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def network() -> Iterator[list[str]]:
    """What runs a command in the network."""
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", BRING_UP_LOOPBACK]
    if shutil.which("unshare") and shutil.which("nsenter"):
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:
            assert keeper.stdin is not None and keeper.stdout is not None
            if keeper.stdout.readline() == b"up\n":
                yield ["nsenter", f"--target={keeper.pid}", "--user", "--net", "--preserve-credentials"]
                keeper.stdin.close()
                return
    if not loopback_carries_multicast():
        text = "neither network namespaces nor multicast on the loopback interface"
        if os.environ.get("CI_INTEROP") == "required":
            pytest.fail(text)
        pytest.skip(text)
    yield []


def loopback_carries_multicast() -> bool:
    """Whether a datagram to a group comes back."""
    group, loopback = socket.inet_aton("239.192.152.143"), socket.inet_aton("127.0.0.1")
    with socket.socket(type=socket.SOCK_DGRAM) as member, socket.socket(type=socket.SOCK_DGRAM) as sender:
        member.settimeout(2)
        member.bind(("", 0))
        try:
            member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + loopback)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
            sender.sendto(b"?", ("239.192.152.143", member.getsockname()[1]))
            return member.recv(10) == b"?"
        except OSError:
            return False


async def test_a_file_is_shared_and_fetched_by_its_id_in_the_same_network(
    tmp_path: Path, settled: Settled, network: list[str]
) -> None:
    source = settled(tmp_path / "a" / "film.bin", MEDIUM)
    async with program("share", source, "--lan", state=tmp_path / "a", prefix=network) as sharing:
        file_id = (await sharing.wait_for("ticket"))["file_id"]
        outcomes = {}

        async def fetch(who: str) -> None:
            outcomes[who] = await run(
                "get", file_id, "--lan", "-o", tmp_path / who / "", state=tmp_path / who, prefix=network
            )

        async with trio.open_nursery() as nursery:
            for who in ("b", "c"):
                nursery.start_soon(fetch, who)
    for who, outcome in outcomes.items():
        assert outcome.code == 0, outcome.said
        assert (tmp_path / who / "film.bin").read_bytes() == source.read_bytes()


async def test_a_torrent_file_is_enough_and_a_name_is_not(
    tmp_path: Path, settled: Settled, network: list[str]
) -> None:
    source = settled(tmp_path / "a" / "files" / "film.bin", SMALL)
    torrent = tmp_path / "film.torrent"
    made = await run("torrent", "create", source, "-o", torrent, state=tmp_path)
    assert made.code == 0, made.said
    peer = ["peer", "--lan", "--files-dir", source.parent]
    async with program(*peer, state=tmp_path / "a", prefix=network) as offering:
        await offering.wait_for("file_shared")
        get = ["get", "--lan", "-o", tmp_path / "b" / ""]
        fetched = await run(*get, torrent, state=tmp_path / "b", prefix=network)
        assert fetched.code == 0, fetched.said
        assert (tmp_path / "b" / "film.bin").read_bytes() == source.read_bytes()
        named = await run(*get, "film.bin", state=tmp_path / "b", prefix=network)
        assert "only a server knows names" in named.error(2)


async def test_a_peer_needs_a_server_or_a_network(tmp_path: Path) -> None:
    outcome = await run("peer", "--files-dir", tmp_path / "files", state=tmp_path)
    assert outcome.code == 2
    assert "--server-addr" in outcome.said and "--lan" in outcome.said
