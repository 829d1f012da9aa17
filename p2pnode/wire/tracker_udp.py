"""BEP 15, the UDP tracker protocol: each packet both ways; with the options of BEP 41 where an announce has them.

::

    request    connection id (8) · action (4) · transaction id (4) · …       ≥ 16 bytes
      connect    the id is `PROTOCOL_ID`                                     16
      announce   info hash, peer id, counts, event, port · options           98 + options
      scrape     1 to 74 info hashes of 20 bytes                             16 + 20 each

    response   action (4) · transaction id (4) · …                           ≥ 8 bytes
      connect    connection id (8)                                           16
      announce   interval, leechers, seeders · peers of 6 or 18 bytes        20 + peers
      scrape     seeders, completed, leechers for each hash                  8 + 12 each
      error      text                                                        8 + text

All numbers are big-endian. Fields stand here in the order of the wire. Whatever the bytes, what decodes them gives
a packet or raises `RemoteProtocolError`. What is too much for a field in a packet of our own is a
`LocalProtocolError`.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from p2pnode import config
from p2pnode.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "PROTOCOL_ID",
    "Action",
    "AnnounceRequest",
    "AnnounceResponse",
    "ConnectRequest",
    "ConnectResponse",
    "ErrorResponse",
    "Event",
    "Request",
    "RequestHeader",
    "Response",
    "ScrapeCounts",
    "ScrapeRequest",
    "ScrapeResponse",
    "decode_request",
    "decode_response",
]

PROTOCOL_ID: Final = bytes.fromhex("0000041727101980")  # stands for the id that a connect asks for

_REQUEST: Final = struct.Struct(">8sII")
_ANNOUNCE: Final = struct.Struct(">20s20sQQQIIIiH")
_RESPONSE: Final = struct.Struct(">II")
_ANNOUNCED: Final = struct.Struct(">IIIII")
_COUNTS: Final = struct.Struct(">III")
_ID_SIZE: Final = 8
_HASH_SIZE: Final = 20

_OPTION_END: Final = 0
_OPTION_NOTHING: Final = 1
_OPTION_URL: Final = 2
_OPTION_SIZE_MAX: Final = 255


class Action(IntEnum):
    """What a packet is."""

    CONNECT = 0
    ANNOUNCE = 1
    SCRAPE = 2
    ERROR = 3


class Event(IntEnum):
    """Why a peer announces. The last is no word of BEP 15: libtorrent says so what BEP 21 calls `paused`."""

    NONE = 0
    COMPLETED = 1
    STARTED = 2
    STOPPED = 3
    PAUSED = 4


# -- requests ----------------------------------------------------------------------------------------------


class RequestHeader(NamedTuple):
    """What every request begins with, before anything is believed of it."""

    connection_id: bytes  # 8
    action: int
    transaction_id: int

    @classmethod
    def decode(cls, datagram: bytes) -> RequestHeader:
        """The first 16 bytes. `RemoteProtocolError` for fewer, and for more than any request needs."""
        if not _REQUEST.size <= len(datagram) <= config.UDP_REQUEST_SIZE_MAX:
            raise RemoteProtocolError(f"no request to a tracker has {len(datagram)} bytes")
        return cls._make(_REQUEST.unpack_from(datagram))

    def decode_rest(self, datagram: bytes) -> Request:
        """The request that this is the header of. `RemoteProtocolError` with a text for who sent it."""
        if self.action == Action.ANNOUNCE:
            return _decode_announce(datagram, self.connection_id, self.transaction_id)
        if self.action == Action.SCRAPE:
            return _decode_scrape(datagram, self.connection_id, self.transaction_id)
        if self.action == Action.CONNECT and self.connection_id == PROTOCOL_ID:
            return ConnectRequest(self.transaction_id)
        raise RemoteProtocolError("neither connect, announce nor scrape")


class ConnectRequest(NamedTuple):
    """I am where this packet says it comes from: send me an id to prove it."""

    transaction_id: int

    def encode(self) -> bytes:
        """The datagram."""
        return _packed(_REQUEST, PROTOCOL_ID, Action.CONNECT, self.transaction_id)


class AnnounceRequest(NamedTuple):
    """One peer and one torrent. Decoded, `event` and `ip` may be any number."""

    connection_id: bytes  # 8
    transaction_id: int
    info_hash: bytes  # 20
    peer_id: bytes  # 20
    downloaded: int  # bytes, as are the next two
    left: int
    uploaded: int
    event: int
    ip: int  # IPv4 address that the peer claims to have; 0: where the packet comes from
    key: int  # the same from one peer whatever its address
    numwant: int  # peers; negative: as many as the tracker likes
    port: int  # where the peer listens
    url_data: bytes = b""  # path and query of the tracker's URL (BEP 41)

    def encode(self) -> bytes:
        """The datagram."""
        _check_size(_ID_SIZE, self.connection_id)
        _check_size(_HASH_SIZE, self.info_hash, self.peer_id)
        header = _packed(_REQUEST, self.connection_id, Action.ANNOUNCE, self.transaction_id)
        return header + _packed(_ANNOUNCE, *self[2:-1]) + _encode_url_data(self.url_data)


class ScrapeRequest(NamedTuple):
    """How many peers do these torrents have? Up to `UDP_SCRAPE_HASHES_MAX` hashes of 20 bytes."""

    connection_id: bytes  # 8
    transaction_id: int
    info_hashes: tuple[bytes, ...]

    def encode(self) -> bytes:
        """The datagram."""
        if not 0 < len(self.info_hashes) <= config.UDP_SCRAPE_HASHES_MAX:
            raise LocalProtocolError(f"a scrape of {len(self.info_hashes)} torrents")
        _check_size(_ID_SIZE, self.connection_id)
        _check_size(_HASH_SIZE, *self.info_hashes)
        header = _packed(_REQUEST, self.connection_id, Action.SCRAPE, self.transaction_id)
        return header + b"".join(self.info_hashes)


Request = ConnectRequest | AnnounceRequest | ScrapeRequest


def decode_request(datagram: bytes) -> Request:
    """What a client sent. `RemoteProtocolError` with a text for that client."""
    return RequestHeader.decode(datagram).decode_rest(datagram)


def _decode_announce(datagram: bytes, connection_id: bytes, transaction_id: int) -> AnnounceRequest:
    options_at = _REQUEST.size + _ANNOUNCE.size
    if len(datagram) < options_at:
        raise RemoteProtocolError(f"an announce has at least {options_at} bytes")
    url_data = _url_data_in(datagram, options_at) if len(datagram) > options_at else b""
    fields = _ANNOUNCE.unpack_from(datagram, _REQUEST.size)
    return AnnounceRequest._make((connection_id, transaction_id, *fields, url_data))


def _decode_scrape(datagram: bytes, connection_id: bytes, transaction_id: int) -> ScrapeRequest:
    count, rest = divmod(len(datagram) - _REQUEST.size, _HASH_SIZE)
    if rest or not 0 < count <= config.UDP_SCRAPE_HASHES_MAX:
        raise RemoteProtocolError(f"a scrape has 1 to {config.UDP_SCRAPE_HASHES_MAX} info hashes of 20 bytes")
    starts = range(_REQUEST.size, len(datagram), _HASH_SIZE)
    hashes = tuple(datagram[start : start + _HASH_SIZE] for start in starts)
    return ScrapeRequest(connection_id, transaction_id, hashes)


def _url_data_in(datagram: bytes, start: int) -> bytes:
    """The URL data among the options of BEP 41; unknown options, and what comes after a broken one, are ignored."""
    found = b""
    while start < len(datagram) and (kind := datagram[start]) != _OPTION_END:
        start += 1
        if kind == _OPTION_NOTHING:
            continue
        size = datagram[start] if start < len(datagram) else 0
        value = datagram[start + 1 : start + 1 + size]
        if len(value) < size:
            break
        if kind == _OPTION_URL:
            found += value
        start += 1 + size
    return found


def _encode_url_data(url_data: bytes) -> bytes:
    starts = range(0, len(url_data), _OPTION_SIZE_MAX)
    parts = (url_data[start : start + _OPTION_SIZE_MAX] for start in starts)
    return b"".join(bytes((_OPTION_URL, len(part))) + part for part in parts)


# -- responses ---------------------------------------------------------------------------------------------


class ConnectResponse(NamedTuple):
    """The id that proves for two minutes where requests come from; a client uses it for one."""

    transaction_id: int
    connection_id: bytes  # 8

    def encode(self) -> bytes:
        """The datagram."""
        _check_size(_ID_SIZE, self.connection_id)
        return _packed(_RESPONSE, Action.CONNECT, self.transaction_id) + self.connection_id


class AnnounceResponse(NamedTuple):
    """Whom to talk to: over IPv4 IPv4 addresses, over IPv6 IPv6 addresses; `wire.compact_peers` reads them."""

    transaction_id: int
    interval_s: int
    leechers: int
    seeders: int
    compact_peers: bytes  # 6 or 18 for each

    def encode(self) -> bytes:
        """The datagram."""
        transaction_id, interval_s, leechers, seeders, compact_peers = self
        header = _packed(_ANNOUNCED, Action.ANNOUNCE, transaction_id, interval_s, leechers, seeders)
        return header + compact_peers


class ScrapeCounts(NamedTuple):
    """How many peers one torrent has; `completed` is how often it was downloaded to the end."""

    seeders: int
    completed: int
    leechers: int


class ScrapeResponse(NamedTuple):
    """In the order of the request."""

    transaction_id: int
    counts: tuple[ScrapeCounts, ...]

    def encode(self) -> bytes:
        """The datagram."""
        header = _packed(_RESPONSE, Action.SCRAPE, self.transaction_id)
        return header + b"".join(_packed(_COUNTS, *counts) for counts in self.counts)


class ErrorResponse(NamedTuple):
    """A line for a person."""

    transaction_id: int
    text: str

    def encode(self) -> bytes:
        """The datagram."""
        return _packed(_RESPONSE, Action.ERROR, self.transaction_id) + self.text.encode()


Response = ConnectResponse | AnnounceResponse | ScrapeResponse | ErrorResponse


def decode_response(datagram: bytes) -> Response:
    """What a tracker sent. `RemoteProtocolError`.

    What stands behind a connection id is left out, as is a part of a torrent's counts at the end.
    """
    if len(datagram) < _RESPONSE.size:
        raise RemoteProtocolError(f"no answer of a tracker has {len(datagram)} bytes")
    action, transaction_id = _RESPONSE.unpack_from(datagram)
    body = datagram[_RESPONSE.size :]
    if action == Action.CONNECT and len(body) >= _ID_SIZE:
        return ConnectResponse(transaction_id, body[:_ID_SIZE])
    if action == Action.ANNOUNCE and len(datagram) >= _ANNOUNCED.size:
        _, *numbers = _ANNOUNCED.unpack_from(datagram)
        return AnnounceResponse._make((*numbers, datagram[_ANNOUNCED.size :]))
    if action == Action.SCRAPE:
        whole = len(body) - len(body) % _COUNTS.size
        counts = map(ScrapeCounts._make, _COUNTS.iter_unpack(body[:whole]))
        return ScrapeResponse(transaction_id, tuple(counts))
    if action == Action.ERROR:
        return ErrorResponse(transaction_id, body.decode(errors="replace"))
    raise RemoteProtocolError("an answer of a tracker that is unknown or too short")


# -- fields ------------------------------------------------------------------------------------------------


def _packed(form: struct.Struct, *values: bytes | int) -> bytes:
    try:
        return form.pack(*values)
    except struct.error as error:
        raise LocalProtocolError(str(error)) from None


def _check_size(size: int, *fields: bytes) -> None:
    """`struct` would cut or fill them, silently."""
    if any(len(field) != size for field in fields):
        raise LocalProtocolError(f"a field that is not of {size} bytes")
