"""Which connection is a datagram for? And what to answer to those that are for none.

Synchronous, and without any state for a sender that has not shown that it receives what we send to its
address: every Initial without a token is answered with a Retry, 100 bytes for 1200, and forgotten. So neither
memory nor bandwidth can be had by forging addresses.

Functions on bytes that nobody has authenticated end in `_untrusted`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Final, Generic, TypeVar

from aioquic.buffer import Buffer  # type: ignore[attr-defined]  # it is there, but not marked as exported
from aioquic.quic.connection import TRANSPORT_CLOSE_FRAME_CAPACITY
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.retry import TOKEN_LIFETIME, QuicRetryTokenHandler

from p2pnode import config
from p2pnode.quic.budget import Budget
from p2pnode.quic.configuration import CONNECTION_ID_LENGTH, SUPPORTED_VERSIONS
from p2pnode.quic.datagrams import Address

INITIAL_SIZE_MIN: Final = 1200  # RFC 9000 §14.1; nothing smaller is ever answered
TOKENS_REMEMBERED_MAX: Final = 65_536  # used ones, within their lifetime: 2,184 handshakes a second

_LONG_HEADERS_FROM: Final = b"\x80"  # the first byte's highest bit is set (RFC 9000 §17.2)
_LONG_CID_LENGTH_AT: Final = 5  # after the first byte and the version
_LONG_CID_AT: Final = 6

T = TypeVar("T")

_short_header_id = itemgetter(slice(1, 1 + CONNECTION_ID_LENGTH))


def runs_to_one_id_untrusted(datagrams: list[bytes]) -> list[list[bytes]]:
    """The same datagrams in the same order, those that follow each other and bear one connection id together.

    That a burst of a transfer is one such run must be seen fast, for it is asked of every datagram.
    """
    if len(datagrams) == 1 or _are_alike_untrusted(datagrams):
        return [datagrams]
    return [list(run) for _, run in groupby(datagrams, _connection_id_untrusted)]


def _are_alike_untrusted(datagrams: list[bytes]) -> bool:
    return datagrams[0] < _LONG_HEADERS_FROM and len(set(map(_short_header_id, datagrams))) == 1


def _connection_id_untrusted(data: bytes) -> bytes:
    """The id that a datagram bears; none of ours is empty."""
    if data < _LONG_HEADERS_FROM:
        return data[1 : 1 + CONNECTION_ID_LENGTH]
    if len(data) > _LONG_CID_AT and data[_LONG_CID_LENGTH_AT] == CONNECTION_ID_LENGTH:
        return data[_LONG_CID_AT : _LONG_CID_AT + CONNECTION_ID_LENGTH]
    return b""


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer this, and remember nothing."""

    datagram: bytes


@dataclass(frozen=True, slots=True)
class Drop:
    """Answer nothing. The reason is for a counter."""

    reason: str


@dataclass(frozen=True, slots=True)
class NewConnection:
    """A client that has shown that it is at its address. The ids are those of RFC 9000 §7.3."""

    original_destination_cid: bytes
    retry_source_cid: bytes


class Router(Generic[T]):
    """Connection ids, what they lead to, and what to answer where they lead nowhere."""

    def __init__(self, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._routes: dict[bytes, T] = {}
        self._tokens = QuicRetryTokenHandler()
        self._used_tokens: dict[bytes, float] = {}  # by Retry source id, oldest first
        self._replies = Budget(config.UNVERIFIED_REPLIES_PER_S, config.UNVERIFIED_REPLIES_PER_S)
        self._random_bytes = random_bytes

    def __len__(self) -> int:
        return len(self._routes)

    def add(self, connection_id: bytes, connection: T) -> None:
        """From now on datagrams to this id are for this connection."""
        self._routes[connection_id] = connection

    def remove(self, connection_id: bytes) -> None:
        """Forget an id, if it is known."""
        self._routes.pop(connection_id, None)

    def find_untrusted(self, data: bytes) -> T | None:
        """The connection whose id the datagram bears: all that is done for each burst of a transfer."""
        return self._routes.get(_connection_id_untrusted(data))

    def answer_untrusted(self, data: bytes, address: Address, now: float) -> Reply | NewConnection | Drop:
        """What to do with a datagram that is for no connection: mostly nothing."""
        if len(data) < INITIAL_SIZE_MIN:
            return Drop("too small to answer")
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=CONNECTION_ID_LENGTH)
        except ValueError:
            return Drop("malformed")
        if header.version is None or header.packet_type is QuicPacketType.VERSION_NEGOTIATION:
            return Drop("unknown connection")
        if header.version not in SUPPORTED_VERSIONS:
            return self._negotiate_version_untrusted(header, now)
        if header.packet_type is not QuicPacketType.INITIAL:
            return Drop("unknown connection")
        if len(header.destination_cid) < CONNECTION_ID_LENGTH:  # RFC 9000 §7.2
            return Drop("malformed")
        if not header.token:
            return self._retry_untrusted(header, address, now)
        return self._check_token_untrusted(header, address, now)

    def _negotiate_version_untrusted(self, header: QuicHeader, now: float) -> Reply | Drop:
        if not self._replies.spend(now):
            return Drop("too many to answer")
        return Reply(
            encode_quic_version_negotiation(
                source_cid=header.destination_cid,
                destination_cid=header.source_cid,
                supported_versions=list(SUPPORTED_VERSIONS),
            )
        )

    def _retry_untrusted(self, header: QuicHeader, address: Address, now: float) -> Reply:
        assert header.version is not None
        source_cid = self._random_bytes(CONNECTION_ID_LENGTH)
        token = self._tokens.create_token(
            address=address,
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=source_cid,
            now=now,
        )
        return Reply(
            encode_quic_retry(
                version=header.version,
                source_cid=source_cid,
                destination_cid=header.source_cid,
                original_destination_cid=header.destination_cid,
                retry_token=token,
            )
        )

    def _check_token_untrusted(
        self, header: QuicHeader, address: Address, now: float
    ) -> Reply | NewConnection | Drop:
        try:
            original_destination_cid = self._tokens.validate_token(
                address=address, destination_cid=header.destination_cid, token=header.token, now=now
            )
        except ValueError:
            if not self._replies.spend(now):
                return Drop("too many to answer")
            return Reply(_encode_close(header, QuicErrorCode.INVALID_TOKEN))
        if header.destination_cid in self._used_tokens:
            return Drop("token used before")
        return NewConnection(original_destination_cid, header.destination_cid)

    def use_token(self, new: NewConnection, now: float) -> None:
        """Let the token that brought `new` never bring another connection, while it lasts."""
        while self._used_tokens:
            oldest = next(iter(self._used_tokens))
            expired = now - self._used_tokens[oldest] > TOKEN_LIFETIME
            if not expired and len(self._used_tokens) < TOKENS_REMEMBERED_MAX:
                break
            del self._used_tokens[oldest]
        self._used_tokens[new.retry_source_cid] = now


def _encode_close(header: QuicHeader, error_code: QuicErrorCode) -> bytes:
    """A server's Initial that refuses a client's, under the keys that anyone can make (RFC 9001 §5.2)."""
    assert header.version is not None
    crypto = CryptoPair()
    crypto.setup_initial(cid=header.destination_cid, is_client=False, version=header.version)
    builder = QuicPacketBuilder(
        host_cid=header.destination_cid,
        is_client=False,
        max_datagram_size=INITIAL_SIZE_MIN,
        peer_cid=header.source_cid,
        version=header.version,
    )
    builder.start_packet(QuicPacketType.INITIAL, crypto)
    frame = builder.start_frame(QuicFrameType.TRANSPORT_CLOSE, capacity=TRANSPORT_CLOSE_FRAME_CAPACITY)
    frame.push_uint_var(error_code)
    frame.push_uint_var(QuicFrameType.PADDING)
    frame.push_uint_var(0)
    [datagram], _ = builder.flush()
    return datagram
