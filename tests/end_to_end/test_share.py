"""`p2pnode share` and the ticket that it prints: the first thing anybody tries, on one machine and as one user."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable
from pathlib import Path

from tests.end_to_end.conftest import MEDIUM, SMALL, Place, Served
from tests.support.processes import program, run

Settled = Callable[[Path, int], Path]


async def test_one_user_shares_and_fetches_without_any_server(tmp_path: Path, settled: Settled) -> None:
    path = settled(tmp_path / "source" / "movie.mkv", MEDIUM)
    async with program("share", path, state=tmp_path) as sharing:
        ticket = (await sharing.wait_for("ticket"))["ticket"]
        got = await run("get", ticket, state=tmp_path, cwd=tmp_path)
        assert (got.code, got.lines) == (0, ["movie.mkv"]), got.said
        sharing.kill(signal.SIGINT)
        assert await sharing.wait() == 130
    assert (tmp_path / "movie.mkv").read_bytes() == path.read_bytes()


async def test_one_user_shares_and_fetches_through_a_server(
    server: Served, tmp_path: Path, settled: Settled
) -> None:
    """By ticket, which names the server, and by name."""
    path = settled(tmp_path / "source" / "photos" / "a.jpg", SMALL)
    async with program("share", path.parent, *server.options, state=tmp_path) as sharing:
        ticket = (await sharing.wait_for("ticket"))["ticket"]
        by_ticket = await run("get", ticket, "-o", "a/", state=tmp_path, cwd=tmp_path)
        assert (by_ticket.code, by_ticket.lines) == (0, ["a/photos"]), by_ticket.said
        by_name = await run("get", "photos", "-o", "b/", *server.options, state=tmp_path, cwd=tmp_path)
        assert (by_name.code, by_name.lines) == (0, ["b/photos"]), by_name.said
    for target in ("a", "b"):
        assert (tmp_path / target / "photos" / "a.jpg").read_bytes() == path.read_bytes()


async def test_the_printed_line_is_the_whole_command(tmp_path: Path, settled: Settled) -> None:
    """A person, without --json, copies the one line on stdout into a shell."""
    path = settled(tmp_path / "it's a film.mkv", SMALL)
    async with program("share", path, state=tmp_path, as_json=False) as sharing:
        line = await sharing.first_line()
        program_name, *arguments = shlex.split(line)
        assert program_name == "p2pnode"
        got = await run(*arguments, "-o", "copy/", state=tmp_path, cwd=tmp_path)
    assert got.code == 0, got.said
    assert (tmp_path / "copy" / path.name).read_bytes() == path.read_bytes()


async def test_what_comes_on_stdin_is_shared(tmp_path: Path) -> None:
    data = b"tar" * 10_000
    source = tmp_path / "source"
    source.write_bytes(data)
    arguments = ["share", "-", "--name", "src.tar"]
    with source.open("rb") as stdin:
        async with program(*arguments, state=tmp_path, stdin=stdin.fileno()) as sharing:
            ticket = (await sharing.wait_for("ticket"))["ticket"]
            got = await run("get", ticket, state=tmp_path, cwd=tmp_path)
            assert (got.code, got.lines) == (0, ["src.tar"]), got.said
            sharing.kill(signal.SIGTERM)
            assert await sharing.wait() == 0
    assert (tmp_path / "src.tar").read_bytes() == data


async def test_each_path_is_a_node_of_its_own_and_stays_the_same_one(
    tmp_path: Path, settled: Settled
) -> None:
    paths = [settled(tmp_path / name, SMALL) for name in ("a", "b")]

    async def node_id(path: Path) -> str:
        async with program("share", path, state=tmp_path) as sharing:
            return str((await sharing.wait_for("listening"))["node_id"])

    first, second = [await node_id(path) for path in paths]
    assert first != second
    assert await node_id(paths[0]) == first


async def test_a_ticket_helps_although_its_server_is_gone(
    server: Served, tmp_path: Path, settled: Settled
) -> None:
    path = settled(tmp_path / "source" / "movie.mkv", SMALL)
    async with program("share", path, *server.options, state=tmp_path) as sharing:
        ticket = (await sharing.wait_for("ticket"))["ticket"]
        server.program.kill()
        await server.program.wait()
        got = await run("get", ticket, state=tmp_path, cwd=tmp_path)
    assert (got.code, got.lines) == (0, ["movie.mkv"]), got.said


async def test_nothing_is_shared_when_there_is_nothing(place: Place, tmp_path: Path) -> None:
    outcome = await run("share", tmp_path / "missing.bin", *place.options, state=tmp_path)
    assert "missing.bin" in outcome.error(3)
    assert not (tmp_path / "state").exists()
