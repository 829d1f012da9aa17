"""Flow control that follows the application, and buffers that are bounded, for aioquic's streams.

Stock doubles its windows with the highest offset seen, whether anybody reads or not: one byte at the limit,
repeated, makes 256 MiB of gap. Here a window is what was consumed plus what the path holds.

Private names of aioquic are used here as in `aioquic_internals`.
"""

from __future__ import annotations

from aioquic import tls
from aioquic.buffer import Buffer  # type: ignore[attr-defined]  # it is there, but not marked as exported
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicConnectionError, QuicReceiveContext
from aioquic.quic.events import StreamReset
from aioquic.quic.packet import QuicErrorCode
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from p2pnode import config
from p2pnode.quic.receive_window import ReceiveWindow
from p2pnode.quic.send_buffer import SendBuffer
from p2pnode.quic.send_clock import SendLimit


class FlowControlledConnection(QuicConnection):
    """A `QuicConnection` whose peer can send no faster than what it sends is read."""

    def __init__(
        self,
        configuration: QuicConfiguration,
        *,
        original_destination_connection_id: bytes | None = None,
        retry_source_connection_id: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
        )
        self._consumed_bytes = 0
        is_limited = configuration.max_stream_data < config.STREAM_RECEIVE_WINDOW  # then it stays what it is
        self._receive_window = ReceiveWindow(
            config.CONNECTION_RECEIVE_WINDOW,
            growth_max=1 if is_limited else config.RECEIVE_WINDOW_GROWTH_MAX,
        )

    @property
    def heard_at(self) -> float | None:
        """When the newest packet under the final keys arrived; only the remote can make those."""
        space = self._spaces.get(tls.Epoch.ONE_RTT)
        return None if space is None else space.largest_received_time

    # -- receiving: credit follows consumption -------------------------------------------------------------

    def consumed(self, stream_id: int, size: int, offset: int) -> bool:
        """The application took `size` bytes of a stream, in all up to `offset`: let the remote send more.

        True when that is worth telling it now: credit moves in steps of a quarter of a window.
        """
        self._consumed_bytes += size
        if self.heard_at is not None and self._loss._rtt_initialized:
            self._receive_window.on_read(size, self.heard_at, self._loss._rtt_min)
        worth_telling = self._raise_connection_limit()
        stream = self._streams.get(stream_id)
        if (
            stream is not None
            and stream.receiver._final_size is None
            and stream.receiver._stop_error_code is None
        ):
            window = self.configuration.max_stream_data * self._receive_window.growth
            limit = offset + window
            if limit - stream.max_stream_data_local >= window // 4:
                stream.max_stream_data_local = limit
                worth_telling = True
        return worth_telling

    def _raise_connection_limit(self) -> bool:
        window = self._receive_window
        limit = self._consumed_bytes + window.size
        if limit - self._local_max_data.value < window.size // 4:
            return False
        self._local_max_data.value = limit
        return True

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        streams, unidirectional = self._local_max_streams_bidi, self._local_max_streams_uni
        if (
            self._local_max_data.value == self._local_max_data.sent
            and streams.value == streams.sent
            and unidirectional.value == unidirectional.sent
        ):
            return  # asked for each packet
        # `used` is what stock doubles by; flow control itself must not see it changed
        used, self._local_max_data.used = self._local_max_data.used, 0
        try:
            super()._write_connection_limits(builder, space)
        finally:
            self._local_max_data.used = used

    def _write_stream_limits(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream
    ) -> None:
        if stream.max_stream_data_local == stream.max_stream_data_local_sent:
            return  # asked for each packet and each open stream
        highest, stream.receiver.highest_offset = stream.receiver.highest_offset, 0
        try:
            super()._write_stream_limits(builder, space, stream)
        finally:
            stream.receiver.highest_offset = highest

    def _handle_reset_stream_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        events_before = len(self._events)
        super()._handle_reset_stream_frame(context, frame_type, buf)
        if len(self._events) == events_before:
            return
        event = self._events[-1]
        assert isinstance(event, StreamReset)
        # What will never be delivered is not held any more, and its credit returns to the connection.
        # What was delivered is the stream's to return.
        receiver = self._streams[event.stream_id].receiver
        self._consumed_bytes += receiver.highest_offset - receiver._buffer_start
        self._raise_connection_limit()
        receiver._buffer = bytearray()

    def _get_or_create_stream(self, frame_type: int, stream_id: int) -> QuicStream:
        """Stock keeps any number of gaps, and goes through all of them for each frame."""
        stream = super()._get_or_create_stream(frame_type, stream_id)
        if len(stream.receiver._ranges) > config.STREAM_GAPS_MAX:
            raise QuicConnectionError(QuicErrorCode.INTERNAL_ERROR, frame_type, "too many gaps in a stream")
        return stream

    # -- sending: what is held -----------------------------------------------------------------------------

    def _get_or_create_stream_for_send(self, stream_id: int) -> QuicStream:
        """Stock's buffer copies all that it holds, again and again."""
        stream = super()._get_or_create_stream_for_send(stream_id)
        buffer: object = stream.sender._buffer
        if not isinstance(buffer, SendBuffer):
            stream.sender._buffer = SendBuffer()  # type: ignore[assignment]  # nothing was written yet
        return stream

    def send_buffered(self, stream_id: int) -> int:
        """Bytes of a stream that are held: unsent, or sent and not acknowledged."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else len(stream.sender._buffer)

    def never_sent(self, stream_id: int) -> int:
        """Bytes of a stream that were handed over and never sent; what was lost is not counted."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.sender._buffer_stop - stream.sender.highest_offset

    @property
    def send_buffered_total(self) -> int:
        """The same for all streams together."""
        return sum(len(stream.sender._buffer) for stream in self._streams.values())

    @property
    def send_limit(self) -> SendLimit:
        """What keeps it from sending more, when it has just sent all that it may."""
        limit = SendLimit.APPLICATION
        credit = self._remote_max_data - self._remote_max_data_used
        for stream in self._streams.values():
            sender = stream.sender
            if sender.buffer_is_empty or not len(sender._pending):
                continue
            if sender.next_offset < min(stream.max_stream_data_remote, sender.highest_offset + credit):
                return SendLimit.CONGESTION
            limit = SendLimit.FLOW_CONTROL
        return limit

    @property
    def can_open_stream(self) -> bool:
        """Whether the remote lets us open one more bidirectional stream."""
        return self._local_next_stream_id_bidi // 4 < self._remote_max_streams_bidi

    @property
    def can_open_unidirectional_stream(self) -> bool:
        """Whether the remote lets us open one more unidirectional stream."""
        return self._local_next_stream_id_uni // 4 < self._remote_max_streams_uni

    @property
    def unidirectional_streams_received(self) -> int:
        """How many of them the remote has opened so far."""
        return self._local_max_streams_uni.used

    def _allow_unidirectional_streams(self, count: int) -> None:
        """Let the remote have so many open. Only before it has been told how many."""
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = count

    def open_stream(self, *, unidirectional: bool = False) -> int:
        """The id of a new stream, which exists from now on."""
        stream_id = self.get_next_available_stream_id(unidirectional)
        self.send_stream_data(stream_id, b"")
        return stream_id

    def has_stream(self, stream_id: int) -> bool:
        """Whether a stream is still known: False once both its sides are done."""
        return stream_id in self._streams

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """End our sending side at once. Stock goes on holding what it will never send."""
        super().reset_stream(stream_id, error_code)
        self._drop_send_buffer(stream_id)

    def _handle_stop_sending_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        position = buf.tell()
        stream_id = buf.pull_uint_var()
        buf.seek(position)
        super()._handle_stop_sending_frame(context, frame_type, buf)
        self._drop_send_buffer(stream_id)

    def _drop_send_buffer(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None and stream.sender._reset_error_code is not None:
            stream.sender._buffer = SendBuffer()  # type: ignore[assignment]
