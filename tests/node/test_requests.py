"""The small questions, and answers that are late, endless or of another kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from p2pnode import config
from p2pnode.errors import (
    Busy,
    ConnectionClosed,
    NotFound,
    P2PNodeError,
    Refused,
    RemoteProtocolError,
    TimedOut,
)
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.requests import OpenStream, ask, ask_files, ask_peers, ask_sources, order_push
from p2pnode.wire.communication import (
    Error,
    ErrorCode,
    FileItem,
    FileList,
    FindSources,
    Message,
    NodeItem,
    PeerList,
    PeerReport,
    PushOrder,
    PushReport,
    Sources,
)

FILE = bytes(range(32))


@asynccontextmanager
async def answering(*answers: Message | None) -> AsyncIterator[tuple[OpenStream, list[object]]]:
    """A way to open streams on which each request gets the next answer, and all requests that came.

    None is silence; when the answers are over, the last one is repeated.
    """
    asked: list[object] = []

    async def respond(stream: MessageStream) -> None:
        asked.append(await stream.receive())
        answer = answers[min(len(asked), len(answers)) - 1]
        if answer is None:
            await trio.sleep_forever()
        else:
            await stream.send(answer)
            await stream.send_eof()

    async with trio.open_nursery() as nursery:

        async def open_stream() -> MessageStream:
            ours, theirs = memory_stream_pair()
            nursery.start_soon(respond, MessageStream(theirs))
            return MessageStream(ours)

        yield open_stream, asked
        nursery.cancel_scope.cancel()


def item(number: int) -> FileItem:
    return FileItem(number.to_bytes(32, "big"), f"{number:06}", number)


async def test_a_list_is_asked_for_page_by_page() -> None:
    pages = [
        FileList(files=(item(1), item(2)), next=b"2"),
        FileList(files=(item(3),), next=b"3"),
        FileList(files=(item(4),)),
    ]
    async with answering(*pages) as (open_stream, asked):
        assert await ask_files(open_stream, "0") == [item(1), item(2), item(3), item(4)]
    assert asked == [FileList(prefix="0"), FileList(prefix="0", after=b"2"), FileList(prefix="0", after=b"3")]


async def test_a_list_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "ITEMS_LISTED_MAX", 100)
    async with answering(FileList(files=(item(1),), next=b"again")) as (open_stream, asked):
        with pytest.raises(Refused, match="longer prefix"):
            await ask_files(open_stream)
    assert len(asked) <= 102


async def test_an_empty_page_ends_the_list_whatever_follows() -> None:
    async with answering(FileList(next=b"more")) as (open_stream, asked):
        assert await ask_files(open_stream) == []
    assert len(asked) == 1


async def test_sources_are_what_was_answered() -> None:
    source = NodeItem(FILE, (("10.0.0.1", 5),), FILE, have=((0, 1),))
    async with answering(Sources((source,))) as (open_stream, asked):
        assert await ask_sources(open_stream, file_id=FILE) == [source]
    assert asked == [FindSources(FILE)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Error(ErrorCode.BUSY, "later", retryable=True, retry_after_s=3.0), Busy),
        (Error(ErrorCode.NOT_FOUND, "no"), NotFound),
        (Error(ErrorCode.SOURCE_CHANGED, "no"), NotFound),
        (Error(ErrorCode.NOT_ALLOWED, "no"), Refused),
        (Error("A_CODE_OF_LATER", "no"), Refused),
        (FileList(), RemoteProtocolError),
    ],
)
async def test_an_error_is_raised_as_what_it_means(answer: Message, expected: type[P2PNodeError]) -> None:
    async with answering(answer) as (open_stream, _):
        with pytest.raises(expected) as caught:
            await ask(open_stream, FindSources(FILE), Sources)
    if isinstance(caught.value, Busy):
        assert caught.value.retry_after_s == 3.0


async def test_no_answer_is_timed_out(autojump_clock: MockClock) -> None:
    async with answering(None) as (open_stream, _):
        with pytest.raises(TimedOut):
            await ask(open_stream, FindSources(FILE), Sources)
    assert trio.current_time() < config.REQUEST_TIMEOUT_S + 1


# -- what only operators ask -------------------------------------------------------------------------------


@asynccontextmanager
async def telling(*messages: Message, ends: bool = True) -> AsyncIterator[Callable[..., object]]:
    """A way to open one stream on which all these messages come, and then its end, or silence."""

    async def respond(stream: MessageStream) -> None:
        await stream.receive()
        with suppress(ConnectionClosed):  # whoever asked may have heard enough
            for message in messages:
                await stream.send(message)
            if ends:
                await stream.send_eof()
            else:
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:

        async def open_stream() -> MessageStream:
            ours, theirs = memory_stream_pair()
            nursery.start_soon(respond, MessageStream(theirs))
            return MessageStream(ours)

        yield open_stream
        nursery.cancel_scope.cancel()


def peer(number: int) -> PeerReport:
    return PeerReport(number.to_bytes(32, "big"), f"{number}", "peer", ())


async def test_peers_come_in_several_messages() -> None:
    async with telling(PeerList((peer(1), peer(2))), PeerList((peer(3),))) as open_stream:
        assert await ask_peers(open_stream) == [peer(1), peer(2), peer(3)]


async def test_peers_are_for_operators() -> None:
    async with telling(Error(ErrorCode.NOT_ALLOWED, "only an operator")) as open_stream:
        with pytest.raises(Refused, match="only an operator"):
            await ask_peers(open_stream)


async def test_peers_without_end_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "ITEMS_LISTED_MAX", 100)
    async with telling(*[PeerList((peer(1), peer(2)))] * 100) as open_stream:
        with pytest.raises(Refused, match="more than 100"):
            await ask_peers(open_stream)


async def test_peers_that_do_not_come_are_timed_out(autojump_clock: MockClock) -> None:
    async with telling(PeerList((peer(1),)), ends=False) as open_stream:
        with pytest.raises(TimedOut):
            await ask_peers(open_stream)


async def test_reports_of_a_push_are_given_as_they_come() -> None:
    reports = [PushReport(FILE, "one", FILE, "a.bin", 5, state) for state in ("accepted", "complete")]
    async with telling(*reports) as open_stream, aclosing(order_push(open_stream, "a.bin", "all")) as told:
        assert [report async for report in told] == reports


async def test_an_unknown_report_is_passed_over_and_an_error_is_raised() -> None:
    messages = (PushOrder("x", "y"), Error(ErrorCode.NOT_FOUND, "nobody offers it"))
    async with telling(*messages) as open_stream, aclosing(order_push(open_stream, "a.bin", "all")) as told:
        with pytest.raises(NotFound, match="nobody offers it"):
            await anext(told)
