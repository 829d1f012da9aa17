"""BEP 14, Local Service Discovery: one datagram to everybody in this network, like a request of HTTP.

::

    BT-SEARCH * HTTP/1.1
    Host: 239.192.152.143:6771
    Port: 49731
    Infohash: 1bb8…            40 hex digits, once for each torrent; of a v2 info hash the first 20 bytes (BEP 52)
    cookie: 8d09…              to know one's own
    Node-Id: 5f0c…             our own: 64 hex digits, who will prove to be it at that port

A reader gets datagrams from anybody: `decode` gives a message or None, whatever the bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from p2pnode import config

__all__ = ["LocalSearch", "decode", "encode", "short_hash"]

_REQUEST_LINE: Final = b"BT-SEARCH * HTTP/1.1"
_INFO_HASH: Final = re.compile(rb"[0-9a-fA-F]{40}")
_NODE_ID: Final = re.compile(rb"[0-9a-fA-F]{64}")
_PORT: Final = re.compile(rb"[0-9]{1,5}")
_COOKIE: Final = re.compile(rb"[!-~]{1,64}")


@dataclass(frozen=True, slots=True)
class LocalSearch:
    """Who says it has or looks for torrents: it is reached at `port` of the host that the datagram came from.

    Without a node id it is a program of another kind.
    """

    port: int
    info_hashes: tuple[bytes, ...]  # 20 bytes each
    cookie: str = ""
    node_id: bytes | None = None


def short_hash(file_id: bytes) -> bytes:
    """How a torrent is called here: its v1 info hash, or the first 20 bytes of its v2 info hash."""
    return file_id[:20]


def encode(search: LocalSearch, group: str) -> bytes:
    """The datagram; `group` is where it goes, as host:port."""
    lines = [
        _REQUEST_LINE.decode(),
        f"Host: {group}",
        f"Port: {search.port}",
        *(f"Infohash: {info_hash.hex()}" for info_hash in search.info_hashes),
    ]
    if search.cookie:
        lines.append(f"cookie: {search.cookie}")
    if search.node_id is not None:
        lines.append(f"Node-Id: {search.node_id.hex()}")
    return "\r\n".join([*lines, "", "", ""]).encode("ascii")


def decode(datagram: bytes) -> LocalSearch | None:
    """The message in a datagram; None for anything else. Unknown headers are ignored, as are hashes beyond a bound."""
    if len(datagram) > config.LAN_DATAGRAM_SIZE_MAX:
        return None
    request_line, *lines = datagram.split(b"\r\n")
    if request_line != _REQUEST_LINE:
        return None
    headers = [
        (name.strip().lower(), value.strip())
        for name, colon, value in (line.partition(b":") for line in lines)
    ]
    ports = [int(value) for name, value in headers if name == b"port" and _PORT.fullmatch(value)]
    hashes = [value for name, value in headers if name == b"infohash" and _INFO_HASH.fullmatch(value)]
    if len(ports) != 1 or not 0 < ports[0] <= 65_535 or not hashes:
        return None
    cookies = [value for name, value in headers if name == b"cookie" and _COOKIE.fullmatch(value)]
    node_ids = [value for name, value in headers if name == b"node-id" and _NODE_ID.fullmatch(value)]
    info_hashes = dict.fromkeys(bytes.fromhex(value.decode()) for value in hashes)
    return LocalSearch(
        ports[0],
        tuple(info_hashes)[: config.LAN_HASHES_MAX],
        cookies[0].decode() if cookies else "",
        bytes.fromhex(node_ids[0].decode()) if node_ids else None,
    )
