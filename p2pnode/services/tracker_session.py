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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import trio

from p2pnode import config
from p2pnode.errors import (
    ConnectFailed,
    ConnectionClosed,
    ErrorAnswer,
    P2PNodeError,
    RemoteProtocolError,
    TimedOut,
)
from p2pnode.node.dialer import dial_first
from p2pnode.node.peer_link import CloseCode
from p2pnode.node.server_reference import ServerReference
from p2pnode.quic import Address, Connection, Endpoint, pin_of_certificate, resolve
from p2pnode.services.request_log import RequestLog
from p2pnode.wire.tracker_answers import (
    PeerList,
    TrackerAnswer,
    encode_request,
    peers_in,
    read_answer,
    reply_in,
)
from p2pnode.wire.tracker_json import ErrorCode

ALPN: Final = "h3"
PEER_PORT: Final = 6881  # what the known client claims; nobody listens there, it gives nothing
PEER_ID_PREFIX: Final = "-PN0001-"  # Azureus style (BEP 20); 12 random characters follow

_KINDS: Final = {"info_hash": "announce", "file": "file", "query": "query", "scrape": "scrape"}
_CODES: Final = frozenset(code.value for code in ErrorCode)
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
    passkey: str | None = None  # for a private tracker
    request_log: RequestLog | None = None
    answer_size_max: int = config.TRACKER_ANSWER_SIZE_MAX
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
        began = trio.current_time()
        outcome = "broken off"
        self.statistics.requests += 1
        try:
            answer = read_answer(await self._ask_until_answered(encode_request(request), patience_s))
            outcome = "ok"
        except P2PNodeError as error:
            # A code that we do not know may be any word: nothing is counted under a tracker's own words.
            code = error.code if isinstance(error, ErrorAnswer) else ""
            outcome = code if code in _CODES else type(error).__name__
            raise
        finally:
            self._note(request, trio.current_time() - began, outcome)
        return answer

    async def _ask_until_answered(self, data: bytes, patience_s: float) -> bytes:
        pauses = pauses_s(self.rng)
        while True:
            try:
                answer = await self._ask(data, patience_s)
                self.statistics.answers += 1
                return answer
            except (ConnectFailed, ConnectionClosed) as error:
                pause_s = next(pauses, None)
                if pause_s is None or _is_final(error):
                    raise
                log.info("asking %s again: %s", self.server.address, error)
            await trio.sleep(pause_s)
            self.statistics.retries += 1

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
                    if len(answer) > self.answer_size_max:
                        raise RemoteProtocolError(
                            f"the tracker's answer is larger than {self.answer_size_max} bytes"
                        )
                    patience.deadline = min(trio.current_time() + patience_s, give_up_at)
                is_whole = True
            finally:
                if not is_whole:
                    stream.reset(CloseCode.CANCELLED)
            return bytes(answer)
        raise TimedOut(f"{self.server.address} is there, but did not answer within {patience_s:g} s")

    def _note(self, request: Mapping[str, Any], seconds: float, outcome: str) -> None:
        if self.request_log is not None:
            kind = next((kind for key, kind in _KINDS.items() if key in request), "request")
            peer = self._connection.remote_address if self._connection else ("", 0)
            self.request_log.note("json", kind, peer, seconds, outcome)

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

    # -- what is asked -----------------------------------------------------------------------------------------

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
                **({"passkey": self.passkey} if self.passkey else {}),
            }
        )
        peers = peers_in(answer)
        if event != "stopped":  # who leaves is told of nobody
            self._known_peers[info_hash] = _KnownPeers(peers, trio.current_time() + peers.interval_s)
        return peers

    async def query(self, text: str, context: Sequence[Mapping[str, str]] = ()) -> str:
        """Ask the AI service behind the tracker; `context` is what was said before, `role` and `content` each.

        Raises what `request` does: `ErrorAnswer` with the code AI_UNAVAILABLE where there is no such service.
        """
        request = {"query": text, "context": list(context)}
        return reply_in(await self.request(request, patience_s=config.TRACKER_QUERY_PATIENCE_S))

    @property
    def known_peers(self) -> dict[bytes, PeerList]:
        """The lists of peers that are not too old, by info hash."""
        now = trio.current_time()
        self._known_peers = {
            info_hash: known for info_hash, known in self._known_peers.items() if known.fresh_until > now
        }
        return {info_hash: known.peers for info_hash, known in self._known_peers.items()}


def pauses_s(rng: Random) -> Iterator[float]:
    """How long to wait before each further try of what failed: longer and longer, no two clients alike."""
    wait_s = config.RECONNECT_MIN_S
    for _ in range(config.TRACKER_TRIES - 1):
        yield wait_s * rng.uniform(0.5, 1.0)
        wait_s = min(2 * wait_s, config.RECONNECT_MAX_S)


def _is_final(error: ConnectFailed | ConnectionClosed) -> bool:
    """Whether another try would fail as well: nobody answered a dial, which tries often itself, or TLS failed."""
    if isinstance(error, ConnectionClosed):
        return False
    cause = error.__cause__
    return not isinstance(cause, ConnectionClosed) or cause.code in _TLS_ALERTS
