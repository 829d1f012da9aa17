"""An endpoint: one UDP socket that dials and listens at once, for any number of connections.

::

    async with Endpoint(socket, credentials, EndpointOptions(alpns=["p2pnode/1"])) as endpoint:
        connection = await endpoint.dial(address, alpn="p2pnode/1", server_name=name, trust=trust)
        other = await endpoint.accept()

One task reads the socket and hands datagrams to connections; each connection has its own task. When the block
is left, all connections are closed in order.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self, TextIO

import trio
from aioquic import tls

from p2pnode import config
from p2pnode.errors import ConfigError, ConnectFailed, ConnectionClosed, TrustError
from p2pnode.quic.aioquic_batches import BatchConnection
from p2pnode.quic.aioquic_internals import HardenedConnection
from p2pnode.quic.configuration import (
    Configuration,
    dialing_configuration,
    listening_configuration,
)
from p2pnode.quic.connection import Connection
from p2pnode.quic.credentials import Credentials, Trust
from p2pnode.quic.datagrams import (
    Address,
    Burst,
    DatagramSocket,
    format_address,
    network_of,
    normalise,
)
from p2pnode.quic.guard import Escape, guard
from p2pnode.quic.lifecycle import Role
from p2pnode.quic.options import EndpointOptions
from p2pnode.quic.router import Drop, NewConnection, Reply, Router, runs_to_one_id_untrusted

ACCEPT_QUEUE_MAX: Final = 256  # connections that are open and that nobody accepted yet
GOODBYE_TIMEOUT_S: Final = 2.0  # for saying CLOSE on all connections at the end

_NO_APPLICATION_PROTOCOL: Final = 0x178  # TLS alert 120 as QUIC writes it (RFC 9001 §4.8)
_CRYPTO_ERRORS: Final = range(0x100, 0x200)
_CONNECTION_REFUSED: Final = 0x2


@dataclass(slots=True)
class EndpointStatistics:
    """Counters since the endpoint was opened."""

    connections_dialed: int = 0
    connections_accepted: int = 0
    escapes: int = 0
    datagrams_dropped: Counter[str] = field(default_factory=Counter)  # that led to no connection, by reason


class Endpoint:
    """On `socket`, which stays the caller's to close; use it as an async context manager.

    `credentials` are what it shows to those who dial it.
    """

    def __init__(
        self,
        socket: DatagramSocket,
        credentials: Credentials,
        options: EndpointOptions = EndpointOptions(),  # noqa: B008 (it is frozen)
    ) -> None:
        self.statistics = EndpointStatistics()
        self._socket = socket
        self._credentials = credentials
        self._options = options
        self._keylog: TextIO | None = None
        self._listen_configuration: Configuration
        self._engine_class = BatchConnection if options.diagnostics.batching else HardenedConnection
        self._router: Router[Connection] = Router()
        # Drivers are shielded: a cancelled program still says CLOSE, within GOODBYE_TIMEOUT_S.
        self._connections: dict[Connection, trio.CancelScope] = {}
        self._accepted: dict[Connection, str] = {}  # and the network that each came from
        self._half_open: set[Connection] = set()  # of these, those whose handshake is not finished
        self._accepted_by_network: Counter[str] = Counter()
        self._half_open_by_network: Counter[str] = Counter()
        self._accept_send, self._accept_receive = trio.open_memory_channel[Connection](ACCEPT_QUEUE_MAX)
        self._exit_stack = ExitStack()
        self._nursery_context = trio.open_nursery()
        self._nursery: trio.Nursery

    @property
    def local_address(self) -> Address:
        """The address it listens on and dials from."""
        return self._socket.local_address

    @property
    def connections(self) -> frozenset[Connection]:
        """Those that have not ended."""
        return frozenset(self._connections)

    # -- for applications ----------------------------------------------------------------------------------

    async def accept(self) -> Connection:
        """The next connection whose handshake a remote has completed."""
        return await self._accept_receive.receive()

    async def dial(
        self,
        address: Address,
        *,
        alpn: str = config.ALPN,
        server_name: str | None,
        trust: Trust,
    ) -> Connection:
        """A connection to the listener at `address`, its handshake complete and its certificate checked.

        `server_name` is what the certificate is checked against, a DNS name or an IP address. One handshake
        gets 5 s, then a fresh one is tried, 20 s in all. `AddressError`, `ConnectFailed`, `TrustError`.
        """
        address = normalise(*address)
        with trio.move_on_after(config.DIAL_TIMEOUT_S):
            while True:
                connection = self._begin_dial(address, alpn, server_name)
                with trio.move_on_after(config.DIAL_TRY_TIMEOUT_S):
                    return await self._finish_dial(connection, alpn, server_name, trust)
        raise ConnectFailed(
            f"{format_address(address)}: nobody answers (does it run, and does UDP get through?)"
        )

    def _begin_dial(self, address: Address, alpn: str, server_name: str | None) -> Connection:
        configuration = dialing_configuration(
            self._options, alpn=alpn, server_name=server_name, keylog=self._keylog
        )
        connection = self._add_connection(self._engine_class(configuration), Role.DIALED, address)
        connection.dial()
        return connection

    async def _finish_dial(
        self, connection: Connection, alpn: str, server_name: str | None, trust: Trust
    ) -> Connection:
        is_wanted = False
        try:
            await connection.wait_open()
            connection.certificate_trusted = _check_certificate(connection, server_name, trust)
            self.statistics.connections_dialed += 1
            is_wanted = True
        except ConnectionClosed as closed:
            raise _connect_failed(connection.remote_address, alpn, closed) from closed
        except TrustError as error:
            connection.refuse_certificate(str(error))
            raise
        finally:
            if not is_wanted:
                connection.close()
        return connection

    # -- lifecycle -----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        keylog_path = self._options.diagnostics.keylog_path
        if keylog_path is not None:
            try:
                self._keylog = self._exit_stack.enter_context(keylog_path.open("a", encoding="ascii"))
            except OSError as error:
                raise ConfigError(f"cannot write the key log {keylog_path}: {error.strerror}") from error
        self._listen_configuration = listening_configuration(
            self._options, self._credentials, keylog=self._keylog
        )
        self._nursery = await self._nursery_context.__aenter__()
        self._nursery.start_soon(self._receive)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._accept_send.close()
        for connection in self._connections:
            connection.close(reason="the endpoint was closed")
        with trio.move_on_after(GOODBYE_TIMEOUT_S, shield=True):
            for connection in list(self._connections):
                await connection.wait_closed()
        for scope in self._connections.values():
            scope.cancel()
        self._nursery.cancel_scope.cancel()
        # The block's own error is not the nursery's: it shall come out as it is, in no group.
        await self._nursery_context.__aexit__(None, None, None)
        self._exit_stack.close()

    # -- the reader ----------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        while True:
            bursts = await self._socket.receive_batch()
            now = trio.current_time()
            replies: list[Burst] = []
            for burst, address in bursts:
                for datagrams in runs_to_one_id_untrusted(burst):
                    connection = self._router.find_untrusted(datagrams[0])
                    if connection is not None:
                        connection.deliver(datagrams, address)
                    else:
                        self._answer_untrusted(datagrams, address, now, replies)
            if replies:
                await self._socket.send_batch(replies)

    def _answer_untrusted(
        self, datagrams: list[bytes], address: Address, now: float, replies: list[Burst]
    ) -> None:
        for data in datagrams:
            connection = self._router.find_untrusted(data)  # the one before it may have begun a connection
            if connection is not None:
                connection.deliver([data], address)
                continue
            match self._router.answer_untrusted(data, address, now):
                case Reply(datagram):
                    replies.append(([datagram], address))
                case NewConnection() as new:
                    self._accept_untrusted(new, data, address, now)
                case Drop(reason):
                    self.statistics.datagrams_dropped[reason] += 1

    def _accept_untrusted(self, new: NewConnection, data: bytes, address: Address, now: float) -> None:
        """Begin a connection with a client that is at its address, but of which nothing else is known.

        Too many at once are not refused but dropped: the client tries again by itself.
        """
        network = network_of(address[0])
        if not self._has_room_for(network):
            self.statistics.datagrams_dropped["too many connections"] += 1
            return
        self._router.use_token(new, now)
        engine = self._engine_class(
            self._listen_configuration,
            original_destination_connection_id=new.original_destination_cid,
            retry_source_connection_id=new.retry_source_cid,
        )
        connection = self._add_connection(engine, Role.ACCEPTED, address)
        connection.add_route(new.retry_source_cid)
        connection.deliver([data], address)
        self._accepted[connection] = network
        self._accepted_by_network[network] += 1
        self._half_open.add(connection)
        self._half_open_by_network[network] += 1

    def _has_room_for(self, network: str) -> bool:
        return (
            len(self._connections) < config.CONNECTIONS_MAX
            and len(self._half_open) < config.HALF_OPEN_MAX
            and self._accepted_by_network[network] < config.CONNECTIONS_PER_NETWORK_MAX
            and self._half_open_by_network[network] < config.HALF_OPEN_PER_NETWORK_MAX
        )

    def _no_longer_half_open(self, connection: Connection) -> None:
        if connection in self._half_open:
            self._half_open.remove(connection)
            _count_down(self._half_open_by_network, self._accepted[connection])

    def _no_longer_accepted(self, connection: Connection) -> None:
        if connection in self._accepted:
            self._no_longer_half_open(connection)
            _count_down(self._accepted_by_network, self._accepted.pop(connection))

    # -- connections ---------------------------------------------------------------------------------------

    def _add_connection(self, engine: HardenedConnection, role: Role, address: Address) -> Connection:
        connection = Connection(
            engine,
            self._socket,
            self._router,
            role=role,
            remote_address=address,
            on_open=self._on_open if role is Role.ACCEPTED else None,
        )
        scope = self._connections[connection] = trio.CancelScope(shield=True)
        self._nursery.start_soon(self._drive, connection, scope)
        return connection

    async def _drive(self, connection: Connection, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await connection.run()
        finally:
            del self._connections[connection]
            self._no_longer_accepted(connection)
            self.statistics.escapes += connection.statistics.escapes

    def _on_open(self, connection: Connection) -> None:
        self._no_longer_half_open(connection)
        try:
            self._accept_send.send_nowait(connection)
        except (trio.WouldBlock, trio.ClosedResourceError):
            connection.close(_CONNECTION_REFUSED, "too many connections wait to be accepted")
        else:
            self.statistics.connections_accepted += 1


def _count_down(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


def _check_certificate(connection: Connection, server_name: str | None, trust: Trust) -> bool:
    """Ask `trust`. A certificate that makes the check itself fail is not trusted either."""
    chain = connection.peer_certificates
    if not chain:
        raise TrustError("the server showed no certificate")
    try:
        return guard(trust.check_certificate, chain, server_name)
    except Escape as escape:
        raise TrustError(f"the server's certificate cannot be checked: {escape}") from escape


def _connect_failed(address: Address, alpn: str, closed: ConnectionClosed) -> ConnectFailed:
    """Why a handshake ended, in words for who dialled."""
    where = format_address(address)
    if closed.code == _NO_APPLICATION_PROTOCOL:
        return ConnectFailed(f"{where} is not a p2pnode server: it does not speak {alpn}")
    if closed.code in _CRYPTO_ERRORS:
        try:
            alert = tls.AlertDescription(closed.code - _CRYPTO_ERRORS.start).name
        except ValueError:
            alert = str(closed.code - _CRYPTO_ERRORS.start)
        return ConnectFailed(f"{where}: the TLS handshake failed ({alert}): {closed.reason}")
    return ConnectFailed(f"{where}: {closed}")
