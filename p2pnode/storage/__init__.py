"""Where bytes live: files that are shared, downloads that survive anything, and what is known about both."""

from p2pnode.storage.catalogue import Catalogue
from p2pnode.storage.checking import WholePiece
from p2pnode.storage.file_store import FileStore, StoreState
from p2pnode.storage.hashing import hash_files, hash_item, hash_path, hash_pieces_v1
from p2pnode.storage.partial import peek_journal
from p2pnode.storage.scanning import Item, find_item, list_items
from p2pnode.storage.store import PieceData, Store
from p2pnode.storage.threads import OnProgress
from p2pnode.storage.verification import Verification, verify_path
from p2pnode.storage.work_times import WorkTimes

__all__ = [
    "Catalogue",
    "FileStore",
    "Item",
    "OnProgress",
    "PieceData",
    "Store",
    "StoreState",
    "Verification",
    "WholePiece",
    "WorkTimes",
    "find_item",
    "hash_files",
    "hash_item",
    "hash_path",
    "hash_pieces_v1",
    "list_items",
    "peek_journal",
    "verify_path",
]
