"""A link: one connection to another node, with both node keys proven.

The dialer's first stream is the control stream. Each side first sends `NodeProof`: its node key and a signature
over label ‖ role ‖ 32 bytes of TLS exporter (RFC 8446 §7.5) of this very connection. A relayed proof fits nobody,
since a man in the middle has two connections with two exporters. Frames that come before the other side's
proof is checked wait unread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import trio

from p2pnode import config
from p2pnode.errors import ConnectionClosed, Refused, RemoteProtocolError, TimedOut, TrustError
from p2pnode.node.message_stream import MessageStream
from p2pnode.quic import Connection, NodeKey, NoTrust, Role, Stream, Trust, check_signature, node_id_of
from p2pnode.wire.communication import (
    Bye,
    Message,
    NodeProof,
    PresenceAnnounce,
    PresenceResponse,
)

PROOF_LABEL: Final = b"p2pnode/1 node key proof"
EXPORTER_LABEL: Final = "EXPORTER-p2pnode/1 node key"


class CloseCode:
    """Application error codes of CONNECTION_CLOSE and RESET_STREAM; stated in docs/PROTOCOL.md."""

    NO_ERROR: Final = 0
    PROTOCOL_ERROR: Final = 1
    NOT_ALLOWED: Final = 2
    NOT_PROVEN: Final = 3
    SHUTTING_DOWN: Final = 4
    DUPLICATE_LINK: Final = 5
    CANCELLED: Final = 0x10
    TIMED_OUT: Final = 0x11


def role_of(word: str) -> str:
    """What a node counts as by the role it says: one of a later version is a peer."""
    return word if word in ("server", "client") else "peer"


@dataclass(frozen=True)
class PeerInformation:
    """What the other side said of itself; unproven words, but for the node id."""

    node_id: bytes
    name: str
    role: str
    zone: str
    agent: str
    addresses: tuple[tuple[str, int], ...] = ()


@dataclass
class PeerLink:
    """A proven link. `is_server` marks the server that we chose; only it may push to us."""

    connection: Connection
    control: MessageStream
    peer: PeerInformation
    is_server: bool
    established_at: float
    verified: bool = (
        True  # false where --no-verify-tls gave that up: the node key is proven, but is it the right one?
    )
    observed_address: tuple[str, int] | None = None
    active_requests: int = 0  # of theirs, that we answer
    _own_requests: set[MessageStream] = field(default_factory=set)
    _is_superseded: bool = False
    _said_bye: bool = False
    _send_lock: trio.Lock = field(default_factory=trio.Lock)

    @property
    def node_id(self) -> bytes:
        """The proven node id of the other side, 32 bytes."""
        return self.peer.node_id

    @property
    def dialed(self) -> bool:
        """Whether we dialed."""
        return self.connection.role is Role.DIALED

    @property
    def is_telling(self) -> bool:
        """Whether something is being told on the control stream: for long only if the other side is slow."""
        return self._send_lock.locked()

    async def request(self) -> MessageStream:
        """Open a stream for one request."""
        return _OwnRequest(await self.connection.open_stream(), self)

    def begin_own_request(self, stream: MessageStream) -> None:
        """A stream that `request` gives is open."""
        self._own_requests.add(stream)

    def end_own_request(self, stream: MessageStream) -> None:
        """A stream that `request` gave is closed."""
        self._own_requests.discard(stream)
        self.close_if_superseded()

    def supersede(self) -> None:
        """Another link takes its place: close this one as soon as no request runs over it."""
        self._is_superseded = True
        self.close_if_superseded()

    def close_if_superseded(self) -> None:
        """Close it when it was superseded and nothing runs over it."""
        if self._is_superseded and not self.active_requests and not self._own_requests:
            self.connection.close(CloseCode.DUPLICATE_LINK, "both sides dialed at once")

    async def tell(self, message: Message) -> None:
        """Send a message on the control stream. `ConnectionClosed` once we said goodbye there."""
        async with self._send_lock:
            if self._said_bye:
                raise ConnectionClosed("we said goodbye")
            await self.control.send(message)

    async def say_bye(self) -> None:
        """Tell the other side that we leave on purpose; a dead link is no obstacle.

        A close loses what is not delivered, so the other side is let close: it does when the control stream ends.
        """
        with trio.move_on_after(config.BYE_TIMEOUT_S):
            try:
                await self.tell(Bye())
                self._said_bye = True
                await self.control.send_eof()
                await self.connection.wait_closed()
            except ConnectionClosed:
                return


class _OwnRequest(MessageStream):
    """A stream that we opened on a link, which stays until the stream is closed."""

    def __init__(self, stream: Stream, link: PeerLink) -> None:
        super().__init__(stream)
        self._link = link
        link.begin_own_request(self)

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            self._link.end_own_request(self)


def _signed_bytes(role: Role, exporter: bytes) -> bytes:
    return PROOF_LABEL + (b"dialed" if role is Role.DIALED else b"accepted") + exporter


def _proof(connection: Connection, node_key: NodeKey) -> NodeProof:
    exporter = connection.exporter(EXPORTER_LABEL)
    signature = node_key.sign(_signed_bytes(connection.role, exporter))
    return NodeProof(spki=node_key.spki, signature=signature)


def _check_proof(connection: Connection, proof: NodeProof) -> bytes:
    """Return the node id that the proof proves, or raise `TrustError`."""
    other = Role.ACCEPTED if connection.role is Role.DIALED else Role.DIALED
    exporter = connection.exporter(EXPORTER_LABEL)
    check_signature(proof.spki, proof.signature, _signed_bytes(other, exporter))
    return node_id_of(proof.spki)


async def _receive_proof(connection: Connection, control: MessageStream) -> bytes:
    proof = await control.receive_as(NodeProof)
    return _check_proof(connection, proof)


@contextmanager
def _closing_on_failure(connection: Connection) -> Iterator[None]:
    """Close the connection, with the code that says why, when the link does not come about."""
    try:
        with trio.fail_after(config.PROOF_TIMEOUT_S):
            yield
    except trio.TooSlowError:
        text = f"no proof of a node key within {config.PROOF_TIMEOUT_S:g} s"
        connection.close(CloseCode.NOT_PROVEN, text)
        raise TimedOut(f"the other side gave {text}") from None  # killed in the middle, most likely
    except TrustError as error:
        connection.close(CloseCode.NOT_PROVEN, str(error))
        raise
    except Refused as error:
        connection.close(CloseCode.NOT_ALLOWED, str(error))
        raise
    except RemoteProtocolError as error:
        connection.close(CloseCode.PROTOCOL_ERROR, str(error))
        raise
    except ConnectionClosed as closed:
        if closed.by_remote and closed.code == CloseCode.NOT_ALLOWED:
            raise Refused(closed.reason) from None
        connection.close(CloseCode.CANCELLED, "")  # it may be the stream alone that was reset
        raise
    except BaseException:
        connection.close(CloseCode.CANCELLED, "")
        raise


async def establish_dialed(
    connection: Connection,
    node_key: NodeKey,
    presence: PresenceAnnounce,
    trust: Trust,
    *,
    is_server: bool = False,
) -> PeerLink:
    """Prove who we are, learn who they are, check that against `trust`, and announce ourselves.

    Raises `TrustError` when the other side proves another key than expected, `TimedOut` when it proves nothing in
    time; the connection is closed then.
    """
    with _closing_on_failure(connection):
        control = MessageStream(await connection.open_stream())
        await control.send(_proof(connection, node_key))
        node_id = await _receive_proof(connection, control)
        trust.check_node_id(node_id, connection.certificate_trusted)
        await control.send(presence)
        response = await control.receive_as(PresenceResponse)
        peer = PeerInformation(node_id, response.name, role_of(response.role), response.zone, response.agent)
        return PeerLink(
            connection,
            control,
            peer,
            is_server,
            trio.current_time(),
            verified=not isinstance(trust, NoTrust),
            observed_address=response.observed_address,
        )


async def establish_accepted(
    connection: Connection,
    node_key: NodeKey,
    respond: Callable[[bytes, PresenceAnnounce], PresenceResponse],
) -> PeerLink:
    """The accepted side: the first stream is the control stream, and nothing else is looked at before the proof.

    `respond` gets node id and presence and gives the answer, or raises `Refused` to turn the node away.
    """
    with _closing_on_failure(connection):
        control = MessageStream(await connection.accept_stream())
        await control.send(_proof(connection, node_key))
        node_id = await _receive_proof(connection, control)
        presence = await control.receive_as(PresenceAnnounce)
        await control.send(respond(node_id, presence))
        peer = PeerInformation(
            node_id,
            presence.name,
            role_of(presence.role),
            presence.zone,
            presence.agent,
            presence.addresses,
        )
        return PeerLink(connection, control, peer, False, trio.current_time())
