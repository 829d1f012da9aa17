"""Path MTU discovery for an aioquic connection: what `path_mtu` decides, done to packets.

Private names of aioquic are used here as in `aioquic_internals`.
"""

from __future__ import annotations

from typing import Final

from aioquic import tls
from aioquic.buffer import Buffer  # type: ignore[attr-defined]  # it is there, but not marked as exported
from aioquic.quic.connection import END_STATES, QuicConnection, QuicNetworkPath
from aioquic.quic.packet import QuicFrameType, QuicPacketType, pull_quic_transport_parameters
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder

from p2pnode.quic.configuration import Configuration
from p2pnode.quic.congestion import CongestionControl
from p2pnode.quic.datagrams import Datagram
from p2pnode.quic.path_mtu import PathMtu

FULL_SLACK: Final = 64  # bytes that a packet may be below the size in use and still want a larger one


class ProbingConnection(QuicConnection):
    """A `QuicConnection` whose datagrams become as large as its path carries.

    A way of building packets that goes past `datagrams_to_send` calls `self._prober.prepare` before and
    `self._prober.probe` after it, and sends what that gives.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        original_destination_connection_id: bytes | None = None,
        retry_source_connection_id: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
        )
        self._prober = PathProber(self, configuration.datagram_size_max)

    @property
    def datagram_size(self) -> int:
        """Bytes that a datagram may have on the path as it is known now."""
        return self._max_datagram_size

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        """What is to be sent now, with the address of each, and a probe for the path if one is due."""
        self._prober.prepare()
        datagrams = super().datagrams_to_send(now)
        return datagrams + self._prober.probe(max((len(data) for data, _ in datagrams), default=0), now)

    def _send_probe(self) -> None:
        """Stock calls it when a probe timeout (RFC 9002 §6.2) has expired: another kind of probe."""
        super()._send_probe()
        self._prober.on_timeout()

    def _send_probing_frames(self, network_path: QuicNetworkPath, now: float) -> list[Datagram]:
        """Stock pads them to a size that only the path in use is known to carry."""
        size, self._max_datagram_size = self._max_datagram_size, self._prober.base
        try:
            return super()._send_probing_frames(network_path, now)
        finally:
            self._max_datagram_size = size

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        """Stock checks `max_udp_payload_size` and forgets it."""
        super()._parse_transport_parameters(data, from_session_ticket)
        limit = pull_quic_transport_parameters(Buffer(data=data)).max_udp_payload_size
        if limit is not None:
            self._prober.limit(limit)


class PathProber:
    """Finds the datagram size of a connection's path, and has the connection use it."""

    __slots__ = ("_base", "_connection", "_mtu", "_path", "_size_max")

    def __init__(self, connection: QuicConnection, size_max: int) -> None:
        self._connection = connection
        self._base: int = connection._max_datagram_size
        self._size_max = size_max
        self._path: QuicNetworkPath | None = None
        self._mtu = PathMtu(self._base, size_max)

    @property
    def base(self) -> int:
        """The size that is used on a path of which nothing is known."""
        return self._base

    def limit(self, size_max: int) -> None:
        """The remote is not willing to receive more (RFC 9000 §18.2). Not to be called in mid-search."""
        if size_max < self._size_max:
            self._size_max = size_max
            self._base = min(self._base, size_max)
            self._mtu = PathMtu(self._base, size_max)

    # -- packets -------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Have the connection build packets of the size that its path carries."""
        connection = self._connection
        if connection._network_paths[0] is not self._path:
            self._follow(connection._network_paths[0])
        if connection._max_datagram_size != self._mtu.size:
            connection._max_datagram_size = self._mtu.size
            self._control.datagram_size = self._mtu.size

    def _follow(self, path: QuicNetworkPath) -> None:
        """What another path carried means nothing for this one (RFC 9000 §14.3)."""
        if self._path is not None:
            self._mtu = PathMtu(self._base, self._size_max)
        self._path = path
        self._control.watch = self

    @property
    def _control(self) -> CongestionControl:
        control = self._connection._loss._cc
        assert isinstance(control, CongestionControl)
        return control

    def probe(self, largest_sent: int, now: float) -> list[Datagram]:
        """A probe, if one is due now that a datagram of `largest_sent` bytes goes out; else nothing."""
        connection = self._connection
        if (
            largest_sent < self._mtu.size - FULL_SLACK
            or not connection._handshake_confirmed
            or connection._state in END_STATES
            or not connection._network_paths[0].is_validated
        ):
            return []
        size = self._mtu.probe_due(now)
        if size is None:
            return []
        self._mtu.on_probe_sent(size, now)
        return self._build(size, now)

    def _build(self, size: int, now: float) -> list[Datagram]:
        """A packet of PING and PADDING, `size` bytes in all.

        For loss recovery it is not in flight: neither does it wait for the congestion window, nor is its loss
        a sign of congestion (RFC 9000 §14.4), nor a reason for a probe timeout.
        """
        connection = self._connection
        assert connection._version is not None
        builder = QuicPacketBuilder(
            host_cid=connection.host_cid,
            is_client=connection._is_client,
            max_datagram_size=size,
            packet_number=connection._packet_number,
            peer_cid=connection._peer_cid.cid,
            quic_logger=connection._quic_logger,
            spin_bit=connection._spin_bit,
            version=connection._version,
        )
        builder.start_packet(QuicPacketType.ONE_RTT, connection._cryptos[tls.Epoch.ONE_RTT])
        frame = builder.start_frame(
            QuicFrameType.PING, handler=self._on_delivery, handler_args=(self._mtu, size)
        )
        frame.push_bytes(bytes(builder.remaining_buffer_space))  # PADDING
        packet = builder._packet
        assert packet is not None
        packet.in_flight = packet.is_ack_eliciting = False
        datagrams: list[Datagram] = connection._flush_builder(
            builder=builder,
            network_path=connection._network_paths[0],
            peer_cid=connection._peer_cid.cid,
            now=now,
        )
        return datagrams

    def _on_delivery(self, delivery: QuicDeliveryState, mtu: PathMtu, size: int) -> None:
        if delivery is QuicDeliveryState.ACKED:
            mtu.on_probe_acked(size)
        else:
            mtu.on_probe_lost(size)

    # -- what became of all other packets ------------------------------------------------------------------

    def on_acked(self, size: int) -> None:
        """Packets of `size` were acknowledged."""
        self._mtu.on_acked(size)

    def on_lost(self, size: int, sent_at: float, now: float) -> None:
        """Packets of `size` are lost, the newest of which was sent at `sent_at`."""
        self._mtu.on_lost(size, sent_at, now)

    def on_timeout(self) -> None:
        """A probe timeout has expired."""
        self._mtu.on_timeout()
