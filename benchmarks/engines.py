"""Connection classes with one face, for loops that drive them without trio or asyncio."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol

import aioquic.quic.events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.recovery import QuicPacketPacer

from p2pnode.quic.aioquic_batches import BatchConnection
from p2pnode.quic.aioquic_internals import HardenedConnection
from p2pnode.quic.configuration import Configuration, dialing_configuration, listening_configuration
from p2pnode.quic.credentials import Credentials
from p2pnode.quic.datagrams import Address, Burst, bursts_of
from p2pnode.quic.options import EndpointOptions
from p2pnode.quic.receive_window import ReceiveWindow

DATAGRAM_SIZE: Final = 1452  # the most that a path of 1,500 bytes carries over IPv6
WINDOW: Final = 16 * 1024 * 1024
ALPN: Final = "benchmark"


class Engine(Protocol):
    """A connection, and what differs between the classes."""

    @property
    def connection(self) -> Any:
        """Of the class itself."""
        ...

    @property
    def events(self) -> ModuleType:
        """The module with its events."""
        ...

    def take_in(self, data: bytes, size: int, address: Address, now: float) -> None:
        """Datagrams of `size` bytes, one after the other; the last may be shorter."""
        ...

    def bursts(self, now: float) -> list[Burst]:
        """What is to be sent now."""
        ...

    def unsent(self, stream_id: int) -> int:
        """Bytes of a stream that were handed over and not sent yet."""
        ...

    def consumed(self, stream_id: int, size: int, offset: int) -> None:
        """The application took `size` bytes of a stream, in all up to `offset`."""
        ...


class NoPacer(QuicPacketPacer):
    """Never makes anything wait."""

    def next_send_time(self, now: float) -> float | None:  # type: ignore[override]
        """Now."""
        return None

    def update_after_send(self, now: float) -> None:
        """Nothing is counted."""

    def burst_bytes(self, now: float) -> int:
        """What our class asks: as much as the windows allow."""
        return WINDOW

    def on_sent(self, now: float, size: int) -> None:
        """Nothing is counted."""


class Stock:
    """`QuicConnection` as aioquic ships it, without its pacer, which gives 1.8 packets at a time."""

    events = aioquic.quic.events

    def __init__(self, connection: QuicConnection) -> None:
        self.connection = connection
        connection._loss._pacer = NoPacer(max_datagram_size=DATAGRAM_SIZE)

    def take_in(self, data: bytes, size: int, address: Address, now: float) -> None:
        receive = self.connection.receive_datagram
        for start in range(0, len(data), size):
            receive(data[start : start + size], address, now)

    def bursts(self, now: float) -> list[Burst]:
        return bursts_of(self.connection.datagrams_to_send(now))

    def unsent(self, stream_id: int) -> int:
        sender = self.connection._streams[stream_id].sender
        return sender._buffer_stop - sender.highest_offset

    def consumed(self, stream_id: int, size: int, offset: int) -> None:
        """Stock gives credit by itself."""


class Ours(Stock):
    """Our class: over stock's ways in and out, or sending and taking in runs."""

    connection: HardenedConnection

    def __init__(self, connection: HardenedConnection) -> None:
        super().__init__(connection)
        connection._receive_window = ReceiveWindow(WINDOW, growth_max=1)  # as large as the others'

    def take_in(self, data: bytes, size: int, address: Address, now: float) -> None:
        datagrams = [data[start : start + size] for start in range(0, len(data), size)]
        self.connection.receive_burst(datagrams, address, now)

    def bursts(self, now: float) -> list[Burst]:
        return self.connection.bursts_to_send(now)

    def consumed(self, stream_id: int, size: int, offset: int) -> None:
        self.connection.consumed(stream_id, size, offset)


class Qh3:
    """The class of the same name in qh3, which has its core in Rust and does not pace."""

    def __init__(self, connection: Any) -> None:
        import qh3.quic.events

        self.connection = connection
        self.events = qh3.quic.events

    def take_in(self, data: bytes, size: int, address: Address, now: float) -> None:
        self.connection.receive_gro_buffer(data, size, address, now)

    def bursts(self, now: float) -> list[Burst]:
        return bursts_of(self.connection.datagrams_to_send(now))

    def unsent(self, stream_id: int) -> int:
        return int(self.connection.get_send_buffer_size(stream_id))

    def consumed(self, stream_id: int, size: int, offset: int) -> None:
        """It gives credit by itself."""


def dialer(variant: str) -> Engine:
    """One that can `connect`."""
    match variant:
        case "stock":
            return Stock(QuicConnection(configuration=_stock_configuration(is_client=True)))
        case "ours":
            return Ours(HardenedConnection(_our_configuration()))
        case "batch":
            return Ours(BatchConnection(_our_configuration()))
        case "qh3":
            return Qh3(_qh3_connection(is_client=True))
    raise ValueError(variant)


def listener(variant: str, certificate: Path, key: Path, first: bytes) -> Engine:
    """One for the client whose first datagram this is."""
    original_id = first[6 : 6 + first[5]]
    match variant:
        case "stock":
            configuration = _stock_configuration(is_client=False)
            configuration.load_cert_chain(certificate, key)
            return Stock(
                QuicConnection(configuration=configuration, original_destination_connection_id=original_id)
            )
        case "ours":
            configuration = _our_configuration(Credentials.load(certificate, key))
            return Ours(HardenedConnection(configuration, original_destination_connection_id=original_id))
        case "batch":
            configuration = _our_configuration(Credentials.load(certificate, key))
            return Ours(BatchConnection(configuration, original_destination_connection_id=original_id))
        case "qh3":
            return Qh3(
                _qh3_connection(
                    is_client=False,
                    chain=(certificate.read_bytes(), key.read_bytes()),
                    original_destination_connection_id=original_id,
                )
            )
    raise ValueError(variant)


def _stock_configuration(*, is_client: bool) -> QuicConfiguration:
    return QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[ALPN],
        max_datagram_size=DATAGRAM_SIZE,
        max_data=WINDOW,
        max_stream_data=WINDOW,
        verify_mode=ssl.CERT_NONE,
    )


def _our_configuration(credentials: Credentials | None = None) -> Configuration:
    options = EndpointOptions(
        alpns=[ALPN],
        datagram_size=DATAGRAM_SIZE,
        datagram_size_max=DATAGRAM_SIZE,
        stream_receive_window=WINDOW,
    )
    if credentials is None:
        configuration = dialing_configuration(options, alpn=ALPN, server_name=None)
    else:
        configuration = listening_configuration(options, credentials)
    configuration.max_data = WINDOW
    return configuration


def _qh3_connection(*, is_client: bool, chain: Sequence[bytes] = (), **more: bytes) -> Any:
    from qh3.quic.configuration import QuicConfiguration
    from qh3.quic.connection import QuicConnection

    configuration = QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[ALPN],
        max_datagram_size=DATAGRAM_SIZE,
        probe_datagram_size=False,
        max_data=WINDOW,
        max_stream_data=WINDOW,
        verify_mode=ssl.CERT_NONE,
    )
    if chain:
        configuration.load_cert_chain(*chain)
    return QuicConnection(configuration=configuration, **more)
