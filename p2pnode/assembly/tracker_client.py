"""A client of trackers, put together: one UDP socket, a session with each tracker, trust on first use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from p2pnode.assembly import server_reference
from p2pnode.node.blocking import RunBlocking, in_threads
from p2pnode.node.events import NodeEvent
from p2pnode.node.server_reference import ServerReference
from p2pnode.quic import Credentials, Diagnostics, Endpoint, EndpointOptions, NodeKey, open_udp_socket
from p2pnode.services.known_trackers import KnownTrackers
from p2pnode.services.request_log import RequestLog
from p2pnode.services.tracker_download import (
    DownloadAnnounced,
    DownloadCompleted,
    DownloadSwitched,
    OpenNode,
    TrackerDownloads,
    Way,
)
from p2pnode.services.tracker_session import TrackerSession

__all__ = [
    "DownloadAnnounced",
    "DownloadCompleted",
    "DownloadSwitched",
    "OpenNode",
    "TrackerClient",
    "TrackerDownloads",
    "TrackerTrust",
    "Way",
    "open_tracker_client",
]


@dataclass(frozen=True)
class TrackerTrust:
    """What makes us believe that a tracker is the one that is meant.

    `pin` or `certificate` are of the tracker at `address`. All others, and that one if nothing is said of it, are
    pinned at first use in `state_dir`, of which `say` is told; unless `verify` is false: then anybody is believed.
    """

    state_dir: Path
    say: Callable[[str], None]
    address: str = ""
    pin: str | None = None
    certificate: Path | None = None
    verify: bool = True

    def reference(self, address: str) -> ServerReference:
        """The tracker at "host:port". Raises AddressError, CredentialsError, ConfigError."""
        if not self.verify:
            return server_reference(address, verify=False)
        if address == self.address and (self.pin or self.certificate):
            return server_reference(address, pin=self.pin, certificate=self.certificate)
        known = KnownTrackers(self.state_dir / "known_trackers", self.say)
        return ServerReference(address, known.trust(address))


@dataclass(frozen=True)
class TrackerClient:
    """Any number of trackers, each with one connection that is kept."""

    _endpoint: Endpoint
    _trust: TrackerTrust
    _open_node: OpenNode
    _publish: Callable[[NodeEvent], None]
    _passkey: str | None
    _run_blocking: RunBlocking = field(default_factory=in_threads)
    _rng: Random = field(default_factory=Random)
    _request_log: RequestLog = field(default_factory=RequestLog)
    _trackers: dict[str, TrackerDownloads] = field(default_factory=dict)

    def at(self, address: str) -> TrackerDownloads:
        """The tracker at "host:port". Raises AddressError, CredentialsError, ConfigError."""
        tracker = self._trackers.get(address)
        if tracker is None:
            session = TrackerSession(
                self._endpoint,
                self._trust.reference(address),
                self._rng,
                passkey=self._passkey,
                request_log=self._request_log,
            )
            tracker = TrackerDownloads(session, self._open_node, self._run_blocking, self._publish)
            self._trackers[address] = tracker
        return tracker

    @property
    def trackers(self) -> list[TrackerDownloads]:
        """Those that were talked to."""
        return list(self._trackers.values())


@asynccontextmanager
async def open_tracker_client(
    trust: TrackerTrust,
    open_node: OpenNode,
    publish: Callable[[NodeEvent], None],
    *,
    passkey: str | None = None,
    diagnostics: Diagnostics = Diagnostics(),  # noqa: B008 (it is frozen)
) -> AsyncIterator[TrackerClient]:
    """A client, until the block is left. `open_node` gives a node for what is too large for JSON."""
    socket = await open_udp_socket(("::", 0))
    try:
        credentials = Credentials.from_node_key(NodeKey.generate())  # never shown: nobody dials a client
        async with Endpoint(socket, credentials, EndpointOptions(diagnostics=diagnostics)) as endpoint:
            yield TrackerClient(endpoint, trust, open_node, publish, passkey)
    finally:
        socket.close()
