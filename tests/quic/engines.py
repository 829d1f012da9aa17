"""Two engines face to face without a network, and the means to make one of them lie."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from aioquic import tls
from aioquic.buffer import encode_uint_var
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, QuicEvent
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder

from p2pnode.quic.aioquic_internals import HardenedConnection
from p2pnode.quic.configuration import Configuration, dialing_configuration, listening_configuration
from p2pnode.quic.credentials import Credentials, NodeKey
from p2pnode.quic.datagrams import Address, Datagram
from p2pnode.quic.options import EndpointOptions
from tests.support.batching import engine_class

CLIENT = ("192.0.2.1", 1001)
SERVER = ("192.0.2.2", 1002)
STEP_S = 0.02


@cache
def credentials() -> Credentials:
    return Credentials.from_node_key(NodeKey.generate())


def dialer_configuration(**options: Any) -> Configuration:
    return dialing_configuration(EndpointOptions(**options), alpn="p2pnode/1", server_name="localhost")


def listener_configuration(**options: Any) -> Configuration:
    return listening_configuration(EndpointOptions(**options), credentials())


class Pair:
    """A dialer and a listener; `victim` is the one under test, `attacker` the other, a stock connection."""

    def __init__(
        self,
        *,
        victim_is_client: bool = False,
        attacker_class: Callable[..., QuicConnection] = QuicConnection,
        prepare: Callable[[QuicConnection], None] | None = None,
        **options: Any,
    ) -> None:
        self.now = 1.0
        dialer_class = engine_class() if victim_is_client else attacker_class
        listener_class = attacker_class if victim_is_client else engine_class()
        self.dialer = dialer_class(configuration=dialer_configuration(**options))
        self.listener = listener_class(
            configuration=listener_configuration(**options),
            original_destination_connection_id=self.dialer.original_destination_connection_id,
        )
        victim, self.attacker = (
            (self.dialer, self.listener) if victim_is_client else (self.listener, self.dialer)
        )
        assert isinstance(victim, HardenedConnection)
        self.victim = victim
        self.events: dict[QuicConnection, list[QuicEvent]] = {self.dialer: [], self.listener: []}
        if prepare is not None:
            prepare(self.attacker)
        self.dialer.connect(SERVER, self.now)

    def exchange(self, rounds: int = 6) -> None:
        """Carry datagrams both ways, let time pass and timers fire."""
        for _ in range(rounds):
            self.carry(self.dialer)
            self.carry(self.listener)
            self.now += STEP_S
            for engine in (self.dialer, self.listener):
                timer = engine.get_timer()
                if timer is not None and timer <= self.now:
                    engine.handle_timer(self.now)

    def carry(self, source: QuicConnection) -> int:
        """Carry what one has to send now; how many bytes that was."""
        target, address = (self.listener, CLIENT) if source is self.dialer else (self.dialer, SERVER)
        if source._network_paths == []:
            return 0
        datagrams = [datagram for datagram, _ in datagrams_of(source, self.now)]
        give(target, datagrams, address, self.now)
        self._take_events(target)
        self._take_events(source)
        return sum(map(len, datagrams))

    def _take_events(self, engine: QuicConnection) -> None:
        while (event := engine.next_event()) is not None:
            self.events[engine].append(event)

    def inject(self, payload: bytes) -> None:
        """Make the victim receive a 1-RTT packet from the attacker with these frames."""
        address = CLIENT if self.attacker is self.dialer else SERVER
        self.victim.receive_burst([seal(self.attacker, payload)], address, self.now)
        self._take_events(self.victim)

    @property
    def closed(self) -> ConnectionTerminated | None:
        """What the victim said when it ended the connection."""
        return self.victim.ending


def datagrams_of(engine: QuicConnection, now: float) -> list[Datagram]:
    """All that an engine has to send now, as its driver would ask for it."""
    if not isinstance(engine, HardenedConnection):
        return engine.datagrams_to_send(now)
    sent: list[Datagram] = []
    while True:
        for datagrams, address in engine.bursts_to_send(now):
            sent += [(datagram, address) for datagram in datagrams]
        if not engine.has_more_to_send:
            return sent


def give(engine: QuicConnection, datagrams: list[bytes], address: Address, now: float) -> None:
    """Have an engine take in datagrams that arrived together, as its driver would."""
    if isinstance(engine, HardenedConnection):
        engine.receive_burst(datagrams, address, now)
    else:
        for datagram in datagrams:
            engine.receive_datagram(datagram, address, now)


def seal(engine: QuicConnection, payload: bytes) -> bytes:
    """A 1-RTT packet of `engine`'s with any payload."""
    builder = QuicPacketBuilder(
        host_cid=engine.host_cid,
        is_client=engine._is_client,
        max_datagram_size=1500,
        packet_number=engine._packet_number,
        peer_cid=engine._peer_cid.cid,
        version=engine._version,
    )
    builder.start_packet(QuicPacketType.ONE_RTT, engine._cryptos[tls.Epoch.ONE_RTT])
    frame = builder.start_frame(payload[0], capacity=len(payload))
    frame.push_bytes(payload[1:])
    [datagram], _ = builder.flush()
    engine._packet_number = builder.packet_number
    return datagram


def varints(*values: int) -> bytes:
    return b"".join(encode_uint_var(value) for value in values)


def stream_frame(stream_id: int, offset: int, data: bytes, *, fin: bool = False) -> bytes:
    return varints(0x0E | fin, stream_id, offset, len(data)) + data


def connected(**options: Any) -> Pair:
    """A pair whose handshake is complete and confirmed."""
    pair = Pair(**options)
    pair.exchange()
    assert pair.dialer._handshake_confirmed
    assert pair.listener._handshake_confirmed
    return pair
