"""Endpoints: dialling and listening on one socket, and all the ways a dial can end."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from p2pnode import config
from p2pnode.errors import AddressError, ConfigError, ConnectFailed, TrustError
from p2pnode.quic import (
    Burst,
    Connection,
    Diagnostics,
    Endpoint,
    EndpointOptions,
    NoTrust,
    PinTrust,
    open_udp_socket,
)
from p2pnode.quic.datagrams import bursts_of
from p2pnode.quic.endpoint import GOODBYE_TIMEOUT_S
from p2pnode.testing.network import Network
from tests.quic.endpoints import (
    DIALER,
    LISTENER,
    Remote,
    connect,
    endpoint_at,
    fresh_credentials,
    open_and_accept,
    receive_all,
    send_and_finish,
)
from tests.quic.engines import credentials, dialer_configuration

pytestmark = pytest.mark.usefixtures("both_ways")

Clock = trio.testing.MockClock


async def dial(endpoint: Endpoint, address: tuple[str, int] = LISTENER, **options: object) -> object:
    return await endpoint.dial(
        address,
        alpn=str(options.get("alpn", config.ALPN)),
        server_name="localhost",
        trust=options.get("trust", NoTrust()),  # type: ignore[arg-type]
    )


# -- dialling ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("right", [True, False])
async def test_a_pin_decides(autojump_clock: Clock, right: bool) -> None:
    async with Network() as network, endpoint_at(network, DIALER) as dialer, endpoint_at(network, LISTENER):
        pin = (credentials() if right else fresh_credentials()).pin
        connection = await dial(dialer, trust=PinTrust(pin.hex()))
        assert connection.certificate_trusted is right  # type: ignore[attr-defined]


class _Distrust(NoTrust):
    def check_certificate(self, chain: object, server_name: str | None) -> bool:
        raise TrustError("not him")


class _Broken(NoTrust):
    def check_certificate(self, chain: object, server_name: str | None) -> bool:
        raise IndexError("odd certificate")


@pytest.mark.parametrize(("trust", "text"), [(_Distrust(), "not him"), (_Broken(), "cannot be checked")])
async def test_an_untrusted_certificate_ends_the_connection_with_an_alert(
    autojump_clock: Clock, trust: NoTrust, text: str
) -> None:
    async with (
        Network() as network,
        endpoint_at(network, DIALER) as dialer,
        endpoint_at(network, LISTENER) as listener,
    ):
        with pytest.raises(TrustError, match=text):
            await dial(dialer, trust=trust)
        accepted = await listener.accept()
        closed = await accepted.wait_closed()
        assert closed.code == 0x100 + 42
        assert not dialer.connections or await _all_end(dialer)


async def _all_end(endpoint: Endpoint) -> bool:
    """Whether all of its connections end by themselves, and soon: long before they would idle out."""
    with trio.fail_after(1):
        for connection in endpoint.connections:
            await connection.wait_closed()
    await trio.testing.wait_all_tasks_blocked()
    return not endpoint.connections


async def test_Q24_a_dial_into_nothing_ends_in_20_s(autojump_clock: Clock) -> None:
    async with Network() as network, endpoint_at(network, DIALER) as dialer:
        began_at = trio.current_time()
        with pytest.raises(ConnectFailed, match=r"10\.0\.0\.2:1002: nobody answers"):
            await dial(dialer)
        assert trio.current_time() - began_at == pytest.approx(config.DIAL_TIMEOUT_S)
        assert await _all_end(dialer)
        assert len(dialer._router) == 0


async def test_a_cancelled_dial_leaves_nothing(autojump_clock: Clock) -> None:
    async with Network() as network, endpoint_at(network, DIALER) as dialer:
        with trio.move_on_after(1):
            await dial(dialer)
        assert await _all_end(dialer)
        assert len(dialer._router) == 0


async def test_a_dial_succeeds_as_soon_as_somebody_listens(autojump_clock: Clock) -> None:
    async with Network() as network, endpoint_at(network, DIALER) as dialer, trio.open_nursery() as nursery:

        async def listen_late() -> None:
            await trio.sleep(7)
            async with endpoint_at(network, LISTENER) as listener:
                await listener.accept()
                await trio.sleep_forever()

        nursery.start_soon(listen_late)
        await dial(dialer)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("address", [("localhost", 1), ("10.0.0.1", 65536), ("10.0.0.1", -1), ("", 1)])
async def test_W6_what_is_no_address_is_not_dialled(autojump_clock: Clock, address: tuple[str, int]) -> None:
    async with Network() as network, endpoint_at(network, DIALER) as dialer:
        with pytest.raises(AddressError):
            await dial(dialer, address)


@pytest.mark.parametrize("alpn", ["h3", "x"])
async def test_Q7_no_language_in_common(autojump_clock: Clock, alpn: str) -> None:
    async with Network() as network, endpoint_at(network, DIALER) as dialer, endpoint_at(network, LISTENER):
        with pytest.raises(ConnectFailed, match="is not a p2pnode server"):
            await dial(dialer, alpn=alpn)


async def test_Q7_a_listener_picks_what_it_speaks(autojump_clock: Clock) -> None:
    async with (
        Network() as network,
        endpoint_at(network, DIALER) as dialer,
        endpoint_at(network, LISTENER, alpns=["p2pnode/1", "h3", "hq-interop"]) as listener,
    ):
        for alpn in ("hq-interop", "h3", "p2pnode/1"):
            await dial(dialer, alpn=alpn)
            assert (await listener.accept()).alpn == alpn


class _RawName(str):
    """A protocol name that goes onto the wire as bytes that are not ASCII."""

    def encode(self, *_: object) -> bytes:
        return b"\xff\x00\xc3"


def _speaks(configuration: QuicConfiguration, alpns: list[str] | None) -> QuicConfiguration:
    configuration.alpn_protocols = alpns
    return configuration


@pytest.mark.parametrize("alpns", [None, ["h3"], ["p2pnode/2", "p2pnode"], [_RawName("odd")]])
async def test_Q7_a_remote_that_offers_no_language_of_ours(
    autojump_clock: Clock, alpns: list[str] | None
) -> None:
    async with Network() as network, endpoint_at(network, LISTENER) as listener:
        remote = Remote(network, engine=QuicConnection(configuration=_speaks(dialer_configuration(), alpns)))
        await remote.dial(LISTENER)
        await remote.live_for(3)
        assert remote.closed_with == 0x178
        assert not listener.connections
        assert listener.statistics.connections_accepted == 0


async def test_W8_W9_a_storm_of_versions_is_answered_within_a_rate_and_disturbs_nobody(
    autojump_clock: Clock,
) -> None:
    """Each reply is smaller than what it answers, and what negotiates versions itself gets none."""
    stranger = ("10.0.0.66", 66)
    async with (
        Network() as network,
        endpoint_at(network, DIALER) as dialer,
        endpoint_at(network, LISTENER) as listener,
    ):
        socket = network.socket(stranger)
        ids = b"\x08" + bytes(8) + b"\x08" + bytes(8)
        unknown = (b"\xc0\x1a\x2a\x3a\x4a" + ids).ljust(1200, b"\x00")
        negotiation = (b"\x80\x00\x00\x00\x00" + ids).ljust(1200, b"\x1a")
        replies: list[bytes] = []

        async def hear() -> None:
            while True:
                for datagrams, _ in await socket.receive_batch():
                    replies.extend(datagrams)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear)
            for _ in range(10):
                await socket.send_batch([([negotiation] * 100, LISTENER)])
                await trio.sleep(0.01)
            assert replies == []
            for _ in range(10):
                await socket.send_batch([([unknown] * 100, LISTENER)])
                await trio.sleep(0.01)
            await trio.sleep(1)
            assert 0 < len(replies) <= 2 * config.UNVERIFIED_REPLIES_PER_S
            assert all(len(reply) < 50 for reply in replies)
            nursery.cancel_scope.cancel()
        dialled, accepted = await connect(dialer, listener)
        await open_and_accept(dialled, accepted)
        assert len(listener.connections) == 1


# -- one socket --------------------------------------------------------------------------------------------


async def test_W12_a_node_can_dial_itself(autojump_clock: Clock) -> None:
    async with Network() as network, endpoint_at(network, DIALER) as endpoint:
        dialled, accepted = await connect(endpoint, endpoint)
        assert dialled is not accepted
        ours, theirs = await open_and_accept(dialled, accepted)
        await send_and_finish(ours, bytes(100_000))
        assert len(await receive_all(theirs)) == 100_000


async def test_W12_both_dial_each_other_at_once(autojump_clock: Clock) -> None:
    async with (
        Network() as network,
        endpoint_at(network, DIALER) as one,
        endpoint_at(network, LISTENER) as two,
    ):
        pairs: list[tuple[object, object]] = []

        async def meet(endpoint: Endpoint, other: Endpoint) -> None:
            dialled = await dial(endpoint, other.local_address)
            pairs.append((dialled, await other.accept()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(meet, one, two)
            nursery.start_soon(meet, two, one)
        for dialled, accepted in pairs:
            ours, theirs = await open_and_accept(dialled, accepted)  # type: ignore[arg-type]
            await send_and_finish(ours, bytes(3_000_000 // 10))
            await receive_all(theirs)
        assert len(one.connections) == len(two.connections) == 2


async def test_connection_ids_that_change_are_followed(autojump_clock: Clock) -> None:
    async with (
        Network() as network,
        endpoint_at(network, DIALER) as dialer,
        endpoint_at(network, LISTENER) as listener,
    ):
        dialled, accepted = await connect(dialer, listener)
        await trio.sleep(1)
        ids = len(listener._router)
        first = accepted._engine.host_cid
        for _ in range(20):  # more often than there are ids at a time
            dialled._engine.change_connection_id()
            await open_and_accept(dialled, accepted)
            await trio.sleep(0.5)
        assert accepted._engine.host_cid != first
        assert listener._router.find_untrusted(b"\x40" + first) is None
        assert len(listener._router) == ids


async def test_many_dialers(autojump_clock: Clock) -> None:
    async with (
        Network() as network,
        endpoint_at(network, LISTENER) as listener,
        trio.open_nursery() as nursery,
    ):

        async def come_and_go(number: int) -> None:
            async with endpoint_at(network, ("10.0.1.1", 2000 + number)) as dialer:
                connection = await dial(dialer)
                stream = await connection.open_stream()  # type: ignore[attr-defined]
                await send_and_finish(stream, b"hello")
                assert await receive_all(stream) == b"hello"

        async def serve() -> None:
            while True:
                nursery.start_soon(echo, await listener.accept())

        async def echo(connection: object) -> None:
            stream = await connection.accept_stream()  # type: ignore[attr-defined]
            await send_and_finish(stream, await receive_all(stream))

        nursery.start_soon(serve)
        async with trio.open_nursery() as dialers:
            for number in range(80):
                dialers.start_soon(come_and_go, number)
        await trio.sleep(1)
        assert not listener.connections
        assert len(listener._router) == 0
        assert listener.statistics.connections_accepted == 80
        nursery.cancel_scope.cancel()


# -- lifecycle ---------------------------------------------------------------------------------------------


async def test_leaving_closes_every_connection(autojump_clock: Clock) -> None:
    async with Network() as network, endpoint_at(network, DIALER) as dialer:
        async with endpoint_at(network, LISTENER) as listener:
            dialled, _accepted = await connect(dialer, listener)
        closed = await dialled.wait_closed()
        assert (closed.reason, closed.by_remote) == ("the endpoint was closed", True)


async def test_a_cancelled_block_still_says_close(autojump_clock: Clock) -> None:
    async with Network() as network, endpoint_at(network, DIALER) as dialer:
        with trio.CancelScope() as scope:
            async with endpoint_at(network, LISTENER) as listener:
                dialled, _accepted = await connect(dialer, listener)
                scope.cancel()
                await trio.sleep_forever()
        closed = await dialled.wait_closed()
        assert closed.by_remote


async def test_leaving_does_not_hang_on_a_socket_that_takes_nothing(autojump_clock: Clock) -> None:
    async with Network() as network, endpoint_at(network, DIALER) as dialer:
        socket = _StuckSocket(network, LISTENER)
        async with Endpoint(socket, credentials()) as listener:
            await connect(dialer, listener)
            socket.is_stuck = True
            began_at = trio.current_time()
        assert trio.current_time() - began_at == pytest.approx(GOODBYE_TIMEOUT_S)


class _StuckSocket:
    """A socket whose buffer never drains, once it is stuck."""

    def __init__(self, network: Network, address: tuple[str, int]) -> None:
        self._socket = network.socket(address)
        self.is_stuck = False
        self.local_address = address
        self.receive_batch = self._socket.receive_batch
        self.close = self._socket.close

    async def send_batch(self, bursts: Sequence[Burst]) -> None:
        if self.is_stuck:
            await trio.sleep_forever()
        await self._socket.send_batch(bursts)


async def test_the_blocks_own_error_comes_out_bare(autojump_clock: Clock) -> None:
    async with Network() as network:
        socket = network.socket(LISTENER)
        with pytest.raises(KeyError):
            async with Endpoint(socket, credentials()):
                raise KeyError
        socket.close()


async def test_keys_and_events_are_logged_where_asked(autojump_clock: Clock, tmp_path: Path) -> None:
    keylog, qlog = tmp_path / "keys", tmp_path / "qlog"
    qlog.mkdir()
    diagnostics = Diagnostics(keylog_path=keylog, qlog_dir=qlog)
    async with (
        Network() as network,
        endpoint_at(network, DIALER, diagnostics=diagnostics) as dialer,
        endpoint_at(network, LISTENER) as listener,
    ):
        dialled, accepted = await connect(dialer, listener)
        await open_and_accept(dialled, accepted)
    assert "CLIENT_TRAFFIC_SECRET_0" in keylog.read_text()
    assert [path.suffix for path in qlog.iterdir()] == [".qlog"]
    with pytest.raises(ConfigError, match="key log"):
        options = EndpointOptions(diagnostics=Diagnostics(keylog_path=tmp_path))
        async with Endpoint(network.socket(("10.0.0.9", 9)), credentials(), options):
            pass


async def test_a_log_that_cannot_be_written_ends_nothing_else(
    autojump_clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "qlog").mkdir()
    async with (
        Network() as network,
        endpoint_at(network, DIALER, diagnostics=Diagnostics(tmp_path / "qlog")) as dialer,
        endpoint_at(network, LISTENER) as listener,
    ):
        dialled, _ = await connect(dialer, listener)
        (tmp_path / "qlog").rmdir()
        dialled.close()
        await dialled.wait_closed()
        (tmp_path / "qlog").mkdir()
        await connect(dialer, listener)
    assert "qlog cannot be written" in caplog.text


async def test_connections_of_one_pair_of_addresses_share_bursts_and_lose_nothing(
    autojump_clock: Clock,
) -> None:
    data = random.Random(1).randbytes(300_000)
    async with (
        Network() as network,
        endpoint_at(network, DIALER) as dialer,
        endpoint_at(network, LISTENER) as listener,
    ):
        pairs = [await connect(dialer, listener) for _ in range(3)]
        received: list[bytes] = []

        async def carry(dialled: Connection, accepted: Connection) -> None:
            ours, theirs = await open_and_accept(dialled, accepted)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_and_finish, ours, data)
                received.append(await receive_all(theirs))

        async with trio.open_nursery() as nursery:
            for dialled, accepted in pairs:
                nursery.start_soon(carry, dialled, accepted)
        assert received == [data] * 3
        assert [dialled.statistics.packets_lost for dialled, _ in pairs] == [0] * 3


# -- hostile remotes ---------------------------------------------------------------------------------------


async def test_W1_a_flood_of_garbage_does_not_stop_a_transfer(autojump_clock: Clock) -> None:
    async with (
        Network() as network,
        endpoint_at(network, DIALER) as dialer,
        endpoint_at(network, LISTENER) as listener,
    ):
        dialled, accepted = await connect(dialer, listener)
        ours, theirs = await open_and_accept(dialled, accepted)
        flooder = network.socket(("10.6.6.6", 6))
        garbage = [bytes([n % 256]) * (n % 1500) for n in range(5000)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_finish, ours, bytes(500_000))
            nursery.start_soon(flooder.send_batch, [(garbage, LISTENER)])
            assert len(await receive_all(theirs)) == 500_000
        assert listener.statistics.datagrams_dropped.total() > 3000
        assert listener.statistics.escapes == 0
        assert len(listener.connections) == 1


async def test_W2_a_valid_token_with_garbage_behind_it_keeps_no_connection(autojump_clock: Clock) -> None:
    async with Network() as network, endpoint_at(network, LISTENER) as listener:
        remote = Remote(network)
        await remote.dial(LISTENER)
        await remote.receive(0.1)
        [(initial, _)] = remote.engine.datagrams_to_send(trio.current_time())
        broken = initial[:200] + bytes(100) + initial[300:]
        await remote.socket.send_batch([([broken], LISTENER)])
        await remote.receive(0.5)
        assert not listener.connections
        assert not listener._half_open
        assert len(listener._router) == 0
        assert len(remote.received) == 1  # the Retry
        assert listener.statistics.escapes == 0


async def test_W5_garbage_for_a_living_connection_does_not_hurt_it(autojump_clock: Clock) -> None:
    async with (
        Network() as network,
        endpoint_at(network, DIALER) as dialer,
        endpoint_at(network, LISTENER) as listener,
    ):
        dialled, accepted = await connect(dialer, listener)
        spoofer = network.socket(("10.6.6.6", 6))
        cid = accepted._engine.host_cid
        for n in range(40):
            garbage = [b"\x40" + cid + n.to_bytes(2, "big") * 600] * 250
            await spoofer.send_batch([(garbage, LISTENER)])
            await trio.sleep(0.02)
        await open_and_accept(dialled, accepted)
        assert accepted.remote_address == DIALER
        assert accepted.statistics.datagrams_received >= 10_000
        assert accepted.statistics.escapes == 0


async def test_W4_an_initial_that_is_replayed_brings_no_second_connection(autojump_clock: Clock) -> None:
    async with Network() as network, endpoint_at(network, LISTENER) as listener:
        remote = Remote(network)
        await remote.dial(LISTENER)
        await remote.receive(0.1)
        second_initial = remote.engine.datagrams_to_send(trio.current_time())
        await remote.socket.send_batch(bursts_of(second_initial))
        await remote.live_for(0.5)
        (await listener.accept()).close()
        await trio.sleep(1)
        await remote.socket.send_batch(bursts_of(second_initial))
        await trio.sleep(1)
        assert not listener.connections
        assert listener.statistics.datagrams_dropped["token used before"] >= 1


async def test_Q11_a_handshake_that_is_never_finished_ends_after_10_s(autojump_clock: Clock) -> None:
    async with Network() as network, endpoint_at(network, LISTENER) as listener:
        await _half_open(network, 1)
        assert len(listener._half_open) == 1
        await trio.sleep(config.ACCEPT_HANDSHAKE_TIMEOUT_S + 1)
        assert not listener.connections
        assert len(listener._router) == 0


@pytest.mark.parametrize("hosts", [["10.0.0.1"], ["2001:db8::1", "2001:db8::2:0:0:1"]])
async def test_Q11_unfinished_handshakes_of_one_network_are_bounded_and_leave_room_for_others(
    autojump_clock: Clock, hosts: list[str]
) -> None:
    async with Network() as network, endpoint_at(network, LISTENER) as listener:
        await _half_open(network, config.HALF_OPEN_PER_NETWORK_MAX + 20, hosts)
        assert len(listener._half_open) == config.HALF_OPEN_PER_NETWORK_MAX
        async with endpoint_at(network, ("10.0.0.77", 7)) as dialer:
            await connect(dialer, listener)
        await trio.sleep(config.ACCEPT_HANDSHAKE_TIMEOUT_S + 1)
        assert not listener._half_open_by_network
        assert not listener._accepted_by_network


async def test_Q11_finished_connections_of_one_network_are_bounded_and_leave_room_for_others(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "CONNECTIONS_PER_NETWORK_MAX", 3)
    async with (
        Network() as network,
        endpoint_at(network, LISTENER) as listener,
        endpoint_at(network, DIALER) as greedy,
    ):
        first, _ = await connect(greedy, listener)
        for _ in range(2):
            await connect(greedy, listener)
        with pytest.raises(ConnectFailed, match="nobody answers"):
            await dial(greedy)
        async with endpoint_at(network, ("10.0.0.77", 7)) as dialer:
            await connect(dialer, listener)
        first.close()
        await trio.sleep(1)
        await connect(greedy, listener)
        assert listener._accepted_by_network == {DIALER[0]: 3}


async def _half_open(network: Network, count: int, hosts: Sequence[str] = (DIALER[0],)) -> None:
    for number in range(count):
        remote = Remote(network, (hosts[number % len(hosts)], 3000 + number))
        await remote.dial(LISTENER)
        await remote.receive(0.03)  # the Retry
        await remote.send()
    await trio.sleep(0.1)


async def test_Q9_a_large_tls_message_from_a_stranger_ends_its_handshake(autojump_clock: Clock) -> None:
    def claim_16_mb(engine: QuicConnection) -> None:
        engine._crypto_streams[_initial_epoch()].sender._buffer[1:4] = b"\xff\xff\xff"

    async with Network() as network, endpoint_at(network, LISTENER) as listener:
        remote = Remote(network)
        remote.engine.connect(LISTENER, trio.current_time())
        await remote.send()
        await remote.receive(0.1)
        claim_16_mb(remote.engine)
        remote.engine._crypto_streams[_initial_epoch()].sender.write(bytes(200_000))
        await remote.live_for(8)
        assert remote.closed_with == 0xD
        assert not listener.connections


def _initial_epoch() -> object:
    from aioquic.tls import Epoch

    return Epoch.INITIAL


# -- real sockets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listen", "dial_host"), [("127.0.0.1", "127.0.0.1"), ("::", "::1"), ("::", "127.0.0.1"), ("::1", "::1")]
)
async def test_W11_v4_and_v6_over_real_sockets(listen: str, dial_host: str) -> None:
    listening, dialling = await open_udp_socket((listen, 0)), await open_udp_socket(("::", 0))
    async with (
        Endpoint(listening, credentials()) as listener,
        Endpoint(dialling, credentials()) as dialer,
    ):
        with trio.fail_after(20):
            dialled = await dialer.dial(
                (dial_host, listening.local_address[1]), server_name=dial_host, trust=NoTrust()
            )
            accepted = await listener.accept()
            assert accepted.remote_address == (dial_host, dialling.local_address[1])
            ours, theirs = await open_and_accept(dialled, accepted)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_and_finish, ours, bytes(3_000_000))
                assert await receive_all(theirs) == bytes(3_000_000)
    listening.close()
    dialling.close()


async def test_W6_W7_unreachable_peers_do_not_disturb_others() -> None:
    listening, dialling = await open_udp_socket(("127.0.0.1", 0)), await open_udp_socket(("127.0.0.1", 0))
    async with (
        Endpoint(listening, credentials()) as listener,
        Endpoint(dialling, credentials()) as dialer,
    ):
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for address in (("127.0.0.1", 9), ("127.0.0.1", 0), ("255.255.255.255", 1), ("::1", 1)):
                    nursery.start_soon(_dial_in_vain, dialer, address)
                await trio.sleep(0.2)
                dialled, accepted = await connect(dialer, listener)
                await open_and_accept(dialled, accepted)
                nursery.cancel_scope.cancel()
    assert dialling.send_failures.total() >= 3
    listening.close()
    dialling.close()


async def _dial_in_vain(endpoint: Endpoint, address: tuple[str, int]) -> None:
    with pytest.raises(ConnectFailed):
        await dial(endpoint, address)
