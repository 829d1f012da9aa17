"""The messages of `p2pnode/1`, as frozen types.

A message is one msgpack map with a `type` key. Sizes are bytes, times are seconds, piece ranges are
`(first, count)` pairs in ascending order. `docs/PROTOCOL.md` says who sends which when.

Bounds on single fields are stated here and enforced by `codec`; what a range means for a torrent is checked
where the torrent is known.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from p2pnode import config

__all__ = [
    "Bye",
    "ConnectToMe",
    "Error",
    "ErrorCode",
    "FileAcknowledge",
    "FileAnnounce",
    "FileChunk",
    "FileChunkAck",
    "FileItem",
    "FileList",
    "FileRequest",
    "FileResponse",
    "FileTransferComplete",
    "FindSources",
    "Have",
    "Message",
    "NodeItem",
    "NodeProof",
    "PeerList",
    "PeerReport",
    "PieceRanges",
    "PresenceAnnounce",
    "PresenceResponse",
    "PushOrder",
    "PushReport",
    "PushRequest",
    "PushStatus",
    "SendingLimit",
    "Sources",
    "UnknownMessage",
]

NodeId = Annotated[bytes, Meta(min_length=32, max_length=32)]
FileId = Annotated[bytes, Meta(min_length=20, max_length=32)]
Root = Annotated[bytes, Meta(min_length=32, max_length=32)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Name = Annotated[str, Meta(max_length=config.NAME_LENGTH_MAX)]
Word = Annotated[str, Meta(max_length=config.WORD_LENGTH_MAX)]
Text = Annotated[str, Meta(max_length=config.ERROR_TEXT_LENGTH_MAX)]
Seconds = Annotated[float, Meta(ge=0, le=86400 * 7)]  # a promise: nothing here is meant to last longer
Duration = Annotated[float, Meta(ge=0, le=1e9)]  # measured; 30 years keeps NaN and infinity out
PieceRange = tuple[Count, Annotated[int, Meta(ge=1, le=2**63 - 1)]]
PieceRanges = Annotated[tuple[PieceRange, ...], Meta(max_length=config.RANGES_PER_MESSAGE_MAX)]
HostPort = tuple[Annotated[str, Meta(max_length=255)], Port]
Cursor = Annotated[bytes, Meta(max_length=4 * config.NAME_LENGTH_MAX + 64)]  # room for a name and a file id
Addresses = Annotated[tuple[HostPort, ...], Meta(max_length=config.ADDRESSES_PER_NODE_MAX)]


class _Struct(Struct, frozen=True, omit_defaults=True):
    """What every struct on the wire shares: immutable, defaults left out."""


class _Message(_Struct, frozen=True, tag=True):
    """A struct that is a frame of its own; the name of its class is its `type`."""


# -- the control stream ------------------------------------------------------------------------------------


class NodeProof(_Message, frozen=True):
    """First frame of both sides: my node key, and its signature over label ‖ role ‖ TLS exporter."""

    spki: Annotated[bytes, Meta(min_length=32, max_length=512)]
    signature: Annotated[bytes, Meta(min_length=8, max_length=256)]


class PresenceAnnounce(_Message, frozen=True):
    """Who I am and where I listen. Sent by the dialer after its proof, and again before it expires."""

    version: Annotated[int, Meta(ge=1, le=65535)]
    agent: Word = ""
    name: Word = ""
    role: Word = "peer"
    zone: Word = ""
    features: Annotated[tuple[Word, ...], Meta(max_length=32)] = ()
    addresses: Addresses = ()
    listen_port: Port = 0


class PresenceResponse(_Message, frozen=True):
    """The answer: the address I saw you at, how long your presence lasts, and who I am."""

    version: Annotated[int, Meta(ge=1, le=65535)]
    observed_address: HostPort
    lasts_s: Seconds
    retry_after_s: Seconds = 0.0
    agent: Word = ""
    name: Word = ""
    role: Word = "peer"
    zone: Word = ""
    features: Annotated[tuple[Word, ...], Meta(max_length=32)] = ()


class Have(_Message, frozen=True):
    """News of a torrent that I have or fetch: pieces that I have now, verified and written. Never answered.

    With `whole` that is all I have, and whatever I said before is void; the first word about a torrent on a link
    has it. `coming` are pieces that I have asked somebody for. With `over` I neither have nor fetch it any more.
    """

    file_id: FileId
    ranges: PieceRanges = ()
    coming: PieceRanges = ()
    whole: bool = False
    over: bool = False


class ConnectToMe(_Message, frozen=True):
    """A node that cannot reach another asks a node both know; that one passes it on; the target dials.

    On the way to the go-between `node_id` is the target; on the way to the target it is the asker, with the
    addresses to dial. Never answered.
    """

    node_id: NodeId
    addresses: Addresses = ()


class SendingLimit(_Message, frozen=True):
    """What holds back the pieces of this torrent that I send you now. Never answered.

    For people: words are those of docs/PROTOCOL.md, and one that is not known is ignored.
    """

    file_id: FileId
    by: Word


class Bye(_Message, frozen=True):
    """I am leaving on purpose: forget my presence at once. Never answered."""

    reason: Text = ""


# -- what a node offers ------------------------------------------------------------------------------------


class FileAnnounce(_Message, frozen=True):
    """I have these pieces of this torrent.

    No ranges means: no longer shared. A torrent of size 0 has no pieces, so without ranges it is shared; one that
    is being fetched is announced before its first piece is there.
    """

    file_id: FileId
    name: Name
    size: Count
    piece_length: Count
    have: PieceRanges = ()
    pieces_root: Root | None = None
    is_directory: bool = False
    is_fetching: bool = False


class FileAcknowledge(_Message, frozen=True):
    """The answer to one `FileAnnounce`."""

    file_id: FileId
    accepted: bool
    reason: Text = ""


class FileItem(_Struct, frozen=True):
    """One row of a `FileList`: how many nodes share it, and how many fetch it."""

    file_id: FileId
    name: Name
    size: Count
    sources: Count = 1
    is_directory: bool = False
    fetching: Count = 0


class FileList(_Message, frozen=True):
    """Asked: a page of what you offer. Answered: the page, and the `after` of the next one.

    Rows are sorted by name, then file id; `after` is opaque to the asker. With `peer` (a name, or the start of a
    node id in hex) an operator asks a server for what that peer offers, which the server asks it in turn.
    """

    prefix: Name = ""
    after: Cursor = b""
    limit: Annotated[int, Meta(ge=0, le=config.LIST_PAGE_MAX)] = config.LIST_PAGE_MAX
    peer: Name = ""
    files: Annotated[tuple[FileItem, ...], Meta(max_length=config.LIST_PAGE_MAX)] = ()
    next: Cursor = b""


class FindSources(_Message, frozen=True):
    """Who has this torrent, or a file with this pieces root? One of the two is there."""

    file_id: FileId | None = None
    pieces_root: Root | None = None
    limit: Annotated[int, Meta(ge=1, le=config.SOURCES_PER_MESSAGE_MAX)] = config.SOURCES_PER_MESSAGE_MAX


class NodeItem(_Struct, frozen=True):
    """A node that has something, and where to dial it.

    Without ranges nothing is known of what it has; one that is fetching has what it says itself, over a link.
    """

    node_id: NodeId
    addresses: Addresses
    file_id: FileId
    have: PieceRanges = ()
    zone: Word = ""
    is_fetching: bool = False


class Sources(_Message, frozen=True):
    """The answer to `FindSources`. The node that answers lists itself with no address."""

    sources: Annotated[tuple[NodeItem, ...], Meta(max_length=config.SOURCES_PER_MESSAGE_MAX)] = ()


# -- a transfer --------------------------------------------------------------------------------------------


class FileRequest(_Message, frozen=True):
    """Send me these pieces, in this order. With `metainfo`, send that first; no ranges asks for it alone.

    Of the very first piece, the blocks before `first_block` are not sent: a resumed download has them.
    """

    file_id: FileId
    ranges: PieceRanges = ()
    first_block: Annotated[int, Meta(ge=0, lt=config.BLOCKS_PER_PIECE_MAX)] = 0
    metainfo: bool = False
    priority: Annotated[int, Meta(ge=-8, le=8)] = 0


class FileResponse(_Message, frozen=True):
    """Whether I can. `metainfo_length` raw bytes of metainfo follow this frame."""

    file_id: FileId
    available: bool
    size: Count = 0
    metainfo_length: Annotated[int, Meta(ge=0, le=config.METAINFO_SIZE_MAX)] = 0
    reason: Text = ""


class FileChunk(_Message, frozen=True):
    """Whole blocks of one piece. `hashes` × 32 raw bytes of block hashes, then `length` raw bytes follow.

    `hashes` is the number of blocks of the piece in the first chunk of it that a stream carries, else 0.
    """

    piece: Count
    offset: Count
    length: Annotated[int, Meta(ge=1, le=config.CHUNK_SIZE_MAX)]
    hashes: Annotated[int, Meta(ge=0, le=config.BLOCKS_PER_PIECE_MAX)] = 0


class FileChunkAck(_Message, frozen=True):
    """Bytes of this request verified and written so far. Progress, not flow control."""

    bytes_written: Count


class FileTransferComplete(_Message, frozen=True):
    """Everything asked for was sent: this many file bytes."""

    bytes_sent: Count


# -- requests pushed by a server ---------------------------------------------------------------------------


class PushRequest(_Message, frozen=True):
    """The server to a peer: fetch this torrent. Answered with `PushStatus` until one is final."""

    file_id: FileId
    name: Name
    size: Count
    sources: Annotated[tuple[NodeItem, ...], Meta(max_length=config.SOURCES_PER_MESSAGE_MAX)] = ()


class PushStatus(_Message, frozen=True):
    """How far a pushed fetch is: accepted, fetching, complete, refused, failed; the last three are final."""

    state: Word
    bytes_done: Count = 0
    seconds: Duration = 0.0
    text: Text = ""


class PushOrder(_Message, frozen=True):
    """An operator to his server: push `reference` (a file id in hex, or a name) to `target`.

    `target` is `all`, `server` (fetch it yourself), or a peer's name or node id (a prefix of its hex does).
    Answered with `PushReport`s; the sender finishes the stream after the last.
    """

    reference: Name
    target: Name


class PushReport(_Message, frozen=True):
    """What one peer did so far with a push."""

    node_id: NodeId
    name: Word
    file_id: FileId
    file_name: Name
    size: Count
    state: Word
    bytes_done: Count = 0
    seconds: Duration = 0.0
    text: Text = ""


class PeerReport(_Struct, frozen=True):
    """One row of a `PeerList`."""

    node_id: NodeId
    name: Word
    role: Word
    addresses: Addresses
    files: Count = 0
    zone: Word = ""
    agent: Word = ""
    connected_s: Duration = 0.0


class PeerList(_Message, frozen=True):
    """Asked (without peers) and answered: whom the server knows now. Operators only."""

    peers: Annotated[tuple[PeerReport, ...], Meta(max_length=config.PEERS_PER_MESSAGE_MAX)] = ()


# -- errors ------------------------------------------------------------------------------------------------


class ErrorCode:
    """The codes of `Error`; an unknown one is treated as `INTERNAL`."""

    BUSY = "BUSY"
    NOT_FOUND = "NOT_FOUND"
    NOT_ALLOWED = "NOT_ALLOWED"
    BAD_REQUEST = "BAD_REQUEST"
    UNKNOWN_REQUEST = "UNKNOWN_REQUEST"
    SOURCE_CHANGED = "SOURCE_CHANGED"
    TOO_LARGE = "TOO_LARGE"
    INTERNAL = "INTERNAL"


class Error(_Message, frozen=True):
    """Why a request is not answered. Ends the stream, never the connection, and is never answered."""

    code: Word
    text: Text = ""
    retryable: bool = False
    retry_after_s: Seconds = 0.0


class UnknownMessage(Struct, frozen=True):
    """A well-formed frame whose type this version does not know. Not sent by us."""

    type: str


Message = (
    NodeProof
    | PresenceAnnounce
    | PresenceResponse
    | Have
    | ConnectToMe
    | SendingLimit
    | Bye
    | FileAnnounce
    | FileAcknowledge
    | FileList
    | FindSources
    | Sources
    | FileRequest
    | FileResponse
    | FileChunk
    | FileChunkAck
    | FileTransferComplete
    | PushRequest
    | PushStatus
    | PushOrder
    | PushReport
    | PeerList
    | Error
)
