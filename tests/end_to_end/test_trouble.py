"""Trouble while something is fetched: a full disk, sources that change or vanish, an impatient user."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.end_to_end.conftest import LARGE, MEDIUM, SMALL, Served
from tests.support.processes import Program, program, run

Settled = Callable[[Path, int], Path]
SOON_S = 2.0  # an interrupted program may take so long to say goodbye


@asynccontextmanager
async def sharing(path: Path, state: Path) -> AsyncIterator[tuple[Program, str]]:
    """`p2pnode share PATH`, and the ticket that it prints."""
    async with program("share", path, state=state) as source:
        yield source, (await source.wait_for("ticket"))["ticket"]


def hidden_files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name.startswith("."))


# -- interrupted -------------------------------------------------------------------------------------------


async def test_an_interrupt_keeps_what_was_fetched_and_says_how_to_go_on(
    tmp_path: Path, settled: Settled
) -> None:
    path = settled(tmp_path / "source" / "model.bin", LARGE)
    target = tmp_path / "model.bin"
    async with sharing(path, tmp_path / "a") as (source, ticket):
        async with program("get", ticket, "-o", target, state=tmp_path / "b") as get:
            await get.wait_for_bytes()
            source.kill(signal.SIGSTOP)
            get.kill(signal.SIGINT)
            with trio.fail_after(SOON_S):
                assert await get.wait() == 130
        assert get.said.splitlines() == ["interrupted: run the same command again to resume"]
        assert not target.exists()
        assert len(hidden_files(tmp_path)) == 2
        source.kill(signal.SIGCONT)
        again = await run("--json", "get", ticket, "-o", target, state=tmp_path / "b")
    assert again.code == 0, again.said
    resumed = again.only("fetch_started")["bytes_resumed"]
    assert resumed > 0
    assert resumed + again.only("fetch_completed")["bytes_fetched"] == LARGE
    assert target.read_bytes() == path.read_bytes()
    assert hidden_files(tmp_path) == []


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler of its own for a signal (proc(5): SigCgt)."""
    status = Path(f"/proc/{pid}/status").read_text()
    [caught] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(caught, 16) >> (number - 1) & 1)


async def test_a_second_interrupt_ends_at_once(tmp_path: Path, settled: Settled) -> None:
    path = settled(tmp_path / "source" / "model.bin", LARGE)
    async with (
        sharing(path, tmp_path / "a") as (source, ticket),
        program("get", ticket, "-o", tmp_path / "model.bin", state=tmp_path / "b") as get,
    ):
        await get.wait_for_bytes()
        source.kill(signal.SIGSTOP)
        get.kill(signal.SIGINT)
        while catches(get.process.pid, signal.SIGINT):
            await trio.lowlevel.checkpoint()  # its handler runs between two of its instructions
        get.kill(signal.SIGINT)
        assert await get.wait() == -signal.SIGINT


async def test_services_end_with_0_when_they_are_told_to(
    server: Served, tmp_path: Path, settled: Settled
) -> None:
    path = settled(tmp_path / "model.bin", SMALL)
    async with (
        program("peer", *server.options, state=tmp_path / "a", cwd=tmp_path) as peer,
        program("share", path, *server.options, state=tmp_path / "b") as source,
    ):
        await peer.wait_for("server_connected")
        await source.wait_for("ticket")
        for service in (source, peer, server.program):
            service.kill(signal.SIGTERM)
            with trio.fail_after(SOON_S):
                assert await service.wait() == 0
            assert "Traceback" not in service.said


# -- two at once -------------------------------------------------------------------------------------------


async def test_S10_a_second_fetch_of_one_target_is_told_so(tmp_path: Path, settled: Settled) -> None:
    path = settled(tmp_path / "source" / "model.bin", LARGE)
    target = tmp_path / "model.bin"
    async with (
        sharing(path, tmp_path / "a") as (source, ticket),
        program("get", ticket, "-o", target, state=tmp_path / "b") as first,
    ):
        await first.wait_for_bytes()
        source.kill(signal.SIGSTOP)
        second = await run("get", ticket, "-o", target, state=tmp_path / "b")
        assert "model.bin" in second.error(11)
        source.kill(signal.SIGCONT)
        assert await first.wait() == 0, first.said
    assert target.read_bytes() == path.read_bytes()


async def test_a_path_is_shared_once(tmp_path: Path, settled: Settled) -> None:
    path = settled(tmp_path / "model.bin", SMALL)
    async with sharing(path, tmp_path):
        second = await run("share", path, state=tmp_path)
    assert "another p2pnode" in second.error(11)


# -- disk --------------------------------------------------------------------------------------------------


@pytest.fixture
async def small_disk(tmp_path: Path) -> AsyncIterator[Path]:
    """A file system of 40 MB, in a mount namespace of its own that is reached through /proc."""
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    script = 'mount -t tmpfs -o size=40000k none "$0" && echo mounted && exec cat'
    flags = "-m" if os.geteuid() == 0 else "-rm"
    process = await trio.lowlevel.open_process(
        ["unshare", flags, "sh", "-c", script, str(mount_point)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.receive_some() == b"mounted\n", "no namespace can be made here"
        yield Path(f"/proc/{process.pid}/root{mount_point}")
    finally:
        process.kill()
        await process.wait()


def fill(path: Path) -> None:
    """Leave no room."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(64 * 1024))
        except OSError as error:
            assert error.errno == errno.ENOSPC


async def test_S2_a_disk_without_room_is_noticed_before_anything_is_fetched(
    tmp_path: Path, settled: Settled, small_disk: Path
) -> None:
    path = settled(tmp_path / "source" / "model.bin", MEDIUM)
    filler = small_disk / "filler"
    fill(filler)
    async with sharing(path, tmp_path / "a") as (_, ticket):
        get = ["get", ticket, "-o", small_disk / "model.bin"]
        line = (await run(*get, state=tmp_path / "b")).error(9)
        assert f"{MEDIUM:,} bytes are to come" in line
        assert os.listdir(small_disk) == ["filler"]
        filler.unlink()
        again = await run(*get, state=tmp_path / "b")
    assert again.code == 0, again.said
    assert (small_disk / "model.bin").read_bytes() == path.read_bytes()


async def test_S2_a_disk_that_fills_up_stops_a_fetch_that_goes_on_when_there_is_room(
    tmp_path: Path, settled: Settled, small_disk: Path
) -> None:
    path = settled(tmp_path / "source" / "model.bin", LARGE)
    target, filler = small_disk / "model.bin", small_disk / "filler"
    async with sharing(path, tmp_path / "a") as (source, ticket):
        async with program("get", ticket, "-o", target, state=tmp_path / "b") as get:
            await get.wait_for_bytes()
            source.kill(signal.SIGSTOP)
            fill(filler)
            source.kill(signal.SIGCONT)
            assert await get.wait() == 9, get.said
        [line] = get.said.splitlines()
        assert "no room is left" in line
        assert not target.exists()
        filler.unlink()
        again = await run("--json", "get", ticket, "-o", target, state=tmp_path / "b")
    assert again.code == 0, again.said
    assert again.only("fetch_started")["bytes_resumed"] > 0
    assert target.read_bytes() == path.read_bytes()


# -- sources -----------------------------------------------------------------------------------------------


async def test_a_source_that_vanishes_is_replaced_by_another(
    server: Served, tmp_path: Path, settled: Settled
) -> None:
    files = [settled(tmp_path / side / "model.bin", LARGE) for side in ("server_files", "peer_files")]
    target = tmp_path / "model.bin"
    await server.program.wait_for("file_shared")
    async with program("peer", *server.options, "--files-dir", files[1].parent, state=tmp_path / "a") as peer:
        peer_id = (await peer.wait_for("listening"))["node_id"]
        while (await run("list", *server.options, state=tmp_path / "b")).out.split("\t")[2] != "2":
            pass  # the peer's offer is on its way
        async with program("get", "model.bin", "-o", target, *server.options, state=tmp_path / "b") as get:
            await get.wait_for("peer_connected", node_id=peer_id)
            await get.wait_for_bytes()
            peer.kill()
            completed = await get.wait_for("fetch_completed")
            assert await get.wait() == 0
    assert sum(completed["sources"].values()) == LARGE
    assert target.read_bytes() == files[0].read_bytes()


def changed(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"other bytes")


def truncated(path: Path) -> None:
    os.truncate(path, SMALL // 2)


def deleted(path: Path) -> None:
    path.unlink()


async def test_S6_nothing_false_is_kept_of_sources_that_change_or_vanish_and_the_end_is_clear(
    tmp_path: Path, make_file: Callable[[str, int], Path], settled: Settled
) -> None:
    """Four lonely sources at once, since each takes the stated time: changed, truncated, deleted, killed."""

    async def spoilt(spoil: Callable[[Path], None]) -> None:
        name = spoil.__name__
        path = make_file(f"{name}/model.bin", SMALL)
        target = tmp_path / f"{name}.bin"
        async with sharing(path, tmp_path / "a") as (_, ticket):
            spoil(path)
            outcome = await run("get", ticket, "-o", target, "--json", state=tmp_path / "b")
        assert outcome.code == 3
        noticed = "(?:the file|piece) .*|not shared here"  # when it was asked, or by itself a moment before
        assert re.fullmatch(rf"p2pnode: nobody .* \(the last one: (?:{noticed})\); --wait .*\n", outcome.said)
        assert not target.exists()

    async def killed() -> None:
        path = settled(tmp_path / "source" / "model.bin", LARGE)
        target = tmp_path / "killed.bin"
        get_to = ["get", "-o", target, "--json"]
        async with (
            sharing(path, tmp_path / "a") as (source, ticket),
            program(*get_to, ticket, state=tmp_path / "b") as get,
        ):
            await get.wait_for_bytes()
            source.kill()
            assert await get.wait() == 3, get.said
        assert "'model.bin'" in get.said
        assert "--wait" in get.said
        assert not target.exists()
        async with sharing(path, tmp_path / "a") as (_, ticket):
            again = await run(*get_to, ticket, state=tmp_path / "b")
        assert again.code == 0, again.said
        assert again.only("fetch_completed")["bytes_fetched"] < LARGE
        assert target.read_bytes() == path.read_bytes()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(killed)
        for spoil in (changed, truncated, deleted):
            nursery.start_soon(spoilt, spoil)
