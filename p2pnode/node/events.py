"""What happened in a node, as frozen values: the event stream of `Node.events()` and of `--json`.

`to_json()` gives the documented schema: `event` is the snake-case name, bytes are hex, paths are text, times
are seconds and sizes bytes. New keys may be added to an event; none is renamed.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2pnode.node.bottleneck import Bottleneck

Address = tuple[str, int]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEvent:
    """The root of all events."""

    def to_json(self) -> dict[str, Any]:
        """One flat object of plain values."""
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()
        fields = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {"event": name, **fields}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening(NodeEvent):
    """The node accepts connections."""

    address: Address
    node_id: bytes
    role: str
    certificate_pin: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConnected(NodeEvent):
    """We are registered. `verified` is false where `--no-verify-tls` gave that up."""

    address: Address
    node_id: bytes
    verified: bool
    observed_address: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLost(NodeEvent):
    """The server is gone; we try again after `retry_s`."""

    address: Address
    reason: str
    retry_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConnected(NodeEvent):
    """A link to another node stands, its key proven."""

    node_id: bytes
    name: str
    role: str
    address: Address
    dialed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerDisconnected(NodeEvent):
    """A link ended."""

    node_id: bytes
    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeBanned(NodeEvent):
    """A node has sent too many pieces that are not what their hash says: we have nothing to do with it any more."""

    node_id: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HashingProgress(NodeEvent):
    """A file or tree is being hashed before it is shared."""

    path: Path
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileShared(NodeEvent):
    """We offer this."""

    file_id: bytes
    name: str
    size: int
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class FileUnshared(NodeEvent):
    """We no longer offer this: it is gone or it changed."""

    file_id: bytes
    name: str
    path: Path
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchStarted(NodeEvent):
    """A fetch knows its metainfo. `bytes_resumed` were there already, verified."""

    file_id: bytes
    name: str
    size: int
    target: Path
    bytes_resumed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchProgress(NodeEvent):
    """About each quarter of a second. `bottleneck` is what limited the last whole second.

    `duplicate_bytes` came over the wire for nothing: they were here already, or were not what they should be.
    """

    file_id: bytes
    name: str
    size: int
    bytes_done: int
    rate_bytes_per_s: float
    peers: int
    duplicate_bytes: int = 0
    bottleneck: Bottleneck | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchSourceLost(NodeEvent):
    """A source died, stalled, refused or lied; others continue."""

    file_id: bytes
    node_id: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchCompleted(NodeEvent):
    """Every byte is verified, durable and under its name. `sources` maps node ids to bytes they gave.

    `duplicate_bytes` came for nothing. `limit_waited_s` is how long its requests, of which several run at once,
    waited for our rate limits in all.
    `bottleneck` is what limited most of its seconds; None when it took less than one.
    """

    file_id: bytes
    name: str
    size: int
    target: Path
    seconds: float
    bytes_fetched: int
    sources: dict[bytes, int] = field(default_factory=dict)
    duplicate_bytes: int = 0
    limit_waited_s: float = 0.0
    bottleneck: Bottleneck | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchFailed(NodeEvent):
    """A fetch ended without its file; what was verified is kept for the next try."""

    file_id: bytes
    name: str
    reason: str
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadProgress(NodeEvent):
    """Each second in which a node gets something from us, and once more when it has asked for nothing since.

    `bytes_sent` counts from the first of its requests that follow each other; `requests` are under way now.
    """

    file_id: bytes
    name: str
    size: int
    node_id: bytes
    bytes_sent: int
    rate_bytes_per_s: float
    requests: int
    bottleneck: Bottleneck | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadFinished(NodeEvent):
    """We answered one request. For `limit_waited_s` of its seconds it waited for our rate limits."""

    file_id: bytes
    name: str
    node_id: bytes
    bytes_sent: int
    seconds: float
    limit_waited_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PushReceived(NodeEvent):
    """Our server asks us to fetch something."""

    file_id: bytes
    name: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeWarning(NodeEvent):
    """Something a person should know; one line."""

    text: str
