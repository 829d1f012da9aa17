"""Trackers over UDP (BEP 15), with BEP 41's path for those that want one.

An exchange is a connect, which gives an id that proves our address, and the question itself; an id serves for a minute.
What is not answered is sent again after 15 s · 2**n, to the next address of the tracker where it has several. Answers
are known by their transaction id, and come from that very address and port: the kernel drops all others.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import partial
from socket import AF_INET, AF_INET6, SOCK_DGRAM
from typing import Final, TypeVar

import trio

from p2pnode import config
from p2pnode.errors import ConnectFailed, Refused, RemoteProtocolError, TimedOut
from p2pnode.quic import Address, format_address
from p2pnode.quic.datagrams import to_sockaddr
from p2pnode.services.outbound import Author, Outbound, ServiceUrl
from p2pnode.services.tracker_clients.client import AnnounceRequest, TrackerAnswer, believable_peers
from p2pnode.tracker.announces import AnnounceEvent, SwarmCounts, SwarmPeer
from p2pnode.wire import tracker_udp as wire
from p2pnode.wire.compact_peers import unpack_peers

__all__ = ["ConnectionIds", "UdpTrackerClient"]

_EVENTS: Final = {
    AnnounceEvent.NONE: wire.Event.NONE,
    AnnounceEvent.STARTED: wire.Event.STARTED,
    AnnounceEvent.COMPLETED: wire.Event.COMPLETED,
    AnnounceEvent.STOPPED: wire.Event.STOPPED,
    AnnounceEvent.PAUSED: wire.Event.PAUSED,
}
_DATAGRAM_SIZE_MAX: Final = 65_535

_Response = TypeVar("_Response", wire.ConnectResponse, wire.AnnounceResponse, wire.ScrapeResponse)
MakeRequest = Callable[[bytes, int], wire.Request]  # (connection id, transaction id)


class ConnectionIds:
    """The ids that trackers gave us; those of one address serve for all its torrents."""

    def __init__(self) -> None:
        self._ids: dict[Address, tuple[bytes, float]] = {}

    def find(self, tracker: Address) -> bytes | None:
        """The id to use with this tracker, if it is not too old."""
        now = trio.current_time()
        self._ids = {address: entry for address, entry in self._ids.items() if entry[1] > now}
        return self._ids[tracker][0] if tracker in self._ids else None

    def keep(self, tracker: Address, connection_id: bytes) -> None:
        """Use this one from now on."""
        self._ids[tracker] = (connection_id, trio.current_time() + config.UDP_TRACKER_ID_LASTS_S)

    def forget(self, tracker: Address) -> None:
        """It is not taken any more."""
        self._ids.pop(tracker, None)


class UdpTrackerClient:
    """A `TrackerClient`."""

    def __init__(
        self, url: ServiceUrl, author: Author, outbound: Outbound, connection_ids: ConnectionIds
    ) -> None:
        self._url = url
        self._author = author
        self._outbound = outbound
        self._connection_ids = connection_ids

    async def announce(self, request: AnnounceRequest) -> TrackerAnswer:
        """Announce."""
        url_data = b"" if self._url.target == "/" else self._url.target.encode("ascii")

        def make(connection_id: bytes, transaction_id: int) -> wire.AnnounceRequest:
            return wire.AnnounceRequest(
                connection_id=connection_id,
                transaction_id=transaction_id,
                info_hash=request.info_hash,
                peer_id=request.peer_id,
                downloaded=request.downloaded,
                left=request.left,
                uploaded=request.uploaded,
                event=_EVENTS[request.event],
                ip=0,
                key=request.key,
                numwant=request.numwant,
                port=request.port,
                url_data=url_data,
            )

        answer, tracker = await self._ask(make, wire.AnnounceResponse)
        listed = unpack_peers(answer.compact_peers, is_ipv6=":" in tracker[0])
        peers = (SwarmPeer(b"", host, port) for host, port in listed[: config.TRACKER_ANSWER_PEERS_MAX])
        return TrackerAnswer(
            answer.interval_s, None, answer.seeders, answer.leechers, believable_peers(peers, tracker[0])
        )

    async def scrape(self, info_hashes: Sequence[bytes]) -> dict[bytes, SwarmCounts]:
        """Ask for counts of at most `UDP_SCRAPE_HASHES_MAX` torrents."""

        def make(connection_id: bytes, transaction_id: int) -> wire.ScrapeRequest:
            return wire.ScrapeRequest(connection_id, transaction_id, tuple(info_hashes))

        answer, _ = await self._ask(make, wire.ScrapeResponse)
        return {
            info_hash: SwarmCounts(counts.seeders, counts.leechers, counts.completed)
            for info_hash, counts in zip(info_hashes, answer.counts, strict=False)
        }

    async def _ask(self, make: MakeRequest, kind: type[_Response]) -> tuple[_Response, Address]:
        """Ask until somebody answers, and give the answer and who that was."""
        addresses = list(await self._outbound.addresses(self._url, self._author))
        for number in range(config.UDP_TRACKER_TRIES):
            with trio.move_on_after(config.UDP_TRACKER_TRY_S * 2**number):
                while True:
                    tracker = addresses[number % len(addresses)]
                    try:
                        return await self._ask_once(tracker, make, kind), tracker
                    except (
                        OSError
                    ) as error:  # nobody listens there, or no way leads there: the network says so
                        addresses.remove(tracker)
                        if not addresses:
                            raise ConnectFailed(f"{format_address(tracker)}: {error.strerror}") from error
        raise TimedOut(f"{self._url.authority} does not answer")

    async def _ask_once(self, tracker: Address, make: MakeRequest, kind: type[_Response]) -> _Response:
        family = AF_INET6 if ":" in tracker[0] else AF_INET
        with trio.socket.socket(family, SOCK_DGRAM) as socket:
            await socket.connect(to_sockaddr(tracker, family))
            known_id = self._connection_ids.find(tracker)
            if known_id is not None:
                try:
                    return await _exchange(socket, partial(make, known_id), kind)
                except Refused:
                    # It may be only the id: a tracker that was started again knows none of those it gave.
                    self._connection_ids.forget(tracker)
            connected = await _exchange(socket, wire.ConnectRequest, wire.ConnectResponse)
            self._connection_ids.keep(tracker, connected.connection_id)
            return await _exchange(socket, partial(make, connected.connection_id), kind)


async def _exchange(
    socket: trio.socket.SocketType, make: Callable[[int], wire.Request], kind: type[_Response]
) -> _Response:
    """One request, and its answer; whatever else arrives is nobody's word. `Refused` for an error."""
    transaction_id = secrets.randbits(32)
    await socket.send(make(transaction_id).encode())
    while True:
        datagram = await socket.recv(_DATAGRAM_SIZE_MAX)
        try:
            response = wire.decode_response(datagram)
        except RemoteProtocolError:
            continue
        if response.transaction_id != transaction_id:
            continue
        if isinstance(response, wire.ErrorResponse):
            raise Refused(response.text[: config.ERROR_TEXT_LENGTH_MAX] or "the tracker refuses")
        if isinstance(response, kind):
            return response
