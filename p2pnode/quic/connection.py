"""One QUIC connection and the one task that drives it.

The driver is a loop: wait for datagrams, for something to send or for a deadline; feed the engine the whole
batch; let it do what is due; tell the streams what happened; send once. Timers are data: the next deadline is
the smallest of a few numbers, computed afresh each time round.

Everything else here (streams, `close`, `open_stream`) changes the engine's state and wakes the driver.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from math import inf
from typing import Final, Protocol

import trio
from aioquic.quic import events
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.tls import AlertDescription
from cryptography import x509

from p2pnode import config
from p2pnode.errors import ConnectionClosed, Refused
from p2pnode.quic.aioquic_internals import HardenedConnection
from p2pnode.quic.datagrams import Address, Burst, DatagramSocket, format_address
from p2pnode.quic.guard import Escape, guard
from p2pnode.quic.inbox import Inbox
from p2pnode.quic.lifecycle import MOVES, ConnectionStatistics, Phase, Role
from p2pnode.quic.send_clock import SendLimit
from p2pnode.quic.stream import Stream, send_room
from p2pnode.quic.stream_table import AcceptQueue, StreamTable

TIMER_SLACK_S: Final = (
    1e-6  # at exactly its own deadline aioquic's timer does nothing: an ACK is due after it
)
TIMER_GRANULARITY_S: Final = 0.001  # and where it never does anything, it shall not keep us busy
SEND_BUFFER_ROUND_TRIPS: Final = 4  # to notice a loss, repair it, perhaps twice, and hear of it
KEEP_ALIVES_PER_IDLE_TIMEOUT: Final = 3  # when the remote's idle timeout is shorter than ours

_logger = logging.getLogger("p2pnode.quic")


class Routes(Protocol):
    """Where connection ids are registered."""

    def add(self, connection_id: bytes, connection: Connection) -> None:
        """Send datagrams with this id here."""
        ...

    def remove(self, connection_id: bytes) -> None:
        """Do not any more."""
        ...


class Connection:
    """A connection to a remote, dialled or accepted: both are alike. Made by `Endpoint`.

    `role` and `alpn` are what they say. `certificate_trusted`: the listener's certificate was enough for the
    dialer's `Trust`, whatever its node key.
    """

    def __init__(
        self,
        engine: HardenedConnection,
        socket: DatagramSocket,
        routes: Routes,
        *,
        role: Role,
        remote_address: Address,
        on_open: Callable[[Connection], None] | None = None,
    ) -> None:
        self.role = role
        self.alpn = ""
        self.certificate_trusted = False
        self.waiting_senders: set[Stream] = set()
        self._first_address = remote_address
        self._engine = engine
        self._socket = socket
        self._routes = routes
        self._on_open = on_open
        self._connection_ids: set[bytes] = set()
        self._phase = Phase.HANDSHAKE
        self._began_at = trio.current_time()
        self._opened_at = 0.0
        self._pinged_at = 0.0
        self._timer: float | None = None  # the engine's
        self._stepped_at = 0.0
        self._closed: ConnectionClosed | None = None
        self._inbox = Inbox()
        self._work = trio.Event()
        self._opened = trio.Event()  # or ended before that
        self._ended = trio.Event()
        self._stream_credit = trio.lowlevel.ParkingLot()
        self._statistics = ConnectionStatistics()
        self._streams = StreamTable(self, engine, self._statistics)
        self.add_route(engine.host_cid)

    def __repr__(self) -> str:
        return f"<Connection {self.role.value} {format_address(self.remote_address)} {self._phase.value}>"

    # -- for applications ----------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether neither side has ended it yet."""
        return self._phase in (Phase.HANDSHAKE, Phase.OPEN)

    @property
    def remote_address(self) -> Address:
        """Where the remote is now: a dialer's address may change, behind a NAT or on the move."""
        address: Address | None = self._engine.get_peer_address()
        return address or self._first_address

    @property
    def peer_certificates(self) -> list[x509.Certificate]:
        """The remote's certificate and its chain; empty for a dialer, who shows none."""
        return self._engine.peer_certificates

    @property
    def statistics(self) -> ConnectionStatistics:
        """A snapshot that goes on counting."""
        self._statistics.rtt_s = self._engine.rtt_s
        self._statistics.congestion_window = self._engine.congestion_window
        self._statistics.packets_lost = self._engine.packets_lost
        self._statistics.datagram_size = self._engine.datagram_size
        return self._statistics

    def exporter(self, label: str, context: bytes = b"", length: int = 32) -> bytes:
        """Secret bytes that both ends of this very connection have, and nobody else (RFC 8446 §7.5)."""
        return self._engine.exporter(label, context, length)

    async def open_stream(self) -> Stream:
        """A new stream; waits while the remote allows no more of them. `ConnectionClosed`."""
        await trio.lowlevel.checkpoint()
        self.check_open()
        while not self._engine.can_open_stream:
            await self._stream_credit.park()
            self.check_open()
        return self._streams.open()

    async def accept_stream(self) -> Stream:
        """The next stream that the remote opened. `ConnectionClosed` when there will be none."""
        return await self._accept(self._streams.bidirectional)

    async def _accept(self, queue: AcceptQueue) -> Stream:
        stream = await queue.take()
        if stream is None:
            raise self._closed_error
        return stream

    def open_unidirectional_stream(self) -> Stream:
        """A new stream that only we send on. `Refused` when the remote allows no more, `ConnectionClosed`."""
        self.check_open()
        if not self._engine.can_open_unidirectional_stream:
            raise Refused("the other side allows no more unidirectional streams")
        return self._streams.open(unidirectional=True)

    async def accept_unidirectional_stream(self) -> Stream:
        """The next stream that only the remote sends on. `ConnectionClosed` when there will be none."""
        return await self._accept(self._streams.unidirectional)

    @property
    def unidirectional_streams_received(self) -> int:
        """How many unidirectional streams the remote has opened so far."""
        return self._engine.unidirectional_streams_received

    def close(self, code: int = 0, reason: str = "") -> None:
        """End the connection now; what was not delivered yet is lost. A long `reason` is cut."""
        if self.is_open:
            self._engine.close(error_code=code, reason_phrase=reason)
            self._end(ConnectionClosed(reason, code=code), Phase.CLOSING)

    def refuse_certificate(self, reason: str) -> None:
        """End it as TLS does when a certificate is not trusted."""
        if self.is_open:
            code = QuicErrorCode.CRYPTO_ERROR + AlertDescription.bad_certificate
            self._engine.close(code, QuicFrameType.CRYPTO, reason)
            self._end(ConnectionClosed(reason, code=code), Phase.CLOSING)

    async def wait_closed(self) -> ConnectionClosed:
        """Wait until it has ended and say why; the exception is returned, not raised."""
        await self._ended.wait()
        return self._closed_error

    def check_open(self) -> None:
        """Raise `ConnectionClosed` when it has ended."""
        if self._closed is not None:
            raise self._closed_error

    @property
    def _closed_error(self) -> ConnectionClosed:
        """A fresh one for each who asks: a raised exception collects the tracebacks of all."""
        assert self._closed is not None
        return ConnectionClosed(self._closed.reason, code=self._closed.code, by_remote=self._closed.by_remote)

    # -- for streams ---------------------------------------------------------------------------------------

    def wake(self) -> None:
        """There is something to send."""
        self._work.set()

    def wake_for_data(self) -> None:
        """There is more stream data; if earlier data still waits for the window, what opens that will wake us."""
        if self._statistics.sending.limit is not SendLimit.CONGESTION:
            self._work.set()

    def send_room(self, stream_id: int) -> int:
        """Bytes that a stream may hand over now: what its own and the connection's buffer have room for."""
        return send_room(self._engine.send_buffered(stream_id), *self._send_limits())

    def _send_limits(self) -> tuple[int, int]:
        """Bytes that one stream may hold, and the room that there is for all.

        Some round trips of what the path takes: all that follows a lost packet is held until it is repaired.
        """
        growth = -(-SEND_BUFFER_ROUND_TRIPS * self._engine.congestion_window // config.SEND_BUFFER)
        growth = max(1, min(growth, config.SEND_BUFFER_GROWTH_MAX))
        total = self._engine.send_buffered_total
        return config.SEND_BUFFER * growth, config.CONNECTION_SEND_BUFFER * growth - total

    # -- for the endpoint ----------------------------------------------------------------------------------

    def deliver(self, datagrams: list[bytes], address: Address) -> None:
        """Take a burst for the driver to look at; drop what finds no room. All bear one connection id."""
        self._statistics.datagrams_dropped += self._inbox.put(datagrams, address)
        self._work.set()

    def add_route(self, connection_id: bytes) -> None:
        """Have datagrams with this id delivered here, until the end."""
        self._connection_ids.add(connection_id)
        self._routes.add(connection_id, self)

    def _remove_route(self, connection_id: bytes) -> None:
        self._connection_ids.discard(connection_id)
        self._routes.remove(connection_id)

    def dial(self) -> None:
        """Begin the handshake of a dialled connection. `run` does the rest."""
        self._engine.connect(self._first_address, trio.current_time())
        self._work.set()

    async def wait_open(self) -> None:
        """Wait for the end of the handshake. `ConnectionClosed` when it fails."""
        await self._opened.wait()
        self.check_open()

    async def run(self) -> None:
        """Drive it until it has ended. Exactly one task does this."""
        try:
            while self.is_open:
                await self._wait_for_work()
                bursts = self._step(trio.current_time())
                if self._phase is not Phase.CLOSING:
                    await self._send(bursts)
            if self._phase is Phase.CLOSING:
                await self._say_close()
        finally:
            if self.is_open:  # cancelled
                self._end(ConnectionClosed("the endpoint was closed"), Phase.CLOSED)
            self._move(Phase.CLOSED)
            for connection_id in self._connection_ids:
                self._routes.remove(connection_id)
            self._ended.set()
            self._finish_log()

    def _finish_log(self) -> None:
        """A log that cannot be written, on a full disk perhaps, must not end more than itself."""
        try:
            self._engine.finish_log()
        except OSError as error:
            _logger.warning("a qlog cannot be written: %s", error)

    # -- the driver ----------------------------------------------------------------------------------------

    async def _wait_for_work(self) -> None:
        if self._work.is_set():
            await trio.lowlevel.checkpoint()
        else:
            with trio.move_on_at(min(self._deadlines(), default=inf)):
                await self._work.wait()
        self._work = trio.Event()

    def _deadlines(self) -> Iterator[float]:
        """When the driver must look at the connection again, even if nothing comes."""
        if self._timer is not None:
            yield max(self._timer + TIMER_SLACK_S, self._stepped_at + TIMER_GRANULARITY_S)
        if self._phase is Phase.OPEN:
            yield self._ping_at
            yield self._heard_at + config.IDLE_TIMEOUT_S
        elif self.role is Role.ACCEPTED:
            yield self._began_at + config.ACCEPT_HANDSHAKE_TIMEOUT_S

    @property
    def _heard_at(self) -> float:
        return max(self._opened_at, self._engine.heard_at or 0.0)

    @property
    def _ping_at(self) -> float:
        interval_s = min(config.KEEP_ALIVE_S, self._engine.idle_timeout_s / KEEP_ALIVES_PER_IDLE_TIMEOUT)
        return max(self._heard_at, self._pinged_at) + interval_s

    def _step(self, now: float) -> list[Burst]:
        """Feed what came, do what is due, tell the streams; what is to be sent comes back."""
        self._stepped_at = now
        try:
            if self._inbox:
                self._take_in(now)
            self._timer = guard(self._engine.get_timer)
            if self._timer is not None and self._timer <= now:
                guard(self._engine.handle_timer, now)
            self._do_what_is_due(now)
            self._tell(guard(self._engine.take_events), now)
            bursts = guard(self._engine.bursts_to_send, now)
            if self._engine.has_more_to_send:
                self._work.set()
            self._tell(guard(self._engine.take_events), now)  # new connection ids, before anyone can use them
            self._timer = guard(self._engine.get_timer)
            self._statistics.sending.switch(self._engine.send_limit, now)
        except Escape as escape:
            bursts = self._end_escaped(escape, now)
        self._follow_engine()
        return bursts

    def _do_what_is_due(self, now: float) -> None:
        if self._phase is not Phase.OPEN:
            if self.role is Role.ACCEPTED and now >= self._began_at + config.ACCEPT_HANDSHAKE_TIMEOUT_S:
                self._engine.close(QuicErrorCode.CONNECTION_REFUSED, QuicFrameType.PADDING, "too slow")
        elif now >= self._heard_at + config.IDLE_TIMEOUT_S:
            # Stock counts from the first packet sent since the last one received, which is our PING.
            self._engine.close(reason_phrase=f"nothing heard for {config.IDLE_TIMEOUT_S:.0f} s")
        elif now >= self._ping_at:
            self._pinged_at = now
            self._engine.send_ping(0)

    def _end_escaped(self, escape: Escape, now: float) -> list[Burst]:
        """The engine is in no known state: try to say CLOSE with it, and be done."""
        self._statistics.escapes += 1
        closed = ConnectionClosed(f"internal error: {escape}", code=QuicErrorCode.INTERNAL_ERROR)
        try:
            guard(self._engine.close, QuicErrorCode.INTERNAL_ERROR, QuicFrameType.PADDING, "")
            bursts = guard(self._engine.bursts_to_send, now)
        except Escape:
            bursts = []
        if self.is_open:
            self._end(closed, Phase.CLOSED)
        return bursts

    def _follow_engine(self) -> None:
        """Notice that the engine has ended the connection, whoever asked it to."""
        ending = self._engine.ending
        if not self.is_open:
            return
        if ending is not None:
            reason, by_remote = _one_line(ending.reason_phrase), self._engine.closed_by_remote
            closed = ConnectionClosed(reason, code=ending.error_code, by_remote=by_remote)
            self._end(closed, Phase.CLOSING if self._engine.must_send_close else Phase.CLOSED)
        elif self.role is Role.ACCEPTED and not self._engine.is_begun:
            self._end(ConnectionClosed("the first datagram was not valid"), Phase.CLOSED)

    def _take_in(self, now: float) -> None:
        for datagrams, address, size in self._inbox.take():
            self._statistics.datagrams_received += len(datagrams)
            self._statistics.bytes_received += size
            guard(self._engine.receive_burst, datagrams, address, now)
        if self._inbox:
            self._work.set()  # the rest, after the others had their turn

    async def _send(self, bursts: list[Burst]) -> None:
        for datagrams, _ in bursts:
            self._statistics.datagrams_sent += len(datagrams)
            self._statistics.bytes_sent += sum(map(len, datagrams))
        if bursts:
            await self._socket.send_batch(bursts)

    async def _say_close(self) -> None:
        """CLOSE, several times, and once more in each interval in which the remote still talks."""
        if not self._engine.close_datagrams:
            self._step(trio.current_time())
        for _ in range(config.CLOSE_REPEATS):
            await self._send(self._engine.close_datagrams)
            self._work = trio.Event()
            with trio.move_on_after(config.CLOSE_INTERVAL_S):
                await self._work.wait()
                await self._send(self._engine.close_datagrams)
                await trio.sleep_forever()

    def _end(self, closed: ConnectionClosed, phase: Phase) -> None:
        """Let everyone see that it is over; in CLOSING the driver still says so to the remote."""
        self._closed = closed
        self._move(phase)
        self._work.set()
        self._opened.set()
        self._stream_credit.unpark_all()
        self._streams.end()

    def _move(self, phase: Phase) -> None:
        if phase is not self._phase:
            assert phase in MOVES[self._phase], f"{self._phase} → {phase}"
            self._phase = phase

    # -- events --------------------------------------------------------------------------------------------

    def _tell(self, happened: list[events.QuicEvent], now: float) -> None:
        for event in happened:
            match event:
                case events.StreamDataReceived() | events.StreamReset() | events.StopSendingReceived():
                    self._streams.tell(event, now)
                case events.ConnectionIdIssued():
                    self.add_route(event.connection_id)
                case events.ConnectionIdRetired():
                    self._remove_route(event.connection_id)
                case events.HandshakeCompleted():
                    self._open(event.alpn_protocol or "", now)
        self._let_waiting_tasks_go()

    def _let_waiting_tasks_go(self) -> None:
        """Acknowledgements and credit come without an event."""
        if self._stream_credit:
            self._stream_credit.unpark_all()
        if self.waiting_senders:
            limits = self._send_limits()
            for stream in list(self.waiting_senders):
                stream.on_room(*limits)

    def _open(self, alpn: str, now: float) -> None:
        if self._phase is not Phase.HANDSHAKE:
            return  # closed here a moment before
        self.alpn = alpn
        self._opened_at = now
        self._move(Phase.OPEN)
        self._opened.set()
        if self._on_open is not None:
            self._on_open(self)


def _one_line(reason: str) -> str:
    """What a remote wrote, safe to show."""
    cut = reason[: config.CLOSE_REASON_SIZE_MAX]
    return "".join(character if character.isprintable() else "�" for character in cut)
