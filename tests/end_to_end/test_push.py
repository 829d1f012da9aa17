"""A server lets peers fetch: to one, to all, to itself; who may order it, and what a peer lets be done to it."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from p2pnode.errors import Refused
from p2pnode.node.node import Node
from p2pnode.node.sharing import Shared
from p2pnode.storage import FileStore, hash_path
from p2pnode.torrent import Metainfo
from p2pnode.wire.bencoding import decode, encode
from p2pnode.wire.communication import NodeItem, PushOrder, PushReport, PushRequest, PushStatus
from tests.end_to_end.conftest import MEDIUM, SMALL, Place, Served
from tests.support.processes import Outcome, Program, program, run

Settled = Callable[[Path, int], Path]


@asynccontextmanager
async def a_peer(root: Path, name: str, options: list[str], *more: str | Path) -> AsyncIterator[Program]:
    """A peer of that name, registered with the server, with its files in `root/name`."""
    arguments = ["--name", name, "--files-dir", root / name, *more]
    async with program("peer", *options, *arguments, state=root / f"{name} state") as peer:
        await peer.wait_for("server_connected")
        yield peer


def table(outcome: Outcome) -> dict[str, str]:
    """Which peer ended in which state."""
    rows = [line.split("\t") for line in outcome.lines]
    return {row[0]: row[1] for row in rows}


@pytest.mark.usefixtures("both_ways")
async def test_a_push_to_one_then_to_all_then_to_the_server(
    server: Served, tmp_path: Path, settled: Settled
) -> None:
    operator = tmp_path / "server"  # the state of the server's user
    source = settled(tmp_path / "server_files" / "model.bin", MEDIUM)
    await server.program.wait_for("file_shared")
    async with (
        a_peer(tmp_path, "gpu-1", server.options) as first,
        a_peer(tmp_path, "gpu-2", server.options) as second,
    ):
        to_one = await run("push", "model.bin", "--to", "gpu-1", state=operator)
        assert (to_one.code, table(to_one)) == (0, {"gpu-1": "complete"}), to_one.said
        assert not (tmp_path / "gpu-2" / "model.bin").exists()
        to_all = await run("push", "model.bin", "--to", "all", state=operator)
        assert (to_all.code, table(to_all)) == (0, {"gpu-1": "complete", "gpu-2": "complete"}), to_all.said
        for name in ("gpu-1", "gpu-2"):
            assert (tmp_path / name / "model.bin").read_bytes() == source.read_bytes()
        assert first.find("push_received", name="model.bin")
        assert (await first.wait_for("fetch_completed"))["bytes_fetched"] == MEDIUM
        assert (await second.wait_for("fetch_completed"))["bytes_fetched"] == MEDIUM

        settled(tmp_path / "gpu-1" / "new.bin", SMALL)
        await first.wait_for("file_shared", name="new.bin")
        while "new.bin" not in (await run("list", state=operator)).out:
            pass  # the peer's announce is on its way
        to_server = await run("push", "new.bin", "--to", "server", "--json", state=operator)
        assert (to_server.code, to_server.events[-1]["state"]) == (0, "complete"), to_server.said
    pushed = tmp_path / "server_files" / "new.bin"
    assert pushed.read_bytes() == (tmp_path / "gpu-1" / "new.bin").read_bytes()


async def test_what_is_too_large_for_a_peer_is_refused_and_said(
    server: Served, tmp_path: Path, settled: Settled
) -> None:
    settled(tmp_path / "server_files" / "model.bin", MEDIUM)
    await server.program.wait_for("file_shared")
    async with (
        a_peer(tmp_path, "small", server.options, "--push-max", "1M"),
        a_peer(tmp_path, "large", server.options, "--push-max", "2M"),
    ):
        pushed = await run("push", "model.bin", "--to", "all", state=tmp_path / "server")
    assert pushed.code == 8
    assert table(pushed) == {"small": "refused", "large": "complete"}
    assert "larger than this peer takes" in pushed.said
    assert "small" in pushed.said.splitlines()[-1]
    assert os.listdir(tmp_path / "small") == []


@pytest.mark.parametrize(("reference", "target"), [("missing.bin", "all"), ("model.bin", "nobody")])
async def test_a_push_of_nothing_or_to_nobody(place: Place, reference: str, target: str) -> None:
    outcome = await run("push", reference, "--to", target, state=place.state)
    assert (reference if target == "all" else target) in outcome.error(3)


# -- who may -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [["peers"], ["push", "model.bin", "--to", "all"]])
async def test_who_is_no_admin_may_not_command_a_server_over_the_network(
    place: Place, tmp_path: Path, verb: list[str]
) -> None:
    line = (await run(*verb, *place.options, state=tmp_path)).error(8)
    assert "--admin" in line


async def test_an_admin_may_command_a_server_over_the_network(
    certificate: Path, tmp_path: Path, settled: Settled
) -> None:
    source = settled(tmp_path / "server_files" / "model.bin", SMALL)
    async with Served.start(tmp_path, certificate) as closed:
        refused = (await run("peers", *closed.options, state=tmp_path)).error(8)
    admin = refused.split("--admin ")[1]  # the line says what to give the server
    async with Served.start(tmp_path, certificate, more=["--admin", admin]) as server:
        await server.program.wait_for("file_shared")
        async with a_peer(tmp_path, "gpu-1", server.options):
            peers = await run("peers", *server.options, state=tmp_path)
            assert "gpu-1" in peers.out
            pushed = await run("push", "model.bin", "--to", "gpu-1", *server.options, state=tmp_path)
            assert (pushed.code, table(pushed)) == (0, {"gpu-1": "complete"}), pushed.said
    assert (tmp_path / "gpu-1" / "model.bin").read_bytes() == source.read_bytes()


async def test_a_server_that_allows_some_is_closed_to_others(certificate: Path, tmp_path: Path) -> None:
    async with Served.start(tmp_path, certificate, more=["--allow", "00" * 32]) as closed:
        line = (await run("list", *closed.options, state=tmp_path)).error(8)
        assert "--allow" in line
        peer = await run("peer", *closed.options, state=tmp_path / "p", cwd=tmp_path)
        assert peer.code == 8
    allowed = line.split("node id ")[1].split(";")[0]
    friends = tmp_path / "friends.txt"
    friends.write_text(f"# my laptop\n{allowed}\n")
    async with Served.start(tmp_path, certificate, more=["--allow", friends]) as open_to_me:
        assert (await run("list", *open_to_me.options, state=tmp_path)).code == 0


async def test_a_peer_that_allows_some_is_closed_to_others(
    server: Served, tmp_path: Path, settled: Settled
) -> None:
    settled(tmp_path / "gpu-1" / "model.bin", SMALL)
    server_id = (await server.program.wait_for("listening"))["node_id"]
    async with a_peer(tmp_path, "gpu-1", server.options, "--allow", server_id) as peer:
        listening = await peer.wait_for("listening")
        await peer.wait_for("file_shared")
        direct = ["--server-addr", f"127.0.0.1:{listening['address'][1]}", "--pin", listening["node_id"]]
        assert "closed to node id" in (await run("list", *direct, state=tmp_path)).error(8)
        while "model.bin" not in (await run("list", state=tmp_path / "server")).out:
            pass  # the peer's announce is on its way
        pushed = await run("push", "model.bin", "--to", "server", state=tmp_path / "server")
        assert pushed.code == 0, pushed.said  # its own server is one of the allowed


# -- what a hostile server can do to a peer ----------------------------------------------------------------


class HostileServer(Node):
    """A server that offers a file under names of its choosing."""

    def offer(self, path: Path, name: bytes) -> str:
        """Offer the file at `path` as `name`; returns its id."""
        value = decode(hash_path(path).encode())
        assert isinstance(value, dict)
        info = value[b"info"]
        assert isinstance(info, dict)
        [properties] = info[b"file tree"].values()
        metainfo = Metainfo.decode(
            encode({**value, b"info": {**info, b"name": name, b"file tree": {name: properties}}})
        )
        shared = Shared(metainfo, path, FileStore.share(metainfo, path))
        self._shares._by_id[metainfo.file_id] = shared
        self._share_changed(shared, True)
        return metainfo.file_id.hex()

    async def push_to_all(self, reference: str, ends: str) -> None:
        """Push; the only peer must end in that state."""
        reports: list[PushReport] = []

        async def tell(report: PushReport) -> None:
            reports.append(report)

        await self._responder.pusher.carry_out(PushOrder(reference, "all"), tell)
        assert reports[-1].state == ends, reports


async def test_C5_whatever_a_server_calls_it_a_push_lands_in_the_shared_directory(
    tmp_path: Path, settled: Settled
) -> None:
    source = settled(tmp_path / "source.bin", SMALL)
    lands = {
        b".ssh": "_ssh",
        b".bashrc": "_bashrc",
        b"..\\..\\x": "_._.._x",
        b"C:x": "C_x",
        b"con": "_con",
        b"ice\x1b[31m\n.bin": "ice_[31m_.bin",
    }
    async with HostileServer(role="server", listen=("127.0.0.1", 0)) as server:
        options = ["--server-addr", f"127.0.0.1:{server.listen_address[1]}", "--pin", server.node_id.hex()]
        async with a_peer(tmp_path / "home", "files", options) as peer:
            async with trio.open_nursery() as nursery:  # what is refused is looked for elsewhere for a while
                for name in lands:
                    nursery.start_soon(server.push_to_all, server.offer(source, name), "complete")
                for name in (b"../x", b"../../x", b"/tmp/x", b"a/b", b"..", b"."):
                    nursery.start_soon(server.push_to_all, server.offer(source, name), "failed")
            peer.kill(signal.SIGTERM)
            assert await peer.wait() == 0
    files = tmp_path / "home" / "files"
    assert sorted(os.listdir(files)) == sorted(lands.values())
    for name in os.listdir(files):
        assert (files / name).read_bytes() == source.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["home", "source.bin"]
    assert sorted(os.listdir(tmp_path / "home")) == ["files", "files state"]


async def test_C5_only_the_chosen_server_may_push(server: Served, tmp_path: Path, settled: Settled) -> None:
    """Another server that the peer is linked to, and that has the file, is refused."""
    source = settled(tmp_path / "source.bin", SMALL)
    async with a_peer(tmp_path, "gpu-1", server.options) as peer:
        listening = await peer.wait_for("listening")
        async with HostileServer(role="server", listen=("127.0.0.1", 0)) as stranger:
            file_id = bytes.fromhex(stranger.offer(source, b"x"))
            myself = NodeItem(stranger.node_id, (stranger.listen_address,), file_id)
            them = NodeItem(
                bytes.fromhex(listening["node_id"]), (("127.0.0.1", listening["address"][1]),), file_id
            )
            link = await stranger._link_service.link_to(them)
            stream = await link.request()
            await stream.send(PushRequest(file_id, "x", SMALL, (myself,)))
            with pytest.raises(Refused, match="only from the server"):
                await stream.receive_as(PushStatus)
    assert os.listdir(tmp_path / "gpu-1") == []
