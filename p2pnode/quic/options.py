"""What an endpoint can be told, all of which has a default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from p2pnode import config
from p2pnode.quic.impairment import Impairment


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What connections leave behind for qvis and Wireshark, and what is done to them to find an error."""

    qlog_dir: Path | None = None  # gets a qlog of each connection; it must exist
    keylog_path: Path | None = None  # TLS secrets are appended
    batching: bool = True  # off: every packet takes the library's own way, slow but one place less to search
    impairment: Impairment | None = None  # a worse network than there is


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """How an endpoint speaks QUIC. Sizes are bytes.

    Datagrams are of `datagram_size` until a path is known to carry more, and never above `datagram_size_max`:
    equal ones make it fixed.
    """

    alpns: Sequence[str] = (config.ALPN,)  # what it listens for, the preferred one first
    # By ALPN: those that a remote may have open at a time; none where nothing is said.
    unidirectional_streams: Mapping[str, int] = field(default_factory=dict)
    datagram_size: int = config.DATAGRAM_SIZE
    datagram_size_max: int = config.DATAGRAM_SIZE_MAX
    stream_receive_window: int = (
        config.STREAM_RECEIVE_WINDOW
    )  # unread bytes of a stream that a remote may send
    diagnostics: Diagnostics = Diagnostics()
