"""libtorrent's clients announce to our UDP tracker, and find each other by nothing else.

The tests exist where libtorrent can be imported; `CI_INTEROP=required` makes its absence an error.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
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
from tests.torrent.samples import KIB, content, torrent

CONTENT = content(300 * KIB)
TIMEOUT_S = 60.0
SECRET = bytes(range(32))

if importlib.util.find_spec("libtorrent") or os.environ.get("CI_INTEROP") == "required":
    import libtorrent

    @asynccontextmanager
    async def tracker_at(host: str, **options: Any) -> AsyncIterator[tuple[Tracker, Address]]:
        tracker = Tracker(TrackerOptions(**options), rng=Random(1))
        async with trio.open_nursery() as nursery:
            # libtorrent keeps ids for a minute, and by the host alone: those of an earlier test must hold.
            udp = UdpTracker(tracker, RequestLog(), secret=SECRET)
            [address] = await nursery.start(udp.serve, [(host, 0)])
            yield tracker, address
            nursery.cancel_scope.cancel()

    class Client:
        """A session of libtorrent with one torrent, which knows nobody but its tracker."""

        def __init__(self, host: str, directory: Path, tracker_url: str) -> None:
            self._session = libtorrent.session(
                {
                    "listen_interfaces": f"[{host}]:0" if ":" in host else f"{host}:0",
                    "alert_mask": libtorrent.alert.category_t.all_categories,
                    "allow_multiple_connections_per_ip": True,
                    "enable_dht": False,
                    "enable_lsd": False,
                    "enable_natpmp": False,
                    "enable_upnp": False,
                    "enable_outgoing_utp": False,
                    "enable_incoming_utp": False,
                    "stop_tracker_timeout": 0,
                }
            )
            parameters = libtorrent.add_torrent_params()
            encoded = torrent("shared.bin", CONTENT, TorrentVersion.HYBRID).encode()
            parameters.ti = libtorrent.torrent_info(libtorrent.bdecode(encoded))
            parameters.save_path = str(directory)
            parameters.trackers = [tracker_url]
            self._torrent = self._session.add_torrent(parameters)
            self._said: dict[type, str] = {}

        async def wait_for(self, kind: type) -> str:
            """What the next alert of this kind says."""
            while kind not in self._said:
                await trio.to_thread.run_sync(self._session.wait_for_alert, 100)
                # An alert is gone with the next pop, and one that nobody waits for yet may come with another.
                self._said |= {type(alert): alert.message() for alert in self._session.pop_alerts()}
            return self._said.pop(kind)

        def close(self) -> None:
            self._session.remove_torrent(self._torrent)

    @contextmanager
    def client(*arguments: Any) -> Iterator[Client]:
        opened = Client(*arguments)
        try:
            yield opened
        finally:
            opened.close()

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
    async def test_clients_find_each_other_through_us(
        listen: str, host: str, places: tuple[Path, Path]
    ) -> None:
        full, empty = places
        with trio.fail_after(TIMEOUT_S):
            async with tracker_at(listen) as (tracker, (_, port)):
                url = f"udp://{format_address((host, port))}/announce"
                with client(host, full, url) as seed:
                    await seed.wait_for(libtorrent.tracker_reply_alert)
                    with client(host, empty, url) as leech:
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
                with client("127.0.0.1", places[0], known) as seed:
                    await seed.wait_for(libtorrent.tracker_reply_alert)
                with client("127.0.0.1", places[1], unknown) as stranger:
                    # It does not show the reason that it was given.
                    assert "tracker sent a failure" in await stranger.wait_for(libtorrent.tracker_error_alert)
