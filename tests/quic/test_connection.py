"""Connections: streams both ways, and every way to end."""

from __future__ import annotations

import os

import pytest
import trio
from aioquic.quic.connection import QuicConnection
from cryptography.x509 import DNSName

from p2pnode import config
from p2pnode.errors import ConnectionClosed
from p2pnode.quic import Connection, Endpoint, NoTrust, Role
from p2pnode.quic.aioquic_internals import HardenedConnection
from p2pnode.testing.network import Datagram, LinkProfile, Network
from tests.quic.certificates import make_certificate, new_key
from tests.quic.endpoints import (
    DIALER,
    LISTENER,
    Remote,
    connect,
    connected,
    endpoint_at,
    open_and_accept,
    receive_all,
    send_and_finish,
)
from tests.quic.engines import credentials, dialer_configuration, listener_configuration, seal, varints

pytestmark = pytest.mark.usefixtures("both_ways")

Clock = trio.testing.MockClock


async def test_both_ends_know_what_they_are(autojump_clock: Clock) -> None:
    async with Network() as network, connected(network) as (dialled, accepted):
        assert (dialled.role, accepted.role) == (Role.DIALED, Role.ACCEPTED)
        assert dialled.alpn == accepted.alpn == config.ALPN
        assert (dialled.remote_address, accepted.remote_address) == (LISTENER, DIALER)
        assert dialled.exporter("a") == accepted.exporter("a") != dialled.exporter("b")
        assert dialled.peer_certificates == [credentials().certificate]
        assert accepted.peer_certificates == []


@pytest.mark.parametrize("opened_by_listener", [False, True])
async def test_either_side_opens_streams(autojump_clock: Clock, opened_by_listener: bool) -> None:
    async with Network() as network, connected(network) as (dialled, accepted):
        opener, other = (accepted, dialled) if opened_by_listener else (dialled, accepted)
        question, answer = os.urandom(300_000), os.urandom(3_000_000)
        ours = await opener.open_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_finish, ours, question)
            theirs = await other.accept_stream()
            assert await receive_all(theirs) == question
            nursery.start_soon(send_and_finish, theirs, answer)
            assert await receive_all(ours) == answer


async def test_many_streams_at_once(autojump_clock: Clock) -> None:
    async with Network() as network, connected(network) as (dialled, accepted):
        payloads = {os.urandom(20_000 + n) for n in range(40)}
        received = set()

        async def answer() -> None:
            stream = await accepted.accept_stream()
            received.add(await receive_all(stream))

        async with trio.open_nursery() as nursery:
            for payload in payloads:
                nursery.start_soon(answer)
                nursery.start_soon(send_and_finish, await dialled.open_stream(), payload)
        assert received == payloads


# -- ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed_by_listener", [False, True])
async def test_closing_is_seen_by_both(autojump_clock: Clock, closed_by_listener: bool) -> None:
    async with Network() as network, connected(network) as (dialled, accepted):
        closer, other = (accepted, dialled) if closed_by_listener else (dialled, accepted)
        ours, theirs = await open_and_accept(dialled, accepted)
        closer.close(42, "enough")
        closer.close(43, "again")
        mine, yours = await closer.wait_closed(), await other.wait_closed()
        assert (mine.code, mine.reason, mine.by_remote) == (42, "enough", False)
        assert (yours.code, yours.reason, yours.by_remote) == (42, "enough", True)
        for stream in (ours, theirs):
            with pytest.raises(ConnectionClosed, match="enough"):
                await stream.receive_some()
            with pytest.raises(ConnectionClosed):
                await stream.send_all(b"x")
            stream.reset(1)
            await stream.aclose()
        for connection in (dialled, accepted):
            assert not connection.is_open
            with pytest.raises(ConnectionClosed):
                await connection.open_stream()
            with pytest.raises(ConnectionClosed):
                await connection.accept_stream()


async def test_whoever_waits_sees_the_end(autojump_clock: Clock) -> None:
    async with Network() as network, connected(network) as (dialled, accepted):
        ours, _theirs = await open_and_accept(dialled, accepted)
        ended = []

        async def expect_end(wait: object) -> None:
            with pytest.raises(ConnectionClosed):
                await wait()  # type: ignore[operator]
            ended.append(wait)

        async def send_for_ever() -> None:
            while True:
                await ours.send_all(bytes(100_000))

        async def open_for_ever() -> None:
            while True:
                await dialled.open_stream()

        async with trio.open_nursery() as nursery:
            for wait in (ours.receive_some, send_for_ever, dialled.accept_stream, open_for_ever):
                nursery.start_soon(expect_end, wait)
            await trio.testing.wait_all_tasks_blocked(0.1)
            accepted.close()
        assert len(ended) == 4


async def test_what_arrived_before_the_end_can_be_received(autojump_clock: Clock) -> None:
    async with Network() as network, connected(network) as (dialled, accepted):
        ours, theirs = await open_and_accept(dialled, accepted)
        await send_and_finish(theirs, b"the answer")
        await trio.sleep(1)
        accepted.close()
        await dialled.wait_closed()
        assert await receive_all(ours) == b"the answer"


async def test_a_reason_from_a_remote_is_safe_to_show(autojump_clock: Clock) -> None:
    async with Network() as network, endpoint_at(network, LISTENER) as listener:
        remote = Remote(network)
        await remote.dial(LISTENER)
        await remote.live_for(0.5)
        accepted = await listener.accept()
        remote.engine.close(3, reason_phrase="\x1b[31mred\n" + "x" * 500)
        await remote.send()
        closed = await accepted.wait_closed()
        assert closed.reason.startswith("�[31mred�xxx")
        assert len(closed.reason) == config.CLOSE_REASON_SIZE_MAX


async def test_Q19_a_lost_close_is_repeated(autojump_clock: Clock) -> None:
    async with Network() as network, connected(network) as (dialled, accepted):
        await trio.sleep(1)
        dropped = []

        def drop_two(datagram: Datagram) -> bytes | None:
            if datagram.source == DIALER and len(dropped) < config.CLOSE_REPEATS - 1:
                dropped.append(datagram)
                return None
            return datagram.data

        network.tap(drop_two)
        dialled.close(9, "bye")
        closed = await accepted.wait_closed()
        assert (closed.code, closed.by_remote) == (9, True)
        assert len(dropped) == config.CLOSE_REPEATS - 1


async def test_a_late_packet_is_answered_with_close_a_bounded_number_of_times(
    autojump_clock: Clock,
) -> None:
    async with Network() as network, endpoint_at(network, LISTENER) as listener:
        remote = Remote(network)
        await remote.dial(LISTENER)
        await remote.live_for(0.5)
        accepted = await listener.accept()
        late = seal(remote.engine, b"\x01" + bytes(30))
        accepted.close()
        sent_before = network.counters(LISTENER[0], DIALER[0]).sent
        for _ in range(100):
            await remote.socket.send_batch([([late], LISTENER)])
            await trio.sleep(0.005)
        await accepted.wait_closed()
        answers = network.counters(LISTENER[0], DIALER[0]).sent - sent_before
        assert config.CLOSE_REPEATS < answers <= 2 * config.CLOSE_REPEATS


async def test_silence_is_kept_alive(autojump_clock: Clock) -> None:
    async with Network() as network, connected(network) as (dialled, accepted):
        await trio.sleep(300)
        await open_and_accept(dialled, accepted)
        seconds_of_pings = dialled.statistics.datagrams_sent / 300
        assert seconds_of_pings < 2


async def test_Q18_a_vanished_peer_is_noticed_within_10_s(autojump_clock: Clock) -> None:
    async with Network() as network, connected(network) as (dialled, accepted):
        await trio.sleep(7.5)
        network.block(DIALER[0], LISTENER[0])
        gone_at = trio.current_time()
        for connection in (dialled, accepted):
            closed = await connection.wait_closed()
            assert not closed.by_remote
            assert "nothing heard" in closed.reason
        assert trio.current_time() - gone_at <= config.IDLE_TIMEOUT_S + 4 * config.CLOSE_INTERVAL_S


async def test_Q17_a_listener_that_moved_is_noticed_within_10_s(
    autojump_clock: Clock,
) -> None:
    async with Network() as network, endpoint_at(network, DIALER) as dialer:
        socket = network.socket(LISTENER)
        async with Endpoint(socket, credentials()) as listener:
            dialled, accepted = await connect(dialer, listener)
            ours, _theirs = await open_and_accept(dialled, accepted)
            network.rebind(socket, ("10.0.0.3", 1003))
            moved_at = trio.current_time()
            await ours.send_all(bytes(40_000))
            await dialled.wait_closed()
            assert trio.current_time() - moved_at <= config.IDLE_TIMEOUT_S + 4 * config.CLOSE_INTERVAL_S
            again = await dialer.dial(("10.0.0.3", 1003), server_name="localhost", trust=NoTrust())
            assert again.is_open


async def test_Q16_a_dialer_whose_address_changes_all_the_time(
    autojump_clock: Clock,
) -> None:
    async with Network(profile=LinkProfile(delay_s=0.02, rate_bytes_per_s=200_000)) as network:
        socket = network.socket(DIALER)
        async with Endpoint(socket, credentials()) as dialer, endpoint_at(network, LISTENER) as listener:
            dialled, accepted = await connect(dialer, listener)
            data = os.urandom(2_400_000)  # 12 to 14 s: not just when it moves, with a second of queue

            async def move() -> None:
                for port in range(2000, 2100):
                    await trio.sleep(5)
                    network.rebind(socket, (DIALER[0], port))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(move)
                ours = await dialled.open_stream()
                nursery.start_soon(send_and_finish, ours, data)
                theirs = await accepted.accept_stream()
                received = await receive_all(theirs)
                nursery.cancel_scope.cancel()
            assert received == data
            assert accepted.remote_address == network.seen_address(socket) != DIALER


async def test_a_handshake_that_completes_just_after_close_does_not_open_the_connection(
    autojump_clock: Clock,
) -> None:
    async with Network() as network:
        engine = HardenedConnection(dialer_configuration())
        configuration = listener_configuration()
        configuration.private_key = new_key()
        names = [DNSName(f"{'x' * 60}{number}.example") for number in range(20)]  # more than one datagram
        configuration.certificate = make_certificate(configuration.private_key, names)
        listener = QuicConnection(
            configuration=configuration,
            original_destination_connection_id=engine.original_destination_connection_id,
        )
        connection = _bare_connection(network, engine)
        connection.dial()
        now = trio.current_time()
        for datagrams, _ in connection._step(now):
            for data in datagrams:
                listener.receive_datagram(data, DIALER, now)
        *flight, (last, _) = listener.datagrams_to_send(now)
        connection.deliver([data for data, _ in flight], LISTENER)
        connection._step(now)
        connection.deliver([last], LISTENER)
        connection.close(7, "changed my mind")
        await connection.run()
        assert engine._handshake_complete
        assert (await connection.wait_closed()).code == 7
        with pytest.raises(ConnectionClosed):
            await connection.wait_open()


# -- floods ------------------------------------------------------------------------------------------------


def _bare_connection(network: Network, engine: HardenedConnection | None = None) -> Connection:
    return Connection(
        engine or HardenedConnection(dialer_configuration()),
        network.socket(DIALER),
        _NoRoutes(),
        role=Role.DIALED,
        remote_address=LISTENER,
    )


class _NoRoutes:
    def add(self, connection_id: bytes, connection: Connection) -> None:
        pass

    def remove(self, connection_id: bytes) -> None:
        pass


async def test_what_waits_to_be_taken_in_is_bounded(autojump_clock: Clock) -> None:
    async with Network() as network:
        connection = _bare_connection(network)
        for _ in range(1000):
            connection.deliver([bytes(60_000)], LISTENER)
        assert connection._inbox.size <= config.INBOX_SIZE_MAX
        assert connection.statistics.datagrams_dropped == 1000 - len(connection._inbox)


async def test_what_waits_is_taken_in_bit_by_bit(autojump_clock: Clock) -> None:
    async with Network() as network:
        connection = _bare_connection(network)
        connection.dial()
        connection.deliver([b"garbage"] * (2 * config.TAKE_IN_MAX + 1), LISTENER)
        left = []
        for _ in range(3):
            connection._work = trio.Event()
            connection._step(trio.current_time())
            left.append((len(connection._inbox), connection._work.is_set()))
        assert left == [(config.TAKE_IN_MAX + 1, True), (1, True), (0, False)]
        assert connection.statistics.datagrams_received == 2 * config.TAKE_IN_MAX + 1


async def test_a_driver_that_always_has_work_lets_others_run(autojump_clock: Clock) -> None:
    async with Network() as network:
        connection = _bare_connection(network)
        connection.wake()
        with trio.testing.assert_checkpoints():
            await connection._wait_for_work()


# -- escapes -----------------------------------------------------------------------------------------------


class _Explosive(HardenedConnection):
    """An engine that fails as aioquic does under attacks that nobody has found yet."""

    explodes_in: str

    def receive_datagram(self, data: bytes, addr: object, now: float) -> None:
        self._explode("receive_datagram")
        super().receive_datagram(data, addr, now)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, tuple[str, int]]]:
        self._explode("datagrams_to_send")
        return super().datagrams_to_send(now)

    def _explode(self, where: str) -> None:
        if where == self.explodes_in:
            raise IndexError("pop from empty list")


@pytest.mark.parametrize("entry_point", ["receive_datagram", "datagrams_to_send"])
async def test_F2_what_escapes_from_the_engine_ends_that_connection_alone(
    autojump_clock: Clock, entry_point: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Network() as network:
        engine = _Explosive(dialer_configuration())
        engine.explodes_in = entry_point
        connection = _bare_connection(network, engine)
        connection.dial()
        connection.deliver([b"anything"], LISTENER)
        await connection.run()
        closed = await connection.wait_closed()
        assert "pop from empty list" in closed.reason
        assert connection.statistics.escapes == 1
        assert "escaped" in caplog.text


async def test_a_frame_that_breaks_the_protocol_is_answered_with_close(
    autojump_clock: Clock,
) -> None:
    async with Network() as network, endpoint_at(network, LISTENER) as listener:
        remote = Remote(network)
        await remote.dial(LISTENER)
        await remote.live_for(0.5)
        accepted = await listener.accept()
        await remote.socket.send_batch([([seal(remote.engine, varints(0x1E))], LISTENER)])
        closed = await accepted.wait_closed()
        assert (closed.code, closed.by_remote) == (0xA, False)
        await remote.receive()
        assert remote.closed_with == 0xA
        assert listener.statistics.escapes == 0
