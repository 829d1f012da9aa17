"""libtorrent, a seed and a leech with one connection, no trackers, no discovery, no encryption.

The variant is `tcp` or `utp`; the other is switched off.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Final

import libtorrent

from benchmarks.pair import Offer, Order, run_pair, tell_ready
from benchmarks.receipt import Clock

PIECE_LENGTH: Final = 1024 * 1024
ALERT_WAIT_MS: Final = 1000
ALERTS: Final = (
    libtorrent.alert.category_t.error_notification
    | libtorrent.alert.category_t.status_notification
    | libtorrent.alert.category_t.storage_notification
)


def a_session(variant: str, port: int) -> Any:
    is_tcp = variant == "tcp"
    return libtorrent.session(
        {
            "listen_interfaces": f"127.0.0.1:{port}",
            "enable_outgoing_tcp": is_tcp,
            "enable_incoming_tcp": is_tcp,
            "enable_outgoing_utp": not is_tcp,
            "enable_incoming_utp": not is_tcp,
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "out_enc_policy": libtorrent.enc_policy.disabled,
            "in_enc_policy": libtorrent.enc_policy.disabled,
            "allow_multiple_connections_per_ip": True,
            "request_queue_time": 3,
            "max_out_request_queue": 2000,
            "max_allowed_in_request_queue": 4000,
            "send_buffer_watermark": 4 * 1024 * 1024,
            "send_buffer_low_watermark": 256 * 1024,
            "send_buffer_watermark_factor": 200,
            "max_queued_disk_bytes": 32 * 1024 * 1024,
            "rate_limit_ip_overhead": False,
            "alert_mask": ALERTS,
        }
    )


def torrent_of(root: Path) -> Path:
    return root / "benchmark.torrent"


def make_torrent(source: Path, target: Path) -> None:
    storage = libtorrent.file_storage()
    libtorrent.add_files(storage, str(source))
    creator = libtorrent.create_torrent(storage, PIECE_LENGTH, libtorrent.create_torrent.v1_only)
    libtorrent.set_piece_hashes(creator, str(source.parent))
    target.write_bytes(libtorrent.bencode(creator.generate()))


def add(session: Any, torrent: Path, save_path: Path, *, is_complete: bool) -> Any:
    parameters = libtorrent.add_torrent_params()
    parameters.ti = libtorrent.torrent_info(str(torrent))
    parameters.save_path = str(save_path)
    parameters.flags &= ~libtorrent.torrent_flags.auto_managed
    parameters.flags &= ~libtorrent.torrent_flags.paused
    if is_complete:
        parameters.flags |= libtorrent.torrent_flags.seed_mode
    return session.add_torrent(parameters)


def serve(offer: Offer) -> None:
    torrent = torrent_of(offer.certificate.parent)
    if not torrent.exists():
        make_torrent(offer.source, torrent)
    session = a_session(offer.variant, offer.port)
    add(session, torrent, offer.source.parent, is_complete=True)
    wait_for(session, libtorrent.listen_succeeded_alert)
    tell_ready()
    threading.Event().wait()


def fetch(order: Order) -> None:
    session = a_session(order.variant, 0)
    wait_for(session, libtorrent.listen_succeeded_alert)
    root = order.target.parent
    handle = add(session, torrent_of(root), root / "leech", is_complete=False)
    wait_for(session, libtorrent.torrent_checked_alert)
    clock = Clock()
    clock.begin()
    handle.connect_peer(("127.0.0.1", order.port))
    wait_for(session, libtorrent.torrent_finished_alert)
    handle.flush_cache()
    wait_for(session, libtorrent.cache_flushed_alert)
    (root / "leech" / handle.torrent_file().name()).rename(order.target)
    clock.end()


def wait_for(session: Any, kind: type) -> None:
    while True:
        session.wait_for_alert(ALERT_WAIT_MS)
        for alert in session.pop_alerts():
            if isinstance(alert, kind):
                return
            if alert.category() & libtorrent.alert.category_t.error_notification:
                raise SystemExit(alert.message())


if __name__ == "__main__":
    run_pair(serve, fetch)
