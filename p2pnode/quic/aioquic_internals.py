"""A `QuicConnection` that a hostile peer cannot hurt.

Stock aioquic 1.7.2 can be made to hold 256 MiB by 315 bytes, to raise out of its entry points, to believe
acknowledgements of packets it never sent, and it has neither back-pressure nor TLS exporter. Each override
below answers one such finding and says which. Private names of aioquic are used only here and in the other
modules called `aioquic_…`; `tests/quic/test_aioquic_internals.py` fails when one of them vanishes.

What escapes in spite of all this, `guard` stops.
"""

from __future__ import annotations

from random import SystemRandom
from typing import Final

from aioquic import tls
from aioquic.buffer import Buffer  # type: ignore[attr-defined]  # it is there, but not marked as exported
from aioquic.quic.connection import (
    QuicConnectionError,
    QuicConnectionState,
    QuicReceiveContext,
)
from aioquic.quic.events import ConnectionTerminated, QuicEvent
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicHeader, QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicSentPacket
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from p2pnode import config
from p2pnode.quic.aioquic_flow import FlowControlledConnection
from p2pnode.quic.aioquic_path_mtu import ProbingConnection
from p2pnode.quic.aioquic_recovery import Recovery
from p2pnode.quic.configuration import Configuration
from p2pnode.quic.congestion import CongestionControl
from p2pnode.quic.datagrams import Address, Burst, Datagram, bursts_of

_BAD_CERTIFICATE: Final = QuicErrorCode.CRYPTO_ERROR + int(tls.AlertDescription.bad_certificate)
_rng = SystemRandom()


class HardenedConnection(ProbingConnection, FlowControlledConnection):
    """One QUIC connection, sans IO. See `QuicConnection`; what is added or answered here says so."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        original_destination_connection_id: bytes | None = None,
        retry_source_connection_id: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
        )
        self.close_datagrams: list[Burst] = []  # the CLOSE, to be repeated: nobody acknowledges it
        self.has_more_to_send = False  # and may: only that other connections shall have their turn
        self._exporter_secret: bytes | None = None
        self._key_update_at = config.KEY_UPDATE_PACKETS
        self._skip_at = _rng.randrange(config.PACKET_NUMBER_SKIP_MAX)
        self._loss = self._recovery = Recovery(
            congestion_control_algorithm=configuration.congestion_control_algorithm,
            initial_rtt=configuration.initial_rtt,
            max_datagram_size=configuration.max_datagram_size,
            peer_completed_address_validation=not configuration.is_client,
            send_probe=self._send_probe,
            logger=self._logger,
            quic_logger=self._quic_logger,
        )
        self._unidirectional_streams = configuration.unidirectional_streams
        # What a dialer grants stands in its first packet; a listener knows the language before it says anything.
        offered = configuration.alpn_protocols or [] if configuration.is_client else []
        self._allow_unidirectional_streams(sum(map(self._unidirectional_streams_in, offered)))

    def _unidirectional_streams_in(self, alpn: str) -> int:
        return self._unidirectional_streams.get(alpn, 0)

    def _alpn_handler(self, alpn_protocol: str) -> None:
        """The language is known: a listener's transport parameters follow it. Stock's are the same for all."""
        super()._alpn_handler(alpn_protocol)
        allowed = self._unidirectional_streams_in(alpn_protocol)
        if allowed and not self._is_client:
            self._allow_unidirectional_streams(allowed)
            parameters = self._serialize_transport_parameters()
            self.tls.handshake_extensions = [(tls.ExtensionType.QUIC_TRANSPORT_PARAMETERS, parameters)]

    # -- in and out, by batches ----------------------------------------------------------------------------

    def receive_burst(self, datagrams: list[bytes], address: Address, now: float) -> None:
        """Take in all of them, in order. Where there are several, they bear one connection id."""
        for data in datagrams:
            self.receive_datagram(data, address, now)

    def take_events(self) -> list[QuicEvent]:
        """All events since the last call."""
        events: list[QuicEvent] = []
        while (event := self.next_event()) is not None:
            events.append(event)
        return events

    def bursts_to_send(self, now: float) -> list[Burst]:
        """What is to be sent now, in order."""
        return bursts_of(self.datagrams_to_send(now))

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        """The same, with the address of each. Stock raises before anything valid came in."""
        if not self._network_paths:
            return []
        if self._handshake_confirmed:
            self._skip_packet_number(now)
            self._update_keys_in_time()
        is_closing = self._close_pending
        datagrams = super().datagrams_to_send(now)
        if is_closing:
            self.close_datagrams = bursts_of(datagrams)
        return datagrams

    def get_timer(self) -> float | None:
        """When `handle_timer` wants to be called; None when never (before the first datagram, at the end)."""
        return None if self._close_at is None else super().get_timer()

    def handle_timer(self, now: float) -> None:
        """Do what is due. Stock raises when there is no timer."""
        if self._close_at is not None:
            super().handle_timer(now)
            self._cap_probe_backoff()

    def _cap_probe_backoff(self) -> None:
        """Probe at least once in `PROBE_INTERVAL_MAX_S`, or in each PTO where that is longer.

        Doubling without end (RFC 9002 §6.2.1) leaves minutes of silence on a link that loses a third of its
        packets, while the idle timeout is seconds; one packet a second congests nothing.
        """
        while (
            self._loss._pto_count
            and self._loss.get_probe_timeout() * 2**self._loss._pto_count > config.PROBE_INTERVAL_MAX_S
        ):
            self._loss._pto_count -= 1

    # -- what the driver wants to know ---------------------------------------------------------------------

    @property
    def is_begun(self) -> bool:
        """Whether any packet of the remote was valid."""
        return self._state is not QuicConnectionState.FIRSTFLIGHT

    @property
    def ending(self) -> ConnectionTerminated | None:
        """Why it ends, as soon as that is known: stock tells only after three probe timeouts."""
        return self._close_event

    @property
    def must_send_close(self) -> bool:
        """Whether it is this side that ends it, and should say so."""
        return self._close_pending or self._state is QuicConnectionState.CLOSING

    @property
    def closed_by_remote(self) -> bool:
        """Whether the remote said that it ends."""
        return self._state is QuicConnectionState.DRAINING

    @property
    def idle_timeout_s(self) -> float:
        """The smaller of both sides' idle timeouts."""
        return self._idle_timeout()

    @property
    def rtt_s(self) -> float | None:
        """Smoothed round trip time; None before the first sample."""
        return self._loss._rtt_smoothed if self._loss._rtt_initialized else None

    @property
    def congestion_window(self) -> int:
        """Bytes that may be in flight."""
        return self._loss.congestion_window

    @property
    def packets_lost(self) -> int:
        """Packets that were declared lost."""
        return self._congestion.packets_lost

    @property
    def _congestion(self) -> CongestionControl:
        return self._recovery._cc

    @property
    def peer_certificates(self) -> list[x509.Certificate]:
        """The remote's certificate, then its chain; empty when it showed none."""
        if self.tls._peer_certificate is None:
            return []
        return [self.tls._peer_certificate, *self.tls._peer_certificate_chain]

    def finish_log(self) -> None:
        """Write the qlog, if there is one. Stock does so only after a closing period."""
        if self._quic_logger is not None and self.configuration.quic_logger is not None:
            self.configuration.quic_logger.end_trace(self._quic_logger)
            self._quic_logger = None

    # -- the TLS exporter (RFC 8446 §7.5) ------------------------------------------------------------------

    def _update_traffic_key(
        self, direction: tls.Direction, epoch: tls.Epoch, cipher_suite: tls.CipherSuite, secret: bytes
    ) -> None:
        super()._update_traffic_key(direction, epoch, cipher_suite, secret)
        if epoch is tls.Epoch.ONE_RTT and self._exporter_secret is None:
            # the transcript is now exactly ClientHello … server Finished, on both sides
            self._exporter_secret = self._key_schedule.derive_secret(b"exp master")

    @property
    def _key_schedule(self) -> tls.KeySchedule:
        schedule = self.tls.key_schedule
        assert schedule is not None
        return schedule

    def exporter(self, label: str, context: bytes, length: int) -> bytes:
        """Bytes that both ends of this connection can make and nobody else. ValueError before 1-RTT keys."""
        if self._exporter_secret is None:
            raise ValueError("the exporter is there once the handshake is complete")
        algorithm = self._key_schedule.algorithm

        def digest(data: bytes) -> bytes:
            state = hashes.Hash(algorithm)
            state.update(data)
            return state.finalize()

        secret = tls.hkdf_expand_label(
            algorithm, self._exporter_secret, label.encode(), digest(b""), algorithm.digest_size
        )
        return tls.hkdf_expand_label(algorithm, secret, b"exporter", digest(context), length)

    # -- lying acknowledgements ----------------------------------------------------------------------------

    def _skip_packet_number(self, now: float) -> None:
        """Now and then leave out a packet number: who acknowledges it did not look at what he received."""
        if self._packet_number < self._skip_at or self._close_pending:
            return
        skipped = QuicSentPacket(
            epoch=tls.Epoch.ONE_RTT,
            in_flight=False,
            is_ack_eliciting=False,
            is_crypto_packet=False,
            packet_number=self._packet_number,
            packet_type=QuicPacketType.ONE_RTT,
            sent_time=now,
            delivery_handlers=[(self._on_skipped_delivery, ())],
        )
        self._spaces[tls.Epoch.ONE_RTT].sent_packets[self._packet_number] = skipped
        self._packet_number += 1
        self._skip_at = self._packet_number + _rng.randrange(1, config.PACKET_NUMBER_SKIP_MAX)

    def _on_skipped_delivery(self, delivery: QuicDeliveryState) -> None:
        if delivery is QuicDeliveryState.ACKED:
            raise QuicConnectionError(
                QuicErrorCode.PROTOCOL_VIOLATION,
                QuicFrameType.ACK,
                "ACK of a packet number that was left out",
            )

    def _handle_ack_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        position = buf.tell()
        largest = buf.pull_uint_var()
        buf.seek(position)
        if largest >= self._packet_number:
            raise QuicConnectionError(
                QuicErrorCode.PROTOCOL_VIOLATION, frame_type, "ACK of a packet that was never sent"
            )
        super()._handle_ack_frame(context, frame_type, buf)

    # -- keys ----------------------------------------------------------------------------------------------

    def _update_keys_in_time(self) -> None:
        """Stock never updates keys by itself (RFC 9001 §6.6)."""
        if self._packet_number >= self._key_update_at and not self._close_pending:
            self._key_update_at = self._packet_number + config.KEY_UPDATE_PACKETS
            self.request_key_update()

    # -- what else a remote can do to the stock class ------------------------------------------------------

    def _handle_crypto_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        """Stock reassembles 512 KiB before the remote is known, and joins a TLS message in quadratic time."""
        position = buf.tell()
        end = buf.pull_uint_var() + buf.pull_uint_var()
        buf.seek(position)
        receiver = self._crypto_streams[context.epoch].receiver
        too_far = end - receiver.starting_offset() > config.TLS_MESSAGE_SIZE_MAX
        if not too_far and len(receiver._ranges) <= config.CRYPTO_GAPS_MAX:
            try:
                super()._handle_crypto_frame(context, frame_type, buf)
            except (x509.InvalidVersion, UnsupportedAlgorithm) as error:
                # in a certificate; stock expects a ValueError
                raise QuicConnectionError(_BAD_CERTIFICATE, frame_type, str(error)) from error
            if len(self.tls._receive_buffer) <= config.TLS_MESSAGE_SIZE_MAX:
                return
        raise QuicConnectionError(
            QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, frame_type, "a TLS message is larger than any we know"
        )

    def _connect(self, now: float) -> None:
        """Stock forgets what it sent before a Retry, but counts that as in flight for ever."""
        for space in self._loss.spaces:
            self._loss.discard_space(space)
        super()._connect(now)

    def _receive_retry_packet(self, header: QuicHeader, packet_without_tag: bytes, now: float) -> None:
        """A token that leaves no room in an Initial would wedge stock's close."""
        if len(header.token) <= config.RETRY_TOKEN_SIZE_MAX:
            super()._receive_retry_packet(header, packet_without_tag, now)

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        if self._remote_max_idle_timeout == 0:
            self._remote_max_idle_timeout = None  # RFC 9000 §18.2: 0 is disabled; stock makes 78 ms of it

    def _consume_peer_cid(self) -> None:
        """A repeated NEW_CONNECTION_ID can leave none to change to; stock raises IndexError then."""
        if not self._peer_cid_available:
            raise QuicConnectionError(
                QuicErrorCode.PROTOCOL_VIOLATION,
                QuicFrameType.NEW_CONNECTION_ID,
                "the connection id in use was retired and none was left",
            )
        super()._consume_peer_cid()

    def close(
        self,
        error_code: int = QuicErrorCode.NO_ERROR,
        frame_type: int | None = None,
        reason_phrase: str = "",
    ) -> None:
        """End it. A reason that does not fit, or is not Unicode, would make stock's close raise for ever."""
        reason = reason_phrase.encode("utf-8", "replace")[: config.CLOSE_REASON_SIZE_MAX]
        super().close(error_code, frame_type, reason.decode("utf-8", "ignore"))
