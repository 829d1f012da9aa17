"""aria2 and libtorrent find each other through a real tracker, and by nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
import trio

from p2pnode.torrent import Metainfo, TorrentVersion
from tests.interop.conftest import SEEDED, RunningTracker
from tests.interop.libtorrent_client import client, libtorrent
from tests.interop.programs import PATIENCE_S, program
from tests.torrent.samples import KIB, content, torrent

PEER_HOST = "127.0.0.1"


class Places:
    """A torrent of one file, the directory of who has it, and those of others who have nothing yet."""

    def __init__(self, path: Path, seed: int) -> None:
        self.data = content(700 * KIB, seed)
        self.metainfo: Metainfo = torrent("shared.bin", self.data, TorrentVersion.V1)
        self._path = path
        self.full = self.empty("full")
        (self.full / "shared.bin").write_bytes(self.data)

    def empty(self, name: str) -> Path:
        directory = self._path / name
        directory.mkdir()
        return directory

    def is_whole(self, directory: Path) -> bool:
        return (directory / "shared.bin").read_bytes() == self.data


def aria2(directory: Path, metainfo: Metainfo, tracker_url: str, *flags: str) -> list[str]:
    """The command line of an aria2 that knows nobody but its tracker."""
    torrent_path = directory / "shared.torrent"
    torrent_path.write_bytes(metainfo.encode())
    return [
        program("aria2c"),
        "--no-conf",
        f"--dir={directory}",
        f"--bt-tracker={tracker_url}",
        "--bt-exclude-tracker=*",
        "--enable-dht=false",
        "--enable-dht6=false",
        "--bt-enable-lpd=false",
        "--enable-peer-exchange=false",
        "--check-integrity=true",
        "--console-log-level=info",
        *flags,
        str(torrent_path),
    ]


async def leech(directory: Path, metainfo: Metainfo, tracker_url: str) -> None:
    """Run aria2 until it has it all."""
    command = aria2(directory, metainfo, tracker_url, "--seed-time=0")
    done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout.decode()


@asynccontextmanager
async def seeding(directory: Path, metainfo: Metainfo, tracker_url: str) -> AsyncIterator[None]:
    """An aria2 that gives what it has."""
    command = aria2(directory, metainfo, tracker_url, "--seed-ratio=0.0", "--quiet")
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.run_process, command)
        yield
        nursery.cancel_scope.cancel()


@pytest.fixture
def urls(tracker: RunningTracker) -> dict[str, str]:
    return {
        "http": f"http://{tracker.host}:{tracker.http}/announce",
        "udp": f"udp://{tracker.host}:{tracker.udp}/announce",
    }


@pytest.mark.parametrize("seed_speaks", ["http", "udp"])
async def test_aria2_leeches_from_libtorrent(tmp_path: Path, urls: dict[str, str], seed_speaks: str) -> None:
    places = Places(tmp_path, seed=len(seed_speaks))
    target = places.empty("aria2")
    with (
        trio.fail_after(PATIENCE_S),
        client(PEER_HOST, places.full, places.metainfo, urls[seed_speaks]) as seed,
    ):
        await seed.wait_for(libtorrent.tracker_reply_alert)
        await leech(target, places.metainfo, urls["http"])
    assert places.is_whole(target)


@pytest.mark.parametrize("leech_speaks", ["http", "udp"])
async def test_libtorrent_leeches_from_aria2(tmp_path: Path, urls: dict[str, str], leech_speaks: str) -> None:
    places = Places(tmp_path, seed=10 + len(leech_speaks))
    target = places.empty("libtorrent")
    with trio.fail_after(PATIENCE_S):
        async with seeding(places.full, places.metainfo, urls["http"]):
            with client(PEER_HOST, target, places.metainfo, urls[leech_speaks]) as leecher:
                await leecher.wait_for(libtorrent.torrent_finished_alert)
    assert places.is_whole(target)


async def test_libtorrent_over_http_and_udp_are_in_one_swarm(tmp_path: Path, urls: dict[str, str]) -> None:
    places = Places(tmp_path, seed=20)
    target = places.empty("second")
    with trio.fail_after(PATIENCE_S), client(PEER_HOST, places.full, places.metainfo, urls["http"]) as seed:
        await seed.wait_for(libtorrent.tracker_reply_alert)
        with client(PEER_HOST, target, places.metainfo, urls["udp"]) as leecher:
            reply = await leecher.wait_for(libtorrent.tracker_reply_alert)
            assert reply.endswith("received peers: 1")
            await leecher.wait_for(libtorrent.torrent_finished_alert)
    assert places.is_whole(target)


@pytest.mark.parametrize("name", ["too_large.bin", "Größe €.txt"])
async def test_aria2_downloads_what_the_tracker_seeds(
    tmp_path: Path, tracker: RunningTracker, urls: dict[str, str], name: str
) -> None:
    """By the torrent that lies beside the file, and the web seed that it names (BEP 19): there is no other peer."""
    beside = f"http://{tracker.host}:{tracker.http}/files/{quote(name)}.torrent"
    with trio.fail_after(PATIENCE_S):
        async with httpx2.AsyncClient() as web:
            metainfo = Metainfo.decode((await web.get(beside)).content)
        await leech(tmp_path, metainfo, urls["http"])
    assert (tmp_path / name).read_bytes() == SEEDED[name]
