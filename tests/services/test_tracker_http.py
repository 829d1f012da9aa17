"""The tracker's application over HTTP: announces, scrapes, files, and what an operator looks at."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote_from_bytes

import httpx2
import pytest
import trio

from p2pnode import config
from p2pnode.services.request_log import RequestLog
from p2pnode.services.seed_files import HELLO_CONTENT, SeedFiles
from p2pnode.services.tracker import Tracker, TrackerOptions
from p2pnode.services.tracker_http import application
from p2pnode.testing.nodes import inline_blocking
from p2pnode.wire import bencoding
from tests.services.http_clients import serving, speak, statuses

INFO_HASH, OTHER_HASH = bytes(range(20)), b"o" * 20
A, B = ("8.8.4.4", 40_001), ("9.9.9.9", 40_002)
SIX = ("2606:4700::1111", 40_003)


class Site:
    """A tracker, and clients of its application that come from wherever they like."""

    def __init__(self, seed: Path, options: dict[str, Any], settings: dict[str, Any]) -> None:
        self.seed = seed
        self.request_log = RequestLog()
        self.tracker = Tracker(TrackerOptions(**options), rng=Random(1), clock=lambda: 0.0)
        self.seed_files = SeedFiles(seed, "http://tracker/announce", run_blocking=inline_blocking())
        self.application = application(self.tracker, self.seed_files, self.request_log, **settings)

    async def ask(
        self, path: str, source: tuple[str, int] = A, method: str = "GET", **headers: str
    ) -> httpx2.Response:
        """Ask for a path as it is written; headers by name, with `_` for `-`."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        transport = httpx2.ASGITransport(self.application, client=source)
        async with httpx2.AsyncClient(transport=transport) as client:
            return await client.request(method, f"http://127.0.0.1{path}", headers=fields)

    async def announce(self, source: tuple[str, int] = A, prefix: str = "", **fields: object) -> Any:
        """The decoded answer to an announce."""
        answer = await self.ask(f"{prefix}/announce?{announce_of(source, **fields)}", source)
        assert answer.status_code == 200
        return bencoding.decode(answer.content)

    def outcomes(self) -> list[tuple[str, ...]]:
        return [tuple(key) for key in self.request_log.tallies]


def announce_of(source: tuple[str, int], **fields: object) -> str:
    said = {"peer_id": f"peer at {source[1]:>12}".replace(" ", "-"), "port": source[1], "left": 1} | fields
    return f"info_hash={quote_from_bytes(INFO_HASH)}&" + "&".join(
        f"{name}={value}" for name, value in said.items()
    )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    tmp_path.joinpath("seed").mkdir()
    return Site(tmp_path / "seed", {}, {})


def site_of(seed: Path, settings: dict[str, Any] | None = None, **options: Any) -> Site:
    return Site(seed, options, settings or {})


# -- announces and scrapes ---------------------------------------------------------------------------------


async def test_two_peers_find_each_other(site: Site) -> None:
    assert await site.announce(A) == {
        b"complete": 0,
        b"downloaded": 0,
        b"incomplete": 1,
        b"interval": config.TRACKER_INTERVAL_S,
        b"min interval": config.TRACKER_INTERVAL_S // 2,
        b"peers": b"",
    }
    answer = await site.announce(B, left=0, event="completed")
    assert answer[b"peers"] == bytes([8, 8, 4, 4]) + A[1].to_bytes(2)
    assert (answer[b"complete"], answer[b"incomplete"]) == (1, 1)
    assert site.outcomes() == [("http/1.1", "announce", "ok")]


async def test_peers_over_ipv6_have_a_key_of_their_own(site: Site) -> None:
    await site.announce(A)
    await site.announce(SIX)
    answer = await site.announce(B)
    assert len(answer[b"peers"]) == 6
    assert answer[b"peers6"] == bytes.fromhex("26064700 0000 0000 0000 0000 0000 1111") + SIX[1].to_bytes(2)


async def test_peers_as_dictionaries(site: Site) -> None:
    await site.announce(A)
    first, second = [
        (await site.announce(B, compact=0, no_peer_id=no_peer_id))[b"peers"] for no_peer_id in (0, 1)
    ]
    assert first == [{b"ip": b"8.8.4.4", b"peer id": b"peer-at--------40001", b"port": A[1]}]
    assert second == [{b"ip": b"8.8.4.4", b"port": A[1]}]


async def test_who_stops_is_told_to_nobody(site: Site) -> None:
    await site.announce(A)
    await site.announce(A, event="stopped")
    assert (await site.announce(B))[b"peers"] == b""


async def test_T1_a_third_party_that_is_claimed_is_told_to_nobody(site: Site) -> None:
    for name in ("ip", "ipv4", "ipv6"):
        await site.announce(A, **{name: "1.1.1.1"})
    assert (await site.announce(B))[b"peers"] == bytes([8, 8, 4, 4]) + A[1].to_bytes(2)


async def test_an_operator_may_take_claimed_addresses_for_true(tmp_path: Path) -> None:
    site = site_of(tmp_path, trust_claimed_hosts=True)
    await site.announce(A, ip="1.1.1.1")
    assert (await site.announce(B))[b"peers"] == bytes([1, 1, 1, 1]) + A[1].to_bytes(2)


async def test_nobody_takes_a_peers_place_without_its_key(site: Site) -> None:
    other = ("1.0.0.1", A[1])
    await site.announce(A, key="secret")
    await site.announce(other, key="guess")
    assert (await site.announce(B))[b"peers"] == bytes([8, 8, 4, 4]) + A[1].to_bytes(2)
    await site.announce(other, key="secret")
    assert (await site.announce(B))[b"peers"] == bytes([1, 0, 0, 1]) + A[1].to_bytes(2)


async def test_T5_loopback_is_for_those_on_it(site: Site) -> None:
    await site.announce(("127.0.0.1", 40_005))
    there = bytes([127, 0, 0, 1]) + (40_005).to_bytes(2)
    assert there not in (await site.announce(B))[b"peers"]
    assert there in (await site.announce(("127.0.0.1", 40_006)))[b"peers"]


@pytest.mark.parametrize(
    "field", ["left=-1", "left=18446744073709551616", "port=1.5", "numwant=many", "port=-1"]
)
async def test_T7_what_is_no_number_is_a_failure_reason(site: Site, field: str) -> None:
    name, _, value = field.partition("=")
    failure = await site.announce(A, **{name: value})
    assert [*failure] == [b"failure reason"]
    assert failure[b"failure reason"].startswith(name.encode())
    assert site.outcomes() == [("http/1.1", "announce", "malformed")]
    assert site.tracker.statistics["peers"] == 0


async def test_T9_two_info_hashes_in_an_announce_are_refused(site: Site) -> None:
    query = announce_of(A) + "&info_hash=" + "b" * 20
    answer = await site.ask(f"/announce?{query}")
    assert bencoding.decode(answer.content) == {b"failure reason": b"info_hash is said twice"}


async def test_T8_a_flood_is_told_nothing_and_then_refused(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    await site.announce(B)
    answers = [await site.announce(A) for _ in range(200)]
    assert len(answers[0][b"peers"]) == 6
    told = [len(answer.get(b"peers", b"")) for answer in answers]
    assert told == sorted(told, reverse=True)
    assert answers[-1] == {b"failure reason": b"you announce too often"}
    assert ("http/1.1", "announce", "busy") in site.outcomes()


async def test_a_scrape(site: Site) -> None:
    await site.announce(A, left=0)
    hashes = f"info_hash={quote_from_bytes(INFO_HASH)}&info_hash={quote_from_bytes(OTHER_HASH)}"
    answer = await site.ask(f"/scrape?{hashes}")
    nobody = {b"complete": 0, b"downloaded": 0, b"incomplete": 0}
    assert bencoding.decode(answer.content) == {
        b"files": {INFO_HASH: nobody | {b"complete": 1}, OTHER_HASH: nobody}
    }
    assert b"failure reason" in (await site.ask("/scrape")).content


async def test_a_private_tracker_takes_its_passkeys_in_the_path(tmp_path: Path) -> None:
    site = site_of(tmp_path, passkeys=frozenset({"secret"}))
    assert b"interval" in await site.announce(A, prefix="/secret")
    for prefix in ("", "/Secret", "/secret%20"):
        assert b"passkey" in (await site.announce(A, prefix=prefix))[b"failure reason"]
    scrape = f"/scrape?info_hash={quote_from_bytes(INFO_HASH)}"
    assert b"files" in (await site.ask(f"/secret{scrape}")).content
    assert b"failure reason" in (await site.ask(scrape)).content
    assert (await site.ask(f"/secret/secret{scrape}")).status_code == 404


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT"])
async def test_an_announce_is_a_get(site: Site, method: str) -> None:
    answer = await site.ask(f"/announce?{announce_of(A)}", method=method)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert site.tracker.statistics["peers"] == 0


async def test_T9_an_address_that_is_too_long(site: Site) -> None:
    assert (
        await site.ask(f"/announce?{announce_of(A)}&x={'x' * config.HTTP_URI_LENGTH_MAX}")
    ).status_code == 414
    assert (await site.ask("/" + "a" * config.HTTP_URI_LENGTH_MAX)).status_code == 414
    assert site.outcomes() == [("http/1.1", "other", "414")]


# -- files -------------------------------------------------------------------------------------------------


async def test_a_file_whole(site: Site) -> None:
    answer = await site.ask("/files/hello_world.txt")
    assert (answer.status_code, answer.content) == (200, HELLO_CONTENT)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["accept-ranges"] == "bytes"
    assert site.outcomes() == [("http/1.1", "files", "ok")]


async def test_a_file_of_many_parts(site: Site) -> None:
    content = Random(1).randbytes(3 * config.HTTP_FILE_PART_SIZE + 1)
    site.seed.joinpath("large.bin").write_bytes(content)
    assert (await site.ask("/files/large.bin")).content == content
    answer = await site.ask("/files/large.bin", range=f"bytes=1-{config.HTTP_FILE_PART_SIZE + 5}")
    assert answer.status_code == 206
    assert answer.content == content[1 : config.HTTP_FILE_PART_SIZE + 6]
    assert answer.headers["content-range"] == f"bytes 1-{config.HTTP_FILE_PART_SIZE + 5}/{len(content)}"


async def test_the_head_of_a_file(site: Site) -> None:
    whole = await site.ask("/files/hello_world.txt")
    head = await site.ask("/files/hello_world.txt", method="HEAD")
    assert (head.status_code, head.content, head.headers) == (200, b"", whole.headers)


async def test_an_empty_file(site: Site) -> None:
    site.seed.joinpath("empty").write_bytes(b"")
    answer = await site.ask("/files/empty")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")


async def test_a_file_that_the_client_has_is_not_sent(site: Site) -> None:
    first = await site.ask("/files/hello_world.txt")
    for fields in (
        {"if_none_match": first.headers["etag"]},
        {"if_modified_since": first.headers["last-modified"]},
    ):
        answer = await site.ask("/files/hello_world.txt", **fields)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == first.headers["etag"]


async def test_a_file_that_changed_is_sent_whole_to_who_wants_the_rest(site: Site) -> None:
    first = await site.ask("/files/hello_world.txt")
    os.utime(site.seed / "hello_world.txt", ns=(0, 10**18))
    answer = await site.ask("/files/hello_world.txt", range="bytes=5-", if_range=first.headers["etag"])
    assert (answer.status_code, answer.content) == (200, HELLO_CONTENT)


async def test_a_range_beyond_the_end(site: Site) -> None:
    answer = await site.ask("/files/hello_world.txt", range="bytes=30-")
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */30")
    assert site.outcomes() == [("http/1.1", "files", "416")]


async def test_a_torrent_beside_a_file(site: Site) -> None:
    await site.seed_files.prepare()
    answer = await site.ask("/files/hello_world.txt.torrent")
    assert answer.headers["content-type"] == "application/x-bittorrent"
    metainfo = bencoding.decode(answer.content)
    assert isinstance(metainfo, dict)
    assert metainfo[b"announce"] == b"http://tracker/announce"


async def test_all_files_by_name(site: Site) -> None:
    await site.seed_files.prepare()
    site.seed.joinpath("<img onerror=alert(1)>").write_bytes(b"")
    answer = await site.ask("/files/")
    assert answer.json() == {
        "files": ["<img onerror=alert(1)>", "hello_world.txt", "hello_world.txt.torrent"]
    }


@pytest.mark.parametrize(
    "path",
    [
        "/files/..%2fsecret", "/files/..%5csecret", "/files/%2e%2e/secret", "/files/../secret", "/files//etc/passwd",
        "/files/%2fetc%2fpasswd", "/..%2fsecret", "/files/secret%00", "/files/%00", "/files/hello_world.txt%00.png",
        "/files/link", "/files/.hidden", "/files/directory", "/files/directory%2ffile", "/files/.", "/files/..",
        "/files/C:%5csecret", "/files/directory%5chello_world.txt", "/files/%ff", "//files/hello_world.txt",
    ],
)  # fmt: skip
async def test_C2_no_path_leads_out_of_the_directory(site: Site, path: str) -> None:
    site.seed.joinpath("..", "secret").write_bytes(b"secret")
    site.seed.joinpath(".hidden").write_bytes(b"secret")
    site.seed.joinpath("link").symlink_to(site.seed / ".." / "secret")
    site.seed.joinpath("directory").mkdir()
    site.seed.joinpath("directory", "file").write_bytes(b"secret")
    async with serving(site.application) as address:
        answer = await speak(address, f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert statuses(answer) == [404]
    assert b"secret" not in answer


async def test_a_file_that_shrinks_while_it_is_sent_is_seen_to_be_cut_short(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(64 * config.HTTP_FILE_PART_SIZE))
    async with (
        serving(site.application) as (host, port),
        httpx2.AsyncClient() as client,
        client.stream("GET", f"http://{host}:{port}/files/large.bin") as answer,
    ):
        os.truncate(path, 10)
        with pytest.raises(httpx2.RemoteProtocolError):
            await answer.aread()
    assert site.outcomes() == [("http/1.1", "files", "broken off")]


async def test_a_client_that_leaves_is_counted(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    (tmp_path / "large.bin").write_bytes(bytes(64 * config.HTTP_FILE_PART_SIZE))
    async with serving(site.application) as address, await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(b"GET /files/large.bin HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await stream.receive_some()
    assert site.outcomes() == [("http/1.1", "files", "broken off")]


async def test_so_many_files_are_sent_at_a_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "HTTP_FILES_PER_NETWORK_MAX", 1)
    site = site_of(site.seed)
    site.seed.joinpath("large.bin").write_bytes(bytes(64 * config.HTTP_FILE_PART_SIZE))
    async with serving(site.application) as (host, port), httpx2.AsyncClient() as client:
        url = f"http://{host}:{port}/files/large.bin"
        async with client.stream("GET", url) as first:
            second = await client.get(url)
            assert (second.status_code, second.headers["retry-after"]) == (
                503,
                str(config.HTTP_FILES_RETRY_S),
            )
            assert (await site.ask("/files/large.bin", B)).status_code == 200
            await first.aread()
        assert (await client.get(url)).status_code == 200


async def test_a_directory_that_is_gone_is_an_error_of_the_server(tmp_path: Path) -> None:
    site = site_of(tmp_path / "gone")
    assert (await site.ask("/files/")).status_code == 500
    assert (await site.ask("/files/x")).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_files_are_only_read(site: Site, method: str) -> None:
    assert (await site.ask("/files/hello_world.txt", method=method)).status_code == 405


# -- what an operator looks at -----------------------------------------------------------------------------

LOCAL, SITE = ("127.0.0.1", 1), ("192.168.1.7", 1)


async def test_health(site: Site) -> None:
    assert (await site.ask("/health")).text == "ok\n"


async def test_statistics(site: Site) -> None:
    await site.announce(A)
    answer = (await site.ask("/stats", LOCAL)).json()
    assert (answer["tracker"]["torrents"], answer["tracker"]["peers"], answer["tracker"]["announces"]) == (
        1,
        1,
        1,
    )
    [request] = answer["requests"]
    assert request.pop("seconds") > 0
    assert request == {"language": "http/1.1", "kind": "announce", "outcome": "ok", "count": 1}


async def test_metrics(site: Site) -> None:
    await site.announce(A)
    await site.announce(B, left="many")
    answer = await site.ask("/metrics", SITE)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    lines = answer.text.splitlines()
    assert "p2pnode_tracker_peers 1.0" in lines
    assert "# TYPE p2pnode_tracker_announces_total counter" in lines
    assert "p2pnode_tracker_announces_total 1.0" in lines
    for outcome in ("ok", "malformed"):
        labels = f'kind="announce",language="http/1.1",outcome="{outcome}"'
        assert f"p2pnode_request_seconds_count{{{labels}}} 1.0" in lines
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)


@pytest.mark.parametrize("path", ["/stats", "/metrics"])
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:7000", 200), ("127.0.0.1:7000", 200), ("[::1]:7000", 200), ("192.168.1.2", 200),
        ("tracker.example:7000", 200), ("evil.example", 403), ("localhost.evil.example", 403), ("", 403),
        ("0.0.0.0:7000", 403), ("[::1", 403), ("a@localhost@evil.example", 403), ("2130706433", 403),
    ],
)  # fmt: skip
async def test_C1_only_names_that_are_ours(tmp_path: Path, path: str, host: str, status: int) -> None:
    site = site_of(tmp_path, {"hosts": ["Tracker.Example"]})
    assert (await site.ask(path, LOCAL, host=host)).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:7000", 200),
        ("http://localhost", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
async def test_C1_no_other_site_asks_through_a_browser(site: Site, origin: str, status: int) -> None:
    answer = await site.ask("/stats", LOCAL, host="localhost:7000", origin=origin)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


async def test_C1_nothing_is_done_by_a_form(site: Site) -> None:
    for path in ("/stats", "/metrics", "/health"):
        assert (await site.ask(path, LOCAL, method="POST")).status_code == 405


@pytest.mark.parametrize(
    ("source", "status"), [(LOCAL, 200), (SITE, 200), (("::1", 1), 200), (A, 403), (SIX, 403)]
)
async def test_statistics_are_not_for_the_world(site: Site, source: tuple[str, int], status: int) -> None:
    assert (await site.ask("/stats", source)).status_code == status


async def test_statistics_are_for_all_where_the_operator_says_so(tmp_path: Path) -> None:
    site = site_of(tmp_path, {"shows_statistics_to_all": True})
    assert (await site.ask("/stats", A)).status_code == 200
    assert (await site.ask("/stats", A, host="evil.example")).status_code == 403


@pytest.mark.parametrize("path", ["/files/", "/files/hello_world.txt", "/stats", "/health", "/nowhere"])
async def test_C3_a_browser_runs_nothing_of_what_it_is_shown(site: Site, path: str) -> None:
    await site.seed_files.prepare()
    site.seed.joinpath("<img onerror=alert(1)>.html").write_bytes(b"<script>alert(1)</script>")
    for asked in (path, "/files/%3Cimg%20onerror=alert(1)%3E.html"):
        answer = await site.ask(asked, LOCAL)
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "html" not in answer.headers["content-type"]


async def test_what_is_not_there(site: Site) -> None:
    assert (await site.ask("/<script>")).status_code == 404
    assert site.outcomes() == [("http/1.1", "other", "404")]


async def test_a_websocket_is_refused(site: Site) -> None:
    async with serving(site.application) as address:
        upgrade = (
            b"GET /announce HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert statuses(await speak(address, upgrade)) == [403]


@pytest.mark.parametrize("http2", [True, False])
async def test_the_whole_way(site: Site, http2: bool) -> None:
    await site.announce(("127.0.0.1", 40_005))
    async with (
        serving(site.application) as (host, port),
        httpx2.AsyncClient(http1=not http2, http2=http2) as client,
    ):
        url = f"http://{host}:{port}/announce?{announce_of(('', 40_006))}"
        answer = bencoding.decode((await client.get(url)).content)
        assert isinstance(answer, dict)
        assert answer[b"peers"] == bytes([127, 0, 0, 1]) + (40_005).to_bytes(2)
        assert (await client.get(f"http://{host}:{port}/files/hello_world.txt")).content == HELLO_CONTENT
    assert ("http/2" if http2 else "http/1.1", "announce", "ok") in site.outcomes()
