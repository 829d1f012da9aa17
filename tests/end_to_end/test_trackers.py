"""Without any server: real processes that find each other through a tracker, in each of its languages."""

from __future__ import annotations

import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.end_to_end.conftest import SMALL
from tests.support.processes import program, run

Settled = Callable[[Path, int], Path]


@pytest.mark.parametrize("language", ["udp", "http", "quic"])
async def test_a_file_is_found_through_a_tracker(tmp_path: Path, settled: Settled, language: str) -> None:
    source = settled(tmp_path / "a" / "film.bin", SMALL)
    tracker = ["tracker", "--addr", "127.0.0.1", f"--{language}", "0", "--seed-dir", tmp_path / "seed"]
    extra = [] if language == "http" else ["--http", "0"]  # for its counts
    async with program(*tracker, *extra, state=tmp_path / "t", cwd=tmp_path) as tracking:
        ready = await tracking.wait_for("front_ends_ready")
        ports = {door["language"]: door["address"][1] for door in ready["doors"]}
        url = f"{language}://127.0.0.1:{ports[language]}" + ("/announce" if language == "http" else "")
        async with program("share", source, "--tracker", url, state=tmp_path / "a") as sharing:
            file_id = (await sharing.wait_for("ticket"))["file_id"]
            await counted(ports["http"], file_id, complete=1, downloaded=0)
            target = tmp_path / "b" / ""
            dead = "http://127.0.0.1:9/announce"
            fetched = await run(
                "get", file_id, "--tracker", dead, "--tracker", url, "-o", f"{target}/", state=tmp_path / "b"
            )
            assert fetched.code == 0, fetched.said
            assert (target / "film.bin").read_bytes() == source.read_bytes()
            # The one who fetched said that he completed, and that he left.
            await counted(ports["http"], file_id, complete=1, downloaded=1, incomplete=0)
            sharing.kill(signal.SIGTERM)
            assert await sharing.wait() == 0
        await counted(ports["http"], file_id, complete=0)


async def test_a_torrent_file_is_enough_at_a_tracker(tmp_path: Path, settled: Settled) -> None:
    """One on this machine is asked because the user says so too: no torrent sends us there."""
    source = settled(tmp_path / "a" / "film.bin", SMALL)
    async with program(
        "tracker",
        "--addr",
        "127.0.0.1",
        "--udp",
        "0",
        "--seed-dir",
        tmp_path / "seed",
        state=tmp_path / "t",
        cwd=tmp_path,
    ) as tracking:
        ready = await tracking.wait_for("front_ends_ready")
        url = next(
            f"udp://127.0.0.1:{door['address'][1]}" for door in ready["doors"] if door["language"] == "udp"
        )
        torrent = tmp_path / "film.torrent"
        made = await run("torrent", "create", source, "--tracker", url, "-o", torrent, state=tmp_path)
        assert made.code == 0, made.said
        async with program("share", source, "--tracker", url, state=tmp_path / "a") as sharing:
            await sharing.wait_for("ticket")
            fetched = await run(
                "get", torrent, "--tracker", url, "-o", f"{tmp_path / 'b'}/", state=tmp_path / "b"
            )
            assert fetched.code == 0, fetched.said
            assert (tmp_path / "b" / "film.bin").read_bytes() == source.read_bytes()


async def test_what_is_no_tracker_is_said_at_once(tmp_path: Path) -> None:
    outcome = await run("get", "0" * 64, "--tracker", "gopher://127.0.0.1:7", state=tmp_path)
    assert outcome.code == 2
    assert "no URL of a tracker" in outcome.said


async def counted(port: int, file_id: str, **wanted: int) -> None:
    """Wait until the tracker counts so many."""
    info_hash = "".join(f"%{file_id[at : at + 2]}" for at in range(0, 40, 2))

    def scrape() -> bytes:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/scrape?info_hash={info_hash}", timeout=20
        ) as answer:
            content: bytes = answer.read()
            return content

    seen = b""
    with trio.move_on_after(30):
        while not all(f"{len(key)}:{key}i{value}e".encode() in seen for key, value in wanted.items()):
            seen = await trio.to_thread.run_sync(scrape)
            await trio.sleep(0.05)
        return
    raise AssertionError((wanted, seen))
