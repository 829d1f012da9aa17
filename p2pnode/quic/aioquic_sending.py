"""Sending in runs: the packets of a transfer, built together. See `aioquic_batches`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aioquic import tls
from aioquic.buffer import encode_uint_var
from aioquic.quic.connection import END_STATES, Limit, QuicNetworkPath, stream_is_client_initiated
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream, QuicStreamSender

from p2pnode.quic.aioquic_internals import HardenedConnection
from p2pnode.quic.aioquic_packets import (
    BYTES,
    OFFSET_FLAG,
    OFFSET_SIZE,
    PACKET_NUMBER_SIZE,
    STREAM_TYPE,
    STREAM_TYPE_FIN,
    TAG_SIZE,
    header_masks,
)
from p2pnode.quic.aioquic_recovery import SentRun
from p2pnode.quic.datagrams import Burst, bursts_of
from p2pnode.quic.send_buffer import SendBuffer

PACKETS_MIN: Final = 2  # fewer are no run
ONE_RTT: Final = tls.Epoch.ONE_RTT


class SendingInRuns(HardenedConnection):
    """A `HardenedConnection` that sends runs where it can."""

    # Those whose data goes out in runs, not by the library, while that writes what it has to say.
    _held_back: frozenset[QuicStream] = frozenset()

    def _is_plain(self) -> bool:
        """Whether nothing is going on that only the library knows how to treat."""
        return (
            self._handshake_confirmed
            and self._quic_logger is None
            and not self._close_pending
            and self._state not in END_STATES
            and self._network_paths[0].is_validated
            and not any(_needs_probing(path) for path in self._network_paths)
        )

    def bursts_to_send(self, now: float) -> list[Burst]:
        """What is to be sent now: what the library has to say, then runs of stream data."""
        self.has_more_to_send = False
        if not self._is_plain() or self._cryptos[ONE_RTT]._update_key_requested:
            return super().bursts_to_send(now)
        self._prober.prepare()
        full, has_other = self._look_for_runs(now)
        if not full and not has_other:
            self._pacing_at = None  # it was for something that is no more to be sent
            return []
        if not full:
            return super().bursts_to_send(now)
        bursts: list[Burst] = []
        if has_other:
            self._held_back = frozenset(full)
            try:
                bursts = super().bursts_to_send(now)
            finally:
                self._held_back = frozenset()
            if not self._is_plain():
                return bursts
        else:
            self._skip_packet_number(now)
            self._update_keys_in_time()
            self._pacing_at = None
        datagrams = self._build_runs(full, now)
        if datagrams:
            bursts.append((datagrams, self._network_paths[0].addr))
            bursts += bursts_of(self._prober.probe(len(datagrams[0]), now))
        return bursts

    def _look_for_runs(self, now: float) -> tuple[list[QuicStream], bool]:
        """The streams with data for a run, and whether the library has anything to say beside those.

        An ACK that could wait goes along with data for less than a run, or it would be a packet of its own.
        """
        space = self._spaces[ONE_RTT]
        has_other = has_finished = False
        full: list[QuicStream] = []
        credit = self._remote_max_data - self._remote_max_data_used
        worthwhile = PACKETS_MIN * self._max_datagram_size
        for stream in self._streams_queue:
            sender, receiver = stream.sender, stream.receiver
            if sender.is_finished and receiver.is_finished:
                has_finished = True
                continue
            if (
                stream.max_stream_data_local != stream.max_stream_data_local_sent
                or sender.reset_pending
                or receiver.stop_pending
            ):
                has_other = True
            if sender.buffer_is_empty or stream.is_blocked or sender.reset_pending:
                continue
            if _is_worth_a_run(stream, credit, worthwhile):
                full.append(stream)
            else:
                has_other = True
                if space.ack_at is not None:
                    space.ack_at = min(space.ack_at, now)
        if has_finished:
            self._discard_finished_streams()
        return full, has_other or self._has_more_to_say(now)

    def _has_more_to_say(self, now: float) -> bool:
        """Whether there is anything for the library to say that is no matter of a stream."""
        space, max_data = self._spaces[ONE_RTT], self._local_max_data
        return (
            (space.ack_at is not None and space.ack_at <= now)
            or bool(self._ping_pending)
            or self._probe_pending
            or self._handshake_done_pending
            or self._streams_blocked_pending
            or bool(self._retire_connection_ids)
            or max_data.value != max_data.sent
            or _is_to_be_told(self._local_max_streams_bidi)
            or _is_to_be_told(self._local_max_streams_uni)
            or not self._crypto_streams[ONE_RTT].sender.buffer_is_empty
            or not all(connection_id.was_sent for connection_id in self._host_cids)
        )

    def _discard_finished_streams(self) -> None:
        """What stock does while it writes a packet; each lets the remote open another (RFC 9000 §4.6)."""
        left: list[QuicStream] = []
        for stream in self._streams_queue:
            if not stream.is_finished:
                left.append(stream)
                continue
            assert stream.stream_id is not None
            del self._streams[stream.stream_id]
            if stream_is_client_initiated(stream.stream_id) is not self._is_client:
                self._stream_limit(stream.stream_id).value += 1
        self._streams_queue = left

    def _write_stream_frame(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream, max_offset: int
    ) -> int:
        if stream in self._held_back:
            return 0
        return super()._write_stream_frame(builder, space, stream, max_offset)

    def _build_runs(self, streams: Sequence[QuicStream], now: float) -> list[bytes]:
        """As many packets as congestion control and pacer let go, shared by the streams."""
        size = self._max_datagram_size
        control, pacer = self._recovery._cc, self._recovery._pacer
        room = control.congestion_window - control.bytes_in_flight
        packets = min(room, pacer.burst_bytes(now)) // size
        datagrams: list[bytes] = []
        for index, stream in enumerate(streams):
            share = -(-(packets - len(datagrams)) // (len(streams) - index))
            if share > 0:
                datagrams += self._build_from(stream, share, now)
        if datagrams:
            others = [stream for stream in self._streams_queue if stream not in streams]
            self._streams_queue = [*others, *streams]  # whoever was served is last in the next turn
        self._pacing_at = pacer.next_send_time(now)
        room = control.congestion_window - control.bytes_in_flight
        self.has_more_to_send = self._pacing_at is None and len(datagrams) == packets > 0 and room >= size
        return datagrams

    def _build_from(self, stream: QuicStream, packets_max: int, now: float) -> list[bytes]:
        """Packets with what a stream has to send: first what was lost, then what is new."""
        assert stream.stream_id is not None
        sender = stream.sender
        prefix = STREAM_TYPE + encode_uint_var(stream.stream_id)
        overhead = 1 + len(self._peer_cid.cid) + PACKET_NUMBER_SIZE + TAG_SIZE + len(prefix) + OFFSET_SIZE
        data_size = self._max_datagram_size - overhead
        datagrams: list[bytes] = []
        for pending in list(sender._pending):
            limit = _limit(stream, self._remote_max_data - self._remote_max_data_used)
            left = packets_max - len(datagrams)
            if left == 0 or limit <= pending.start:
                break
            end = min(pending.stop, limit)
            fin = end == sender._buffer_fin
            full, rest = divmod(end - pending.start, data_size)
            if fin and not rest:
                full, rest = full - 1, data_size
            packets = min(full, left)
            stop = pending.start + packets * data_size
            if packets:
                datagrams += self._build_run(prefix, sender, pending.start, packets, data_size, now)
            if rest and packets < left and end == pending.stop:
                datagrams += self._build_run(prefix, sender, stop, 1, rest, now, fin=fin)
                stop = end
            self._note_sent(sender, pending.start, stop)
        return datagrams

    def _note_sent(self, sender: QuicStreamSender, start: int, stop: int) -> None:
        if stop > start:
            sender._pending.subtract(start, stop)
        if stop > sender.highest_offset:
            self._remote_max_data_used += stop - sender.highest_offset
            sender.highest_offset = stop
        if not len(sender._pending) and not sender._pending_eof:
            sender.buffer_is_empty = True

    def _build_run(
        self,
        prefix: bytes,
        sender: QuicStreamSender,
        start: int,
        packets: int,
        data_size: int,
        now: float,
        *,
        fin: bool = False,
    ) -> list[bytes]:
        """Packets with `data_size` bytes of the stream each, from `start` on."""
        if fin:
            prefix = STREAM_TYPE_FIN + prefix[1:]
            sender._pending_eof = False
        datagrams = self._protect(prefix, sender, start, packets, data_size)
        number = self._packet_number
        self._packet_number += packets
        run = SentRun(
            number,
            self._packet_number,
            sent_time=now,
            packet_size=len(datagrams[0]),
            sender=sender,
            offset=start,
            data_size=data_size,
            fin=fin,
        )
        self._recovery.on_run_sent(run, self._spaces[ONE_RTT])
        self._network_paths[0].bytes_sent += packets * run.packet_size
        if not self._ack_eliciting_sent_since_receipt:  # RFC 9000 §10.1
            self._close_at = now + self._idle_timeout()
            self._ack_eliciting_sent_since_receipt = True
        return datagrams

    def _protect(
        self, prefix: bytes, sender: QuicStreamSender, start: int, packets: int, data_size: int
    ) -> list[bytes]:
        """Packets with `data_size` bytes of the stream each, from `start` on, encrypted (RFC 9001 §5)."""
        send = self._cryptos[ONE_RTT].send
        assert send.aead is not None
        encrypt, iv = send.aead._aead.encrypt, send.aead._iv
        first = 0x41 | self._spin_bit << 5 | send.key_phase << 2  # 2 bytes of packet number
        connection_id = self._peer_cid.cid
        plain_header = bytes((first,)) + connection_id
        number, at = self._packet_number, start - sender._buffer_start
        join = b"".join
        payloads: list[bytes] = []
        buffer: object = sender._buffer
        assert isinstance(buffer, SendBuffer)
        data = buffer.view(at, at + packets * data_size)
        for position in range(0, packets * data_size, data_size):
            payloads.append(
                encrypt(
                    (iv ^ number).to_bytes(12, "big"),
                    join(
                        (
                            prefix,
                            (start | OFFSET_FLAG).to_bytes(8, "big"),
                            data[position : position + data_size],
                        )
                    ),
                    plain_header + (number & 0xFFFF).to_bytes(2, "big"),
                )
            )
            number += 1
            start += data_size
        number = self._packet_number
        datagrams: list[bytes] = []
        masks = header_masks(
            send, [payload[2:18] for payload in payloads]
        )  # 4 bytes from the packet number on
        for payload, (mask, number_mask) in zip(payloads, masks, strict=True):
            protected = ((number & 0xFFFF) ^ number_mask).to_bytes(2, "big")
            datagrams.append(join((BYTES[first ^ mask & 0x1F], connection_id, protected, payload)))
            number += 1
        return datagrams


def _needs_probing(path: QuicNetworkPath) -> bool:
    """Whether the library has a challenge or a response to send on a path."""
    return bool(path.remote_challenges) or not (path.is_validated or path.local_challenge_sent)


def _is_to_be_told(streams: Limit) -> bool:
    """Whether stock tells now how many streams the remote may open: only when half of them are used."""
    return streams.sent - streams.used < streams.value - streams.sent


def _limit(stream: QuicStream, credit: int) -> int:
    """Where flow control ends what may be sent of a stream now. `credit` is what the connection has left."""
    return min(stream.max_stream_data_remote, stream.sender.highest_offset + credit)


def _is_worth_a_run(stream: QuicStream, credit: int, size: int) -> bool:
    """Whether so many bytes may be sent of a stream now."""
    limit, sendable = _limit(stream, credit), 0
    for pending in stream.sender._pending:
        sendable += min(pending.stop, limit) - pending.start
        if sendable >= size or pending.stop >= limit:
            break
    return sendable >= size
