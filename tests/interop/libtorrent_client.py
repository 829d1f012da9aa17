"""A client of libtorrent's that knows nobody but its tracker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from p2pnode.torrent import Metainfo
from tests.interop.programs import module

libtorrent = module("libtorrent")


class Client:
    """A session of libtorrent on one host, with one torrent."""

    def __init__(self, host: str, directory: Path, metainfo: Metainfo, tracker_url: str) -> None:
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
        parameters.ti = libtorrent.torrent_info(libtorrent.bdecode(metainfo.encode()))
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
def client(host: str, directory: Path, metainfo: Metainfo, tracker_url: str) -> Iterator[Client]:
    opened = Client(host, directory, metainfo, tracker_url)
    try:
        yield opened
    finally:
        opened.close()
