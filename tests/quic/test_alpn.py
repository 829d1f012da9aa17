"""Which language a connection speaks, byte for byte: clients that others wrote offer bytes, aioquic is told text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aioquic import tls
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated, QuicEvent

from p2pnode.quic.aioquic_batches import BatchConnection
from tests.quic.engines import (
    CLIENT,
    SERVER,
    datagrams_of,
    dialer_configuration,
    give,
    listener_configuration,
)

ALPN = 16  # the extension (RFC 7301 §3.1)
OURS = ["p2pnode/1", "h3", "hq-interop"]
NO_APPLICATION_PROTOCOL = 120  # the alert (RFC 7301 §3.2)

# What a quinn client puts on the wire whose rustls configuration has `vec![b"h3", b"h2", b"http/1.1", b"doq"]`.
OFFERED = bytes.fromhex("0013 02 6833 02 6832 08 687474702f312e31 03 646f71")
SELECTED = bytes.fromhex("0010 0005 0003 02 6833")  # the extension in EncryptedExtensions

Listener = Callable[..., QuicConnection]
both_listeners = pytest.mark.parametrize("listener_class", [QuicConnection, BatchConnection])


class Dialer(QuicConnection):
    """Offers exactly these bytes; aioquic knows nothing of them."""

    offered: bytes

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls.handshake_extensions.append((ALPN, self.offered))


class Meeting:
    """A handshake between a dialer with hand-made ALPN bytes and a listener."""

    def __init__(self, listener_class: Listener, offered: bytes) -> None:
        configuration = dialer_configuration()
        configuration.alpn_protocols = None
        self.dialer = Dialer(configuration=configuration)
        self.dialer.offered = offered
        self.listener = listener_class(
            configuration=listener_configuration(alpns=OURS),
            original_destination_connection_id=self.dialer.original_destination_connection_id,
        )
        self.dialer.connect(SERVER, 1.0)
        self.client_hello = bytes(self.dialer._crypto_streams[tls.Epoch.INITIAL].sender._buffer)
        self._carry(self.dialer, self.listener, CLIENT)
        self.answer = bytes(self.listener._crypto_streams[tls.Epoch.HANDSHAKE].sender._buffer[:])
        for _ in range(4):
            self._carry(self.listener, self.dialer, SERVER)
            self._carry(self.dialer, self.listener, CLIENT)

    def _carry(self, source: QuicConnection, target: QuicConnection, address: tuple[str, int]) -> None:
        for datagram, _ in datagrams_of(source, 1.0):
            give(target, [datagram], address, 1.0)


def told(engine: QuicConnection) -> list[QuicEvent]:
    events = []
    while (event := engine.next_event()) is not None:
        events.append(event)
    return events


@both_listeners
def test_a_client_that_offers_bytes_speaks_h3(listener_class: Listener) -> None:
    meeting = Meeting(listener_class, OFFERED)
    extension = ALPN.to_bytes(2, "big") + len(OFFERED).to_bytes(2, "big") + OFFERED
    assert meeting.client_hello.count(extension) == 1
    assert meeting.answer.count(SELECTED) == 1
    for engine in (meeting.listener, meeting.dialer):
        assert ProtocolNegotiated(alpn_protocol="h3") in told(engine)
        assert engine._handshake_complete


@both_listeners
@pytest.mark.parametrize(
    "offered",
    [
        bytes.fromhex("0003 02 6832"),  # h2
        bytes.fromhex("0004 03 646f71"),  # doq
        bytes.fromhex("0003 02 4833"),  # H3: names are bytes, and compared as such
        bytes.fromhex("0004 03 ff0068"),  # nobody's text
    ],
)
def test_Q7_a_client_with_no_common_language_is_refused(listener_class: Listener, offered: bytes) -> None:
    meeting = Meeting(listener_class, offered)
    for engine in (meeting.listener, meeting.dialer):
        ending = engine._close_event
        assert isinstance(ending, ConnectionTerminated)
        assert ending.error_code == 0x100 + NO_APPLICATION_PROTOCOL == 0x178
        assert not engine._handshake_complete
    assert meeting.answer == b""


def test_what_fails_is_to_configure_bytes() -> None:
    """Why an earlier tracker patched the library: it told it bytes, where text is meant."""
    configuration = dialer_configuration()
    configuration.alpn_protocols = [b"h3"]  # type: ignore[list-item]
    with pytest.raises(AttributeError):
        QuicConnection(configuration=configuration).connect(SERVER, 1.0)
