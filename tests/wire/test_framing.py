"""Framing: the same bytes give the same messages and raw bytes, however they are cut."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire import codec
from p2pnode.wire.communication import Bye, FileChunk, FileChunkAck, Message, UnknownMessage
from p2pnode.wire.framing import FrameDecoder, frame

from .strategies import messages

Turn = tuple[Message, bytes]  # a message and the raw bytes that follow it

turns = st.lists(st.tuples(messages, st.binary(max_size=40)), max_size=6)


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut a stream at these places (modulo its length)."""
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[start:end] for start, end in pairwise(edges)]


def decoded(parts: Sequence[bytes], raw_sizes: Sequence[int]) -> list[Message | UnknownMessage | bytes]:
    """Feed part by part and drain each time, as a node does; after message i come raw_sizes[i] bytes."""
    decoder = FrameDecoder()
    results: list[Message | UnknownMessage | bytes] = []
    count = 0
    raw = bytearray()
    for part in parts:
        decoder.feed(part)
        while True:
            if decoder.raw_remaining:
                data = decoder.read_raw()
                raw += data
                if decoder.raw_remaining:
                    assert decoder.buffered == 0
                    break
                results.append(bytes(raw))
                raw.clear()
            message = decoder.next_message()
            if message is None:
                break
            results.append(message)
            decoder.expect_raw(raw_sizes[count])
            count += 1
    decoder.end()
    return results


# -- any split ---------------------------------------------------------------------------------------------


@given(turns, st.lists(st.integers(0, 10_000), max_size=20))
def test_any_split_gives_the_same(script: list[Turn], places: list[int]) -> None:
    stream = b"".join(frame(message) + raw for message, raw in script)
    expected = [part for message, raw in script for part in ((message, raw) if raw else (message,))]
    assert decoded(cut(stream, places), [len(raw) for _, raw in script]) == expected


@settings(max_examples=30)
@given(turns)
def test_byte_by_byte_gives_the_same(script: list[Turn]) -> None:
    stream = b"".join(frame(message) + raw for message, raw in script)
    sizes = [len(raw) for _, raw in script]
    assert decoded(cut(stream, range(len(stream))), sizes) == decoded([stream], sizes)


@given(turns, st.lists(st.integers(0, 10_000), max_size=8), st.lists(st.integers(0, 7), max_size=300))
def test_feeding_without_draining_changes_nothing(
    script: list[Turn], places: list[int], read_sizes: list[int]
) -> None:
    stream = b"".join(frame(message) + raw for message, raw in script)
    decoder = FrameDecoder()
    for part in cut(stream, places):
        decoder.feed(part)
    assert decoder.buffered == len(stream)
    for message, raw in script:
        assert decoder.next_message() == message
        decoder.expect_raw(len(raw))
        got = bytearray()
        while decoder.raw_remaining:
            got += decoder.read_raw(read_sizes.pop() if read_sizes else None)
        assert got == raw
    assert decoder.next_message() is None
    decoder.end()


def outcome(parts: Iterable[bytes]) -> tuple[list[Message | UnknownMessage], str]:
    """What a stream of frames alone gives, and how it ends."""
    decoder = FrameDecoder()
    results: list[Message | UnknownMessage] = []
    try:
        for part in parts:
            decoder.feed(part)
            while (message := decoder.next_message()) is not None:
                results.append(message)
        decoder.end()
    except RemoteProtocolError as error:
        return results, str(error)
    return results, "ended well"


@given(st.lists(st.one_of(st.binary(max_size=30), messages.map(frame)), max_size=5))
def test_random_bytes_give_the_same_whole_and_byte_by_byte(pieces: list[bytes]) -> None:
    stream = b"".join(pieces)
    whole = outcome([stream])
    assert outcome(cut(stream, range(len(stream)))) == whole
    assert whole[1].isprintable()


@given(st.binary(max_size=60))
def test_a_random_body_is_a_message_or_the_remotes_fault(body: bytes) -> None:
    results, ending = outcome([len(body).to_bytes(4, "big") + body])
    assert bool(results) == (ending == "ended well")


# -- length ------------------------------------------------------------------------------------------------


def test_a_frame_is_a_length_and_a_body() -> None:
    message = FileChunkAck(bytes_written=7)
    body = codec.encode(message)
    assert frame(message) == len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize("size", [config.FRAME_SIZE_MAX + 1, 2**31, 2**32 - 1])
def test_a_frame_that_is_too_long_is_refused_by_its_length_alone(size: int) -> None:
    decoder = FrameDecoder()
    decoder.feed(size.to_bytes(4, "big"))
    with pytest.raises(RemoteProtocolError, match=str(config.FRAME_SIZE_MAX)):
        decoder.next_message()


def test_a_frame_of_the_longest_length_is_waited_for() -> None:
    decoder = FrameDecoder()
    decoder.feed(config.FRAME_SIZE_MAX.to_bytes(4, "big"))
    assert decoder.next_message() is None
    decoder.feed(b"\xc0" * config.FRAME_SIZE_MAX)
    with pytest.raises(RemoteProtocolError):
        decoder.next_message()


def test_an_empty_frame_is_malformed() -> None:
    decoder = FrameDecoder()
    decoder.feed(bytes(4))
    with pytest.raises(RemoteProtocolError):
        decoder.next_message()


@pytest.mark.parametrize("bad", [b"\xff" * 4, b"\x00\x00\x00\x01\xc0"], ids=["length", "body"])
def test_nothing_is_read_after_a_malformed_frame(bad: bytes) -> None:
    decoder = FrameDecoder()
    decoder.feed(bad + frame(Bye()))
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            decoder.next_message()
    with pytest.raises(RemoteProtocolError):
        decoder.end()
    with pytest.raises(LocalProtocolError):
        decoder.expect_raw(1)


# -- raw bytes ---------------------------------------------------------------------------------------------


def test_raw_bytes_that_fill_what_was_fed_are_handed_on_without_a_copy() -> None:
    decoder = FrameDecoder()
    decoder.expect_raw(3 * 65536)
    for _ in range(3):
        data = os.urandom(65536)
        decoder.feed(data)
        assert decoder.read_raw() is data
    assert decoder.raw_remaining == 0


def test_an_idle_decoder_holds_on_to_nothing() -> None:
    decoder = FrameDecoder()
    decoder.expect_raw(65536)
    data = os.urandom(65536)
    references = sys.getrefcount(data)
    decoder.feed(data)
    decoder.read_raw()
    assert sys.getrefcount(data) == references


def test_raw_bytes_stop_where_the_next_frame_begins() -> None:
    decoder = FrameDecoder()
    chunk = FileChunk(piece=0, offset=0, length=5)
    decoder.feed(frame(chunk) + b"12345" + frame(Bye()))
    assert decoder.next_message() == chunk
    decoder.expect_raw(chunk.length)
    assert decoder.read_raw(2) == b"12"
    assert decoder.raw_remaining == 3
    assert decoder.read_raw() == b"345"
    assert decoder.read_raw() == b""
    assert decoder.next_message() == Bye()
    assert decoder.buffered == 0


def test_raw_bytes_of_several_feeds_come_together() -> None:
    decoder = FrameDecoder()
    decoder.expect_raw(6)
    decoder.feed(b"12")
    decoder.feed(b"34")
    assert decoder.read_raw() == b"1234"
    assert decoder.read_raw() == b""
    assert decoder.raw_remaining == 2
    decoder.feed(b"56")
    assert decoder.read_raw() == b"56"
    decoder.end()


def test_no_raw_bytes_are_no_turn_at_all() -> None:
    decoder = FrameDecoder()
    decoder.expect_raw(0)
    assert decoder.read_raw() == b""
    assert decoder.next_message() is None
    decoder.end()


def test_mixing_up_frames_and_raw_bytes_is_our_fault() -> None:
    decoder = FrameDecoder()
    with pytest.raises(LocalProtocolError):
        decoder.expect_raw(-1)
    decoder.expect_raw(1)
    with pytest.raises(LocalProtocolError):
        decoder.expect_raw(1)
    with pytest.raises(LocalProtocolError):
        decoder.next_message()
    decoder.feed(b"x" + bytes(4))
    assert decoder.read_raw() == b"x"
    decoder.expect_raw(2)
    assert decoder.read_raw() == bytes(2)
    decoder.feed(b"\x00\x07")
    assert decoder.next_message() is None
    with pytest.raises(LocalProtocolError):
        decoder.expect_raw(1)


# -- the end of the stream ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(1, len(frame(Bye()))))
def test_a_stream_may_not_end_within_a_frame(size: int) -> None:
    decoder = FrameDecoder()
    decoder.feed(frame(Bye())[:size])
    assert decoder.next_message() is None
    with pytest.raises(RemoteProtocolError, match="ended within"):
        decoder.end()


def test_a_stream_may_not_end_within_raw_bytes() -> None:
    decoder = FrameDecoder()
    decoder.expect_raw(2)
    decoder.feed(b"1")
    decoder.read_raw()
    with pytest.raises(RemoteProtocolError, match="raw bytes"):
        decoder.end()


def test_a_stream_may_end_between_frames() -> None:
    decoder = FrameDecoder()
    decoder.end()
    decoder.feed(frame(Bye()))
    assert decoder.next_message() == Bye()
    decoder.end()
