"""Who we are, who else is there, and who has what: the node's words around its registry.

Every node keeps a registry and its own shares are in it; a server's also holds what its peers announced. So the
same code answers `FileList` and `FindSources` everywhere. The address of a node is the one that its packets
came from; what it claims beside is only added.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address

import trio

from p2pnode import __version__, config
from p2pnode.node.peer_link import PeerLink
from p2pnode.node.sharing import Shared
from p2pnode.quic import Address
from p2pnode.tracker import Registry
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
