"""Makes links out of connections and serves them: the control stream, and a task for each request stream.

Whoever dialed, a link is served the same way. What the remote does wrong ends that link; a defect of ours ends
the program.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from p2pnode import config
from p2pnode.errors import (
    REMOTE_FAULTS,
    ConnectionClosed,
    P2PNodeError,
    Refused,
    RemoteProtocolError,
)
from p2pnode.node.bans import Bans
from p2pnode.node.dialer import Dialer, LinkTable, close_duplicate, dial_first
from p2pnode.node.events import NodeBanned, NodeEvent, PeerConnected, PeerDisconnected
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.node.peer_link import CloseCode, PeerLink, establish_accepted, establish_dialed
from p2pnode.node.presence import Presence
from p2pnode.node.responder import Caller, Responder
from p2pnode.node.server_reference import ServerReference
from p2pnode.node.swarm_news import SwarmNews
from p2pnode.quic import Address, Connection, Endpoint, NodeIdTrust, NodeKey, NoTrust, Stream, Trust, resolve
from p2pnode.wire.communication import (
    Bye,
    ConnectToMe,
    Have,
    NodeItem,
    PresenceAnnounce,
    PresenceResponse,
    SendingLimit,
    UnknownMessage,
)

log = logging.getLogger(__name__)


class LinkService:
    """All links of a node, and the only maker of them. A `ConnectionService`: accepted ones come to it by `serve`."""

    alpns: Final = (config.ALPN,)
    unidirectional_streams_max: Final = 0  # requests and their answers are all there is

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        node_key: NodeKey,
        presence: Presence,
        responder: Responder,
        allow: frozenset[bytes] | None,
        admins: frozenset[bytes],
        nursery: trio.Nursery,
        publish: Callable[[NodeEvent], None],
        source_told: Callable[[bytes, bytes, str], None],
        news: SwarmNews,
    ) -> None:
        self._endpoint = endpoint
        self._node_key = node_key
        self._presence = presence
        self._responder = responder
        self._allow = allow
        self._admins = admins
        self._nursery = nursery
        self._publish = publish
        self._source_told = source_told  # (node id, file id, word)
        self._news = news
        self.bans = Bans()
        self._dial_backs: set[bytes] = set()  # whom we dial because our server passed their wish on
        self.links = LinkTable(node_key.node_id)
        self.dialer = Dialer(self.links, self._dial_peer, self._ask_to_connect)

    async def dial_server(self, server: ServerReference) -> PeerLink:
        """Dial the addresses of the server's name until one answers."""

        async def dial(address: Address) -> PeerLink:
            return await self._dial(address, server.trust, server.host, is_server=True)

        return await dial_first(await resolve(server.host, server.port), dial, close_duplicate)

    async def link_to(self, source: NodeItem) -> PeerLink:
        """The link that stands to this node, or a new one."""
        return await self.dialer.link_to(source.node_id, source.addresses)

    async def meet(self, address: Address) -> bytes:
        """The id of whatever node is at an address: linked already, or dialed. Raises one of `REMOTE_FAULTS`."""
        for link in self.links:
            if link.connection.remote_address == address and link.connection.is_open:
                return link.node_id
        return (await self._dial(address, NoTrust(), None, is_server=False)).node_id

    async def say_bye(self) -> None:
        """Tell everybody that we leave, so that nobody waits for us; bounded."""
        with trio.move_on_after(config.BYE_TIMEOUT_S, shield=True):
            async with trio.open_nursery() as nursery:
                for link in self.links:
                    nursery.start_soon(link.say_bye)

    def blame(self, node_id: bytes, reason: str) -> None:
        """A node is proven to have sent a bad piece. One too many, and all its links end, for good."""
        if self.bans.blame(node_id):
            self._publish(NodeBanned(node_id=node_id, reason=reason))
            for link in self.links:
                if link.node_id == node_id:
                    link.connection.close(CloseCode.NOT_ALLOWED, "banned for bad pieces")

    # -- making links --------------------------------------------------------------------------------------

    async def serve(self, connection: Connection) -> None:
        """Make a link of an accepted connection, if it proves a node key and is allowed, and serve it."""

        def respond(node_id: bytes, announced: PresenceAnnounce) -> PresenceResponse:
            if node_id == self._node_key.node_id:
                raise Refused("this is the very node that dials: something sends its datagrams back")
            if self._allow is not None and node_id not in self._allow:
                raise Refused(f"this node is closed to node id {node_id.hex()}; its owner can --allow it")
            self._check_not_banned(node_id)
            return self._presence.arrived(node_id, announced, connection.remote_address, trio.current_time())

        link = await establish_accepted(connection, self._node_key, respond)
        self._keep(link)
        await self._serve(link)

    async def _dial_peer(self, address: Address, node_id: bytes) -> PeerLink:
        self._check_not_banned(node_id)
        return await self._dial(address, NodeIdTrust(node_id), None, is_server=False)

    async def _dial(
        self, address: Address, trust: Trust, server_name: str | None, *, is_server: bool
    ) -> PeerLink:
        connection = await self._endpoint.dial(
            address, alpn=config.ALPN, server_name=server_name, trust=trust
        )
        link = await establish_dialed(
            connection, self._node_key, self._presence.announce(), trust, is_server=is_server
        )
        if self._allow is not None and not is_server and link.node_id not in self._allow:
            connection.close(CloseCode.NOT_ALLOWED, "this node is closed to you")
            raise Refused(f"node id {link.node_id.hex()} is not in --allow")
        if self.bans.is_banned(link.node_id):  # a server is dialed by its name
            connection.close(CloseCode.NOT_ALLOWED, "banned for bad pieces")
        self._check_not_banned(link.node_id)
        self._keep(link)
        self._nursery.start_soon(self._serve, link)
        return link

    def _check_not_banned(self, node_id: bytes) -> None:
        if self.bans.is_banned(node_id):
            raise Refused(f"node id {node_id.hex()} is banned for bad pieces")

    def _keep(self, link: PeerLink) -> None:
        """From now on it is found, and may be talked over, until it is served no more."""
        self.links.add(link)
        self._news.link_began(link)

    # -- serving links -------------------------------------------------------------------------------------

    async def _serve(self, link: PeerLink) -> None:
        peer = link.peer
        self._publish(
            PeerConnected(
                node_id=peer.node_id,
                name=peer.name,
                role=peer.role,
                address=link.connection.remote_address,
                dialed=link.dialed,
            )
        )
        reason = "the link ended"
        try:
            async with open_flat_nursery() as nursery:
                nursery.start_soon(self._read_control, link)
                while True:
                    stream = await link.connection.accept_stream()
                    nursery.start_soon(self._answer, link, stream)
        except REMOTE_FAULTS as error:
            reason = str(error)
            link.connection.close(_close_code(error), reason)  # it may be the control stream alone that ended
        finally:
            self.links.remove(link)
            self._news.link_ended(link)
            if self.links.best(peer.node_id) is None:
                self._presence.left(peer.node_id, trio.current_time())
            self._publish(PeerDisconnected(node_id=peer.node_id, name=peer.name, reason=reason))

    async def _answer(self, link: PeerLink, stream: Stream) -> None:
        messages = MessageStream(stream)
        if link.active_requests >= config.REQUESTS_PER_LINK_MAX:
            await self._responder.refuse_busy(messages)
            return
        link.active_requests += 1
        try:
            await self._responder.answer(messages, self._caller(link))
        finally:
            link.active_requests -= 1
            link.close_if_superseded()

    def _caller(self, link: PeerLink) -> Caller:
        return Caller(
            link.node_id,
            link.peer.name,
            is_operator=link.node_id in self._admins,
            is_our_server=link.is_server,
            address=link.connection.remote_address,
            link=link,
        )

    async def _read_control(self, link: PeerLink) -> None:
        """Take in control messages until the link ends, which it does with their stream.

        Unknown ones are ignored. Who dialed announces its presence, who accepted responds; requests do not belong
        here.
        """
        while (message := await link.control.receive()) is not None:
            match message:
                case PresenceAnnounce() if not link.dialed:
                    response = self._presence.arrived(
                        link.node_id, message, link.connection.remote_address, trio.current_time()
                    )
                    await link.tell(response)
                case PresenceResponse() if link.dialed:
                    link.observed_address = message.observed_address
                case ConnectToMe():
                    self._pass_on_or_dial(link, message)
                case SendingLimit():
                    self._source_told(link.node_id, message.file_id, message.by)
                case Bye():
                    if not self.links.has_other(link):  # several commands of one user share a node key
                        self._presence.left(link.node_id, trio.current_time(), for_good=True)
                case Have():
                    self._news.hear(link, message)
                case UnknownMessage():
                    pass  # of a later version
                case _:
                    raise RemoteProtocolError(
                        f"{type(message).__name__} does not come from this side of a control stream"
                    )
        raise ConnectionClosed("the other side ended the control stream", by_remote=True)

    # -- being dialed instead of dialing --------------------------------------------------------------------

    async def _ask_to_connect(self, node_id: bytes) -> bool:
        """Ask our server to have that node dial us; false when there is no server to ask."""
        for link in self.links:
            if link.is_server and link.connection.is_open:
                await link.tell(ConnectToMe(node_id))
                return True
        return False

    def _pass_on_or_dial(self, link: PeerLink, message: ConnectToMe) -> None:
        """A server passes the wish on with the addresses that it knows itself; from our server we obey it."""
        if link.is_server:
            is_new = message.node_id not in self._dial_backs and self.links.best(message.node_id) is None
            if is_new and len(self._dial_backs) < config.DIAL_BACKS_MAX:
                self._dial_backs.add(message.node_id)
                self._nursery.start_soon(self._dial_back, message)
            return
        target = self.links.best(message.node_id)
        if target is not None and not target.dialed and not target.is_telling:
            addresses = self._presence.addresses_for(
                link.node_id, target.node_id, target.connection.remote_address
            )
            self._nursery.start_soon(self._pass_on, target, ConnectToMe(link.node_id, addresses))

    @staticmethod
    async def _pass_on(target: PeerLink, message: ConnectToMe) -> None:
        """Beside the asker's link: a target that does not read must not hold it up."""
        try:
            await target.tell(message)
        except ConnectionClosed:
            return

    async def _dial_back(self, message: ConnectToMe) -> None:
        try:
            await self.dialer.link_to(message.node_id, message.addresses, may_ask=False)
        except REMOTE_FAULTS as error:
            log.info("could not dial back %s: %s", message.node_id.hex(), error)
        finally:
            self._dial_backs.remove(message.node_id)


def _close_code(error: P2PNodeError) -> int:
    if isinstance(error, RemoteProtocolError):
        return CloseCode.PROTOCOL_ERROR
    return CloseCode.NOT_ALLOWED if isinstance(error, Refused) else CloseCode.NO_ERROR
