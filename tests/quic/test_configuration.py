from __future__ import annotations

import ssl
from pathlib import Path

from p2pnode import config
from p2pnode.quic.configuration import (
    CONNECTION_ID_LENGTH,
    Configuration,
    dialing_configuration,
    listening_configuration,
)
from p2pnode.quic.options import Diagnostics, EndpointOptions
from tests.quic.engines import credentials


def both_roles(options: EndpointOptions) -> tuple[Configuration, Configuration]:
    return (
        dialing_configuration(options, alpn="p2pnode/1", server_name="a.example"),
        listening_configuration(options, credentials()),
    )


def test_both_roles_speak_alike() -> None:
    for made in both_roles(EndpointOptions()):
        assert made.alpn_protocols == ["p2pnode/1"]
        assert made.supported_versions == [1]
        assert made.connection_id_length == CONNECTION_ID_LENGTH
        assert made.verify_mode == ssl.CERT_NONE
        assert (made.max_data, made.max_stream_data) == (
            config.CONNECTION_RECEIVE_WINDOW,
            config.STREAM_RECEIVE_WINDOW,
        )
        assert made.quic_logger is None


def test_options_hold_for_both_roles(tmp_path: Path) -> None:
    options = EndpointOptions(
        datagram_size=1300,
        datagram_size_max=1400,
        stream_receive_window=5000,
        diagnostics=Diagnostics(qlog_dir=tmp_path),
    )
    for made in both_roles(options):
        assert (made.max_datagram_size, made.datagram_size_max, made.max_stream_data) == (1300, 1400, 5000)
        assert made.quic_logger is not None


def test_each_role_shows_what_is_its_own() -> None:
    dialing, listening = both_roles(EndpointOptions(alpns=("p2pnode/1", "h3")))
    assert (dialing.is_client, listening.is_client) == (True, False)
    assert dialing.server_name == "a.example"
    assert dialing.alpn_protocols == ["p2pnode/1"]
    assert listening.alpn_protocols == ["p2pnode/1", "h3"]
    assert dialing.certificate is None
    assert listening.certificate is credentials().certificate
