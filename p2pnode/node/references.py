"""What a person may name a torrent by, and what that means.

In this order: a magnet link, a ticket, 64 or 40 hex digits, a name. A path that ends in `.torrent` is read by
whoever has the file, and comes here as `Metainfo`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from p2pnode.errors import InvalidData, NotFound
from p2pnode.torrent import Magnet, Metainfo, Selection, Ticket, printable
from p2pnode.torrent.ticket import PREFIX
from p2pnode.wire.communication import FileItem, NodeItem

Reference = str | bytes | Metainfo | Magnet | Ticket

_HEX_ID = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{40}")


@dataclass(frozen=True)
class Wanted:
    """What a reference leads to. One of file id, pieces root and name is known; the rest may be.

    More than `size_max` bytes are not wanted, whatever was said of the size, and of a tree only what `select` says.
    What is private is looked for nowhere but at the server and in the reference itself (BEP 27).
    """

    file_id: bytes | None = None
    pieces_root: bytes | None = None
    name: str | None = None
    metainfo: Metainfo | None = None
    sources: tuple[NodeItem, ...] = ()
    size_max: int | None = None
    likely_id: bytes | None = None  # its file id if it is shared under its own name
    is_private: bool = False
    select: Selection = Selection()  # noqa: RUF009 (it is frozen)
    is_sequential: bool = False  # the first pieces first


def wanted_from(reference: Reference | Wanted) -> Wanted:
    """Read a reference; `InvalidData` when it looks like a link or ticket and is none."""
    match reference:
        case Wanted():
            return reference
        case bytes():
            return Wanted(file_id=reference)
        case Metainfo():
            return _from_metainfo(reference)
        case Magnet():
            return _from_magnet(reference)
        case Ticket():
            return _from_ticket(reference)
        case str():
            return _from_text(reference)


def _from_text(text: str) -> Wanted:
    if text.startswith("magnet:"):
        return _from_magnet(Magnet.parse(text))
    if text.lower().startswith(PREFIX):
        return _from_ticket(Ticket.parse(text))
    if _HEX_ID.fullmatch(text):
        return Wanted(file_id=bytes.fromhex(text))
    return Wanted(name=text.rstrip("/") or text)  # as `list` shows a directory


def _from_metainfo(metainfo: Metainfo) -> Wanted:
    if metainfo.info_hash_v2 is None:
        raise InvalidData(
            f"{printable(metainfo.name)!r} is a v1 torrent: its blocks cannot be verified one by one, and this "
            "release fetches v2 and hybrid torrents only"
        )
    if metainfo.is_canonical:
        return Wanted(file_id=metainfo.file_id, name=metainfo.name, metainfo=metainfo)
    canonical = metainfo.in_canonical_form()
    return Wanted(
        file_id=metainfo.info_hash_v2 if metainfo.is_directory else None,
        pieces_root=None if metainfo.is_directory else metainfo.files[0].pieces_root,
        name=metainfo.name,
        likely_id=None if canonical is None else canonical.file_id,
        is_private=metainfo.is_private,
    )


def _from_magnet(magnet: Magnet) -> Wanted:
    if magnet.info_hash_v2 is None:
        raise InvalidData(
            "the magnet link has no v2 info hash (xt=urn:btmh:1220…), and this release needs one"
        )
    return Wanted(file_id=magnet.info_hash_v2, name=magnet.name or None)


def _from_ticket(ticket: Ticket) -> Wanted:
    sources = tuple(NodeItem(node.node_id, node.addresses, ticket.file_id) for node in ticket.nodes)
    return Wanted(file_id=ticket.file_id, name=ticket.name, sources=sources)


def pick_by_name(name: str, files: Sequence[FileItem]) -> FileItem:
    """The one file of that name; `NotFound` suggests near names, and lists the ids when there are several."""
    found = [item for item in files if item.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(f"{item.file_id.hex()} ({item.size} bytes)" for item in found)
        raise NotFound(
            f"{len(found)} different files are called {printable(name)!r}: name one by its id: {ids}"
        )
    near = difflib.get_close_matches(name, sorted({item.name for item in files}), n=3, cutoff=0.5)
    hint = f"; near it: {', '.join(printable(near_name) for near_name in near)}" if near else ""
    raise NotFound(f"nobody offers a file called {printable(name)!r}{hint}")
