"""Move large files among many machines over QUIC: one UDP port, encrypted, verified, resumable.

`Node` is the product; `ServerReference` and a trust say which server it belongs to. Names are loaded when they
are first used, so that `p2pnode --help` need not wait for a QUIC stack.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pnode.errors import P2PNodeError as P2PNodeError
    from p2pnode.node.node import Node as Node
    from p2pnode.node.rate_limits import RateLimits as RateLimits
    from p2pnode.node.server_reference import ServerReference as ServerReference
    from p2pnode.quic import CertificateTrust as CertificateTrust
    from p2pnode.quic import Diagnostics as Diagnostics
    from p2pnode.quic import NoTrust as NoTrust
    from p2pnode.quic import PinTrust as PinTrust
    from p2pnode.quic import SystemTrust as SystemTrust
    from p2pnode.torrent import Magnet as Magnet
    from p2pnode.torrent import Metainfo as Metainfo
    from p2pnode.torrent import Ticket as Ticket

__version__ = "0.1.0"

_HOMES = {
    "CertificateTrust": "p2pnode.quic",
    "Diagnostics": "p2pnode.quic",
    "Magnet": "p2pnode.torrent",
    "Metainfo": "p2pnode.torrent",
    "NoTrust": "p2pnode.quic",
    "Node": "p2pnode.node.node",
    "P2PNodeError": "p2pnode.errors",
    "PinTrust": "p2pnode.quic",
    "RateLimits": "p2pnode.node.rate_limits",
    "ServerReference": "p2pnode.node.server_reference",
    "SystemTrust": "p2pnode.quic",
    "Ticket": "p2pnode.torrent",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'p2pnode' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
