"""The batch way and the library's own way take each other's packets, whatever happens, and agree at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
from aioquic.quic.connection import QuicConnection
from aioquic.tls import CipherSuite
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.quic.aioquic_batches import BatchConnection
from p2pnode.quic.aioquic_internals import HardenedConnection
from p2pnode.quic.configuration import Configuration
from tests.quic.hostile_channel import (
    CALM,
    Channel,
    EngineClass,
    Side,
    Weather,
    check_at_rest,
    check_equal,
)

PAIRINGS = [
    (BatchConnection, BatchConnection),
    (BatchConnection, QuicConnection),
    (QuicConnection, BatchConnection),
    (HardenedConnection, BatchConnection),
    (BatchConnection, HardenedConnection),
]
CIPHER_SUITES = [
    CipherSuite.AES_128_GCM_SHA256,
    CipherSuite.AES_256_GCM_SHA384,
    CipherSuite.CHACHA20_POLY1305_SHA256,
]
STORM = Weather(loss=0.05, duplicate=0.05, corrupt=0.03, jitter_s=0.008)
Operation = Callable[[Channel], None]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """aioquic warns of each damaged packet."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


# -- what can happen ---------------------------------------------------------------------------------------


def _side(channel: Channel, is_dialer: bool) -> Side:
    return channel.dialer if is_dialer else channel.listener


def write(is_dialer: bool, choice: int, size: int, fin: bool) -> Operation:
    return lambda channel: _side(channel, is_dialer).write(choice, size, fin)


def reset(is_dialer: bool, choice: int) -> Operation:
    return lambda channel: _side(channel, is_dialer).reset(choice)


def stop(is_dialer: bool, choice: int) -> Operation:
    return lambda channel: _side(channel, is_dialer).stop(choice)


def update_keys(is_dialer: bool) -> Operation:
    return lambda channel: channel.update_keys(_side(channel, is_dialer))


def ping(is_dialer: bool) -> Operation:
    return lambda channel: _side(channel, is_dialer).ping(channel.now)


def change_connection_id(is_dialer: bool) -> Operation:
    return lambda channel: _side(channel, is_dialer).engine.change_connection_id()


def carry(size: int) -> Operation:
    """The path carries datagrams of another size from now on."""

    def happen(channel: Channel) -> None:
        channel.carries = size

    return happen


def stop_reading(is_dialer: bool, is_reading: bool) -> Operation:
    def happen(channel: Channel) -> None:
        _side(channel, is_dialer).is_reading = is_reading

    return happen


def move() -> Operation:
    return lambda channel: channel.move()


def wait(seconds: float) -> Operation:
    return lambda channel: channel.run(seconds)


sides = st.booleans()
choices = st.integers(0, 7)
sizes = st.one_of(st.sampled_from([0, 1, 1170, 2400, 30_000, 120_000]), st.integers(0, 40_000))
writes = st.builds(write, sides, choices, sizes, st.booleans())
waits = st.builds(wait, st.sampled_from([0.0, 0.001, 0.004, 0.011, 0.03, 0.1]))
rare = st.one_of(
    st.builds(reset, sides, choices),
    st.builds(stop, sides, choices),
    st.builds(update_keys, sides),
    st.builds(ping, sides),
    st.builds(change_connection_id, sides),
    st.builds(carry, st.sampled_from([1200, 1452, 3000, 9000])),
    st.builds(stop_reading, sides, st.booleans()),
    st.builds(move),
)
operations = st.lists(st.one_of(writes, waits, rare), min_size=10, max_size=60)
weathers = st.one_of(
    st.just(CALM),
    st.just(STORM),
    st.builds(
        Weather,
        loss=st.sampled_from([0.0, 0.02, 0.2]),
        duplicate=st.sampled_from([0.0, 0.2]),
        corrupt=st.sampled_from([0.0, 0.1]),
        delay_s=st.sampled_from([0.0001, 0.02]),
        jitter_s=st.sampled_from([0.0, 0.002, 0.03]),
    ),
)


def configured(cipher_suite: CipherSuite, datagram_size: int, window: int) -> Callable[[Configuration], None]:
    def configure(configuration: Configuration) -> None:
        configuration.cipher_suites = [cipher_suite]
        configuration.datagram_size_max = datagram_size
        configuration.max_stream_data = window
        configuration.max_data = 3 * window

    return configure


configurations = st.builds(
    configured,
    st.sampled_from(CIPHER_SUITES),
    st.sampled_from([1200, 1452, 9000]),
    st.sampled_from([20_000, 1 << 20]),
)


# -- the property ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialer", "listener"), PAIRINGS, ids=lambda engine: engine.__name__.removesuffix("Connection")
)
@given(
    happening=operations,
    weather=weathers,
    configure=configurations,
    seed=st.integers(0, 1 << 16),
)
@settings(max_examples=40, deadline=None)
def test_whatever_happens_both_sides_see_the_same(
    dialer: EngineClass,
    listener: EngineClass,
    happening: list[Operation],
    weather: Weather,
    configure: Callable[[Configuration], None],
    seed: int,
) -> None:
    channel = Channel(dialer, listener, seed=seed, weather=weather, configure=configure)
    for operation in happening:
        operation(channel)
    channel.settle()
    for side in channel.sides:
        side.finish()
    channel.settle()
    check_equal(channel)
    check_at_rest(channel)
