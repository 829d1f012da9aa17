"""`kill -9`, of receivers and of servers: nothing verified is fetched twice, and nothing stops that need not."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from p2pnode.config import PARTIAL_SUFFIX
from p2pnode.storage import peek_journal
from p2pnode.storage.journal import replay
from p2pnode.storage.partial import hidden_name, journal_name
from tests.end_to_end.conftest import Served
from tests.support.processes import Program, program

MIB = 1024 * 1024
KILLS = 20


def verified_bytes(target: Path, source: Path) -> int:
    """What a restart must find, counted by a reader of its own.

    That is what the journal beside a target says is verified and written, and whole pieces that were written
    when the process was killed, though it could not say so any more: their hashes tell.
    """
    metainfo = peek_journal(target)
    if metainfo is None:
        return 0
    with (target.parent / journal_name(target)).open("rb") as file:
        found = replay(file.fileno(), metainfo)
    assert found is not None
    blocks = {
        (piece, block) for piece in found.blocks.have for block in range(metainfo.piece(piece).block_count)
    }
    for piece, progress in found.blocks.partial.items():
        blocks |= {(piece, block) for block in progress.written}
    for run in found.suspects:
        blocks |= {(run.piece, block) for block in range(run.first_block, run.first_block + run.count)}
    with (
        (target.parent / hidden_name(target.name, PARTIAL_SUFFIX)).open("rb") as partial,
        source.open("rb") as original,
    ):
        for index in range(metainfo.piece_count):
            piece = metainfo.piece(index)
            partial.seek(piece.offset)
            original.seek(piece.offset)
            if partial.read(piece.length) == original.read(piece.length):
                blocks |= {(index, block) for block in range(piece.block_count)}
    return sum(min(16384, metainfo.piece(piece).length - block * 16384) for piece, block in blocks)


async def end_after(running: Program, delay_s: float) -> bool:
    """Kill a `get` a while after its first byte could have come; whether it was still running."""
    await running.wait_for("fetch_started")
    with trio.move_on_after(delay_s):
        await running.wait()
        return False
    running.kill()
    return await running.wait() == -signal.SIGKILL


async def test_S1_kill_9_of_the_receiver_at_20_random_points(
    server: Served, tmp_path: Path, make_file: Callable[[str, int], Path]
) -> None:
    """Each restart finds exactly what the journal held, and fetches exactly the rest."""
    rng = random.Random(20)
    source = make_file("peer/model.bin", 24 * MIB + 4321)
    kills = completions = 0
    async with program("peer", *server.options, "--files-dir", source.parent, state=tmp_path / "p"):
        while kills < KILLS:
            target = tmp_path / f"fetched-{completions}.bin"
            before = verified_bytes(target, source)
            get = ["get", "model.bin", *server.options, "-o", target, "--wait"]
            async with program(*get, state=tmp_path / "g") as running:
                killed = await end_after(running, rng.uniform(0.0, 0.25))
                started = await running.wait_for("fetch_started")
                assert started["bytes_resumed"] == before
                kills += killed
                if killed and not target.exists():
                    continue
                if killed:  # after the file had its name, and before the program ended
                    completions += 1
                    assert target.read_bytes() == source.read_bytes()
                    continue
                completed = await running.wait_for("fetch_completed")
                assert completed["bytes_fetched"] == source.stat().st_size - before
            assert target.read_bytes() == source.read_bytes()
            assert not (target.parent / journal_name(target)).exists()
            completions += 1
        get = ["get", "model.bin", *server.options, "-o", tmp_path / "last.bin", "--wait"]
        async with program(*get, state=tmp_path / "g") as running:
            assert await running.wait() == 0
    assert (tmp_path / "last.bin").read_bytes() == source.read_bytes()


async def test_the_server_is_killed_during_a_transfer_between_two_peers(
    server: Served, tmp_path: Path, make_file: Callable[[str, int], Path]
) -> None:
    source = make_file("peer/model.bin", 48 * MIB)
    target = tmp_path / "fetched.bin"
    async with program("peer", *server.options, "--files-dir", source.parent, state=tmp_path / "p"):
        get = ["get", "model.bin", *server.options, "-o", target, "--wait"]
        async with program(*get, state=tmp_path / "g") as running:
            await running.wait_for("fetch_progress")
            server.program.kill()
            await server.program.wait()
            assert await running.wait() == 0
            assert running.find("fetch_completed") is not None
        assert target.read_bytes() == source.read_bytes()


async def test_peers_register_again_by_themselves_when_the_server_is_back(
    tmp_path: Path, certificate: Path, make_file: Callable[[str, int], Path]
) -> None:
    source = make_file("peer/model.bin", 100_000)
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(Served.start(tmp_path, certificate))
        files = ["--files-dir", source.parent]
        peer = await stack.enter_async_context(program("peer", *served.options, *files, state=tmp_path / "p"))
        await peer.wait_for("server_connected")
        served.program.kill()
        await served.program.wait()
        await stack.enter_async_context(Served.start(tmp_path, certificate, address=served.address))
        target = tmp_path / "fetched.bin"
        get = ["get", "model.bin", *served.options, "-o", target, "--wait"]
        running = await stack.enter_async_context(program(*get, state=tmp_path / "g"))
        assert await running.wait() == 0
        assert len([event for event in peer.events if event["event"] == "server_connected"]) == 2
    assert target.read_bytes() == source.read_bytes()


async def test_a_partial_file_is_continued_from_another_peer_over_another_server(
    server: Served, tmp_path: Path, certificate: Path, make_file: Callable[[str, int], Path]
) -> None:
    source = make_file("peer/model.bin", 32 * MIB)
    copy = make_file("other/model.bin", 0)
    copy.write_bytes(source.read_bytes())
    target = tmp_path / "fetched.bin"
    async with (
        program("peer", *server.options, "--files-dir", source.parent, state=tmp_path / "p"),
        program("get", "model.bin", *server.options, "-o", target, "--wait", state=tmp_path / "g") as running,
    ):
        await running.wait_for("fetch_progress")
        running.kill()
        await running.wait()
    before = verified_bytes(target, source)
    assert 0 < before < source.stat().st_size
    server.program.kill()
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(Served.start(tmp_path / "elsewhere", certificate))
        await stack.enter_async_context(
            program("peer", *other.options, "--files-dir", copy.parent, state=tmp_path / "o")
        )
        get = ["get", "model.bin", *other.options, "-o", target, "--wait"]
        running = await stack.enter_async_context(program(*get, state=tmp_path / "g"))
        assert await running.wait() == 0
        assert (await running.wait_for("fetch_started"))["bytes_resumed"] == before
    assert target.read_bytes() == source.read_bytes()
