"""The tracker in JSON: what a client sends and what it reads, with the registry and the files behind it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, TypeVar, TypeVarTuple

import pytest
import trio
import trio.testing

from p2pnode import config
from p2pnode.errors import StorageError, TimedOut
from p2pnode.node.blocking import RunBlocking
from p2pnode.quic import Address
from p2pnode.services.query import AiOptions, open_ai_service
from p2pnode.services.request_log import RequestKey, RequestLog
from p2pnode.services.seed_files import SeedFiles
from p2pnode.services.tracker import Tracker, TrackerOptions
from p2pnode.services.tracker_json import AnswersQueries, JsonTracker
from p2pnode.testing.nodes import inline_blocking
from p2pnode.wire.tracker_json import Query, QueryAnswer
from tests.interop.ai_stub import ai_stub

INFO_HASH = "aabbccddeeff00112233445566778899AABBCCDD"
CLIENT = ("203.0.113.1", 40_000)
OTHER = ("203.0.113.2", 40_000)
LOOPBACK = ("127.0.0.1", 40_000)

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class Asked:
    """A tracker with its log, and one who asks it; `pieces` are those of the last answer."""

    def __init__(
        self,
        directory: Path,
        options: TrackerOptions | None = None,
        query: AnswersQueries | None = None,
        run_blocking: RunBlocking | None = None,
    ) -> None:
        self.log = RequestLog(lambda: 0.0)
        self.seed_files = SeedFiles(
            directory, "quic://127.0.0.1:7001", run_blocking=run_blocking or inline_blocking()
        )
        tracker = Tracker(options, rng=Random(1), clock=lambda: 0.0)
        self.json_tracker = JsonTracker(tracker, self.seed_files, query, self.log)
        self.pieces: list[bytes] = []

    async def ask_raw(self, body: bytes | None, client: Address = CLIENT) -> bytes:
        self.pieces.clear()

        async def send(data: bytes) -> None:
            self.pieces.append(data)
            await trio.lowlevel.checkpoint()

        await self.json_tracker.respond(body, client, send)
        return b"".join(self.pieces)

    async def ask(self, client: Address = CLIENT, /, **request: Any) -> dict[str, Any]:
        answer = json.loads(await self.ask_raw(json.dumps(request).encode(), client))
        assert isinstance(answer, dict)
        return answer

    async def announce(self, client: Address = CLIENT, /, **changed: Any) -> dict[str, Any]:
        request = {"info_hash": INFO_HASH, "peer_id": "-QC0001-1234567890123456", "port": 6881, "left": 5}
        return await self.ask(client, **request | changed)

    def outcomes(self) -> dict[RequestKey, int]:
        return {key: tally.count for key, tally in self.log.tallies.items()}


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked(tmp_path)


# -- announces ---------------------------------------------------------------------------------------------


async def test_the_bytes_of_an_announce_and_its_answer(asked: Asked) -> None:
    await asked.announce(OTHER, peer_id="-QC0001-9876543210987654", port=6882, left=0)
    answer = await asked.ask_raw(
        b'{"info_hash":"aabbccddeeff00112233445566778899aabbccdd","peer_id":"-QC0001-1234567890123456",'
        b'"port":6881,"uploaded":0,"downloaded":0,"left":1024,"event":"started","ip":null}'
    )
    assert answer == (
        b'{"interval":60,"peers":[{"ip":"203.0.113.2","port":6882}],"complete":1,"incomplete":1}'
    )
    assert asked.outcomes() == {RequestKey("json", "announce", "ok"): 2}


async def test_the_asker_counts_but_is_not_in_its_own_list(asked: Asked) -> None:
    assert await asked.announce() == {"interval": 60, "peers": [], "complete": 0, "incomplete": 1}
    assert await asked.announce(left=0) == {"interval": 60, "peers": [], "complete": 1, "incomplete": 0}


async def test_left_absent_is_a_seed(asked: Asked) -> None:
    assert (await asked.announce(left=None))["complete"] == 1


async def test_a_peer_is_replaced_by_its_id_and_stopped_removes_it(asked: Asked) -> None:
    await asked.announce(port=1000)
    await asked.announce(port=1001)
    seen = await asked.announce(OTHER, peer_id="x")
    assert seen["peers"] == [{"ip": "203.0.113.1", "port": 1001}]
    await asked.announce(event="stopped")
    assert await asked.announce(OTHER, peer_id="x") == {
        "interval": 60, "peers": [], "complete": 0, "incomplete": 1
    }  # fmt: skip


async def test_an_unknown_event_is_none(asked: Asked) -> None:
    assert (await asked.announce(event="paused for lunch"))["incomplete"] == 1


async def test_peer_ids_of_any_length_are_told_apart(asked: Asked) -> None:
    for peer_id in ("x", "y", "z" * 64):
        answer = await asked.announce(peer_id=peer_id)
    assert answer["incomplete"] == 3


async def test_T1_an_address_of_somebody_else_is_not_taken(asked: Asked) -> None:
    await asked.announce(ip="198.51.100.7")
    assert (await asked.announce(OTHER, peer_id="x"))["peers"] == [{"ip": "203.0.113.1", "port": 6881}]


async def test_an_operator_may_believe_what_peers_say_of_their_addresses(tmp_path: Path) -> None:
    asked = Asked(tmp_path, TrackerOptions(trust_claimed_hosts=True))
    await asked.announce(ip="198.51.100.7")
    assert (await asked.announce(OTHER, peer_id="x"))["peers"] == [{"ip": "198.51.100.7", "port": 6881}]


async def test_ipv6_and_loopback(asked: Asked) -> None:
    await asked.announce(("2600:db8::1", 4), peer_id="x", port=1)
    await asked.announce(("::ffff:203.0.113.9", 4), peer_id="y", port=2)
    await asked.announce(("::1", 4), peer_id="z", port=3)
    seen = (await asked.announce())["peers"]
    assert {(peer["ip"], peer["port"]) for peer in seen} == {("2600:db8::1", 1), ("203.0.113.9", 2)}
    seen = (await asked.announce(LOOPBACK, peer_id="w"))["peers"]
    assert {"ip": "::1", "port": 3} in seen


async def test_T8_a_flood_is_always_answered_but_without_peers(asked: Asked) -> None:
    await asked.announce(OTHER, peer_id="x", left=0)
    answers = [await asked.announce() for _ in range(200)]
    assert answers[0]["peers"]
    assert answers[-1] == {"interval": 60, "peers": [], "complete": 1, "incomplete": 1}
    assert asked.outcomes() == {RequestKey("json", "announce", "ok"): 201}


async def test_private_trackers_want_a_passkey(tmp_path: Path) -> None:
    asked = Asked(tmp_path, TrackerOptions(passkeys={"secret"}))
    for request in (
        {"info_hash": INFO_HASH, "peer_id": "x", "port": 1},
        {"scrape": [INFO_HASH]},
        {"scrape": [INFO_HASH], "passkey": "wrong"},
    ):
        assert (await asked.ask(**request))["code"] == "REFUSED"
    assert (await asked.announce(passkey="secret"))["incomplete"] == 1
    assert (await asked.ask(scrape=[INFO_HASH], passkey="secret"))["files"]


async def test_scrape_answers_by_the_text_that_asked(tmp_path: Path) -> None:
    denied = "11" * 20
    asked = Asked(tmp_path, TrackerOptions(denied={bytes.fromhex(denied)}))
    await asked.announce(left=0, event="completed")
    mixed = INFO_HASH.swapcase()
    assert await asked.ask(scrape=[mixed, denied, "00" * 20]) == {
        "files": {
            mixed: {"complete": 1, "downloaded": 1, "incomplete": 0},
            "00" * 20: {"complete": 0, "downloaded": 0, "incomplete": 0},
        }
    }
    assert await asked.ask(scrape=[]) == {"files": {}}
    assert (await asked.ask(info_hash=denied, peer_id="x", port=1))["code"] == "REFUSED"


async def test_capabilities_are_those_that_both_have(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    assert await asked.ask(capabilities=["files", "tracker", "teleport", "ai"]) == {
        "capabilities": ["tracker", "files"]
    }
    with ai_stub() as stub:
        async with open_ai_service(AiOptions(stub.url)) as service:
            answer = await Asked(tmp_path, query=service).ask(capabilities=["ai"])
    assert answer == {"capabilities": ["ai"]}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "INVALID_JSON"),
        (b"[1]", "INVALID_JSON"),
        (b"\xff", "INVALID_ENCODING"),
        (b'{"type":"ping","id":1}', "UNKNOWN_REQUEST"),
        (b'{"info_hash":1}', "UNKNOWN_REQUEST"),
        (None, "INVALID_JSON"),
        (b" " * (config.JSON_REQUEST_SIZE_MAX + 1), "INVALID_JSON"),
    ],
)
async def test_T4_what_is_no_request_is_answered_too(asked: Asked, body: bytes | None, code: str) -> None:
    raw = await asked.ask_raw(body)
    assert len(raw) <= 1000
    assert json.loads(raw)["code"] == code
    assert asked.outcomes() == {RequestKey("json", "invalid", code): 1}


# -- files -------------------------------------------------------------------------------------------------


async def test_the_hello_file_and_the_name_that_was_asked_for(asked: Asked) -> None:
    hello = b"Hello World from QUIC Server!\n"
    for name in ("hello_world.txt", "", "/seed/hello_world.txt", "..\\seed\\hello_world.txt"):
        assert await asked.ask(file=name) == {"data": list(hello), "filename": name, "size": 30}
    raw = await asked.ask_raw(b'{"file":"hello_world.txt"}')
    assert raw.startswith(b'{"data":[72,101,108,108,111,32,')
    assert raw.endswith(b'33,10],"filename":"hello_world.txt","size":30}')
    assert len(asked.pieces) == 1


async def test_an_empty_file(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert await asked.ask(file="empty") == {"data": [], "filename": "empty", "size": 0}


async def test_a_torrent_is_a_file_too(asked: Asked, tmp_path: Path) -> None:
    await asked.seed_files.prepare()
    found = await asked.ask(file="hello_world.txt.torrent")
    assert bytes(found["data"]) == (tmp_path / "hello_world.txt.torrent").read_bytes()


async def test_the_largest_file_comes_in_pieces_between_which_others_are_answered(
    asked: Asked, tmp_path: Path
) -> None:
    data = Random(1).randbytes(5_242_880)
    assert len(data) == config.JSON_FILE_SIZE_MAX
    (tmp_path / "large").write_bytes(data)
    other = Asked(tmp_path)
    answered_at: list[int] = []
    async with trio.open_nursery() as nursery:

        async def announce_again_and_again() -> None:
            while True:
                await other.announce()
                answered_at.append(len(asked.pieces))

        nursery.start_soon(announce_again_and_again)
        raw = await asked.ask_raw(b'{"file":"large"}')
        nursery.cancel_scope.cancel()
    assert max(map(len, asked.pieces)) < 4 * config.JSON_FILE_STEP + 100
    assert set(answered_at) >= set(range(2, 79))
    found = json.loads(raw)
    assert (bytes(found["data"]), found["size"]) == (data, len(data))


async def test_one_byte_more_is_too_large_and_the_other_ways_are_named(asked: Asked, tmp_path: Path) -> None:
    with (tmp_path / "larger").open("wb") as file:
        file.truncate(config.JSON_FILE_SIZE_MAX + 1)
    answer = await asked.ask(file="larger")
    assert answer["code"] == "FILE_TOO_LARGE"
    for word in ("larger", "5242881", "p2pnode/1", "GET /files/<name>", "hq-interop"):
        assert word in answer["error"]


@pytest.mark.parametrize("name", ["x", "../../etc/passwd", "a\0b", "n" * 60_000, "\N{GRINNING FACE}" * 9000])
async def test_a_file_that_is_not_there(asked: Asked, name: str) -> None:
    raw = await asked.ask_raw(json.dumps({"file": name}, ensure_ascii=False).encode())
    answer = json.loads(raw)
    assert answer["code"] == "FILE_NOT_FOUND"
    assert answer["error"].startswith("File not found: ")
    assert len(raw) <= 1000


async def test_the_bytes_of_a_file_that_is_not_there(asked: Asked) -> None:
    assert await asked.ask_raw(b'{"file":"x"}') == b'{"error":"File not found: x","code":"FILE_NOT_FOUND"}'
    assert asked.outcomes() == {RequestKey("json", "file", "FILE_NOT_FOUND"): 1}


def shortening(path: Path, calls: int) -> RunBlocking:
    """Does blocking work, and cuts a file short before the call after so many."""
    left = calls

    async def run_blocking(function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        nonlocal left
        await trio.lowlevel.checkpoint()
        if left == 0:
            os.truncate(path, 100)
        left -= 1
        return function(*arguments)

    return run_blocking


async def test_a_file_that_cannot_be_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for calls in range(1, 4):  # the opening, and three steps
        path.write_bytes(bytes(3 * config.JSON_FILE_STEP))
        asked = Asked(tmp_path, run_blocking=shortening(path, calls))
        assert await asked.ask_raw(b'{"file":"x"}') == (
            b'{"error":"File cannot be read: x","code":"FILE_READ_ERROR"}'
        )


async def test_a_file_that_fails_on_the_way_raises(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(3 * config.JSON_FILE_STEP))
    asked = Asked(tmp_path, run_blocking=shortening(path, 4))
    with pytest.raises(StorageError):
        await asked.ask_raw(b'{"file":"x"}')
    assert asked.outcomes() == {RequestKey("json", "file", "broken off"): 1}


async def test_a_share_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(tmp_path / "seed")

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert (await asked.ask(file="x"))["code"] == "FILE_READ_ERROR"


async def test_a_client_that_goes_away_is_noted(asked: Asked) -> None:
    async def send(_: bytes) -> None:
        raise trio.BrokenResourceError

    with pytest.raises(trio.BrokenResourceError):
        await asked.json_tracker.respond(b'{"file":""}', CLIENT, send)
    assert asked.outcomes() == {RequestKey("json", "file", "broken off"): 1}


# -- queries -----------------------------------------------------------------------------------------------


async def test_a_query_without_a_service(asked: Asked) -> None:
    assert await asked.ask_raw(b'{"query":"hello"}') == (
        b'{"error":"AI processing not available","code":"AI_UNAVAILABLE"}'
    )


async def test_a_query_is_put_to_the_service(tmp_path: Path) -> None:
    with ai_stub() as stub:
        async with open_ai_service(AiOptions(stub.url)) as service:
            asked = Asked(tmp_path, query=service)
            answer = await asked.ask(
                query="why?",
                context=[{"role": "user", "content": "because"}],
                parameters={"temperature": 0.7, "max_tokens": 100, "top_p": 0.9},
            )
            surrogate = await asked.ask(query="/surrogate")
            failed = await asked.ask(query="/fail")
    took_ms = answer["metadata"].pop("processing_time_ms")
    assert isinstance(took_ms, int)
    assert answer == {
        "answer": "WHY?",
        "metadata": {"input_tokens": 2, "output_tokens": 1, "total_tokens": 3},
    }
    assert list(answer) == ["answer", "metadata"]
    assert surrogate["code"] == "SERIALIZATION_ERROR"
    assert failed == {
        "error": "AI processing failed: the service answered with status 500",
        "code": "INTERNAL_ERROR",
    }


async def test_a_service_that_takes_too_long(tmp_path: Path) -> None:
    class Slow:
        async def answer(self, query: Query) -> QueryAnswer:
            raise TimedOut("the service took too long")

    asked = Asked(tmp_path, query=Slow())
    assert (await asked.ask(query="x"))["code"] == "INTERNAL_ERROR"
    assert asked.outcomes() == {RequestKey("json", "query", "INTERNAL_ERROR"): 1}


async def test_one_network_does_not_take_all_queries(tmp_path: Path) -> None:
    class Waiting:
        async def answer(self, query: Query) -> QueryAnswer:
            if query.text == "wait":
                await trio.sleep_forever()
            raise TimedOut("asked")

    asked = Asked(tmp_path, query=Waiting())
    async with trio.open_nursery() as nursery:
        for _ in range(config.AI_QUERIES_PER_NETWORK_MAX):
            nursery.start_soon(asked.ask_raw, b'{"query":"wait"}')
        await trio.testing.wait_all_tasks_blocked()
        assert (await asked.ask(query="x"))["code"] == "REFUSED"
        assert (await asked.ask(OTHER, query="x"))["code"] == "INTERNAL_ERROR"
        nursery.cancel_scope.cancel()
