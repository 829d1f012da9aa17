"""What one download decides: which pieces to ask whom for, whom to drop, when it is finished.

`Download` is the machine: events go in, commands come out, time and chance are given to it. It never sees a
payload byte.
"""

from p2pnode.swarm.asking import DownloadLimits
from p2pnode.swarm.commands import CancelRequest, Command, DropPeer, Finish, RequestPieces, ShortenRequest
from p2pnode.swarm.download import Download
from p2pnode.swarm.events import (
    BlockStored,
    BytesWasted,
    DeadlinePassed,
    Event,
    PeerComing,
    PeerHas,
    PeerId,
    PeerJoined,
    PeerLeft,
    PieceCorrupt,
    PieceFailed,
    PieceVerified,
    RequestFailed,
    RequestFinished,
)

__all__ = [
    "BlockStored",
    "BytesWasted",
    "CancelRequest",
    "Command",
    "DeadlinePassed",
    "Download",
    "DownloadLimits",
    "DropPeer",
    "Event",
    "Finish",
    "PeerComing",
    "PeerHas",
    "PeerId",
    "PeerJoined",
    "PeerLeft",
    "PieceCorrupt",
    "PieceFailed",
    "PieceVerified",
    "RequestFailed",
    "RequestFinished",
    "RequestPieces",
    "ShortenRequest",
]
