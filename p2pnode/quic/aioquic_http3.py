"""The frames and headers of HTTP/3 (RFC 9114), sans IO, over streams that somebody else reads and writes.

aioquic's `H3Connection` wants a whole `QuicConnection`, of which it uses a handful of methods: `_Quic` has those. It is
fed what streams have given, so that credit follows consumption, and whoever sends waits for room before. What a remote
can make the stock class hold is bounded here: there is no dynamic table, hence no header block that is larger unpacked
than it was sent and none that waits for another stream, and no frame that is kept is large.

Private names of aioquic are used here as in `aioquic_internals`.
"""

from __future__ import annotations

from typing import Final, Protocol

import pylsqpack
from aioquic.h3.connection import ErrorCode, H3Connection, Setting
from aioquic.h3.events import DataReceived, H3Event, Headers, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import stream_is_unidirectional
from aioquic.quic.events import QuicEvent, StopSendingReceived, StreamDataReceived, StreamReset

from p2pnode import config
from p2pnode.quic.guard import Escape, guard

__all__ = ["DataReceived", "ErrorCode", "H3Event", "Headers", "HeadersReceived", "Http3Framing", "StreamPort"]

TABLE_CAPACITY: Final = 0  # bytes of QPACK's dynamic table (RFC 9204 §3.2), in either direction


class StreamPort(Protocol):
    """What HTTP/3 does to streams, which are known by their ids. Nothing here waits."""

    def open_unidirectional(self) -> int:
        """Open a stream that only we send on."""
        ...

    def send(self, stream_id: int, data: bytes, end: bool) -> None:
        """Hand data over, and with `end` FIN."""
        ...

    def close(self, code: int, reason: str) -> None:
        """End the connection."""
        ...


class Http3Framing(H3Connection):
    """The listener's side of one HTTP/3 connection. It opens its three streams at once."""

    def __init__(self, streams: StreamPort) -> None:
        self._port = streams
        super().__init__(_Quic(streams))  # type: ignore[arg-type]

    # -- in ------------------------------------------------------------------------------------------------

    def receive(self, stream_id: int, data: bytes, end: bool) -> list[H3Event]:
        """What the bytes that a stream gave mean; with `end`, its last ones. What is wrong ends the connection."""
        events = self._take_in(StreamDataReceived(data=data, end_stream=end, stream_id=stream_id))
        if stream_is_unidirectional(stream_id) and self.held(stream_id) > config.HTTP3_FRAME_SIZE_MAX:
            self._port.close(ErrorCode.H3_EXCESSIVE_LOAD, "a frame is too large")
        return events

    def held(self, stream_id: int) -> int:
        """Bytes of a frame that has not come as a whole. Of a request those are headers or trailers."""
        stream = self._stream.get(stream_id)
        return 0 if stream is None else len(stream.buffer)

    def forget(self, stream_id: int) -> None:
        """A request is over: whatever its sides had to say yet is neither sent nor read."""
        if stream_id in self._stream:
            self._take_in(StopSendingReceived(error_code=0, stream_id=stream_id))
        if stream_id in self._stream:
            self._take_in(StreamReset(error_code=0, stream_id=stream_id))

    def _take_in(self, event: QuicEvent) -> list[H3Event]:
        try:
            return guard(self.handle_event, event)
        except Escape as escape:
            self._port.close(ErrorCode.H3_INTERNAL_ERROR, str(escape))
            return []

    # -- settings ------------------------------------------------------------------------------------------

    def _init_connection(self) -> None:
        """Stock offers a dynamic table of 4 KiB: one byte that refers to an entry of it is 4 KiB of headers."""
        self._max_table_capacity, self._blocked_streams = TABLE_CAPACITY, 0
        self._decoder = pylsqpack.Decoder(TABLE_CAPACITY, 0)
        super()._init_connection()

    def _get_local_settings(self) -> dict[int, int]:
        """Stock promises extended CONNECT, and says nothing of the size of headers."""
        settings = super()._get_local_settings()
        del settings[Setting.ENABLE_CONNECT_PROTOCOL]
        return settings | {Setting.MAX_FIELD_SECTION_SIZE: config.HTTP3_FRAME_SIZE_MAX}

    def _validate_settings(self, settings: dict[int, int]) -> None:
        """What the remote's table would hold, we would remember as well: there is none."""
        super()._validate_settings(settings)
        settings[Setting.QPACK_MAX_TABLE_CAPACITY] = TABLE_CAPACITY


class _Quic:
    """A `StreamPort` by the names that `H3Connection` knows."""

    configuration = QuicConfiguration(is_client=False)
    _quic_logger = None
    # Whether the client carries datagrams matters to nobody here. Without this, stock ends the connection of each that
    # says it does, as browsers do: their transport parameter is out of our sight.
    _remote_max_datagram_frame_size = 0

    def __init__(self, streams: StreamPort) -> None:
        self._port = streams

    def get_next_available_stream_id(self, is_unidirectional: bool) -> int:
        assert is_unidirectional
        return self._port.open_unidirectional()

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        if data or end_stream:
            self._port.send(stream_id, data, end_stream)

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """A request ended without headers: whoever reads the stream sees that, and may still answer."""

    def close(self, error_code: int, reason_phrase: str) -> None:
        self._port.close(error_code, reason_phrase)
