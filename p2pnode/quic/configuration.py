"""How QUIC is spoken here: aioquic's configuration."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.logger import QuicFileLogger
from aioquic.quic.packet import QuicProtocolVersion
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from p2pnode import config
from p2pnode.quic.congestion import CONGESTION_CONTROL

CONNECTION_ID_LENGTH: Final = 8  # of every connection id we issue: the router relies on it
SUPPORTED_VERSIONS: Final = (int(QuicProtocolVersion.VERSION_1),)


@dataclass
class Configuration(QuicConfiguration):
    """Stock's, whose `max_datagram_size` is used until a path is known to carry more."""

    datagram_size_max: int = config.DATAGRAM_SIZE_MAX  # never to be exceeded, whatever a path carries


def make_configuration(
    *,
    is_client: bool,
    alpns: Sequence[str],
    server_name: str | None = None,
    certificate: x509.Certificate | None = None,
    certificate_chain: Sequence[x509.Certificate] = (),
    private_key: PrivateKeyTypes | None = None,
    datagram_size: int = config.DATAGRAM_SIZE,
    datagram_size_max: int = config.DATAGRAM_SIZE_MAX,
    stream_receive_window: int = config.STREAM_RECEIVE_WINDOW,
    qlog_dir: Path | None = None,
    keylog: TextIO | None = None,
) -> Configuration:
    """How both roles speak QUIC here: version 1, no tickets, no 0-RTT, certificates checked by ourselves."""
    return Configuration(
        is_client=is_client,
        alpn_protocols=list(alpns),
        server_name=server_name,
        certificate=certificate,
        certificate_chain=list(certificate_chain),
        private_key=private_key,
        # aioquic's own check lets exceptions escape on hostile names: `credentials.Trust` does it afterwards
        verify_mode=ssl.CERT_NONE,
        connection_id_length=CONNECTION_ID_LENGTH,
        congestion_control_algorithm=CONGESTION_CONTROL,
        idle_timeout=config.IDLE_TIMEOUT_S,
        max_data=config.CONNECTION_RECEIVE_WINDOW,
        max_stream_data=stream_receive_window,
        max_datagram_size=datagram_size,
        datagram_size_max=datagram_size_max,
        supported_versions=list(SUPPORTED_VERSIONS),
        quic_logger=QuicFileLogger(str(qlog_dir)) if qlog_dir is not None else None,
        secrets_log_file=keylog,
    )
