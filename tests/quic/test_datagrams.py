"""UDP sockets and addresses: whatever one datagram meets, the socket lives on."""

from __future__ import annotations

import errno
import socket

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.errors import AddressError, AddressInUse
from p2pnode.quic import format_address, normalise, open_udp_socket, resolve
from p2pnode.quic.datagrams import ADDRESSES_REMEMBERED_MAX, BATCH_MAX, NO_BUFFER_TRIES, UdpSocket, network_of


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:0201", "192.0.2.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("::", "::"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
def test_an_address_has_one_form(host: str, expected: str) -> None:
    assert normalise(host, 1) == (expected, 1)


def test_a_scope_is_part_of_the_address() -> None:
    assert normalise("fe80::1", 1, scope_id=3) == ("fe80::1%3", 1)


@pytest.mark.parametrize(
    ("host", "port"), [("name", 1), ("", 1), ("1.2.3", 1), ("1.2.3.4", 65_536), ("1.2.3.4", -1)]
)
def test_W6_what_is_no_address(host: str, port: int) -> None:
    with pytest.raises(AddressError):
        normalise(host, port)


@given(st.ip_addresses(), st.integers(0, 65_535))
def test_normalising_twice_changes_nothing(host: object, port: int) -> None:
    once = normalise(str(host), port)
    assert normalise(*once) == once


def test_addresses_are_shown_as_people_type_them() -> None:
    assert format_address(("192.0.2.1", 5)) == "192.0.2.1:5"
    assert format_address(("2001:db8::1", 5)) == "[2001:db8::1]:5"


async def test_resolving() -> None:
    assert await resolve("127.0.0.1", 5) == [("127.0.0.1", 5)]
    assert ("127.0.0.1", 5) in await resolve("localhost", 5)
    for host, port in [("no such host.invalid", 1), ("x" * 300, 1), ("127.0.0.1", 65_536), ("\ud800", 1)]:
        with pytest.raises(AddressError):
            await resolve(host, port)


async def test_a_port_in_use() -> None:
    first = await open_udp_socket(("127.0.0.1", 0))
    with pytest.raises(AddressInUse, match="in use"):
        await open_udp_socket(first.local_address)
    with pytest.raises(AddressError, match="cannot listen on"):
        await open_udp_socket(("192.0.2.1", 0))
    first.close()
    first.close()
    (await open_udp_socket(first.local_address)).close()


async def test_without_ipv6_all_addresses_means_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def no_ipv6(family: int = -1, *arguments: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *arguments)

    monkeypatch.setattr("p2pnode.quic.datagrams.socket.socket", no_ipv6)
    bound = await open_udp_socket(("::", 0))
    assert bound.local_address[0] == "0.0.0.0"
    bound.close()


async def test_batches_there_and_back() -> None:
    one, two = await open_udp_socket(("127.0.0.1", 0)), await open_udp_socket(("::", 0))
    target = ("127.0.0.1", two.local_address[1])
    sent = [n.to_bytes(2, "big") * 500 for n in range(BATCH_MAX + 10)]
    await one.send_batch([(sent, target)])
    received: list[bytes] = []
    with trio.fail_after(10):
        while len(received) < len(sent):
            batch = await two.receive_batch()
            assert {address for _, address in batch} == {one.local_address}
            datagrams = [data for datagrams, _ in batch for data in datagrams]
            assert 0 < len(datagrams) <= BATCH_MAX
            received += datagrams
    assert received == sent
    one.close()
    two.close()


async def test_closing_wakes_who_waits() -> None:
    bound = await open_udp_socket(("127.0.0.1", 0))

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await bound.receive_batch()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        bound.close()
    with pytest.raises(trio.ClosedResourceError):
        await bound.send_batch([])


async def test_W6_hostile_addresses_are_losses() -> None:
    bound = await open_udp_socket(("127.0.0.1", 0))
    hostile = [
        ("127.0.0.1", 0),
        ("255.255.255.255", 9),
        ("::1", 9),
        ("127.0.0.1", 65_536),
        ("127.0.0.1", -1),
        ("localhost", 9),
        ("fe80::1%nosuchinterface", 9),
        ("\ud800", 9),
    ]
    await bound.send_batch([([b"x"], address) for address in hostile] + [([b"arrives"], bound.local_address)])
    with trio.fail_after(10):
        assert await bound.receive_batch() == [([b"arrives"], bound.local_address)]
    assert bound.send_failures.total() == len(hostile)
    bound.close()


async def test_W7_what_is_too_large_is_a_loss() -> None:
    bound = await open_udp_socket(("127.0.0.1", 0))
    await bound.send_batch([([bytes(65_530), b"x"], bound.local_address)])
    with trio.fail_after(10):
        assert await bound.receive_batch() == [([b"x"], bound.local_address)]
    assert bound.send_failures == {"EMSGSIZE": 1}
    bound.close()


class _RefusingSocket(socket.socket):
    """A real socket whose next sends fail as the kernel makes them fail."""

    refusals: list[int]

    def sendto(self, *arguments: object) -> int:
        if self.refusals:
            number = self.refusals.pop(0)
            raise OSError(number, errno.errorcode[number])
        return super().sendto(*arguments)  # type: ignore[call-overload,no-any-return]


def refusing(*errors: int) -> UdpSocket:
    bound = _RefusingSocket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.refusals = list(errors)
    bound.setblocking(False)
    bound.bind(("127.0.0.1", 0))
    return UdpSocket(bound)


@pytest.mark.parametrize(
    "number", [errno.EPERM, errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL]
)
async def test_W7_a_refusal_is_a_loss_and_the_next_datagram_goes(number: int) -> None:
    bound = refusing(number)
    await bound.send_batch([([b"lost", b"x"], bound.local_address)])
    with trio.fail_after(10):
        assert await bound.receive_batch() == [([b"x"], bound.local_address)]
    assert bound.send_failures == {errno.errorcode[number]: 1}
    bound.close()


async def test_W7_a_full_queue_is_waited_for_a_little(autojump_clock: trio.testing.MockClock) -> None:
    bound = refusing(*[errno.ENOBUFS] * NO_BUFFER_TRIES)
    await bound.send_batch([([b"x"], bound.local_address)])
    assert await bound.receive_batch() == [([b"x"], bound.local_address)]
    bound.close()
    bound = refusing(*[errno.ENOBUFS] * (NO_BUFFER_TRIES + 1))
    await bound.send_batch([([b"x"], bound.local_address)])
    assert bound.send_failures == {"ENOBUFS": 1}
    bound.close()


async def test_W7_tasks_take_turns_to_wait_for_a_full_socket() -> None:
    bound = refusing(*[errno.EAGAIN] * 6)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(bound.send_batch, [([bytes([number])], bound.local_address)])
        received: set[bytes] = set()
        while len(received) < 3:
            received |= {data for datagrams, _ in await bound.receive_batch() for data in datagrams}
    assert not bound.send_failures
    bound.close()


async def test_addresses_that_are_remembered_are_bounded() -> None:
    bound = await open_udp_socket(("127.0.0.1", 0))
    for number in range(ADDRESSES_REMEMBERED_MAX + 5):
        bound._remember_sender((f"10.0.{number // 250}.{number % 250}", 1))
        bound._remember_receiver((f"10.0.{number // 250}.{number % 250}", 1))
    assert len(bound._received_from) == len(bound._send_to) == 5
    bound.close()


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
    ],
)
def test_a_network_is_what_one_customer_has(host: str, network: str) -> None:
    assert network_of(host) == network
