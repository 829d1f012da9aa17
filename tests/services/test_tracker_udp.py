"""The UDP door: who proves his address is served; nobody else is sent more than he sent, and nothing ends the loop."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from random import Random
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.errors import AddressError, AddressInUse
from p2pnode.quic.datagrams import Address
from p2pnode.services.request_log import RequestLog
from p2pnode.services.tracker import Tracker, TrackerOptions
from p2pnode.services.tracker_udp import UdpTracker
from p2pnode.tracker.policy import PaceLimits
from p2pnode.wire.compact_peers import unpack_peers
from p2pnode.wire.tracker_udp import (
    PROTOCOL_ID,
    Action,
    AnnounceRequest,
    AnnounceResponse,
    ConnectRequest,
    ConnectResponse,
    ErrorResponse,
    Event,
    ScrapeCounts,
    ScrapeRequest,
    ScrapeResponse,
    decode_response,
)

HASH, OTHER_HASH = b"h" * 20, b"o" * 20
ME, OTHER = ("8.8.4.4", 1024), ("9.9.9.9", 2048)
ME_V6, OTHER_V6 = ("2001:4860::1", 1024), ("2620:fe::9", 2048)
SECRET = bytes(range(32))
NOW = 1000.0
SIZE_MAX = config.UDP_ANSWER_SIZE_MAX


def udp_tracker(**options: Any) -> UdpTracker:
    tracker = Tracker(TrackerOptions(**options), rng=Random(1), clock=lambda: NOW)
    return UdpTracker(tracker, RequestLog(), secret=SECRET)


def ask(udp: UdpTracker, request: Any, source: Address = ME, now: float = NOW) -> Any:
    """The packet that comes back; None if nothing does."""
    answer = udp.answer(request.encode(), source, now)
    return None if answer is None else decode_response(answer)


def connect(udp: UdpTracker, source: Address = ME, now: float = NOW) -> bytes:
    answer = ask(udp, ConnectRequest(5), source, now)
    assert isinstance(answer, ConnectResponse)
    assert answer.transaction_id == 5
    return answer.connection_id


def an_announce(connection_id: bytes, number: int = 0, **changes: Any) -> AnnounceRequest:
    request = AnnounceRequest(
        connection_id, 7, HASH, b"-QC0001-%012d" % number, 0, 1, 0, Event.STARTED, 0, 0, -1, 6881
    )
    return request._replace(**changes)


def announce(udp: UdpTracker, source: Address = ME, number: int = 0, **changes: Any) -> Any:
    return ask(udp, an_announce(connect(udp, source), number, **changes), source)


def outcomes(udp_log: RequestLog) -> dict[tuple[str, str], int]:
    return {(key.kind, key.outcome): tally.count for key, tally in udp_log.tallies.items()}


# -- what is asked is answered -----------------------------------------------------------------------------


@pytest.mark.parametrize(("me", "other"), [(ME, OTHER), (ME_V6, OTHER_V6)])
def test_two_peers_find_each_other_where_their_packets_came_from(me: Address, other: Address) -> None:
    udp = udp_tracker(interval_s=1200)
    assert announce(udp, me, 1, port=1001) == AnnounceResponse(7, 1200, 1, 0, b"")
    answer = announce(udp, other, 2, port=1002, left=0)
    assert answer[:4] == (7, 1200, 1, 1)
    assert unpack_peers(answer.compact_peers, is_ipv6=":" in me[0]) == ((me[0], 1001),)


def test_each_is_told_of_peers_of_his_own_kind_of_address() -> None:
    udp = udp_tracker()
    for number, source in enumerate([ME, OTHER, ME_V6, OTHER_V6]):
        announce(udp, source, number)
    over_v4 = announce(udp, ME, 0)
    assert unpack_peers(over_v4.compact_peers, is_ipv6=False) == ((OTHER[0], 6881),)
    assert over_v4.leechers == 4
    over_v6 = announce(udp, ME_V6, 2)
    assert unpack_peers(over_v6.compact_peers, is_ipv6=True) == ((OTHER_V6[0], 6881),)


def test_peers_of_the_other_kind_take_no_place_in_an_answer() -> None:
    udp = udp_tracker()
    announce(udp, OTHER, 0)
    for number in range(1, 50):
        announce(udp, (f"2001:4860:{number:x}::1", 1024), number)
    answer = announce(udp, ME, 50, numwant=1)
    assert unpack_peers(answer.compact_peers, is_ipv6=False) == ((OTHER[0], 6881),)
    assert answer.leechers == 51


def test_who_stops_is_told_to_nobody() -> None:
    udp = udp_tracker()
    announce(udp, ME, 1)
    announce(udp, ME, 1, event=Event.STOPPED)
    assert announce(udp, OTHER, 2).compact_peers == b""


def test_a_scrape_is_answered_in_its_order() -> None:
    udp = udp_tracker()
    for number in range(5):
        announce(udp, ME, number, left=int(number < 3))
    announce(udp, ME, 0, left=0, event=Event.COMPLETED)
    hashes = (OTHER_HASH, HASH, *(bytes([number]) * 20 for number in range(72)))
    answer = ask(udp, ScrapeRequest(connect(udp), 9, hashes))
    assert isinstance(answer, ScrapeResponse)
    assert answer.transaction_id == 9
    nobody = ScrapeCounts(0, 0, 0)
    assert answer.counts == (nobody, ScrapeCounts(3, 1, 2), *[nobody] * 72)


def test_T1_what_is_claimed_in_the_packet_counts_for_nothing() -> None:
    udp = udp_tracker()
    announce(udp, ME, 1, ip=0x01010101)
    assert unpack_peers(announce(udp, OTHER, 2).compact_peers, is_ipv6=False) == ((ME[0], 6881),)


def test_what_is_claimed_counts_where_the_operator_says_so() -> None:
    udp = udp_tracker(trust_claimed_hosts=True)
    announce(udp, ME, 1, ip=0x01010101)
    assert unpack_peers(announce(udp, OTHER, 2).compact_peers, is_ipv6=False) == (("1.1.1.1", 6881),)


@pytest.mark.parametrize(
    ("url_data", "is_known"),
    [
        (b"", False),
        (b"/announce", False),
        (b"/wrong/announce", False),
        (b"/key/announce", True),
        (b"/k%65y/announce", True),
        (b"/announce/key", False),
        (b"/key/announces", False),
        (b"/key/announce?x=y", True),
        (b"/announce?key", False),
        (b"/\xff\xfe/announce", False),
    ],
)
def test_a_private_tracker_finds_the_passkey_in_the_url(url_data: bytes, is_known: bool) -> None:
    udp = udp_tracker(passkeys=frozenset({"key"}))
    answer = announce(udp, ME, url_data=url_data)
    assert isinstance(answer, AnnounceResponse if is_known else ErrorResponse)
    assert answer.transaction_id == 7
    assert isinstance(ask(udp, ScrapeRequest(connect(udp), 9, (HASH,))), ErrorResponse)


def test_what_is_refused_is_said() -> None:
    udp = udp_tracker(denied=frozenset({HASH}))
    answer = announce(udp)
    assert isinstance(answer, ErrorResponse)
    assert "not tracked" in answer.text


@pytest.mark.parametrize("others", [ME, ME_V6])
def test_an_answer_fits_every_path(others: Address) -> None:
    udp = udp_tracker()
    for number in range(300):
        host = f"8.8.{number % 256}.{number // 256 + 1}" if others is ME else f"2001:4860:{number:x}::1"
        announce(udp, (host, 1024), number)
    size = 18 if others is ME_V6 else 6
    answer = announce(udp, others, 999, numwant=2**31 - 1).compact_peers
    assert len(answer) == min(config.TRACKER_NUMWANT_MAX, (SIZE_MAX - 20) // size) * size
    assert len(announce(udp, others, 999).compact_peers) == config.TRACKER_NUMWANT * size


@pytest.mark.parametrize(
    "changes",
    [
        {"left": 2**64 - 1, "downloaded": 2**64 - 1, "uploaded": 2**64 - 1},
        {"numwant": -(2**31)},
        {"numwant": 2**31 - 1},
        {"event": 2**32 - 1},
        {"event": Event.PAUSED},
        {"key": 2**32 - 1, "ip": 2**32 - 1},
        {"peer_id": bytes(20)},
    ],
)
def test_T7_numbers_at_their_ends(changes: dict[str, Any]) -> None:
    answer = announce(udp_tracker(), **changes)
    assert isinstance(answer, AnnounceResponse)
    assert (answer.leechers, answer.seeders) == (1, 0)


def test_T7_port_0_is_counted_and_told_to_nobody() -> None:
    udp = udp_tracker()
    announce(udp, ME, 1, port=0)
    answer = announce(udp, OTHER, 2)
    assert (answer.leechers, answer.compact_peers) == (2, b"")


# -- who proves nothing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", [NOW + config.UDP_CONNECTION_LASTS_S, NOW - 1])
def test_T2_an_id_of_another_time_registers_nobody(when: float) -> None:
    udp = udp_tracker()
    assert isinstance(ask(udp, an_announce(connect(udp)), ME, when), ErrorResponse)
    assert announce(udp, OTHER, 2).leechers == 1


def test_an_id_is_good_for_all_ports_of_a_host() -> None:
    """libtorrent announces with one id from each of its ports, and routers change them."""
    udp = udp_tracker()
    connection_id = connect(udp)
    for port in (ME[1], ME[1] + 1):
        assert isinstance(ask(udp, an_announce(connection_id), (ME[0], port)), AnnounceResponse)


@pytest.mark.parametrize("other", [OTHER, ("8.8.4.5", ME[1]), ME_V6])
def test_T2_an_id_of_another_host_registers_nobody(other: Address) -> None:
    udp = udp_tracker()
    assert ask(udp, an_announce(connect(udp, other))) == ErrorResponse(7, "connect again")
    assert ask(udp, ScrapeRequest(connect(udp, other), 8, (HASH,))) == ErrorResponse(8, "connect again")
    assert announce(udp, OTHER, 2).leechers == 1


def test_T2_guessed_ids_register_nobody() -> None:
    udp = udp_tracker()
    rng = Random(2)
    for number in range(2000):
        ask(udp, an_announce(rng.randbytes(8), number))
    assert announce(udp, OTHER, 2).leechers == 1


@given(
    st.binary(max_size=120)
    | st.builds(
        lambda front, rest: front + rest,
        st.sampled_from([PROTOCOL_ID + bytes(4), PROTOCOL_ID, bytes(8) + struct.pack(">I", Action.SCRAPE)]),
        st.binary(max_size=200),
    )
    | st.integers(0, 2 * config.UDP_REQUEST_SIZE_MAX).map(bytes)
)
def test_T3_nobody_unproven_is_sent_more_than_he_sent(datagram: bytes) -> None:
    answer = udp_tracker().answer(datagram, ME, NOW)
    assert answer is None or len(answer) <= len(datagram)


def test_T3_a_connect_is_answered_with_as_many_bytes() -> None:
    request = ConnectRequest(1).encode()
    answer = udp_tracker().answer(request, ME, NOW)
    assert answer is not None
    assert len(answer) == len(request) == 16


def test_T3_all_the_unproven_together_get_so_many_errors_a_second() -> None:
    udp = udp_tracker()
    forged = an_announce(bytes(8))
    sent = [ask(udp, forged, ("8.8.4.4", port), NOW) for port in range(1, 3000)]
    assert 0 < sum(answer is not None for answer in sent) <= config.UDP_REFUSALS_BURST
    sent = [ask(udp, forged, ("8.8.4.4", port), NOW + 1) for port in range(1, 3000)]
    assert sum(answer is not None for answer in sent) == config.UDP_REFUSALS_PER_S


@given(st.sampled_from([Action.ANNOUNCE, Action.SCRAPE, Action.ERROR, 9]), st.binary(max_size=300))
def test_W1_any_bytes_of_a_proven_client_are_answered_or_not(action: int, rest: bytes) -> None:
    udp = udp_tracker()
    datagram = connect(udp) + struct.pack(">II", action, 3) + rest
    answer = udp.answer(datagram, ME, NOW)
    if answer is not None:
        assert decode_response(answer).transaction_id == 3


def test_what_is_no_request_has_its_reason_for_a_proven_client() -> None:
    udp = udp_tracker()
    answer = udp.answer(an_announce(connect(udp)).encode()[:-1], ME, NOW)
    assert answer is not None
    assert decode_response(answer) == ErrorResponse(7, "an announce has at least 98 bytes")
    oversized = an_announce(connect(udp)).encode() + bytes(config.UDP_REQUEST_SIZE_MAX)
    assert udp.answer(oversized, ME, NOW) is None


def test_T8_who_announces_too_often_is_told_of_nobody_and_then_nothing() -> None:
    udp = udp_tracker(pace=PaceLimits(peer_burst=3, peer_regained_s=30.0))
    announce(udp, OTHER, 2)
    answers = [announce(udp, ME, 1) for _ in range(10)]
    told = [None if answer is None else len(answer.compact_peers) // 6 for answer in answers]
    assert told == [1] * 3 + [0] * 3 + [None] * 4
    assert announce(udp, OTHER, 3) is not None


def test_requests_are_counted_by_what_became_of_them() -> None:
    log = RequestLog()
    udp = UdpTracker(Tracker(TrackerOptions(denied=frozenset({OTHER_HASH})), clock=lambda: NOW), log)
    for request in (
        an_announce(connect(udp)),
        an_announce(connect(udp), info_hash=OTHER_HASH),
        an_announce(bytes(8)),
        ScrapeRequest(connect(udp), 1, (HASH,)),
    ):
        ask(udp, request)
    udp.answer(b"?", ME, NOW)
    udp.answer(bytes(16), ME, NOW)
    udp.answer(connect(udp) + struct.pack(">II", 9, 1), ME, NOW)
    assert outcomes(log) == {
        ("connect", "ok"): 4,
        ("connect", "malformed"): 1,
        ("announce", "ok"): 1,
        ("announce", "refused"): 1,
        ("announce", "unproven"): 1,
        ("scrape", "ok"): 1,
        ("other", "malformed"): 2,
    }
    assert {key.language for key in log.tallies} == {"udp"}


# -- sockets -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(udp: UdpTracker, *addresses: Address) -> AsyncIterator[list[Address]]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(udp.serve, addresses)
        nursery.cancel_scope.cancel()


class Client:
    """A socket that asks and waits for the answer."""

    def __init__(self, tracker: Address) -> None:
        family = socket.AF_INET6 if ":" in tracker[0] else socket.AF_INET
        self._socket = trio.socket.socket(family, socket.SOCK_DGRAM)
        self._tracker = tracker

    async def send(self, request: Any) -> None:
        await self._socket.sendto(request.encode(), self._tracker)

    async def ask(self, request: Any) -> Any:
        await self.send(request)
        with trio.fail_after(10):
            return decode_response(await self._socket.recv(2048))

    async def announce(self, number: int, **changes: Any) -> Any:
        connected = await self.ask(ConnectRequest(number))
        return await self.ask(an_announce(connected.connection_id, number, **changes))

    def close(self) -> None:
        self._socket.close()


async def test_it_answers_at_each_address_and_says_which() -> None:
    udp = udp_tracker()
    async with serving(udp, ("127.0.0.1", 0), ("::1", 0)) as bound:
        assert [host for host, _ in bound] == ["127.0.0.1", "::1"]
        assert all(port for _, port in bound)
        for number, address in enumerate(bound):
            client = Client(address)
            assert (await client.announce(number)).leechers == number + 1
            client.close()


async def test_T5_an_ipv4_client_of_a_socket_for_both_is_one_of_ipv4() -> None:
    udp = udp_tracker()
    async with serving(udp, ("::", 0)) as [(_, port)]:
        v4, other_v4, v6 = (Client((host, port)) for host in ("127.0.0.1", "127.0.0.1", "::1"))
        await v4.announce(1, port=1001)
        await v6.announce(2, port=1002)
        answer = await other_v4.announce(3, port=1003)
        assert unpack_peers(answer.compact_peers, is_ipv6=False) == (("127.0.0.1", 1001),)
        assert answer.leechers == 3
        for client in (v4, other_v4, v6):
            client.close()


async def test_a_port_in_use_is_one_clear_line() -> None:
    async with serving(udp_tracker(), ("127.0.0.1", 0)) as [address]:
        with pytest.raises(AddressInUse, match=f"UDP port {address[1]} on 127.0.0.1 is in use"):
            await udp_tracker().serve([("127.0.0.1", 0), address])


async def test_an_address_that_is_not_here_is_one_clear_line() -> None:
    with pytest.raises(AddressError, match=r"192\.0\.2\.1"):
        await udp_tracker().serve([("192.0.2.1", 0)])


class RefusingSocket(socket.socket):
    """A real socket whose next calls fail as the kernel makes them fail."""

    receive_refusals: list[int]
    send_refusals: list[int]

    def recvfrom(self, *arguments: Any) -> Any:
        self._refuse(self.receive_refusals)
        return super().recvfrom(*arguments)

    def sendto(self, *arguments: Any) -> int:
        self._refuse(self.send_refusals)
        return super().sendto(*arguments)

    def _refuse(self, refusals: list[int]) -> None:
        if refusals:
            number = refusals.pop(0)
            raise OSError(number, errno.errorcode[number])


def refusing_socket(*, receive: tuple[int, ...] = (), send: tuple[int, ...] = ()) -> RefusingSocket:
    bound = RefusingSocket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.receive_refusals, bound.send_refusals = list(receive), list(send)
    bound.setblocking(False)
    bound.bind(("127.0.0.1", 0))
    return bound


REFUSALS = (errno.EPERM, errno.ENOBUFS, errno.ENETUNREACH, errno.EINVAL, errno.EMSGSIZE, errno.EAGAIN)


async def test_W6_W7_what_the_system_refuses_is_a_loss_and_the_next_request_is_answered() -> None:
    udp = udp_tracker()
    with refusing_socket(send=REFUSALS) as bound:
        client = Client(bound.getsockname())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(udp.answer_all, bound)
            for number in range(len(REFUSALS)):
                await client.send(ConnectRequest(number))
            answer = await client.ask(ConnectRequest(99))
            nursery.cancel_scope.cancel()
        client.close()
    assert answer.transaction_id == 99
    assert sorted(udp.send_failures) == sorted(errno.errorcode[number] for number in REFUSALS)


async def test_W7_an_error_that_is_read_ends_nothing() -> None:
    udp = udp_tracker()
    with refusing_socket(receive=(errno.ECONNREFUSED, errno.EHOSTUNREACH)) as bound:
        client = Client(bound.getsockname())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(udp.answer_all, bound)
            assert (await client.ask(ConnectRequest(3))).transaction_id == 3
            nursery.cancel_scope.cancel()
        client.close()


async def test_W1_a_flood_leaves_the_other_tasks_their_turns() -> None:
    log = RequestLog()
    udp = UdpTracker(Tracker(), log)
    with refusing_socket() as bound, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
        for number in range(4 * config.UDP_TURN):
            flood.sendto(ConnectRequest(number).encode(), bound.getsockname())
        answered = [0]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(udp.answer_all, bound)
            while answered[-1] < 4 * config.UDP_TURN:
                await trio.lowlevel.checkpoint()
                answered.append(sum(tally.count for tally in log.tallies.values()))
            nursery.cancel_scope.cancel()
    # Of two tasks that take turns, one may have two in a row: trio does not promise the order within a round.
    assert max(after - before for before, after in pairwise(answered)) <= 2 * config.UDP_TURN
