"""A blocking loop around a connection class, as tight as can be: GSO out, GRO in, no pacer, datagrams of 1452.

It shows what the class itself can do, without trio, asyncio or a node. The variant names it: `stock` is
aioquic's `QuicConnection`, `batch` the class of p2pnode, `ours` the same over the library's own ways in and
out, `qh3` the fork of aioquic with a core in Rust.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from benchmarks import engines
from benchmarks.gso_socket import GsoSocket
from benchmarks.pair import Offer, Order, run_pair, tell_ready
from benchmarks.receipt import CHUNK_SIZE, Receipt

BACKLOG = 1024 * 1024  # unsent bytes that the sender keeps in the connection


class Loop:
    """One connection on one socket."""

    def __init__(self, engine: engines.Engine, socket: GsoSocket) -> None:
        self.engine = engine
        self.connection = engine.connection
        self._socket = socket

    def turn(self) -> Iterator[Any]:
        """Wait, take in all that is there, do what is due; gives the events."""
        timer = self.connection.get_timer()
        now = time.monotonic()
        if timer is None or timer > now:
            self._socket.wait_readable(None if timer is None else timer - now)
        for data, size, address in self._socket.receive():
            self.engine.take_in(data, size, address, time.monotonic())
        now = time.monotonic()
        timer = self.connection.get_timer()
        if timer is not None and timer <= now:
            self.connection.handle_timer(now=now)
        while (event := self.connection.next_event()) is not None:
            yield event

    def flush(self) -> None:
        """Send what is to be sent."""
        self._socket.send(self.engine.bursts(time.monotonic()))


def serve(offer: Offer) -> None:
    socket = GsoSocket(offer.port)
    tell_ready()
    socket.wait_readable(None)
    [(first, _, address)] = socket.receive()
    engine = engines.listener(offer.variant, offer.certificate, offer.key, first)
    engine.take_in(first, len(first), address, time.monotonic())
    loop = Loop(engine, socket)
    loop.flush()
    stream_id, is_asked = 0, False
    with offer.source.open("rb", buffering=0) as file:
        while True:
            for event in loop.turn():
                if isinstance(event, engine.events.ConnectionTerminated):
                    return
                if isinstance(event, engine.events.StreamDataReceived) and not is_asked:
                    stream_id, is_asked = event.stream_id, True
            while is_asked and engine.unsent(stream_id) < BACKLOG:
                data = file.read(CHUNK_SIZE)
                is_asked = bool(data)
                loop.connection.send_stream_data(stream_id, data, end_stream=not data)
            loop.flush()


def fetch(order: Order) -> None:
    engine = engines.dialer(order.variant)
    engine.connection.connect(("127.0.0.1", order.port), now=time.monotonic())
    loop = Loop(engine, GsoSocket())
    loop.flush()
    receipt = Receipt(order.target)
    is_complete = False
    while not is_complete:
        for event in loop.turn():
            if isinstance(event, engine.events.StreamDataReceived):
                receipt.write(event.data)
                engine.consumed(event.stream_id, len(event.data), receipt.received)
                is_complete = event.end_stream
            elif isinstance(event, engine.events.HandshakeCompleted):
                receipt.begin()
                stream_id = loop.connection.get_next_available_stream_id()
                loop.connection.send_stream_data(stream_id, b"x", end_stream=True)
            elif isinstance(event, engine.events.ConnectionTerminated):
                raise SystemExit(f"the connection ended: {event}")
        loop.flush()
    receipt.end()
    loop.connection.close()
    loop.flush()


if __name__ == "__main__":
    run_pair(serve, fetch)
