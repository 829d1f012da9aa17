"""The client's side of JSON over QUIC: one connection to a tracker, and on it a stream for each request.

::

    session = TrackerSession(endpoint, ServerReference("127.0.0.1:7001", trust), Random())
    answer = await session.request({"file": "hello_world.txt"})
    session.close()

The connection is dialed for the first request, shared by all, and dialed again when it broke. A request whose
connection or stream ended before its answer was whole is sent again, with back-off; one that was answered, be it
with an error, never is. No unidirectional stream is opened: by that the tracker tells JSON from HTTP/3.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import trio

from p2pnode import config
from p2pnode.errors import ConnectFailed, ConnectionClosed, RemoteProtocolError, TimedOut
from p2pnode.node.dialer import dial_first
from p2pnode.node.peer_link import CloseCode
from p2pnode.node.server_reference import ServerReference
from p2pnode.quic import Address, Connection, Endpoint, pin_of_certificate, resolve
from p2pnode.wire.tracker_answers import PeerList, TrackerAnswer, encode_request, peers_in, read_answer

ALPN: Final = "h3"
PEER_PORT: Final = 6881  # what the known client claims; nobody listens there, it gives nothing
PEER_ID_PREFIX: Final = "-PN0001-"  # Azureus style (BEP 20); 12 random characters follow

_TLS_ALERTS: Final = range(0x100, 0x200)  # as QUIC writes them (RFC 9000 §20.1)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class SessionStatistics:
    """Counters since the session began."""

    requests: int = 0
    answers: int = 0
    retries: int = 0
    connections: int = 0


@dataclass(slots=True)
class _KnownPeers:
    peers: PeerList
    fresh_until: float


@dataclass
class TrackerSession:
    """One tracker, as a client talks to it. It has no task of its own; `close` ends its connection."""

    endpoint: Endpoint
    server: ServerReference
    rng: Random
    peer_id: str = field(default_factory=lambda: PEER_ID_PREFIX + secrets.token_hex(6))
    statistics: SessionStatistics = field(default_factory=SessionStatistics)
    _connection: Connection | None = None
    _dialing: trio.Lock = field(default_factory=trio.Lock)
    _known_peers: dict[bytes, _KnownPeers] = field(default_factory=dict)

    @property
    def connection(self) -> Connection | None:
        """The connection that stands, if there is one."""
        return self._connection if self._connection is not None and self._connection.is_open else None

    def close(self) -> None:
        """End the connection; a later request would dial again."""
        if self._connection is not None:
            self._connection.close(CloseCode.NO_ERROR, "done")

    # -- requests ------------------------------------------------------------------------------------------

    async def request(
        self, request: Mapping[str, Any], *, patience_s: float = config.TRACKER_PATIENCE_S
    ) -> TrackerAnswer:
        """Ask, and return what was answered. Any number of tasks may ask at once.

        `patience_s` is how long no byte of the answer may come. Raises `AddressError`, `ConnectFailed`, `TrustError`,
        `ConnectionClosed` after some tries, `TimedOut`; `RemoteProtocolError` for an answer that is none or too
        large; `ErrorAnswer` or `NotFound` where the answer is an error.
        """
        data = encode_request(request)
        self.statistics.requests += 1
        wait_s = config.RECONNECT_MIN_S
        for tries_left in reversed(range(config.TRACKER_TRIES)):
            try:
                answer = await self._ask(data, patience_s)
                break
            except (ConnectFailed, ConnectionClosed) as error:
                if not tries_left or _is_final(error):
                    raise
                log.info("asking %s again: %s", self.server.address, error)
            await trio.sleep(wait_s * self.rng.uniform(0.5, 1.0))
            wait_s = min(2 * wait_s, config.RECONNECT_MAX_S)
            self.statistics.retries += 1
        self.statistics.answers += 1
        return read_answer(answer)

    async def _ask(self, data: bytes, patience_s: float) -> bytes:
        connection = await self._connected()
        give_up_at = trio.current_time() + config.TRACKER_ANSWER_TIMEOUT_S
        with trio.CancelScope(deadline=trio.current_time() + patience_s) as patience:
            stream = await connection.open_stream()
            answer = bytearray()
            is_whole = False
            try:
                await stream.send_all(data)
                await stream.send_eof()
                while part := await stream.receive_some():
                    answer += part
                    if len(answer) > config.TRACKER_ANSWER_SIZE_MAX:
                        raise RemoteProtocolError(
                            f"the tracker's answer is larger than {config.TRACKER_ANSWER_SIZE_MAX} bytes"
                        )
                    patience.deadline = min(trio.current_time() + patience_s, give_up_at)
                is_whole = True
            finally:
                if not is_whole:
                    stream.reset(CloseCode.CANCELLED)
            return bytes(answer)
        raise TimedOut(f"{self.server.address} is there, but did not answer within {patience_s:g} s")

    async def _connected(self) -> Connection:
        async with self._dialing:
            if self.connection is None:
                self._connection = await self._dial()
                self.statistics.connections += 1
            assert self._connection is not None
            return self._connection

    async def _dial(self) -> Connection:
        async def dial(address: Address) -> Connection:
            trust = self.server.trust
            connection = await self.endpoint.dial(
                address, alpn=ALPN, server_name=self.server.host, trust=trust
            )
            # No node key is proven in this language: the one that is, is that of the certificate.
            proven = pin_of_certificate(connection.peer_certificates[0])
            is_trusted = False
            try:
                trust.check_node_id(proven, connection.certificate_trusted)
                is_trusted = True
            finally:
                if not is_trusted:
                    connection.close(CloseCode.NOT_ALLOWED, "not the server that was meant")
            return connection

        def undo(connection: Connection) -> None:
            connection.close(CloseCode.DUPLICATE_LINK, "another address answered first")

        return await dial_first(await resolve(self.server.host, self.server.port), dial, undo)

    # -- announces -----------------------------------------------------------------------------------------

    async def announce(
        self, info_hash: bytes, *, left: int, downloaded: int = 0, event: str = ""
    ) -> PeerList:
        """Tell the tracker how far we are with a torrent; raises what `request` does.

        `info_hash` has 20 bytes, `event` is "started", "completed", "stopped" or nothing. Without an event, a list
        of peers is given again for as long as the tracker said: it is not asked.
        """
        known = self.known_peers.get(info_hash)
        if known is not None and not event:
            return known
        answer = await self.request(
            {
                "info_hash": info_hash.hex(),
                "peer_id": self.peer_id,
                "port": PEER_PORT,
                "uploaded": 0,
                "downloaded": downloaded,
                "left": left,
                **({"event": event} if event else {}),
            }
        )
        peers = peers_in(answer)
        self._known_peers[info_hash] = _KnownPeers(peers, trio.current_time() + peers.interval_s)
        return peers

    @property
    def known_peers(self) -> dict[bytes, PeerList]:
        """The lists of peers that are not too old, by info hash."""
        now = trio.current_time()
        self._known_peers = {
            info_hash: known for info_hash, known in self._known_peers.items() if known.fresh_until > now
        }
        return {info_hash: known.peers for info_hash, known in self._known_peers.items()}


def _is_final(error: ConnectFailed | ConnectionClosed) -> bool:
    """Whether another try would fail as well: nobody answered a dial, which tries often itself, or TLS failed."""
    if isinstance(error, ConnectionClosed):
        return False
    cause = error.__cause__
    return not isinstance(cause, ConnectionClosed) or cause.code in _TLS_ALERTS
