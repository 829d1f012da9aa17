"""How QUIC is spoken here: aioquic's configuration, a congestion control with a ceiling, a bursting pacer."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TextIO

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.congestion.base import register_congestion_control
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.logger import QuicFileLogger
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.recovery import QuicPacketPacer
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from p2pnode import config

CONNECTION_ID_LENGTH: Final = 8  # of every connection id we issue: the router relies on it
SUPPORTED_VERSIONS: Final = (int(QuicProtocolVersion.VERSION_1),)
PACING_GAIN: Final = 1.25  # RFC 9002 §7.7: a little faster than the window, or it is never filled

_CONGESTION_CONTROL: Final = "p2pnode"


class CongestionControl(RenoCongestionControl):
    """New Reno with a ceiling, and a count of what was lost.

    Stock aioquic has no ceiling: a peer that acknowledges what it never received makes the window grow for
    ever, and more than 32,768 packets in flight cannot be told apart by their 2-byte numbers.
    """

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.window_max = min(config.CONGESTION_WINDOW_MAX, config.PACKETS_IN_FLIGHT_MAX * max_datagram_size)
        self.packets_lost = 0

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        """Grow as New Reno does, up to the ceiling."""
        super().on_packet_acked(now=now, packet=packet)
        if self.congestion_window > self.window_max:
            self.congestion_window = self.window_max

    def on_packets_lost(self, *, now: float, packets: Sequence[QuicSentPacket]) -> None:  # type: ignore[override]
        """Count them, and shrink as New Reno does."""
        self.packets_lost += len(packets)
        super().on_packets_lost(now=now, packets=packets)


register_congestion_control(_CONGESTION_CONTROL, CongestionControl)


class Pacer(QuicPacketPacer):
    """A pacer whose bursts last as long as the driver sleeps; the stock one drips 1.8 packets at a time."""

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        """Follow a new window or round trip time (seconds)."""
        super().update_rate(int(congestion_window * PACING_GAIN), smoothed_rtt)
        assert self.packet_time is not None
        burst_s = min(config.PACING_BURST_S, config.PACING_BURST_PACKETS * self.packet_time)
        self.bucket_max = max(self.bucket_max, burst_s)


def make_configuration(
    *,
    is_client: bool,
    alpns: Sequence[str],
    server_name: str | None = None,
    certificate: x509.Certificate | None = None,
    certificate_chain: Sequence[x509.Certificate] = (),
    private_key: PrivateKeyTypes | None = None,
    datagram_size: int = config.DATAGRAM_SIZE,
    qlog_dir: Path | None = None,
    keylog: TextIO | None = None,
) -> QuicConfiguration:
    """How both roles speak QUIC here: version 1, no tickets, no 0-RTT, certificates checked by ourselves."""
    return QuicConfiguration(
        is_client=is_client,
        alpn_protocols=list(alpns),
        server_name=server_name,
        certificate=certificate,
        certificate_chain=list(certificate_chain),
        private_key=private_key,
        # aioquic's own check lets exceptions escape on hostile names: `credentials.Trust` does it afterwards
        verify_mode=ssl.CERT_NONE,
        connection_id_length=CONNECTION_ID_LENGTH,
        congestion_control_algorithm=_CONGESTION_CONTROL,
        idle_timeout=config.IDLE_TIMEOUT_S,
        max_data=config.CONNECTION_RECEIVE_WINDOW,
        max_stream_data=config.STREAM_RECEIVE_WINDOW,
        max_datagram_size=datagram_size,
        supported_versions=list(SUPPORTED_VERSIONS),
        quic_logger=QuicFileLogger(str(qlog_dir)) if qlog_dir is not None else None,
        secrets_log_file=keylog,
    )
