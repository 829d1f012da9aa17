"""The AI service behind `{"query": …}`: any server that speaks OpenAI's chat completions.

It is the operator's own choice, so its address is no stranger's. What it answers is bounded in size and time, and
what it does wrong is one of `REMOTE_FAULTS`, with a text for strangers: it names neither the service nor its words.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import httpx2
import msgspec
import trio

from p2pnode import config
from p2pnode.errors import ConfigError, NetworkError, Refused, RemoteProtocolError, TimedOut
from p2pnode.wire.tracker_json import Query, QueryAnswer, QueryMetadata

__all__ = ["AiOptions", "AiService", "completions_url", "open_ai_service"]

_PATH: Final = "/chat/completions"
_VERSION: Final = "/v1"


@dataclass(frozen=True, slots=True)
class AiOptions:
    """Where the service is, which of its models is meant, and the key that it wants; '' where it needs none."""

    url: str
    model: str = ""
    key: str = field(default="", repr=False)


def completions_url(url: str) -> str:
    """Where to ask, of a server's address with or without the path; ConfigError for what is no address."""
    try:
        found = httpx2.URL(url)
    except httpx2.InvalidURL:
        raise ConfigError("the address of the AI service is malformed") from None
    if found.scheme not in ("http", "https") or not found.host:
        raise ConfigError("the address of the AI service does not begin with http:// or https:// and a host")
    path = found.path.rstrip("/")
    if not path.endswith(_PATH):
        path += _PATH if path.endswith(_VERSION) else _VERSION + _PATH
    return str(found.copy_with(path=path))


@asynccontextmanager
async def open_ai_service(options: AiOptions) -> AsyncIterator[AiService]:
    """The service, and connections to it that are kept. ConfigError for options that cannot be meant."""
    headers = {"accept-encoding": "identity"}  # nothing to unpack, so nothing that bursts
    if options.key:
        if not (options.key.isascii() and options.key.isprintable()):
            raise ConfigError("the key of the AI service has characters that no header can carry")
        headers["authorization"] = f"Bearer {options.key}"
    url = completions_url(options.url)
    async with httpx2.AsyncClient(headers=headers, timeout=None) as client:  # `answer` has one for all of it
        yield AiService(client, url, options.model)


class AiService:
    """Asks the service that `client` reaches at `url`, a bounded number of questions at once."""

    def __init__(self, client: httpx2.AsyncClient, url: str, model: str) -> None:
        self._client = client
        self._url = url
        self._model = model
        self._turns = trio.Semaphore(config.AI_QUERIES_AT_ONCE)

    async def answer(self, query: Query) -> QueryAnswer:
        """What the service says, within `AI_TIMEOUT_S`.

        TimedOut, NetworkError where it cannot be reached, Refused where it says no, RemoteProtocolError for
        an answer that is none.
        """
        began = time.perf_counter()
        try:
            with trio.fail_after(config.AI_TIMEOUT_S):
                async with self._turns:
                    body = await self._post(self._question(query))
        except trio.TooSlowError:
            raise TimedOut("the service took too long") from None
        completion = _read(body)
        usage = completion.usage or _Usage()
        return QueryAnswer(
            completion.choices[0].message.content,
            QueryMetadata(
                usage.prompt_tokens,
                usage.completion_tokens,
                usage.total_tokens or usage.prompt_tokens + usage.completion_tokens,
                round((time.perf_counter() - began) * 1000),
            ),
        )

    def _question(self, query: Query) -> dict[str, Any]:
        messages = [{"role": one.role, "content": one.content} for one in query.context]
        messages.append({"role": "user", "content": query.text})
        parameters = msgspec.structs.asdict(query.parameters)
        chosen = {"model": self._model or None, **parameters}
        return {
            "messages": messages,
            "stream": False,
            **{key: value for key, value in chosen.items() if value is not None},
        }

    async def _post(self, question: dict[str, Any]) -> bytes:
        body = bytearray()
        try:
            with trio.CancelScope() as reading:
                async with self._client.stream("POST", self._url, json=question) as response:
                    if response.status_code != httpx2.codes.OK:
                        raise Refused(f"the service answered with status {response.status_code}")
                    async for part in response.aiter_raw():
                        body += part
                        if len(body) > config.AI_ANSWER_SIZE_MAX:
                            reading.cancel()  # ends the generators below, which leaving the loop would not
        except httpx2.HTTPError:
            raise NetworkError("the service cannot be reached") from None
        if len(body) > config.AI_ANSWER_SIZE_MAX:
            raise RemoteProtocolError("the service's answer has no end")
        return bytes(body)


# -- what a completion is, as far as it matters here ---------------------------------------------------------

_Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Message(msgspec.Struct):
    content: str


class _Choice(msgspec.Struct):
    message: _Message


class _Usage(msgspec.Struct):
    prompt_tokens: _Tokens = 0
    completion_tokens: _Tokens = 0
    total_tokens: _Tokens = 0


class _Completion(msgspec.Struct):
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: _Usage | None = None


def _read(body: bytes) -> _Completion:
    try:  # half of a surrogate pair comes through, and whoever encodes the answer says so
        return msgspec.convert(json.loads(body), _Completion)
    except (ValueError, RecursionError, msgspec.ValidationError):
        raise RemoteProtocolError("the service's answer is no completion") from None
