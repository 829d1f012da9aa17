"""The tracker over UDP (BEP 15): a door for programs that announce without a connection.

Where a packet says it comes from is proven by an id that was sent there (`tracker.connection_ids`). Before that
nobody is sent more than he sent, and nothing is remembered of him.

Each turn reads what is there, up to a bound, and answers each request before the next is read: a core answers some
ten thousands a second, and the other tasks wait a millisecond. An answer that the system does not take at once is
lost, as the network may lose it: the client asks again.
"""

from __future__ import annotations

import re
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from ipaddress import IPv4Address
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import trio

from p2pnode import config
from p2pnode.errors import Busy, Refused, RemoteProtocolError
from p2pnode.node.token_bucket import TokenBucket
from p2pnode.quic.datagrams import Address, from_sockaddr
from p2pnode.quic.udp import RECEIVE_SIZE_MAX, bind_udp, name_of_error
from p2pnode.services.request_log import RequestLog
from p2pnode.services.tracker import Language, Tracker
from p2pnode.tracker.announces import V4_SIZE, V6_SIZE, Announce, AnnounceEvent, SwarmCounts
from p2pnode.tracker.connection_ids import ConnectionIds
from p2pnode.wire.tracker_udp import (
    PROTOCOL_ID,
    Action,
    AnnounceRequest,
    AnnounceResponse,
    ConnectResponse,
    ErrorResponse,
    Event,
    RequestHeader,
    ScrapeCounts,
    ScrapeRequest,
    ScrapeResponse,
)

__all__ = ["UdpTracker"]

_LANGUAGE: Final = Language.UDP.value
_KINDS: Final[dict[int, str]] = {
    Action.CONNECT: "connect",
    Action.ANNOUNCE: "announce",
    Action.SCRAPE: "scrape",
}
_EVENTS: Final[dict[int, AnnounceEvent]] = {
    Event.NONE: AnnounceEvent.NONE,
    Event.COMPLETED: AnnounceEvent.COMPLETED,
    Event.STARTED: AnnounceEvent.STARTED,
    Event.STOPPED: AnnounceEvent.STOPPED,
    Event.PAUSED: AnnounceEvent.PAUSED,
}
_PEERS_AT: Final = 20  # bytes of an answer before its peers
_V4_PEERS_MAX: Final = (config.UDP_ANSWER_SIZE_MAX - _PEERS_AT) // V4_SIZE
_V6_PEERS_MAX: Final = (config.UDP_ANSWER_SIZE_MAX - _PEERS_AT) // V6_SIZE
_PATH: Final = re.compile(rb"/([^/?]+)/announce(?:\?|$)")
_MAPPED_PREFIX: Final = "::ffff:"
_NOBODY: Final = SwarmCounts(0, 0, 0)


class UdpTracker:
    """A tracker's UDP door. `secret` is what connection ids are made with: 16 to 64 bytes that nobody knows.

    With the same secret they outlive a restart, since their clock is that of the machine.
    `send_failures` counts answers that the system did not take, by the name of the error.
    """

    def __init__(self, tracker: Tracker, request_log: RequestLog, *, secret: bytes | None = None) -> None:
        self.send_failures: Counter[str] = Counter()
        self._tracker = tracker
        self._log = request_log
        self._ids = ConnectionIds(secret or secrets.token_bytes(32))
        self._refusals = TokenBucket(config.UDP_REFUSALS_PER_S, config.UDP_REFUSALS_BURST, now=0.0)

    async def serve(
        self,
        addresses: Iterable[Address],
        *,
        task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer at each of `addresses` until cancelled; starts with those that it is bound to.

        `::` takes IPv4 as well; port 0 lets the system choose. `AddressInUse`, `AddressError`.
        """
        with ExitStack() as stack:
            bound = [stack.enter_context(await bind_udp(address)) for address in addresses]
            async with trio.open_nursery() as nursery:
                for each in bound:
                    nursery.start_soon(self.answer_all, each)
                task_status.started([from_sockaddr(each.getsockname()) for each in bound])

    async def answer_all(self, bound: socket.socket) -> None:
        """Answer whatever comes to a socket that does not block, until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(bound)
            self._answer_turn(bound, time.monotonic())

    def _answer_turn(self, bound: socket.socket, now: float) -> None:
        for _ in range(config.UDP_TURN):
            try:
                datagram, sockaddr = bound.recvfrom(RECEIVE_SIZE_MAX)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error for an answer: reading it cleared it
            response = self.answer(datagram, _address_of(sockaddr), now)
            if response is not None:
                try:
                    bound.sendto(response, sockaddr)
                except OSError as error:
                    self.send_failures[name_of_error(error)] += 1

    # -- one request ---------------------------------------------------------------------------------------

    def answer(self, datagram: bytes, source: Address, now: float) -> bytes | None:
        """What goes back to `source` for what came from there at `now`; None: nothing does."""
        began_at = time.perf_counter()
        try:
            header = RequestHeader.decode(datagram)
        except RemoteProtocolError:
            kind, outcome, response = "other", "malformed", None
        else:
            kind = _KINDS.get(header.action, "other")
            if header.action == Action.CONNECT:
                outcome, response = self._connect(header, source, now)
            elif self._ids.accepts(header.connection_id, source[0], now):
                outcome, response = self._answer_proven(header, datagram, source)
            else:
                outcome, response = "unproven", self._refuse(header, datagram, now)
        self._log.note(_LANGUAGE, kind, source, time.perf_counter() - began_at, outcome)
        return response

    def _connect(self, header: RequestHeader, source: Address, now: float) -> tuple[str, bytes | None]:
        if header.connection_id != PROTOCOL_ID:
            return "malformed", None
        return "ok", ConnectResponse(header.transaction_id, self._ids.issue(source[0], now)).encode()

    def _refuse(self, header: RequestHeader, datagram: bytes, now: float) -> bytes | None:
        """Who holds an id of before a restart, or of another host, is told; but no more than he sent, nor often."""
        refusal = ErrorResponse(header.transaction_id, "connect again").encode()
        if len(refusal) > len(datagram) or self._refusals.ready_at(1, now) > now:
            return None
        self._refusals.take(1, now)
        return refusal

    def _answer_proven(
        self, header: RequestHeader, datagram: bytes, source: Address
    ) -> tuple[str, bytes | None]:
        try:
            request = header.decode_rest(datagram)
            if isinstance(request, AnnounceRequest):
                return "ok", self._announce(request, source).encode()
            assert isinstance(request, ScrapeRequest)  # a connect proves nothing, and was answered as such
            return "ok", self._scrape(request).encode()
        except Busy:
            return "flood", None
        except Refused as error:
            return "refused", ErrorResponse(header.transaction_id, str(error)).encode()
        except RemoteProtocolError as error:
            return "malformed", ErrorResponse(header.transaction_id, str(error)).encode()

    def _announce(self, request: AnnounceRequest, source: Address) -> AnnounceResponse:
        is_ipv6 = ":" in source[0]
        wanted = request.numwant if request.numwant >= 0 else config.TRACKER_NUMWANT
        announce = Announce(
            request.info_hash,
            request.peer_id,
            source,
            request.port,
            request.left,
            _EVENTS.get(request.event, AnnounceEvent.NONE),
            min(wanted, _V6_PEERS_MAX if is_ipv6 else _V4_PEERS_MAX),
            str(IPv4Address(request.ip)) if request.ip else None,
            f"{request.key:08X}" if request.key else "",
            same_family=True,
        )
        passkey = _passkey_in(request.url_data) if request.url_data else None
        answer = self._tracker.announce(announce, passkey=passkey, language=Language.UDP)
        counts, peers = answer.counts, answer.peers
        return AnnounceResponse(
            request.transaction_id,
            answer.interval_s,
            counts.incomplete,
            counts.complete,
            peers.compact_v4 or peers.compact_v6,  # of one family, as was asked
        )

    def _scrape(self, request: ScrapeRequest) -> ScrapeResponse:
        found = self._tracker.scrape(request.info_hashes, passkey=None, language=Language.UDP)
        all_counts = (found.get(info_hash, _NOBODY) for info_hash in request.info_hashes)
        return ScrapeResponse(
            request.transaction_id,
            tuple(ScrapeCounts(each.complete, each.downloaded, each.incomplete) for each in all_counts),
        )


def _address_of(sockaddr: tuple[Any, ...]) -> Address:
    """The host as the kernel writes it, but IPv4 as such; which network card IPv6 came by means nothing here."""
    host, port = sockaddr[:2]
    if host.startswith(_MAPPED_PREFIX) and "." in host:
        host = host[len(_MAPPED_PREFIX) :]
    return host, port


def _passkey_in(url_data: bytes) -> str | None:
    """Of `/PASSKEY/announce`, as over HTTP."""
    found = _PATH.match(url_data)
    return unquote_to_bytes(found[1]).decode(errors="replace") if found else None
