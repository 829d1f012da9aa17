"""Trackers that speak JSON over QUIC, `quic://host:port`.

A connection for each question: a handshake costs less than to keep one alive from one announce to the next. As over
UDP and plain HTTP nobody proves who the tracker is, unless a `trust` is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from p2pnode import config
from p2pnode.errors import ConnectFailed
from p2pnode.node.server_reference import ServerReference
from p2pnode.quic import Address, Endpoint, Trust, format_address
from p2pnode.services.outbound import Author, Outbound, ServiceUrl
from p2pnode.services.tracker_clients.client import AnnounceRequest, TrackerAnswer, believable_peers
from p2pnode.services.tracker_session import TrackerSession
from p2pnode.tracker.announces import AnnounceEvent, SwarmCounts, SwarmPeer
from p2pnode.wire.tracker_answers import peers_in, scrape_in

__all__ = ["QuicTrackerClient"]


class QuicTrackerClient:
    """A `TrackerClient`."""

    def __init__(
        self,
        url: ServiceUrl,
        author: Author,
        outbound: Outbound,
        endpoint: Endpoint,
        trust: Trust,
        rng: Random,
    ) -> None:
        self._url = url
        self._author = author
        self._outbound = outbound
        self._endpoint = endpoint
        self._trust = trust
        self._rng = rng

    async def announce(self, request: AnnounceRequest) -> TrackerAnswer:
        """Announce. This language has no `numwant` and no `key`."""
        fields = {
            "info_hash": request.info_hash.hex(),
            "peer_id": request.peer_id.decode("latin-1"),
            "port": request.port,
            "uploaded": request.uploaded,
            "downloaded": request.downloaded,
            "left": request.left,
        }
        if request.event is not AnnounceEvent.NONE:
            fields["event"] = request.event.value
        answer, tracker = await self._ask(fields)
        listed = peers_in(answer)
        peers = (SwarmPeer(b"", host, port) for host, port in listed.peers)
        return TrackerAnswer(
            int(listed.interval_s),
            None,
            listed.complete,
            listed.incomplete,
            believable_peers(peers, tracker[0]),
        )

    async def scrape(self, info_hashes: Sequence[bytes]) -> dict[bytes, SwarmCounts]:
        """Ask for counts."""
        wanted = {info_hash.hex(): info_hash for info_hash in info_hashes}
        answer, _ = await self._ask({"scrape": list(wanted)})
        return {
            wanted[key]: SwarmCounts(*counts) for key, counts in scrape_in(answer).items() if key in wanted
        }

    async def _ask(self, fields: Mapping[str, Any]) -> tuple[dict[str, Any], Address]:
        """The answer of the first address where somebody speaks this language."""
        failures = []
        for address in await self._outbound.addresses(self._url, self._author):
            server = ServerReference(format_address(address), self._trust)
            session = TrackerSession(
                self._endpoint, server, self._rng, answer_size_max=config.ANNOUNCE_ANSWER_SIZE_MAX
            )
            try:
                return await session.request(fields), address
            except ConnectFailed as error:
                failures.append(str(error))
            finally:
                session.close()
        raise ConnectFailed("; ".join(failures))
