"""The other end of `tracker_http`: queries as a client writes them, answers as it reads them (BEP 3, 7, 23, 48).

A tracker may be anybody's, and many write bencode that is not quite right: keys may be in any order, peers may come in
any of three forms, and a peer that can be none is left out while the others count. What is no bencode, no dictionary,
or says neither peers nor a failure is a `RemoteProtocolError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import islice
from typing import Final
from urllib.parse import quote

from p2pnode import config
from p2pnode.errors import BencodeError, Refused, RemoteProtocolError
from p2pnode.wire.bencoding import KeyOrder, Value, decode
from p2pnode.wire.compact_peers import unpack_peers

__all__ = ["Counts", "HttpAnswer", "Peer", "encode_query", "read_announce", "read_scrape"]

Peer = tuple[bytes, str, int]
"""Peer id, b"" where it is not told; host in digits; port."""

Counts = tuple[int, int, int]
"""How many have all of it, how many are fetching it, how often it was completed."""

_INTERVAL_UNSAID_S: Final = 1800  # what most trackers say


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The answer to an announce, its numbers as the tracker wrote them."""

    interval_s: int
    interval_min_s: int | None
    complete: int | None
    incomplete: int | None
    peers: tuple[Peer, ...]
    warning: str  # for a person; "" where there is none
    tracker_id: bytes  # to be said in later announces; b"" where there is none


def encode_query(fields: Iterable[tuple[str, bytes | int | str]]) -> str:
    """A query string. Bytes are percent-encoded as they are, whatever they mean as text."""
    return "&".join(f"{name}={quote(_as_bytes(value), safe='')}" for name, value in fields)


def read_announce(body: bytes) -> HttpAnswer:
    """Read the answer to an announce. `RemoteProtocolError`; `Refused` with the tracker's failure reason."""
    answer = _dictionary(body)
    interval_s = answer.get(b"interval", _INTERVAL_UNSAID_S)
    if not isinstance(interval_s, int):
        raise RemoteProtocolError("the tracker's interval is no number")
    return HttpAnswer(
        interval_s,
        _number(answer, b"min interval"),
        _number(answer, b"complete"),
        _number(answer, b"incomplete"),
        tuple(islice(_peers(answer), config.TRACKER_ANSWER_PEERS_MAX)),
        _text(answer.get(b"warning message")),
        _bytes(answer.get(b"tracker id")),
    )


def read_scrape(body: bytes) -> dict[bytes, Counts]:
    """Read the answer to a scrape, by info hash. Raises as `read_announce` does."""
    files = _dictionary(body).get(b"files")
    if not isinstance(files, dict):
        raise RemoteProtocolError("the tracker's scrape has no files")
    return {
        info_hash: (
            _number(counts, b"complete") or 0,
            _number(counts, b"incomplete") or 0,
            _number(counts, b"downloaded") or 0,
        )
        for info_hash, counts in files.items()
        if isinstance(counts, dict)
    }


def _dictionary(body: bytes) -> Mapping[bytes, Value]:
    try:
        answer = decode(body, config.ANNOUNCE_ANSWER_SIZE_MAX, key_order=KeyOrder.ANY)
    except BencodeError as error:
        raise RemoteProtocolError(f"the tracker's answer is no bencode: {error}") from None
    if not isinstance(answer, dict):
        raise RemoteProtocolError("the tracker's answer is no dictionary")
    if b"failure reason" in answer:
        raise Refused(_text(answer[b"failure reason"]) or "the tracker refuses, and does not say why")
    return answer


# -- peers -------------------------------------------------------------------------------------------------


def _peers(answer: Mapping[bytes, Value]) -> Iterator[Peer]:
    peers, peers6 = answer.get(b"peers", b""), answer.get(b"peers6", b"")
    if isinstance(peers, list):
        yield from _listed(peers)
    elif isinstance(peers, bytes):
        yield from ((b"", host, port) for host, port in unpack_peers(peers, is_ipv6=False))
    else:
        raise RemoteProtocolError("the tracker's peers are neither a string nor a list")
    yield from ((b"", host, port) for host, port in unpack_peers(_bytes(peers6), is_ipv6=True))


def _listed(peers: list[Value]) -> Iterator[Peer]:
    for peer in peers:
        if isinstance(peer, dict):
            host, port = _text(peer.get(b"ip")), peer.get(b"port")
            if isinstance(port, int) and 0 < port <= 65_535 and _is_address(host):
                yield _bytes(peer.get(b"peer id")), host, port


def _is_address(host: str) -> bool:
    """Whether it is in digits: a name, which BEP 3 allows, may lead anywhere."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return "%" not in host


# -- values ------------------------------------------------------------------------------------------------


def _number(answer: Mapping[bytes, Value], key: bytes) -> int | None:
    value = answer.get(key)
    return value if isinstance(value, int) and value >= 0 else None


def _text(value: Value | None) -> str:
    return _bytes(value).decode("utf-8", "replace")[: config.ERROR_TEXT_LENGTH_MAX]


def _bytes(value: Value | None) -> bytes:
    return value if isinstance(value, bytes) else b""


def _as_bytes(value: bytes | int | str) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
