"""Trackers over HTTP, each a real server on loopback that says what a test wants."""

from __future__ import annotations

import gzip
import ssl
import zlib
from itertools import count
from random import Random

import pytest
import trio
import trustme

from p2pnode import config
from p2pnode.errors import (
    REMOTE_FAULTS,
    AddressError,
    ConnectFailed,
    NetworkError,
    Refused,
    RemoteProtocolError,
    TimedOut,
)
from p2pnode.services.outbound import Author, Outbound
from p2pnode.services.tracker_clients import TrackerClient, TrackerClients
from p2pnode.tracker.announces import AnnounceEvent, SwarmCounts, SwarmPeer
from tests.services.tracker_clients.http_server import ok, redirect, web_server
from tests.services.tracker_clients.requests import INFO_HASH, announce, names

ANSWER = b"d8:completei5e10:incompletei6e8:intervali900e12:min intervali60e5:peers6:\x7f\x00\x00\x01\x1a\xe1e"
NOBODY = b"d8:intervali900e5:peers0:e"
HASH_IN_URL = "%EC%ED%EE%EF%F0%F1%F2%F3%F4%F5%F6%F7%F8%F9%FA%FB%FC%FD%FE%FF"


def client(url: str, author: Author = Author.USER, **options: object) -> TrackerClient:
    return TrackerClients(Random(1), **options).client(url, author)  # type: ignore[arg-type]


# -- what is asked and answered ----------------------------------------------------------------------------


async def test_an_announce_byte_for_byte_and_its_answer() -> None:
    async with web_server(ok(ANSWER)) as server:
        answer = await client(f"http://127.0.0.1:{server.port}/announce").announce(announce())
    assert server.targets == [
        f"/announce?info_hash={HASH_IN_URL}&peer_id=-PN0001-0123456789ab&port=6881&uploaded=1&downloaded=2&left=3"
        "&compact=1&numwant=50&key=deadbeef&event=started"
    ]
    assert server.header("Host") == f"127.0.0.1:{server.port}"
    assert server.header("User-Agent").startswith("p2pnode/")
    assert server.header("Connection") == "close"
    assert "cookie" not in server.requests[0].decode().lower()
    assert (answer.interval_s, answer.interval_min_s) == (900, 60)
    assert (answer.complete, answer.incomplete, answer.warning) == (5, 6, "")
    assert answer.peers == (SwarmPeer(b"", "127.0.0.1", 6881),)


@pytest.mark.parametrize("info_hash", [b"\0" * 20, b"%&=+ #?/\\\r\n\t\"'<>[]{}"[:20], b"\xff" * 20])
async def test_any_info_hash_goes_over_the_wire_as_it_is(info_hash: bytes) -> None:
    from p2pnode.wire.tracker_http import parse_announce

    async with web_server(ok(NOBODY)) as server:
        await client(f"http://127.0.0.1:{server.port}/announce").announce(announce(info_hash=info_hash))
    query = server.targets[0].partition("?")[2].encode()
    assert parse_announce(query).info_hash == info_hash


async def test_a_passkey_stays_where_the_url_has_it() -> None:
    async with web_server(ok(NOBODY)) as server:
        for target in ("/secret/announce", "/announce.php?passkey=%2fx&y=", ""):
            request = announce(event=AnnounceEvent.NONE)
            await client(f"http://127.0.0.1:{server.port}{target}").announce(request)
    assert [target.partition("info_hash")[0] for target in server.targets] == [
        "/secret/announce?",
        "/announce.php?passkey=%2fx&y=&",
        "/?",
    ]
    assert not any("event" in target for target in server.targets)


async def test_a_tracker_id_is_said_from_then_on() -> None:
    answers = iter([ok(b"d10:tracker id3:\xff&1e"), ok(NOBODY), ok(NOBODY)])
    async with web_server(lambda _: next(answers)) as server:
        tracker = client(f"http://127.0.0.1:{server.port}/announce")
        for _ in range(3):
            await tracker.announce(announce())
    assert ["trackerid=%FF%261" in target for target in server.targets] == [False, True, True]


@pytest.mark.parametrize(
    ("target", "scraped"),
    [
        ("/announce", "/scrape?"),
        ("/x/announce", "/x/scrape?"),
        ("/announce.php?key=1", "/scrape.php?key=1&"),
    ],
)
async def test_a_scrape(target: str, scraped: str) -> None:
    other = b"o" * 20
    files = b"d5:filesd20:%bd8:completei1e10:downloadedi2e10:incompletei3ee20:%bd8:completei9eeee"
    async with web_server(ok(files % (b"e" * 20, INFO_HASH))) as server:
        counts = await client(f"http://127.0.0.1:{server.port}{target}").scrape([INFO_HASH, other])
    assert counts == {INFO_HASH: SwarmCounts(9, 0, 0)}  # and nothing that was not asked for
    assert server.targets == [f"{scraped}info_hash={HASH_IN_URL}&info_hash={'o' * 20}"]


@pytest.mark.parametrize("target", ["/", "/x", "/announce/x", "/x?announce"])
async def test_what_cannot_be_scraped_is_not(target: str) -> None:
    with pytest.raises(Refused, match="scraped"):
        await client(f"http://127.0.0.1:9{target}").scrape([INFO_HASH])


# -- what may go wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad", b"403 Forbidden", b"500 Oops"])
async def test_a_failure_reason_counts_under_any_status(status: bytes) -> None:
    body = b"d14:failure reason8:not heree"
    sent = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
    async with web_server(sent) as server:
        with pytest.raises(Refused, match="not here"):
            await client(f"http://127.0.0.1:{server.port}/").announce(announce())


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nsorry", Refused),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Refused),
        (ok(b"<html>hello</html>"), RemoteProtocolError),
        (ok(b""), RemoteProtocolError),
        (b"", NetworkError),
        (b"\x16\x03\x01 what is this", NetworkError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nd", NetworkError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nd", NetworkError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n", NetworkError),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", REMOTE_FAULTS),
        (redirect(""), Refused),
        (redirect("/other"), Refused),  # for ever
    ],
    ids=count(),
)
async def test_T9_what_no_tracker_answers_is_one_of_their_faults(
    sent: bytes, error: type[Exception] | tuple[type[Exception], ...]
) -> None:
    async with web_server(sent) as server:
        with pytest.raises(error):
            await client(f"http://127.0.0.1:{server.port}/").announce(announce())
    assert len(server.requests) <= config.TRACKER_REDIRECTS_MAX + 1


def packed(data: bytes, wbits: int = 16 + zlib.MAX_WBITS) -> bytes:
    packer = zlib.compressobj(9, wbits=wbits)
    return packer.compress(data) + packer.flush()


async def test_a_packed_answer_is_unpacked() -> None:
    for name in (b"gzip", b"x-gzip", b"GZIP"):
        async with web_server(ok(gzip.compress(ANSWER), b"Content-Encoding: " + name)) as server:
            answer = await client(f"http://127.0.0.1:{server.port}/").announce(announce())
            assert answer.interval_s == 900
    assert server.header("Accept-Encoding") == "gzip"


@pytest.mark.parametrize(
    "sent",
    [
        ok(packed(b"d5:peers" + b"0" * 50_000_000), b"Content-Encoding: gzip"),
        ok(packed(packed(b"0" * 50_000_000)), b"Content-Encoding: gzip, gzip"),
        ok(packed(b"0" * 10**6, zlib.MAX_WBITS), b"Content-Encoding: deflate"),
        ok(b"x", b"Content-Encoding: br"),
        ok(b"no gzip at all", b"Content-Encoding: gzip"),
        ok(b"d5:peers70000:" + b"p" * 70_000 + b"e"),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"d" * 10**6,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"8\r\ndddddddd\r\n" * 100_000,
    ],
    ids=count(),
)
async def test_T9_a_bomb_is_not_unpacked_and_no_more_than_64_kib_are_taken(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    unpack = zlib.decompressobj

    class Watched:
        def __init__(self, wbits: int) -> None:
            self.unpacker = unpack(wbits)

        def decompress(self, data: bytes, size_max: int) -> bytes:
            plain = self.unpacker.decompress(data, size_max)
            held.append(len(plain))
            return plain

    monkeypatch.setattr(zlib, "decompressobj", Watched)
    async with web_server(sent) as server:
        with pytest.raises(RemoteProtocolError):
            await client(f"http://127.0.0.1:{server.port}/").announce(announce())
    assert max(held, default=0) <= config.ANNOUNCE_ANSWER_SIZE_MAX + 1


async def test_a_tracker_that_says_nothing(autojump_clock: trio.testing.MockClock) -> None:
    with trio.socket.socket() as silent:
        await silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        with pytest.raises(TimedOut):
            await client(f"http://127.0.0.1:{port}/announce").announce(announce())


async def test_nobody_there() -> None:
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(ConnectFailed, match=f"127.0.0.1:{port}: .*refused"):
            await client(f"http://127.0.0.1:{port}/announce").announce(announce())


async def test_the_next_address_of_a_name_is_tried() -> None:
    async with web_server(ok(NOBODY)) as server:
        outbound = Outbound(names(tracker_example=["127.0.0.2", "127.0.0.1"]))
        tracker = client(f"http://tracker.example:{server.port}/announce", outbound=outbound)
        await tracker.announce(announce())
    assert server.header("Host") == f"tracker.example:{server.port}"


# -- T10: where a torrent may send us ----------------------------------------------------------------------

HOSTS = [
    "127.0.0.1",
    "localhost",
    "2130706433",
    "127.1",
    "0x7f.1",
    "[::ffff:127.0.0.1]",
    "0.0.0.0",
    "①②⑦.0.0.1",
]


@pytest.mark.parametrize("host", HOSTS)
async def test_T10_a_torrent_reaches_no_server_of_this_machine(host: str) -> None:
    async with web_server(ok(ANSWER)) as server:
        for target in ("/admin?x", "/announce", ""):
            tracker = client(f"http://{host}:{server.port}{target}", Author.TORRENT)
            with pytest.raises((Refused, AddressError)):
                await tracker.announce(announce())
    assert server.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "127.1"])
async def test_T10_what_the_user_typed_does(host: str) -> None:
    async with web_server(ok(ANSWER)) as server:
        answer = await client(f"http://{host}:{server.port}/announce").announce(announce())
    assert answer.interval_s == 900
    assert server.header("Host") == f"{host}:{server.port}"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "127.1", "169.254.169.254", "[::1]"]
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_T10_no_redirect_leads_there_either(host: str, status: int) -> None:
    async with (
        web_server(ok(ANSWER)) as inner,
        web_server(redirect(f"http://{host}:{inner.port}/admin?x", status)) as outer,
    ):
        with pytest.raises(Refused):
            await client(f"http://127.0.0.1:{outer.port}/announce").announce(announce())
    assert len(outer.requests) == 1
    assert inner.requests == []


async def test_T10_each_redirect_is_judged_and_may_lead_on_at_the_same_server() -> None:
    def answer(head: bytes) -> bytes:
        if head.startswith(b"GET /announce?"):
            return redirect("/moved?k=1")
        if head.startswith(b"GET /moved?k=1 "):
            return redirect(f"http://127.0.0.1:{inner.port}/admin")
        raise AssertionError(head)

    async with web_server(ok(ANSWER)) as inner, web_server(answer) as outer:
        with pytest.raises(Refused):
            await client(f"http://127.0.0.1:{outer.port}/announce").announce(announce())
    assert len(outer.requests) == 2
    assert inner.requests == []


@pytest.mark.parametrize(
    "location", ["udp://127.0.0.1:1", "quic://127.0.0.1:1", "file:///etc/passwd", "gopher://x/"]
)
async def test_T10_a_redirect_leads_to_http_alone(location: str) -> None:
    async with web_server(redirect(location)) as server:
        with pytest.raises(AddressError):
            await client(f"http://127.0.0.1:{server.port}/announce").announce(announce())


async def test_T10_the_address_that_was_judged_is_the_one_that_is_connected_to() -> None:
    """A name that means something else a moment later (DNS rebinding) is not looked up a second time."""
    async with web_server(ok(NOBODY)) as server:
        outbound = Outbound(names(tracker_example="127.0.0.1"))  # fails at a second question
        await client(f"http://tracker.example:{server.port}/announce", outbound=outbound).announce(announce())
    assert len(server.requests) == 1


async def test_T10_a_proxy_that_would_look_names_up_itself_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with web_server(ok(NOBODY)) as server, web_server(ok(ANSWER)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
        await client(f"http://127.0.0.1:{server.port}/announce").announce(announce())
    assert proxy.requests == []


# -- HTTPS -------------------------------------------------------------------------------------------------


def tls_pair(*identities: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a server with such a certificate, and for a client that trusts its issuer."""
    authority = trustme.CA()
    theirs, ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert(*identities).configure_cert(theirs)
    authority.configure_trust(ours)
    return theirs, ours


async def test_the_name_in_tls_is_the_trackers_and_its_certificate_is_checked_against_that() -> None:
    theirs, ours = tls_pair("tracker.example")
    seen: list[str | None] = []
    theirs.sni_callback = lambda _socket, name, _context: seen.append(name)
    async with web_server(ok(ANSWER), tls=theirs) as server:
        url = f"https://tracker.example:{server.port}/announce"
        outbound = Outbound(names(tracker_example="127.0.0.1"))
        answer = await client(url, tls=ours, outbound=outbound).announce(announce())
        assert answer.interval_s == 900
        assert seen == ["tracker.example"]
        other = f"https://other.example:{server.port}/announce"
        outbound = Outbound(names(other_example="127.0.0.1"))
        with pytest.raises(ConnectFailed, match="certificate is not trusted"):
            await client(other, tls=ours, outbound=outbound).announce(announce())
    assert len(server.requests) == 1


async def test_two_names_at_one_address_are_two_connections() -> None:
    theirs, ours = tls_pair("one.example", "two.example")
    async with web_server(ok(NOBODY), tls=theirs) as server:
        outbound = Outbound(names(one_example="127.0.0.1", two_example="127.0.0.1"))
        clients = TrackerClients(Random(1), tls=ours, outbound=outbound)
        hosts = []
        for name in ("one.example", "two.example"):
            tracker = clients.client(f"https://{name}:{server.port}/announce", Author.USER)
            await tracker.announce(announce())
            hosts.append(server.header("Host"))
    assert hosts == [f"one.example:{server.port}", f"two.example:{server.port}"]


async def test_a_certificate_that_nobody_vouches_for_is_refused() -> None:
    theirs, _ = tls_pair("127.0.0.1")
    async with web_server(ok(ANSWER), tls=theirs) as server:
        with pytest.raises(ConnectFailed, match="certificate is not trusted"):
            await client(f"https://127.0.0.1:{server.port}/announce").announce(announce())
    assert server.requests == []


async def test_T5_peers_that_a_tracker_cannot_know_are_not_handed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The tracker of this test is on loopback, so it may know of peers anywhere but at no port."""
    peers = b"\x7f\0\0\1\0\0" + b"\x7f\0\0\1\0\x35" + b"\xe0\0\0\1\1\1" + b"\0\0\0\0\1\1" + b"\x0a\0\0\1\1\1"
    async with web_server(ok(b"d5:peers%d:%be" % (len(peers), peers))) as server:
        answer = await client(f"http://127.0.0.1:{server.port}/").announce(announce())
    assert answer.peers == (SwarmPeer(b"", "10.0.0.1", 257),)
