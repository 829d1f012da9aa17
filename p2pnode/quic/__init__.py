"""QUIC for any protocol: one UDP socket, connections both ways, streams with back-pressure.

::

    udp ───── endpoint ── router                  which connection is a datagram for? (sync, takes nobody's word)
                 │
    inbox ── connection ── stream_table ── stream  one task drives a connection; applications hold streams
                 │
           aioquic_batches                        the engine, sans IO: packets of a transfer go by runs …
                 │
          aioquic_internals                       … all others aioquic's own way, one by one, hardened

Beside the engine, pure: `congestion` says how fast to send, `path_mtu` how large datagrams may be,
`receive_window` and `send_buffer` what is held. `credentials` says who we are and whom we trust, `options` what
an endpoint can be told.
"""

from p2pnode.quic.connection import Connection
from p2pnode.quic.credentials import (
    CertificateTrust,
    Credentials,
    NodeIdTrust,
    NodeKey,
    NoTrust,
    PinTrust,
    SystemTrust,
    Trust,
    check_signature,
    node_id_of,
    pin_of_certificate,
)
from p2pnode.quic.datagrams import (
    Address,
    Burst,
    DatagramSocket,
    format_address,
    network_of,
    normalise,
    resolve,
)
from p2pnode.quic.endpoint import Endpoint, EndpointStatistics
from p2pnode.quic.impairment import ImpairedSocket, Impairment
from p2pnode.quic.lifecycle import ConnectionStatistics, Role
from p2pnode.quic.options import Diagnostics, EndpointOptions
from p2pnode.quic.send_clock import SendClock, SendLimit
from p2pnode.quic.stream import Stream
from p2pnode.quic.udp import open_udp_socket

__all__ = [
    "Address",
    "Burst",
    "CertificateTrust",
    "Connection",
    "ConnectionStatistics",
    "Credentials",
    "DatagramSocket",
    "Diagnostics",
    "Endpoint",
    "EndpointOptions",
    "EndpointStatistics",
    "ImpairedSocket",
    "Impairment",
    "NoTrust",
    "NodeIdTrust",
    "NodeKey",
    "PinTrust",
    "Role",
    "SendClock",
    "SendLimit",
    "Stream",
    "SystemTrust",
    "Trust",
    "check_signature",
    "format_address",
    "network_of",
    "node_id_of",
    "normalise",
    "open_udp_socket",
    "pin_of_certificate",
    "resolve",
]
