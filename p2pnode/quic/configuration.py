"""How QUIC is spoken here: aioquic's configuration."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TextIO

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.logger import QuicFileLogger
from aioquic.quic.packet import QuicProtocolVersion

from p2pnode import config
from p2pnode.quic.congestion import CONGESTION_CONTROL
from p2pnode.quic.credentials import Credentials
from p2pnode.quic.options import EndpointOptions

CONNECTION_ID_LENGTH: Final = 8  # of every connection id we issue: the router relies on it
SUPPORTED_VERSIONS: Final = (int(QuicProtocolVersion.VERSION_1),)


@dataclass
class Configuration(QuicConfiguration):
    """Stock's, whose `max_datagram_size` is used until a path is known to carry more."""

    datagram_size_max: int = config.DATAGRAM_SIZE_MAX  # never to be exceeded, whatever a path carries
    unidirectional_streams: Mapping[str, int] = field(default_factory=dict)  # of a remote, by ALPN


def dialing_configuration(
    options: EndpointOptions, *, alpn: str, server_name: str | None, keylog: TextIO | None = None
) -> Configuration:
    """For a connection that we dial; `keylog` gets its secrets."""
    made = _configuration(options, keylog, is_client=True)
    made.alpn_protocols = [alpn]
    made.server_name = server_name
    return made


def listening_configuration(
    options: EndpointOptions, credentials: Credentials, *, keylog: TextIO | None = None
) -> Configuration:
    """For the connections that we accept."""
    made = _configuration(options, keylog, is_client=False)
    made.alpn_protocols = list(options.alpns)
    made.certificate = credentials.certificate
    made.certificate_chain = list(credentials.chain)
    made.private_key = credentials.private_key
    return made


def _configuration(options: EndpointOptions, keylog: TextIO | None, *, is_client: bool) -> Configuration:
    """How both roles speak QUIC here: version 1, no tickets, no 0-RTT, certificates checked by ourselves."""
    qlog_dir = options.diagnostics.qlog_dir
    return Configuration(
        is_client=is_client,
        # aioquic's own check lets exceptions escape on hostile names: `credentials.Trust` does it afterwards
        verify_mode=ssl.CERT_NONE,
        connection_id_length=CONNECTION_ID_LENGTH,
        congestion_control_algorithm=CONGESTION_CONTROL,
        idle_timeout=config.IDLE_TIMEOUT_S,
        max_data=config.CONNECTION_RECEIVE_WINDOW,
        max_stream_data=options.stream_receive_window,
        max_datagram_size=options.datagram_size,
        datagram_size_max=options.datagram_size_max,
        unidirectional_streams=options.unidirectional_streams,
        supported_versions=list(SUPPORTED_VERSIONS),
        quic_logger=QuicFileLogger(str(qlog_dir)) if qlog_dir is not None else None,
        secrets_log_file=keylog,
    )
