"""Who we are, who else is there, and who has what: the node's words around its registry.

Every node keeps a registry, and its own shares are in it; a server's also holds what its peers announced. So the
same code answers `FileList` and `FindSources` everywhere. The address of a node is the one that its packets
came from; what it claims beside is only added.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from math import inf

import trio

from p2pnode import __version__, config
from p2pnode.errors import Busy, ConfigError
from p2pnode.node.peer_link import PeerInformation, role_of
from p2pnode.quic import Address
from p2pnode.tracker import LOCAL_HOST, Asker, NodeRegistry
from p2pnode.wire.codec import rows_that_fit
from p2pnode.wire.communication import (
    FileAcknowledge,
    FileAnnounce,
    FileItem,
    FileList,
    FindSources,
    NodeItem,
    PeerReport,
    PresenceAnnounce,
    PresenceResponse,
    Sources,
)

AGENT = f"p2pnode/{__version__}"


class Presence:
    """What this node says of itself, and what it knows of others."""

    def __init__(self, *, node_id: bytes, name: str, role: str, zone: str, listen_address: Address) -> None:
        self._node_id = node_id
        self._name = name
        self._role = role
        self._zone = zone
        self._listen_address = listen_address
        self._registry = NodeRegistry()
        self._registry_changed = trio.Event()
        self._myself = Asker(b"", LOCAL_HOST)  # no node id, so that our own shares are listed as well
        self._registry.announce_presence(
            node_id, self.announce(), observed=None, now=trio.current_time(), lasts_s=inf
        )

    # -- ourselves -----------------------------------------------------------------------------------------

    def announce(self) -> PresenceAnnounce:
        """What we say of ourselves."""
        return PresenceAnnounce(
            config.PROTOCOL_VERSION,
            agent=AGENT,
            name=self._name,
            role=self._role,
            zone=self._zone,
            addresses=self.own_addresses(),
            listen_port=self._listen_address[1],
        )

    def own_addresses(self) -> tuple[Address, ...]:
        """Where we can be dialed, as far as we know ourselves: the bound address, or this host's own ones."""
        host, port = self._listen_address
        if not ip_address(host).is_unspecified:
            return (self._listen_address,)
        return tuple((local, port) for local in local_hosts())[: config.ADDRESSES_PER_NODE_MAX]

    def offer_own(self, announce: FileAnnounce) -> str | None:
        """Something that we have or fetch from now on. Gives the reason if it cannot be listed."""
        return self._registry.share(self._node_id, announce)

    def withdraw_own(self, file_id: bytes) -> None:
        """Something that we neither have nor fetch any more."""
        self._registry.unshare(self._node_id, file_id)

    # -- others --------------------------------------------------------------------------------------------

    def arrived(
        self, node_id: bytes, announced: PresenceAnnounce, observed: Address, now: float
    ) -> PresenceResponse:
        """Note that a node is there; raises `Busy` when there is no room for it.

        A client is there once it has something to give, and as long as it says that it is.
        """
        match role_of(announced.role):
            case "peer":
                reason = self._registry.announce_presence(
                    node_id, announced, observed=observed, now=now, lasts_s=config.PRESENCE_LASTS_S
                )
                if reason is not None:
                    raise Busy(reason, retry_after_s=config.PRESENCE_LASTS_S)
                self._wake()
            case "client":
                self._registry.prolong_presence(node_id, now, config.PRESENCE_LASTS_S)
        return PresenceResponse(
            config.PROTOCOL_VERSION,
            observed,
            config.PRESENCE_LASTS_S,
            agent=AGENT,
            name=self._name,
            role=self._role,
            zone=self._zone,
        )

    def client_offers(self, peer: PeerInformation, observed: Address, now: float) -> None:
        """A node is about to say what it has: if it is a client, it is there from now on.

        Not before: the commands of one user share a key, and one that only asks is not where others can be dialed.
        """
        if peer.role == "client" and self._role == "server":
            announced = PresenceAnnounce(
                config.PROTOCOL_VERSION,
                agent=peer.agent,
                name=peer.name,
                role=peer.role,
                zone=peer.zone,
                addresses=peer.addresses,
            )
            self._registry.announce_presence(
                peer.node_id, announced, observed=observed, now=now, lasts_s=config.PRESENCE_LASTS_S
            )
            self._wake()

    def left(self, node_id: bytes, now: float, *, for_good: bool = False) -> None:
        """The last link to a node ended; it may be back in a moment, unless it said bye."""
        if node_id == self._node_id:
            return
        if for_good:
            self._registry.forget_node(node_id)
        else:
            self._registry.link_lost(node_id, now)
        self._wake()

    async def expire_for_ever(self) -> None:
        """Forget whoever does not announce again in time."""
        while True:
            deadline = self._registry.next_deadline()
            with trio.move_on_at(inf if deadline is None else deadline):
                await self._registry_changed.wait()
            self._registry.expire(trio.current_time())

    def _wake(self) -> None:
        self._registry_changed.set()
        self._registry_changed = trio.Event()

    def accept_offer(self, node_id: bytes, offer: FileAnnounce) -> FileAcknowledge:
        """Note what a node has; only a server keeps such notes of others."""
        if self._role != "server":
            return FileAcknowledge(offer.file_id, accepted=False, reason="this node is no server")
        return self._registry.announce_file(node_id, offer)

    # -- answers -------------------------------------------------------------------------------------------

    def list_page(self, asked: FileList) -> FileList:
        """A page of what is known here."""
        rows, after = self._registry.list_files(asked.prefix, asked.after, asked.limit)
        fitting = rows_that_fit(rows, asked.limit)
        if len(fitting) < len(rows):
            rows, after = self._registry.list_files(asked.prefix, asked.after, len(fitting))
        return FileList(prefix=asked.prefix, limit=asked.limit, files=rows, next=after)

    def all_files(self, prefix: str = "") -> list[FileItem]:
        """Everything that is known here."""
        files: list[FileItem] = []
        after = b""
        while True:
            page, after = self._registry.list_files(prefix, after)
            files.extend(page)
            if not after:
                return files

    def answer_sources(self, node_id: bytes, address: Address, asked: FindSources) -> Sources:
        """Who has it, as the asker may know it."""
        rows = self._registry.sources(
            Asker(node_id, address[0]),
            file_id=asked.file_id,
            pieces_root=asked.pieces_root,
            limit=asked.limit,
        )
        return Sources(rows_that_fit(rows, asked.limit))

    def known_sources(self, file_id: bytes | None, pieces_root: bytes | None) -> tuple[NodeItem, ...]:
        """Who has it, for ourselves."""
        return self._registry.sources(self._myself, file_id=file_id, pieces_root=pieces_root)

    def addresses_for(self, node_id: bytes, asker_id: bytes, asker_address: Address) -> tuple[Address, ...]:
        """Where another node can dial this one."""
        return self._registry.addresses(node_id, Asker(asker_id, asker_address[0]))

    def peers(self) -> list[PeerReport]:
        """Whoever is there, but for ourselves."""
        reports = self._registry.peers(trio.current_time())
        return [report for report in reports if report.node_id != self._node_id]


def local_hosts() -> list[str]:
    """The addresses from which this host would talk to others; asks the routing table, sends nothing."""
    hosts = []
    for family, anywhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((anywhere, 9))
                hosts.append(str(probe.getsockname()[0]))
        except OSError:
            continue  # no route: no such address
    return hosts


def checked_word(what: str, word: str) -> str:
    """A name or zone that can be announced; `ConfigError` for any other."""
    if len(word) > config.WORD_LENGTH_MAX:
        raise ConfigError(f"the {what} has {len(word)} characters: {config.WORD_LENGTH_MAX} are the most")
    if not word.isprintable():
        raise ConfigError(f"the {what} {word!r} has characters that cannot be shown")
    return word
