"""Asking other people's trackers, in the languages that their URLs name: one interface, `TrackerClient`, for all."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from functools import cache
from random import Random

from p2pnode.errors import ConfigError
from p2pnode.quic import Endpoint, NoTrust, Trust
from p2pnode.services.extras import extra
from p2pnode.services.outbound import Author, Outbound, ServiceUrl
from p2pnode.services.tracker_clients.client import AnnounceRequest, TrackerAnswer, TrackerClient
from p2pnode.services.tracker_clients.quic import QuicTrackerClient
from p2pnode.services.tracker_clients.udp import ConnectionIds, UdpTrackerClient

__all__ = ["AnnounceRequest", "TrackerAnswer", "TrackerClient", "TrackerClients"]


@dataclass
class TrackerClients:
    """Makes a client for a URL; what they share is here, and all torrents of a process share this.

    `endpoint` is needed for `quic:` trackers alone, and `trust` says which of those we believe. `tls` says which
    certificates count over HTTPS; None: those that the system trusts.
    """

    rng: Random
    endpoint: Endpoint | None = None
    trust: Trust = field(default_factory=NoTrust)
    tls: ssl.SSLContext | None = None
    outbound: Outbound = field(default_factory=Outbound)
    _connection_ids: ConnectionIds = field(default_factory=ConnectionIds)

    def client(self, url: str, author: Author) -> TrackerClient:
        """A client for the tracker at `url`, which are `author`'s words.

        Raises `AddressError` for a URL that is none, `ConfigError` where what it takes to speak to it is missing.
        """
        parsed = ServiceUrl.parse(url)
        if parsed.scheme == "udp":
            return UdpTrackerClient(parsed, author, self.outbound, self._connection_ids)
        if parsed.scheme == "quic":
            if self.endpoint is None:
                raise ConfigError("there is no QUIC endpoint to ask a quic: tracker with")
            return QuicTrackerClient(parsed, author, self.outbound, self.endpoint, self.trust, self.rng)
        with extra("http", "a tracker over HTTP"):
            from p2pnode.services.tracker_clients.http import HttpTrackerClient
        return HttpTrackerClient(parsed, author, self.outbound, self.tls or _system_trust())


@cache
def _system_trust() -> ssl.SSLContext:
    """Read once: it is a hundred certificates."""
    return ssl.create_default_context()
