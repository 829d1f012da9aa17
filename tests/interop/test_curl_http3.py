"""curl over HTTP/3 (libcurl with ngtcp2 and nghttp3), on the port that speaks JSON and our own protocol too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_from_bytes

import pytest

from p2pnode.wire.bencoding import decode
from tests.interop.conftest import HELLO, SEEDED, RunningTracker
from tests.interop.programs import PATIENCE_S, module

curl_cffi = module("curl_cffi")


class Curl:
    """A session of curl that takes nothing but HTTP/3, and checks the certificate."""

    def __init__(self, tracker: RunningTracker) -> None:
        self._root = f"https://localhost:{tracker.quic}"
        self._session = curl_cffi.Session(
            http_version=curl_cffi.CurlHttpVersion.V3ONLY,
            verify=str(tracker.certificate),
            timeout=PATIENCE_S,
            curl_options={curl_cffi.CurlOpt.RESOLVE: [f"localhost:{tracker.quic}:{tracker.host}"]},
        )

    def get(self, path: str, **options: Any) -> Any:
        """A response, which came over HTTP/3."""
        response = self._session.get(self._root + path, **options)
        assert response.http_version == curl_cffi.CurlHttpVersion.V3
        return response


@pytest.fixture(scope="module")
def curl(tracker: RunningTracker) -> Iterator[Curl]:
    yield Curl(tracker)


@pytest.mark.parametrize("name", ["hello_world.txt", *SEEDED])
def test_it_fetches_a_file(curl: Curl, name: str) -> None:
    response = curl.get(f"/files/{quote(name)}")
    assert response.status_code == 200
    assert response.content == {"hello_world.txt": HELLO, **SEEDED}[name]


@pytest.mark.parametrize(
    ("range_", "expected", "content_range"),
    [
        ("bytes=6-10", HELLO[6:11], "bytes 6-10/30"),
        ("bytes=-8", HELLO[-8:], "bytes 22-29/30"),
        ("bytes=29-", HELLO[29:], "bytes 29-29/30"),
    ],
)
def test_it_fetches_a_part_of_a_file(curl: Curl, range_: str, expected: bytes, content_range: str) -> None:
    response = curl.get("/files/hello_world.txt", headers={"range": range_})
    assert (response.status_code, response.content) == (206, expected)
    assert response.headers["content-range"] == content_range


def test_what_is_not_there(curl: Curl) -> None:
    assert curl.get("/files/nothing").status_code == 404
    assert curl.get("/files/hello_world.txt", headers={"range": "bytes=30-"}).status_code == 416


def test_it_announces_and_scrapes(curl: Curl) -> None:
    info_hash = bytes(range(0xEC, 0x100))
    swarm = f"info_hash={quote_from_bytes(info_hash)}&compact=1"

    def announce(peer_id: str, left: int) -> Any:
        query = f"/announce?{swarm}&peer_id={peer_id}&port=6881&uploaded=0&downloaded=0&left={left}"
        return decode(curl.get(query).content, 10_000)

    seed = announce("-XX0001-000000000001", 0)
    assert (seed[b"complete"], seed[b"incomplete"], seed[b"peers"]) == (1, 0, b"")
    leech = announce("-XX0001-000000000002", 5)
    assert leech[b"peers"] == bytes([127, 0, 0, 1]) + (6881).to_bytes(2, "big")
    scraped = decode(curl.get(f"/scrape?{swarm}").content, 10_000)
    assert scraped[b"files"][info_hash] == {b"complete": 1, b"downloaded": 0, b"incomplete": 1}
