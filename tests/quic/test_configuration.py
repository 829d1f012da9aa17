from __future__ import annotations

import ssl

from p2pnode import config
from p2pnode.quic.configuration import CONNECTION_ID_LENGTH, make_configuration


def test_both_roles_speak_alike() -> None:
    for is_client in (True, False):
        made = make_configuration(is_client=is_client, alpns=("p2pnode/1",))
        assert made.alpn_protocols == ["p2pnode/1"]
        assert made.supported_versions == [1]
        assert made.connection_id_length == CONNECTION_ID_LENGTH
        assert made.verify_mode == ssl.CERT_NONE
        assert (made.max_data, made.max_stream_data) == (
            config.CONNECTION_RECEIVE_WINDOW,
            config.STREAM_RECEIVE_WINDOW,
        )
