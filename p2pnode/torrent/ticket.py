"""Tickets: one line that holds all that is needed to fetch a file.

The text is `p2pnode1` and, in base32 without padding, a msgpack array and the first 4 bytes of its SHA-256.
It has no character that a shell, a URL or a double click would stumble over, case does not matter, and each
ticket has one spelling. The checksum finds slips of the hand; what makes a download safe is the file id.
"""

from __future__ import annotations

from base64 import b32decode, b32encode
from hashlib import sha256
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct

from p2pnode.config import ADDRESSES_PER_NODE_MAX, NAME_LENGTH_MAX, TICKET_LENGTH_MAX, TICKET_NODES_MAX
from p2pnode.errors import InvalidData

__all__ = ["PREFIX", "Ticket", "TicketNode", "TicketServer"]

PREFIX: Final = "p2pnode1"
_CHECKSUM_SIZE: Final = 4

_Hash: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
_FileId: TypeAlias = Annotated[bytes, Meta(min_length=20, max_length=32)]
_Host: TypeAlias = Annotated[str, Meta(pattern=r"^[0-9A-Za-z._:%-]{1,255}\Z")]
_Port: TypeAlias = Annotated[int, Meta(ge=1, le=65535)]
_Address: TypeAlias = tuple[_Host, _Port]


class TicketNode(Struct, frozen=True, array_like=True):
    """A node that has the file: its id (32 bytes), and where it listens, as host and port."""

    node_id: _Hash
    addresses: Annotated[tuple[_Address, ...], Meta(max_length=ADDRESSES_PER_NODE_MAX)]


class TicketServer(Struct, frozen=True, array_like=True):
    """The server that knows who has the file, and the SHA-256 of its certificate's key (32 bytes); without a
    pin its certificate must be one that the system trusts."""

    address: _Address
    pin: _Hash | None = None


class Ticket(Struct, frozen=True, array_like=True):
    """A file id (32 bytes, or 20 in a torrent that is v1 only), size in bytes and name, and where to ask.

    The name is as its sharer wrote it, fit neither for a disk nor for a terminal.
    """

    file_id: _FileId
    size: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    name: Annotated[str, Meta(max_length=NAME_LENGTH_MAX)]
    nodes: Annotated[tuple[TicketNode, ...], Meta(max_length=TICKET_NODES_MAX)] = ()
    server: TicketServer | None = None

    def __str__(self) -> str:
        """Give the line; InvalidData for a value that would not be read."""
        text = _spelling(self)
        Ticket.parse(text)
        return text

    @classmethod
    def parse(cls, text: str) -> Ticket:
        """Read a line; InvalidData for anything but what `str` gives, in whatever case."""
        text = text.strip().lower()
        if not text.startswith(PREFIX) or len(text) > TICKET_LENGTH_MAX:
            raise InvalidData(f"a ticket starts with {PREFIX} and has at most {TICKET_LENGTH_MAX} characters")
        digits = text[len(PREFIX) :].upper()
        try:
            data = b32decode(digits + "=" * (-len(digits) % 8))
        except ValueError:
            raise InvalidData("a ticket with characters that belong into none") from None
        body = data[:-_CHECKSUM_SIZE]
        if _checksum(body) != data[-_CHECKSUM_SIZE:]:
            raise InvalidData("a ticket with a slip in it: its checksum does not match")
        try:
            ticket = _DECODER.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise InvalidData("a ticket with a content that makes no sense") from None
        if _spelling(ticket) != text or len(ticket.file_id) not in (20, 32):
            raise InvalidData("a ticket in a form that is not the usual one")
        return ticket


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Ticket)


def _spelling(ticket: Ticket) -> str:
    body = _ENCODER.encode(ticket)
    return PREFIX + b32encode(body + _checksum(body)).decode().rstrip("=").lower()


def _checksum(body: bytes) -> bytes:
    return sha256(body).digest()[:_CHECKSUM_SIZE]
