"""The node: the only place where everything meets.

::

    async with Node(files_dir=Path("files"), server=ServerReference("10.0.0.1:8080", trust)) as node:
        shared = await node.share(Path("model.bin"))
        await node.fetch("weights.bin", to=Path("downloads"))

One endpoint dials and accepts. Each connection becomes a link once both node keys are proven; a link's control
stream carries presence, its other streams requests, from either side. A server is a node whose `role` says so:
it keeps the registry of who has what, and may push.
"""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

import trio

from p2pnode import config
from p2pnode.errors import ConfigError, NetworkError, NotFound
from p2pnode.node.announcer import Announcer
from p2pnode.node.blocking import RunBlocking, in_threads
from p2pnode.node.bottleneck import Bottleneck
from p2pnode.node.connection_service import ConnectionService, endpoint_options, serve_connections
from p2pnode.node.discovery import Discovery, Ourselves
from p2pnode.node.event_stream import EventStream
from p2pnode.node.events import FetchCompleted, Listening, NodeEvent, NodeWarning
from p2pnode.node.fetching import Fetcher
from p2pnode.node.link_service import LinkService
from p2pnode.node.loop_load import BusySeconds, measured_loop
from p2pnode.node.mirror import mirror_for_ever
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.node.offers import Offer, Offers
from p2pnode.node.operator import serve_operators
from p2pnode.node.peer_exchange import PeerExchange
from p2pnode.node.peer_link import PeerLink
from p2pnode.node.presence import Presence, checked_word
from p2pnode.node.pushing import Pusher, PushReceiver
from p2pnode.node.rate_limits import RateLimits, Throttles
from p2pnode.node.references import Reference, wanted_from
from p2pnode.node.requests import OpenStream, ask_files, ask_peers, order_push
from p2pnode.node.responder import Caller, Responder
from p2pnode.node.server_reference import ServerReference
from p2pnode.node.sharing import Shared, Shares
from p2pnode.node.state import StateDirectory
from p2pnode.node.swarm_news import SwarmNews
from p2pnode.node.upload_slots import UploadSlots
from p2pnode.node.uploader import Uploader
from p2pnode.node.uploads import Uploads
from p2pnode.quic import (
    Address,
    Credentials,
    DatagramSocket,
    Diagnostics,
    Endpoint,
    ImpairedSocket,
    open_udp_socket,
)
from p2pnode.storage import Catalogue
from p2pnode.torrent import Bitfield, Metainfo, Selection, Ticket, TicketNode, TicketServer
from p2pnode.wire.communication import FileItem, PeerReport, PushReport

OpenSocket = Callable[[Address], Awaitable[DatagramSocket]]


class Node:
    """A running node, as an asynchronous context manager. All arguments are keywords.

    `role` is "peer", "server" or "client" (fetches and asks, and gives what it fetches while it runs). `listen` is
    (host, port), "::" for all addresses of both families, port 0 for any. `files_dir` is shared and watched;
    `state_dir` keeps the node's key and catalogue (without it, both are new). `allow` closes the node to all other
    node ids; `admins` may command a server. `mirror` fetches whatever the server lists. `limits` are of file bytes
    a second; `discoveries` find others without a server, as `LanDiscovery` does; `connection_services` speak other
    languages on the same port; `diagnostics` are for those who look for an error.
    """

    def __init__(
        self,
        *,
        role: str = "peer",
        listen: Address = ("::", 0),
        files_dir: Path | None = None,
        state_dir: Path | None = None,
        server: ServerReference | None = None,
        credentials: Credentials | None = None,
        allow: frozenset[bytes] | None = None,
        admins: frozenset[bytes] = frozenset(),
        name: str = "",
        zone: str = "",
        push_max: int = config.PUSH_SIZE_MAX,
        mirror: bool = False,
        limits: RateLimits = RateLimits(),  # noqa: B008 (it is frozen)
        discoveries: Sequence[Discovery] = (),
        connection_services: Sequence[ConnectionService] = (),
        lock_state: bool = True,
        diagnostics: Diagnostics = Diagnostics(),  # noqa: B008
        open_socket: OpenSocket = open_udp_socket,
        run_blocking: RunBlocking | None = None,
        rng: Random | None = None,
        wall_clock: Callable[[], float] = time.time,
        loop_busy_s: BusySeconds | None = None,
    ) -> None:
        if mirror and (files_dir is None or server is None):
            raise ConfigError("a mirroring node needs a server and a directory for its files")
        self._role = role
        self._listen = listen
        self._files_dir = files_dir
        self._state = StateDirectory(state_dir, locked=lock_state)
        self._server = server
        self._credentials = credentials
        self._allow = allow
        self._admins = admins
        self._name = checked_word("name", name or socket.gethostname()[: config.WORD_LENGTH_MAX])
        self._zone = checked_word("zone", zone)
        self._push_max = push_max
        self._mirror = mirror
        self._limits = limits
        self._discoveries = discoveries
        self._connection_services = connection_services
        self._diagnostics = diagnostics
        self._open_socket = open_socket
        self._run_blocking = run_blocking or in_threads()
        self._rng = rng or Random()
        self._wall_clock = wall_clock
        self._loop_busy_s = loop_busy_s
        self._events = EventStream()
        self._announcer: Announcer | None = None

    # -- life ----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            nursery = await stack.enter_async_context(open_flat_nursery())
            await nursery.start(self._live)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._announcer is not None:
            self._announcer.stop()
        await self._link_service.say_bye()
        self._life.cancel()
        if error is None or isinstance(error, Exception):
            # The body's own failure is not the nursery's: it goes on bare, after everything here has ended.
            await self._stack.__aexit__(None, None, None)
        else:
            await self._stack.__aexit__(kind, error, trace)

    async def _live(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Everything that runs, until the block is left.

        Shielded, since a cancelled block must not cut the links before they have said goodbye.
        """
        with trio.CancelScope(shield=True) as self._life:
            async with AsyncExitStack() as stack:
                stack.enter_context(self._state)
                self._busy_s = self._loop_busy_s or stack.enter_context(measured_loop())
                self._node_key = self._state.node_key()
                self.node_id = self._node_key.node_id
                credentials = self._credentials or Credentials.from_node_key(self._node_key)
                self.certificate_pin = credentials.pin
                udp_socket = await self._open_socket(self._listen)
                stack.callback(udp_socket.close)
                if self._diagnostics.impairment is not None:
                    impaired = ImpairedSocket(udp_socket, self._diagnostics.impairment, self._rng)
                    udp_socket = await stack.enter_async_context(impaired)
                self._socket_hint = udp_socket.hint
                options = endpoint_options(
                    self._connection_services, self._limits.receive_window, self._diagnostics
                )
                self._endpoint = await stack.enter_async_context(Endpoint(udp_socket, credentials, options))
                self.listen_address = self._endpoint.local_address
                self._nursery = await stack.enter_async_context(open_flat_nursery())
                self._assemble(stack)
                await self._start()
                task_status.started()
                await trio.sleep_forever()

    def _assemble(self, stack: AsyncExitStack) -> None:
        """Make the parts and tell them of each other."""
        publish = self._events.publish
        self._presence = Presence(
            node_id=self.node_id,
            name=self._name,
            role=self._role,
            zone=self._zone,
            listen_address=self.listen_address,
        )
        self._offers = Offers(self._presence, self._offer_changed, publish)
        catalogue = Catalogue(self._state.catalogue_path or Path(":memory:"))
        self._shares = Shares(
            self._files_dir, catalogue, self._run_blocking, publish, self._share_changed, self._wall_clock
        )
        stack.callback(self._shares.close)
        self._throttles = Throttles(self._limits)
        self._uploads = Uploads(publish, self._busy_s)
        slots = UploadSlots(self._limits.upload_slots, self._rng, lambda: self._fetcher.given)
        self._uploader = Uploader(
            self._shares, self._run_blocking, publish, self._throttles, self._uploads, slots
        )
        self._responder = Responder(self._presence, self._uploader)
        self._news = SwarmNews(self._nursery, self._shares.piece_count, self._zone)
        self._link_service = LinkService(
            endpoint=self._endpoint,
            node_key=self._node_key,
            presence=self._presence,
            responder=self._responder,
            allow=self._allow,
            admins=self._admins,
            nursery=self._nursery,
            publish=publish,
            source_told=lambda *word: self._fetcher.source_told(*word),
            news=self._news,
        )
        self._exchange = self._responder.exchange = PeerExchange(
            own_id=self.node_id,
            presence=self._presence,
            links=self._link_service.links,
            link_to=self._link_service.link_to,
            announcer=lambda: self._announcer,
            heard=self._news.heard,
            discoveries=self._discoveries,
            nursery=self._nursery,
        )
        self._fetcher = Fetcher(
            node_id=self.node_id,
            shares=self._shares,
            exchange=self._exchange,
            list_files=self.list_files,
            best_link=self._link_service.links.best,
            bans=self._link_service.bans,
            blame=self._link_service.blame,
            news=self._news,
            swarm_changed=self._swarm_changed,
            run_blocking=self._run_blocking,
            publish=publish,
            rng=self._rng,
            throttles=self._throttles,
            busy_s=self._busy_s,
        )
        self._responder.push_receiver = PushReceiver(
            fetcher=self._fetcher,
            files_dir=self._files_dir,
            size_max=self._push_max,
            nursery=self._nursery,
            publish=publish,
        )
        self._responder.pusher = Pusher(
            own_id=self.node_id,
            own_name=self._name,
            presence=self._presence,
            links=self._link_service.links,
            fetch_here=self._fetch_here,
        )

    async def _start(self) -> None:
        services = (self._link_service, *self._connection_services)
        self._nursery.start_soon(serve_connections, self._endpoint, services)
        self._nursery.start_soon(self._presence.expire_for_ever)
        self._nursery.start_soon(self._shares.watch)
        self._nursery.start_soon(self._uploader.run)
        self._nursery.start_soon(self._uploads.report_for_ever)
        bytes_left, meet = self._offers.bytes_left, self._link_service.meet
        ourselves = Ourselves(self.node_id, self.listen_address, self._told_ids, bytes_left, meet)
        self._nursery.start_soon(self._exchange.run_discoveries, ourselves, self._events.publish)
        if self._role == "server" and self._state.path is not None:
            operator = Caller(
                self.node_id, "operator", is_operator=True, is_our_server=False, address=("", 0)
            )
            await self._nursery.start(serve_operators, self._state.path, self._responder, operator)
            self._state.leave_note(self.listen_address, self.node_id)
        if self._server is not None:
            self._announcer = self._make_announcer(self._server)
            self._nursery.start_soon(self._announcer.run)
        if self._mirror and self._files_dir is not None:
            self._nursery.start_soon(mirror_for_ever, self, self._files_dir, self._events.publish)
        self._events.publish(
            Listening(
                address=self.listen_address,
                node_id=self.node_id,
                role=self._role,
                certificate_pin=self.certificate_pin,
            )
        )
        if self._role != "client":
            self._say_socket_hint()

    def _say_socket_hint(self) -> None:
        """Say once how transfers could be faster; a client that fetches nothing has no use for it."""
        if self._socket_hint is not None:
            self._events.publish(NodeWarning(text=self._socket_hint))
            self._socket_hint = None

    def _make_announcer(self, server: ServerReference) -> Announcer:
        async def connect() -> PeerLink:
            return await self._link_service.dial_server(server)

        return Announcer(
            (server.host, server.port),
            connect,
            self._presence.announce,
            lambda: self._offers,
            self._events.publish,
            self._rng,
        )

    # -- what users call -----------------------------------------------------------------------------------

    async def share(self, path: Path, *, select: Selection | None = None) -> Shared:
        """Offer a file or a directory, or what `select` says of it, until the node ends; returns when it is hashed."""
        return await self._shares.share(path, select or Selection())

    async def fetch(
        self,
        reference: Reference,
        *,
        to: Path | None = None,
        wait: bool = False,
        select: Selection | None = None,
        sequential: bool = False,
    ) -> FetchCompleted:
        """Fetch a torrent; see `Fetcher.fetch` for what it raises. Resumes what an earlier fetch left.

        `to` is a directory to put it in, or the path it shall have; the working directory when left out. With
        `wait`, waits for a source as long as it takes. With `select`, only those files of a tree are fetched;
        another fetch to the same place adds others. `sequential`: the first pieces first, for who reads it meanwhile.
        """
        wanted = replace(wanted_from(reference), is_sequential=sequential)
        if self._announcer is not None and not wanted.sources:
            await self._announcer.wait_first_attempt()
        self._say_socket_hint()
        return await self._fetcher.fetch(wanted, to=to or Path.cwd(), wait=wait, select=select)

    async def wait_for_server(self) -> PeerLink:
        """Wait until the first attempt to reach the server is over; raises why it failed."""
        if self._announcer is None:
            raise ConfigError("this node has no server")
        return await self._announcer.wait_connected()

    async def ticket(self, file_id: bytes) -> Ticket:
        """A line that names something we share or fetch, us, our addresses, and our server if it can be reached."""
        offer = self._offers.get(file_id)
        if offer is None:
            raise NotFound(f"{file_id.hex()} is not shared here")
        server = None
        if self._server is not None and self._announcer is not None and self._announcer.link is not None:
            server = TicketServer((self._server.host, self._server.port), self._announcer.link.node_id)
        node = TicketNode(self.node_id, self._presence.own_addresses())
        return Ticket(file_id, offer.metainfo.size, offer.metainfo.name, (node,), server)

    def offers(self, file_id: bytes) -> bool:
        """Whether we share this torrent."""
        return self._shares.by_id(file_id) is not None

    def pieces(self, file_id: bytes) -> Bitfield | None:
        """The pieces that are here, verified, of what is shared or being fetched; None of anything else."""
        if (downloader := self._fetcher.active(file_id)) is not None:
            return downloader.have
        shared = self._shares.by_id(file_id)
        return None if shared is None else shared.store.have()

    async def list_files(self, prefix: str = "", *, peer: str = "") -> list[FileItem]:
        """What the server knows; a server: what it knows itself.

        With `peer` (a name, or the start of a node id in hex), what that peer offers: the server asks it, for us
        if we may command it.
        """
        if self._announcer is not None:
            return await ask_files(self._server_stream(), prefix, peer)
        if peer:
            return await ask_files(self._link_service.links.find_peers(peer)[0].request, prefix)
        return self._presence.all_files(prefix)

    async def list_peers(self) -> list[PeerReport]:
        """Whom the server knows; a server is asked as its operator."""
        if self._announcer is None:
            return self._presence.peers()
        return await ask_peers(self._server_stream())

    def push(self, reference: str, target: str) -> AsyncGenerator[PushReport, None]:
        """Order the server to push; yields what each peer does."""
        return order_push(self._server_stream(), reference, target)

    def events(self) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[NodeEvent]]:
        """Everything that happens from now on."""
        return self._events.subscribe()

    @property
    def statistics(self) -> dict[str, int | float]:
        """Counters since the start."""
        quic = self._endpoint.statistics
        return {
            "links": sum(1 for _ in self._link_service.links),
            "files_shared": sum(1 for _ in self._shares),
            "bytes_sent": self._uploader.bytes_sent,
            "requests_served": self._uploader.requests_served,
            **self._fetcher.statistics,
            **{f"upload_limited_by_{word}_s": self._uploads.limited_s.get(word, 0.0) for word in Bottleneck},
            "connections_dialed": quic.connections_dialed,
            "connections_accepted": quic.connections_accepted,
            "quic_escapes": quic.escapes,
            "datagrams_dropped": quic.datagrams_dropped.total(),
            **self._throttles.statistics,
        }

    # -- what the parts call -------------------------------------------------------------------------------

    def _server_stream(self) -> OpenStream:
        link = self._announcer.link if self._announcer else None
        if link is None:
            raise NetworkError("the server cannot be reached now")
        return link.request

    def _share_changed(self, shared: Shared, offered: bool) -> None:
        self._offers.share_changed(shared.metainfo, offered)
        self._news.changed(shared.file_id)

    def _swarm_changed(self, metainfo: Metainfo, have: Bitfield | None, *, fetching: bool) -> None:
        """A fetch begins (with the pieces that are here), has more, or ends: with all pieces and to be given on, or
        with None.
        """
        self._offers.swarm_changed(metainfo, have, is_fetching=fetching)

    def _offer_changed(self, offer: Offer) -> None:
        if self._announcer is not None:
            self._announcer.announce(offer)
        self._exchange.offer_changed(offer.metainfo, is_offered=offer.have is not None)

    def _told_ids(self) -> Iterator[bytes]:
        return (offer.file_id for offer in self._offers if self._exchange.may_tell(offer.metainfo))

    async def _fetch_here(self, file_id: bytes) -> FetchCompleted:
        if self._files_dir is None:
            raise NotFound("this server has no directory for files")
        return await self._fetcher.fetch(file_id, to=self._files_dir, wait=False)
