"""The tracker's words over HTTP: query strings in, bencode out (BEP 3, 7, 21, 23, 48).

A query string is read as the bytes that came: `info_hash` and `peer_id` are percent-encoded binary, which no
form decoder gives back unchanged (a `+` there is a plus). Answers are put together by hand, since a tracker does
little else; that they are canonical bencode is for the tests to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import unquote_to_bytes

from p2pnode import config
from p2pnode.errors import RemoteProtocolError

__all__ = [
    "AnnounceQuery",
    "Counts",
    "Peer",
    "compact_peers",
    "encode_announce",
    "encode_failure",
    "encode_scrape",
    "parse_announce",
    "parse_scrape",
    "peer_dictionaries",
]

Peer = tuple[bytes, str, int]
"""Peer id, host in digits, port."""

Counts = tuple[int, int, int]
"""How many have all of it, how many are fetching it, how often it was completed."""

INTEGER_MAX: Final = 2**63 - 1  # what the same numbers may be over UDP (BEP 15)
PORT_MAX: Final = 65_535

_HASH_SIZE: Final = 20
_PEER_ID_SIZE: Final = 20
_NUMBER: Final = re.compile(rb"[0-9]{1,19}")
_ENDPOINT: Final = re.compile(r"\[(?P<v6>[^\]]*)\]:\d{1,5}|(?P<v4>[0-9.]+):\d{1,5}")


@dataclass(frozen=True, slots=True)
class AnnounceQuery:
    """What an announce says; `event` is `""` for one at a regular interval, and for one that nobody knows."""

    info_hash: bytes  # 20 bytes
    peer_id: bytes  # 20 bytes
    port: int
    left: int  # bytes it lacks; 0 where it does not say
    event: str
    numwant: int | None  # peers it asks for; None: it does not say
    claimed_host: str | None  # an address in digits that it says it has
    key: str
    is_compact: bool  # BEP 23: unless it says `compact=0`
    wants_peer_ids: bool  # where the answer is not compact


def parse_announce(query: bytes) -> AnnounceQuery:
    """Read the raw query string of an announce. `RemoteProtocolError`, its text the failure reason.

    What is not known is ignored, as BEP 3 has it, `trackerid` too: an answer depends on no earlier one.
    """
    fields = _fields(query)
    _number(fields, b"uploaded")
    _number(fields, b"downloaded")
    return AnnounceQuery(
        info_hash=_sized(fields, b"info_hash", _HASH_SIZE),
        peer_id=_sized(fields, b"peer_id", _PEER_ID_SIZE),
        port=_required(_number(fields, b"port", PORT_MAX), "port"),
        left=_number(fields, b"left") or 0,
        event=_EVENTS.get(fields.get(b"event", b""), ""),
        numwant=_number(fields, b"numwant"),
        claimed_host=_claimed_host(fields),
        key=_unquoted(fields.get(b"key", b""), "key")[: config.WORD_LENGTH_MAX].decode("latin-1"),
        is_compact=fields.get(b"compact") != b"0",
        wants_peer_ids=fields.get(b"no_peer_id") != b"1",
    )


def parse_scrape(query: bytes) -> list[bytes]:
    """Read the info hashes (20 bytes each) in the raw query string of a scrape. `RemoteProtocolError`."""
    found = [raw[10:] for raw in query.split(b"&") if raw.startswith(b"info_hash=")]
    if not found:
        raise RemoteProtocolError("info_hash is missing: this tracker does not list all it has")
    if len(found) > config.HTTP_SCRAPE_HASHES_MAX:
        raise RemoteProtocolError(f"more than {config.HTTP_SCRAPE_HASHES_MAX} info hashes in one scrape")
    return [_checked_size(_unquoted(raw, "info_hash"), "info_hash", _HASH_SIZE) for raw in found]


def encode_announce(counts: Counts, peers: bytes, *, interval_s: int, interval_min_s: int) -> bytes:
    """The answer to an announce; `peers` is what `compact_peers` or `peer_dictionaries` made."""
    complete, incomplete, downloaded = counts
    return b"d8:completei%de10:downloadedi%de10:incompletei%de8:intervali%de12:min intervali%de5:peers%be" % (
        complete,
        downloaded,
        incomplete,
        interval_s,
        interval_min_s,
        peers,
    )


def compact_peers(v4: bytes, v6: bytes) -> bytes:
    """Peers of 6 bytes each (BEP 23), and of 18 in `peers6` (BEP 7), which is left out where there are none."""
    return b"%d:%b6:peers6%d:%b" % (len(v4), v4, len(v6), v6) if v6 else b"%d:%b" % (len(v4), v4)


def peer_dictionaries(peers: Iterable[Peer], *, with_ids: bool) -> bytes:
    """Peers as BEP 3 has them, for who asks with `compact=0`."""
    items = []
    for peer_id, host, port in peers:
        shown_id = b"7:peer id%d:%b" % (len(peer_id), peer_id) if with_ids else b""
        items.append(b"d2:ip%d:%b%b4:porti%dee" % (len(host), host.encode("ascii"), shown_id, port))
    return b"l%be" % b"".join(items)


def encode_scrape(counts: Mapping[bytes, Counts]) -> bytes:
    """The answer to a scrape (BEP 48), by info hash."""
    files = [
        b"20:%bd8:completei%de10:downloadedi%de10:incompletei%dee"
        % (info_hash, complete, downloaded, incomplete)
        for info_hash, (complete, incomplete, downloaded) in sorted(counts.items())
    ]
    return b"d5:filesd%bee" % b"".join(files)


def encode_failure(reason: str) -> bytes:
    """What an announce or a scrape is answered instead, with the status 200 as clients expect (BEP 3)."""
    text = reason.encode("utf-8", "replace")
    return b"d14:failure reason%d:%be" % (len(text), text)


# -- reading -----------------------------------------------------------------------------------------------

_EVENTS: Final = {name.encode(): name for name in ("started", "completed", "stopped", "paused")}
_READ: Final = frozenset(
    (
        b"info_hash", b"peer_id", b"port", b"uploaded", b"downloaded", b"left", b"event", b"numwant",
        b"compact", b"no_peer_id", b"key", b"ip", b"ipv4", b"ipv6",
    )
)  # fmt: skip


def _fields(query: bytes) -> dict[bytes, bytes]:
    """What is known of the query, still escaped. Said twice, two readers could differ on it."""
    fields: dict[bytes, bytes] = {}
    for part in query.split(b"&"):
        key, _, value = part.partition(b"=")
        if key in _READ:
            if key in fields:
                raise RemoteProtocolError(f"{key.decode()} is said twice")
            fields[key] = value
    return fields


def _required(value: int | None, name: str) -> int:
    if value is None:
        raise RemoteProtocolError(f"{name} is missing")
    return value


def _number(fields: dict[bytes, bytes], key: bytes, most: int = INTEGER_MAX) -> int | None:
    """The number that is said; None where there is none, or nothing behind the `=`."""
    value = fields.get(key)
    if not value:
        return None
    if _NUMBER.fullmatch(value) is None or (number := int(value)) > most:
        raise RemoteProtocolError(f"{key.decode()} is not a whole number from 0 to {most}")
    return number


def _sized(fields: dict[bytes, bytes], key: bytes, size: int) -> bytes:
    name = key.decode()
    if key not in fields:
        raise RemoteProtocolError(f"{name} is missing")
    return _checked_size(_unquoted(fields[key], name), name, size)


def _checked_size(value: bytes, name: str, size: int) -> bytes:
    if len(value) != size:
        raise RemoteProtocolError(f"{name} has {len(value)} bytes, not {size}")
    return value


def _unquoted(value: bytes, name: str) -> bytes:
    """The bytes that are meant (RFC 3986 §2.1); a `%` that escapes nothing is an error, not a percent sign."""
    plain = unquote_to_bytes(value)
    if len(plain) + 2 * value.count(b"%") != len(value):
        raise RemoteProtocolError(f"{name} is not percent-encoded")
    return plain


def _claimed_host(fields: dict[bytes, bytes]) -> str | None:
    """The first address that is said to be the peer's, in digits. A name counts as nothing: it leads anywhere."""
    for key in (b"ip", b"ipv6", b"ipv4"):
        if value := fields.get(key):
            text = _unquoted(value, key.decode()).decode("latin-1")
            if endpoint := _ENDPOINT.fullmatch(text):  # BEP 7 allows one in place of an address
                text = endpoint["v6"] or endpoint["v4"] or ""
            if _is_address(text):
                return text
    return None


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text  # a scope means a network card of whoever said it
