"""libtorrent's clients announce to our UDP tracker, and find each other by nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from p2pnode.quic.datagrams import Address, format_address
from p2pnode.services.request_log import RequestLog
from p2pnode.services.tracker import Tracker, TrackerOptions
from p2pnode.services.tracker_udp import UdpTracker
from p2pnode.torrent import TorrentVersion
from tests.interop.libtorrent_client import client, libtorrent
from tests.torrent.samples import KIB, content, torrent

CONTENT = content(300 * KIB)
TIMEOUT_S = 60.0
METAINFO = torrent("shared.bin", CONTENT, TorrentVersion.HYBRID)
SECRET = bytes(range(32))


@asynccontextmanager
async def tracker_at(host: str, **options: Any) -> AsyncIterator[tuple[Tracker, Address]]:
    tracker = Tracker(TrackerOptions(**options), rng=Random(1))
    async with trio.open_nursery() as nursery:
        # libtorrent keeps ids for a minute, and by the host alone: those of an earlier test must hold.
        udp = UdpTracker(tracker, RequestLog(), secret=SECRET)
        [address] = await nursery.start(udp.serve, [(host, 0)])
        yield tracker, address
        nursery.cancel_scope.cancel()


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """The directory of who has it all, and of who has nothing."""
    full, empty = tmp_path / "full", tmp_path / "empty"
    full.mkdir()
    empty.mkdir()
    (full / "shared.bin").write_bytes(CONTENT)
    return full, empty


@pytest.mark.parametrize(
    ("listen", "host"), [("127.0.0.1", "127.0.0.1"), ("::", "127.0.0.1"), ("::1", "::1")]
)
async def test_clients_find_each_other_through_us(listen: str, host: str, places: tuple[Path, Path]) -> None:
    full, empty = places
    with trio.fail_after(TIMEOUT_S):
        async with tracker_at(listen) as (tracker, (_, port)):
            url = f"udp://{format_address((host, port))}/announce"
            with client(host, full, METAINFO, url) as seed:
                await seed.wait_for(libtorrent.tracker_reply_alert)
                with client(host, empty, METAINFO, url) as leech:
                    reply = await leech.wait_for(libtorrent.tracker_reply_alert)
                    assert reply.endswith("received peers: 1")
                    await leech.wait_for(libtorrent.torrent_finished_alert)
    assert (empty / "shared.bin").read_bytes() == CONTENT
    assert tracker.statistics["torrents"] == 2  # a hybrid is announced by each of its hashes


async def test_a_passkey_in_the_url_is_found(places: tuple[Path, Path]) -> None:
    with trio.fail_after(TIMEOUT_S):
        async with tracker_at("127.0.0.1", passkeys=frozenset({"s3cret"})) as (_, address):
            known, unknown = (
                f"udp://{format_address(address)}/{key}/announce" for key in ("s3cret", "other")
            )
            with client("127.0.0.1", places[0], METAINFO, known) as seed:
                await seed.wait_for(libtorrent.tracker_reply_alert)
            with client("127.0.0.1", places[1], METAINFO, unknown) as stranger:
                # It does not show the reason that it was given.
                assert "tracker sent a failure" in await stranger.wait_for(libtorrent.tracker_error_alert)
