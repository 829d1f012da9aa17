"""Finding nodes through trackers, put together from what a user typed and what a torrent names."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from p2pnode.errors import AddressError
from p2pnode.node.discovery import Discovery
from p2pnode.services.outbound import Author, ServiceUrl
from p2pnode.services.tracker_clients import TrackerClients
from p2pnode.services.tracker_discovery import TrackerDiscovery
from p2pnode.torrent import Magnet, Metainfo, printable
from p2pnode.torrent.urls import Tiers, tracker_tiers

__all__ = ["check_tracker", "tracker_discoveries"]


def check_tracker(url: str) -> None:
    """Raises AddressError for what is no tracker's URL, ConfigError where an extra is missing to ask it."""
    if not tracker_tiers([[url]]):
        raise AddressError(f"{printable(url)} is no URL of a tracker: http, https, udp or quic")
    if ServiceUrl.parse(url).scheme in ("http", "https"):
        TrackerClients(Random()).client(url, Author.USER)


def tracker_discoveries(
    typed: Sequence[str], torrent: Metainfo | Magnet | None = None
) -> tuple[Discovery, ...]:
    """A discovery at the trackers that the user typed, and after them at those of a torrent; none without any.

    A private torrent is announced to its own trackers alone (BEP 27).
    """
    own: Tiers = ()
    if isinstance(torrent, Metainfo):
        own = torrent.trackers
    elif torrent is not None:
        own = tuple((url,) for url in torrent.trackers)
    is_private = isinstance(torrent, Metainfo) and torrent.is_private
    trackers = own if is_private else tracker_tiers([*([url] for url in typed), *own])
    if not trackers:
        return ()
    return (TrackerDiscovery(trackers, typed=typed, keeps_private=is_private, rng=Random()),)
