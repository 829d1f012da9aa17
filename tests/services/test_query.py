"""The AI service: what is asked of it, what its answer becomes, and that nothing it does is more than an error."""

from __future__ import annotations

import socket

import pytest
import trio

from p2pnode import config
from p2pnode.errors import REMOTE_FAULTS, ConfigError, NetworkError, Refused, RemoteProtocolError, TimedOut
from p2pnode.services.query import AiOptions, completions_url, open_ai_service
from p2pnode.wire.tracker_json import ContextMessage, Query, QueryParameters
from tests.interop.ai_stub import ai_stub


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("http://localhost:11434", "http://localhost:11434/v1/chat/completions"),
        ("http://localhost:11434/", "http://localhost:11434/v1/chat/completions"),
        ("https://ai.example/api/v1", "https://ai.example/api/v1/chat/completions"),
        ("https://ai.example/v1/", "https://ai.example/v1/chat/completions"),
        ("https://ai.example/x/chat/completions", "https://ai.example/x/chat/completions"),
        ("https://ai.example/proxy?to=a", "https://ai.example/proxy/v1/chat/completions?to=a"),
    ],
)
def test_where_it_is_asked(given: str, asked: str) -> None:
    assert completions_url(given) == asked


@pytest.mark.parametrize(
    "url", ["", "localhost:80", "ftp://x/", "http://", "file:///etc/passwd", "http://[::"]
)
async def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match="address of the AI service"):
        async with open_ai_service(AiOptions(url)):
            raise AssertionError


async def test_a_key_that_no_header_can_carry() -> None:
    with pytest.raises(ConfigError, match="key") as caught:
        async with open_ai_service(AiOptions("http://x", key="a\r\nb")):
            raise AssertionError
    assert "a\r" not in str(caught.value)


async def test_a_query_with_all_that_it_can_have() -> None:
    query = Query(
        "how are you?",
        (ContextMessage("user", "hello"), ContextMessage("assistant", "hello to you")),
        QueryParameters(0.7, 100, 0.9),
    )
    with ai_stub() as stub:
        async with open_ai_service(AiOptions(stub.url, "small-model", "sk-1")) as service:
            answer = await service.answer(query)
    assert stub.questions == [
        {
            "messages": [
                {"role": "user", "content": "hello"},
                {"role": "assistant", "content": "hello to you"},
                {"role": "user", "content": "how are you?"},
            ],
            "stream": False,
            "model": "small-model",
            "temperature": 0.7,
            "max_tokens": 100,
            "top_p": 0.9,
        }
    ]
    assert stub.headers[0]["authorization"] == "Bearer sk-1"
    assert answer.answer == "HOW ARE YOU?"
    used = answer.metadata
    assert (used.input_tokens, used.output_tokens, used.total_tokens) == (7, 3, 10)
    assert used.processing_time_ms >= 0


async def test_what_was_not_said_is_left_to_the_service() -> None:
    with ai_stub() as stub:
        async with open_ai_service(AiOptions(stub.url)) as service:
            await service.answer(Query("hello"))
            assert (await service.answer(Query("/no_usage"))).metadata.total_tokens == 0
    assert stub.questions[0] == {"messages": [{"role": "user", "content": "hello"}], "stream": False}
    assert "authorization" not in stub.headers[0]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("/refuse", Refused),
        ("/fail", Refused),
        ("/redirect", Refused),
        ("/garbage", RemoteProtocolError),
        ("/nothing", RemoteProtocolError),
        ("/no_choices", RemoteProtocolError),
        ("/no_text", RemoteProtocolError),
        ("/deep", RemoteProtocolError),
        ("/endless", RemoteProtocolError),
        ("/hang_up", NetworkError),
    ],
)
async def test_a_service_that_misbehaves_is_a_fault_whose_text_can_be_shown(
    text: str, fault: type[Exception]
) -> None:
    with ai_stub() as stub:
        async with open_ai_service(AiOptions(stub.url, key="sk-secret")) as service:
            with pytest.raises(fault) as caught:
                await service.answer(Query(text))
            assert (await service.answer(Query("again"))).answer == "AGAIN"
    assert isinstance(caught.value, REMOTE_FAULTS)
    shown = str(caught.value)
    assert "service" in shown
    assert not any(secret in shown for secret in ("sk-", "127.0.0.1", "10.0.0.1", "html"))


async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with open_ai_service(AiOptions(f"http://127.0.0.1:{unused.getsockname()[1]}")) as service:
            with pytest.raises(NetworkError, match="cannot be reached"):
                await service.answer(Query("hello"))


async def test_a_service_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "AI_TIMEOUT_S", 0.2)
    with ai_stub() as stub:
        async with open_ai_service(AiOptions(stub.url)) as service:
            with pytest.raises(TimedOut, match="too long"):
                await service.answer(Query("/hold"))


async def test_no_more_than_so_many_are_asked_at_once() -> None:
    asked = config.AI_QUERIES_AT_ONCE + 4
    answers: list[str] = []
    with ai_stub() as stub:
        async with open_ai_service(AiOptions(stub.url)) as service, trio.open_nursery() as nursery:

            async def ask() -> None:
                answers.append((await service.answer(Query("/hold"))).answer)

            for _ in range(asked):
                nursery.start_soon(ask)
            for _ in range(config.AI_QUERIES_AT_ONCE):
                assert await trio.to_thread.run_sync(stub.held.acquire, True, 30)
            stub.let_go.set()
    assert answers == ["/HOLD"] * asked
    assert stub.at_once_max == config.AI_QUERIES_AT_ONCE
