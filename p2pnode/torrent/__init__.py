"""What is shared: metainfo, its pieces and hashes, and the ways to point at it.

Everything here is pure: bytes in, values out. Three forms of a torrent are read (v1, v2, hybrid); our nodes
know a file by its *canonical* metainfo, which is v2 and follows from the name and the bytes alone.
"""

from p2pnode.torrent.bitfield import Bitfield, Ranges
from p2pnode.torrent.creation import HashedFile, TorrentVersion, canonical_metainfo, create_metainfo
from p2pnode.torrent.layout import TorrentFile
from p2pnode.torrent.magnet import Magnet
from p2pnode.torrent.merkle import (
    HASH_SIZE,
    FileHasher,
    FileHashes,
    PieceHasherV1,
    block_hashes,
    merkle_root,
    piece_leaf_count,
    root_of_layer,
)
from p2pnode.torrent.metainfo import Metainfo, PieceMatch
from p2pnode.torrent.names import TORRENT_SUFFIX, last_component, printable, safe_component, safe_name
from p2pnode.torrent.pieces import Piece, PieceSpan, block_count, piece_count, piece_length_for
from p2pnode.torrent.selection import Selection
from p2pnode.torrent.ticket import Ticket, TicketNode, TicketServer

__all__ = [
    "HASH_SIZE",
    "TORRENT_SUFFIX",
    "Bitfield",
    "FileHasher",
    "FileHashes",
    "HashedFile",
    "Magnet",
    "Metainfo",
    "Piece",
    "PieceHasherV1",
    "PieceMatch",
    "PieceSpan",
    "Ranges",
    "Selection",
    "Ticket",
    "TicketNode",
    "TicketServer",
    "TorrentFile",
    "TorrentVersion",
    "block_count",
    "block_hashes",
    "canonical_metainfo",
    "create_metainfo",
    "last_component",
    "merkle_root",
    "piece_count",
    "piece_leaf_count",
    "piece_length_for",
    "printable",
    "root_of_layer",
    "safe_component",
    "safe_name",
]
