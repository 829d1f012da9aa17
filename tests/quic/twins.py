"""The same datagrams for two engines in the same state, one that takes in by runs and one that does not."""

from __future__ import annotations

import copy
from typing import Any

from aioquic import tls
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoContext
from aioquic.quic.events import QuicEvent, StopSendingReceived, StreamDataReceived, StreamReset
from aioquic.quic.recovery import QuicPacketNumberWindow

from p2pnode.quic.aioquic_batches import BatchConnection
from p2pnode.quic.aioquic_internals import HardenedConnection
from p2pnode.quic.send_buffer import SendBuffer


def twin_of(engine: BatchConnection) -> HardenedConnection:
    """A copy that does everything the library's own way. Both share TLS: only one of them may use it."""
    shared: list[Any] = [engine.configuration, engine.tls, engine._logger, *_unchanging(engine)]
    copied = copy.deepcopy(engine, {id(thing): thing for thing in shared})
    copied.__class__ = HardenedConnection  # type: ignore[assignment]
    space = copied._spaces[tls.Epoch.ONE_RTT]
    received, space.received_packets = space.received_packets, QuicPacketNumberWindow()
    for number in range(space.largest_received_packet + 1):
        if number in received:
            space.received_packets.add(number)
    return copied


def _unchanging(engine: QuicConnection) -> list[Any]:
    """What cannot be copied and need not be: none of it changes any more."""
    things: list[Any] = [*engine._crypto_buffers.values()]
    pairs = [*engine._cryptos.values(), *engine._cryptos_initial.values()]
    contexts: list[CryptoContext] = [context for pair in pairs for context in (pair.recv, pair.send)]
    for context in contexts:
        if context.aead is not None and context.hp is not None:
            things += [context.aead._aead, context.hp._encryptor]
    for stream in engine._streams.values():
        buffer: object = stream.sender._buffer
        if isinstance(buffer, SendBuffer):
            things += buffer._pieces
    return things


def outcome(engine: HardenedConnection, events: list[QuicEvent]) -> dict[str, Any]:
    """Everything about a receiver that its remote or its application can ever notice."""
    space = engine._spaces[tls.Epoch.ONE_RTT]
    ending = engine.ending
    if ending is not None:  # what it said before it ended is not heard any more
        return {"ending": (ending.error_code, ending.frame_type), "state": engine._state}
    streams = {
        stream_id: (
            stream.receiver.highest_offset,
            stream.receiver._buffer_start,
            stream.receiver._final_size,
            list(stream.receiver._ranges),
            bytes(stream.receiver._buffer),
            stream.receiver.is_finished,
            stream.max_stream_data_remote,
            stream.sender._reset_error_code,
        )
        for stream_id, stream in engine._streams.items()
    }
    return {
        "ending": None,
        "told": _joined(events),
        "streams": streams,
        "acknowledgements": {number for part in space.ack_queue for number in part},
        "is asked to acknowledge": space.ack_at is not None,
        "largest": space.largest_received_packet,
        "used": engine._local_max_data.used,
        "limit": engine._remote_max_data,
        "spin": engine._spin_bit,
        "idle": engine._close_at,
        "heard": engine.heard_at,
        "phase": engine._cryptos[tls.Epoch.ONE_RTT].recv.key_phase,
        "connection ids": [it.sequence_number for it in engine._host_cids],
        "connection ids in use": (engine.host_cid, engine._peer_cid.cid),
        "challenges": list(engine._network_paths[0].remote_challenges),
        "in flight": engine._loss.bytes_in_flight,
    }


def _joined(events: list[QuicEvent]) -> dict[int, list[bytes | str]]:
    """What the application was told of each stream; its bytes in one piece, however many events brought them."""
    told: dict[int, list[bytes | str]] = {}
    for event in events:
        if isinstance(event, StreamDataReceived):
            story = told.setdefault(event.stream_id, [])
            if story and isinstance(story[-1], bytes):
                story[-1] += event.data
            else:
                story.append(event.data)
            if event.end_stream:
                story.append("end")
        elif isinstance(event, StreamReset | StopSendingReceived):
            told.setdefault(event.stream_id, []).append(f"{type(event).__name__} {event.error_code}")
    return told
