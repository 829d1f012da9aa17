"""UDP sockets: runs go and come by one call, and whatever one datagram meets, the socket lives on."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
import sys
from collections import Counter
from random import Random

import pytest
import trio

from p2pnode.errors import AddressError, AddressInUse
from p2pnode.quic import Burst, open_udp_socket
from p2pnode.quic.udp import ADDRESSES_REMEMBERED_MAX, BATCH_MAX, NO_BUFFER_TRIES, NO_BUFFER_WAIT_S, UdpSocket
from p2pnode.quic.udp_options import RUN_LENGTH_MAX

SO_NO_CHECK = 11  # Linux: send without checksums

offload_or_not = pytest.mark.parametrize("offload", [True, False], ids=["offload", "one by one"])


async def received_from(bound: UdpSocket, count: int) -> list[bytes]:
    """So many datagrams, and nothing after them."""
    received: list[bytes] = []
    with trio.fail_after(10):
        while len(received) < count:
            received += [data for datagrams, _ in await bound.receive_batch() for data in datagrams]
    return received


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

    monkeypatch.setattr("p2pnode.quic.udp.socket.socket", no_ipv6)
    bound = await open_udp_socket(("::", 0))
    assert bound.local_address[0] == "0.0.0.0"
    bound.close()


@offload_or_not
async def test_batches_there_and_back(offload: bool) -> None:
    one = await open_udp_socket(("127.0.0.1", 0), offload=offload)
    two = await open_udp_socket(("::", 0), offload=offload)  # sees ::ffff:127.0.0.1
    target = ("127.0.0.1", two.local_address[1])
    sent = [n.to_bytes(2, "big") * 500 for n in range(BATCH_MAX + 10)]
    await one.send_batch([(sent, target)])
    received: list[bytes] = []
    with trio.fail_after(10):
        while len(received) < len(sent):
            [(datagrams, address)] = await two.receive_batch()
            assert address == one.local_address
            assert 0 < len(datagrams) < BATCH_MAX + RUN_LENGTH_MAX
            received += datagrams
    assert received == sent
    one.close()
    two.close()


SIZES = {
    "equal": [1452] * 200,
    "an odd last one": [1200] * 30 + [7],
    "larger than one run holds": [60_000] * 3,
    "many small ones": [3] * 300,
    "growing": list(range(1, 60)),
    "shrinking": list(range(60, 0, -1)),
    "empty ones between": [0, 100, 100, 0, 0, 100, 50, 0],
    "jumbo": [8900] * 20,
    "the largest": [65_487, 65_487],
}


@offload_or_not
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize(("here", "there"), [("127.0.0.1", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "::1")])
async def test_runs_arrive_byte_for_byte(offload: bool, sizes: list[int], here: str, there: str) -> None:
    sender, receiver = await open_udp_socket((here, 0), offload=offload), await open_udp_socket(("::", 0))
    rng = Random(1)
    sent = [rng.randbytes(size) for size in sizes]
    await sender.send_batch([(sent, (there, receiver.local_address[1]))])
    assert await received_from(receiver, len(sent)) == sent
    assert not sender.send_failures
    assert not sender.runs_refused
    sender.close()
    receiver.close()


@offload_or_not
async def test_bursts_to_several_addresses_keep_their_order(offload: bool) -> None:
    sender = await open_udp_socket(("::", 0), offload=offload)
    receivers = [await open_udp_socket((host, 0)) for host in ("127.0.0.1", "127.0.0.1", "::1")]
    sent: list[Burst] = []
    expected: list[list[bytes]] = [[], [], []]
    for number in range(60):
        data = [bytes([number]) * 500] * (number % 4 + 1)
        sent.append((data, receivers[number % 3].local_address))
        expected[number % 3] += data
    await sender.send_batch(sent)
    for receiver, datagrams in zip(receivers, expected, strict=True):
        assert await received_from(receiver, len(datagrams)) == datagrams
        receiver.close()
    sender.close()


async def test_two_senders_make_two_bursts() -> None:
    receiver = await open_udp_socket(("127.0.0.1", 0))
    senders = [await open_udp_socket(("127.0.0.1", 0)) for _ in range(2)]
    for sender in (*senders, senders[0]):
        await sender.send_batch([([bytes(100)] * 3, receiver.local_address)])
    with trio.fail_after(10):
        bursts = await receiver.receive_batch()
    assert [address for _, address in bursts] == [senders[number].local_address for number in (0, 1, 0)]
    for bound in (receiver, *senders):
        bound.close()


class _CountingSocket(socket.socket):
    """A real socket that counts system calls."""

    calls: Counter[str]

    def sendto(self, *arguments: object) -> int:
        self.calls["sendto"] += 1
        return super().sendto(*arguments)  # type: ignore[call-overload,no-any-return]

    def sendmsg(self, *arguments: object) -> int:
        self.calls["sendmsg"] += 1
        return super().sendmsg(*arguments)  # type: ignore[arg-type]

    def recvmsg(self, *arguments: object) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        self.calls["recvmsg"] += 1
        return super().recvmsg(*arguments)  # type: ignore[arg-type]


def counting(*, offload: bool) -> tuple[UdpSocket, Counter[str]]:
    bound = _CountingSocket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.calls = Counter()
    bound.setblocking(False)
    bound.bind(("127.0.0.1", 0))
    return UdpSocket(bound, offload=offload), bound.calls


async def test_a_system_call_carries_a_run() -> None:
    bound, calls = counting(offload=True)
    assert bound.sends_runs
    assert bound.receives_runs
    await bound.send_batch([([bytes(1200)] * 90, bound.local_address)])
    assert calls == {"sendmsg": 2}
    assert len(await received_from(bound, 90)) == 90
    assert calls["recvmsg"] <= 4
    bound.close()


async def test_without_offload_each_datagram_takes_a_call() -> None:
    bound, calls = counting(offload=False)
    assert not bound.sends_runs
    assert not bound.receives_runs
    await bound.send_batch([([bytes(1200)] * 90, bound.local_address)])
    assert calls == {"sendto": 90}
    assert len(await received_from(bound, 90)) == 90
    assert calls["recvmsg"] >= 90
    bound.close()


async def test_where_the_kernel_will_not_cut_runs_nothing_is_lost() -> None:
    bound = await open_udp_socket(("127.0.0.1", 0))
    # A checksum is what segments cannot do without: from now on Linux answers EINVAL to every run.
    bound._socket.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
    sent = [bytes([number]) * 1000 for number in range(200)]
    await bound.send_batch([(sent, bound.local_address)])
    assert await received_from(bound, len(sent)) == sent
    assert set(bound.runs_refused) == {"EINVAL"}
    assert not bound.sends_runs
    refused_before = bound.runs_refused.total()
    await bound.send_batch([(sent, bound.local_address)])
    assert await received_from(bound, len(sent)) == sent
    assert bound.runs_refused.total() == refused_before
    assert not bound.send_failures
    bound.close()


def test_W7_a_path_that_takes_only_smaller_datagrams() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.quic.small_mtu"], capture_output=True, text=True, check=True
    )
    outcomes = json.loads(run.stdout)
    if outcomes is None:
        return  # this user may not make a network with such a path
    for outcome in outcomes.values():
        assert outcome == {
            "fits": [True, {}],
            "too large": [True, {"EMSGSIZE": 10}],
            "mixed": [True, {"EMSGSIZE": 5}],
            "sends runs": True,
            "runs refused": ["EMSGSIZE"],
        }


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
        self._refuse()
        return super().sendto(*arguments)  # type: ignore[call-overload,no-any-return]

    def sendmsg(self, *arguments: object) -> int:
        self._refuse()
        return super().sendmsg(*arguments)  # type: ignore[arg-type]

    def _refuse(self) -> None:
        if self.refusals:
            number = self.refusals.pop(0)
            raise OSError(number, errno.errorcode[number])


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
    await bound.send_batch([([b"lost"], bound.local_address), ([b"x"], bound.local_address)])
    with trio.fail_after(10):
        assert await bound.receive_batch() == [([b"x"], bound.local_address)]
    assert bound.send_failures == {errno.errorcode[number]: 1}
    bound.close()


async def test_W7_a_run_that_is_refused_loses_only_what_is_refused_by_itself() -> None:
    bound = refusing(errno.EPERM, errno.EPERM)
    sent = [bytes([number]) * 10 for number in range(5)]
    await bound.send_batch([(sent, bound.local_address)])
    assert await received_from(bound, 4) == sent[1:]
    assert bound.runs_refused == {"EPERM": 1}
    assert bound.send_failures == {"EPERM": 1}
    assert bound.sends_runs
    bound.close()


async def test_W7_a_refusal_that_passes_does_not_end_runs() -> None:
    bound = refusing(errno.EPERM)
    sent = [bytes([number]) * 10 for number in range(5)]
    await bound.send_batch([(sent, bound.local_address)])
    assert await received_from(bound, 5) == sent
    assert bound.sends_runs
    bound.close()


@pytest.mark.parametrize("waits", [errno.EAGAIN, errno.ENOBUFS])
async def test_W7_a_run_waits_for_room(waits: int) -> None:
    bound = refusing(waits, waits)
    sent = [bytes([number]) * 10 for number in range(5)]
    await bound.send_batch([(sent, bound.local_address)])
    assert await received_from(bound, 5) == sent
    assert not bound.runs_refused
    assert not bound.send_failures
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


async def test_W7_a_run_waits_for_a_full_queue_once_for_all_its_datagrams(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bound = refusing(*[errno.ENOBUFS] * (NO_BUFFER_TRIES + 1 + 3))
    sent = [bytes([number]) * 10 for number in range(60)]
    began_at = trio.current_time()
    await bound.send_batch([(sent, bound.local_address)])
    assert trio.current_time() - began_at == pytest.approx(NO_BUFFER_TRIES * NO_BUFFER_WAIT_S)
    assert await received_from(bound, 57) == sent[3:]
    assert bound.runs_refused == {"ENOBUFS": 1}
    assert bound.send_failures == {"ENOBUFS": 3}
    bound.close()


async def test_W7_what_others_lose_does_not_speak_for_runs() -> None:
    bound = refusing(errno.EINVAL, errno.EAGAIN, errno.EPERM)
    sent = [bytes([number]) * 10 for number in range(5)]
    async with trio.open_nursery() as nursery, bound._writable:  # here the first datagram of the run waits
        nursery.start_soon(bound.send_batch, [(sent, bound.local_address)])
        await trio.testing.wait_all_tasks_blocked()
        await bound.send_batch([([b"lost"], bound.local_address)])
    assert await received_from(bound, 5) == sent
    assert bound.send_failures == {"EPERM": 1}
    assert not bound.sends_runs
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
        bound._remember((f"10.0.{number // 250}.{number % 250}", 1))
        bound._remember_receiver((f"10.0.{number // 250}.{number % 250}", 1))
    assert len(bound._received_from) == len(bound._send_to) == 5
    bound.close()
