"""A server of HTTP/1.1 and HTTP/2 for an ASGI application, over TCP and TLS."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Sequence
from tempfile import NamedTemporaryFile

import trio
from cryptography.hazmat.primitives import serialization

from p2pnode import config
from p2pnode.errors import AddressError, AddressInUse
from p2pnode.quic import Credentials
from p2pnode.quic.datagrams import Address, format_address, from_sockaddr, resolve, to_sockaddr
from p2pnode.services.asgi import Application
from p2pnode.services.http_connection import HttpConnection, protocol_settings
from p2pnode.services.network_shares import NetworkShares

__all__ = ["open_listener", "serve_http"]


async def serve_http(
    application: Application,
    addresses: Sequence[Address],
    *,
    credentials: Credentials | None = None,
    task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen on all `addresses` and answer until cancelled; with `credentials` over TLS.

    What is told as `started` are the addresses as they are, where port 0 was asked for. `AddressInUse`,
    `AddressError`; besides, only what the application raises comes out.
    """
    tls = None if credentials is None else _tls_context(credentials)
    listeners: list[trio.SocketListener] = []
    try:
        for address in addresses:
            listeners.append(await open_listener(address))
        task_status.started([from_sockaddr(listener.socket.getsockname()) for listener in listeners])
        await trio.serve_listeners(_Visitors(application, tls).serve, listeners)
    finally:
        for listener in listeners:
            listener.socket.close()


async def open_listener(address: Address) -> trio.SocketListener:
    """Listen for TCP on `address`; port 0 lets the system choose. `AddressInUse`, `AddressError`.

    `::` takes IPv4 as well, and becomes `0.0.0.0` on a host without IPv6.
    """
    [local, *_] = await resolve(*address)
    try:
        return trio.SocketListener(trio.socket.from_stdlib_socket(_listen(local)))
    except OSError as error:
        no_ipv6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)
        if local[0] == "::" and error.errno in no_ipv6:
            return await open_listener(("0.0.0.0", local[1]))
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(f"TCP port {local[1]} on {local[0]} is in use by another program") from error
        raise AddressError(f"cannot listen on {format_address(local)}: {error.strerror}") from error


def _listen(local: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
    unbound = socket.socket(family, socket.SOCK_STREAM)
    try:
        unbound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that ended may linger
        if family == socket.AF_INET6:
            unbound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(local[0] != "::"))
        unbound.setblocking(False)
        unbound.bind(to_sockaddr(local, family))
        unbound.listen(config.HTTP_BACKLOG)
    except OSError:
        unbound.close()
        raise
    return unbound


def _tls_context(credentials: Credentials) -> ssl.SSLContext:
    """TLS 1.2 or later with `credentials`, which Python's ssl takes from a file alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 9113 §9.2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.set_alpn_protocols(["h2", "http/1.1"])
    pem = serialization.Encoding.PEM
    with NamedTemporaryFile(prefix="p2pnode-", suffix=".pem") as file:  # made with mode 0600
        file.write(
            credentials.private_key.private_bytes(
                pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        for certificate in (credentials.certificate, *credentials.chain):
            file.write(certificate.public_bytes(pem))
        file.flush()
        context.load_cert_chain(os.fspath(file.name))
    return context


class _Visitors:
    """All connections of a server: so many, and so many of one network, are served at a time."""

    def __init__(self, application: Application, tls: ssl.SSLContext | None) -> None:
        self._application = application
        self._tls = tls
        self._settings = protocol_settings()
        self._shares = NetworkShares(config.HTTP_CONNECTIONS_MAX, config.HTTP_CONNECTIONS_PER_NETWORK_MAX)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection, or close it at once where there are too many."""
        try:
            remote = from_sockaddr(stream.socket.getpeername())
            local = from_sockaddr(stream.socket.getsockname())
        except OSError:  # it is gone already
            stream.socket.close()
            return
        with self._shares.place(remote[0]) as has_place:
            if not has_place:
                stream.socket.close()
                return
            await HttpConnection(
                stream, self._tls, self._application, self._settings, remote=remote, local=local
            ).run()
