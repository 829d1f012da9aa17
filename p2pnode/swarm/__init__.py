"""What one download decides: which pieces to ask whom for, whom to drop, when it is finished.

`Download` is the machine: events go in, commands come out, time and chance are given to it. It never sees a
payload byte.
"""

from p2pnode.swarm.commands import CancelRequest, Command, DropPeer, Finish, RequestPieces
from p2pnode.swarm.download import Download, DownloadLimits
from p2pnode.swarm.events import (
    BlockStored,
    DeadlinePassed,
    Event,
    PeerHas,
    PeerId,
    PeerJoined,
    PeerLeft,
    PieceCorrupt,
    PieceVerified,
    RequestFailed,
    RequestFinished,
)

__all__ = [
    "BlockStored",
    "CancelRequest",
    "Command",
    "DeadlinePassed",
    "Download",
    "DownloadLimits",
    "DropPeer",
    "Event",
    "Finish",
    "PeerHas",
    "PeerId",
    "PeerJoined",
    "PeerLeft",
    "PieceCorrupt",
    "PieceVerified",
    "RequestFailed",
    "RequestFinished",
    "RequestPieces",
]
