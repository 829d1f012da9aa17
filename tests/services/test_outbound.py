"""Where a torrent may send us: judged by the address that comes out, whatever the URL looks like."""

from __future__ import annotations

import pytest

from p2pnode.errors import AddressError, Refused
from p2pnode.quic import Address
from p2pnode.services.outbound import Author, Outbound, Resolve, ServiceUrl

WORLD, WORLD_V6 = "1.1.1.1", "2606:4700::1"
HOSTILE_HOSTS = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.255.255.254", "localhost",
    "0.0.0.0", "0", "[::]", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
    "[64:ff9b::7f00:1]", "[64:ff9b::a00:1]", "[2002:7f00:1::]", "[fe80::1]", "[ff02::1]",
    "169.254.169.254", "2852039166", "[::ffff:169.254.169.254]", "224.0.0.1", "255.255.255.255", "240.0.0.1",
    "192.0.0.192", "168.63.129.16", "[fec0::1]",
    "①②⑦.⓪.⓪.①", "127。0。0。1", "１２７.0.0.1", "user@127.0.0.1", "1.1.1.1@127.0.0.1",
]  # fmt: skip
SITE_HOSTS = ["10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "100.100.100.200", "[fd00:ec2::254]"]


def names(*hosts: str) -> Resolve:
    """Every name means these addresses."""

    async def resolve(_name: str, port: int) -> list[Address]:
        return [(host, port) for host in hosts]

    return resolve


async def allowed(url: str, author: Author = Author.TORRENT, outbound: Outbound | None = None) -> list[str]:
    """The hosts that may be connected to for a URL."""
    parsed = ServiceUrl.parse(url)
    return [host for host, _ in await (outbound or Outbound()).addresses(parsed, author)]


# -- the policy --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", HOSTILE_HOSTS)
@pytest.mark.parametrize("scheme", ["http", "https", "udp", "quic"])
async def test_T10_no_torrent_leads_to_this_machine_or_to_nowhere(host: str, scheme: str) -> None:
    with pytest.raises((Refused, AddressError)):
        await allowed(f"{scheme}://{host}:80/announce")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "localhost", "169.254.169.254", "10.0.0.1"]
)
async def test_T10_what_the_user_typed_is_his_business(host: str) -> None:
    assert await allowed(f"http://{host}:80/admin?x", Author.USER)


@pytest.mark.parametrize("host", SITE_HOSTS)
async def test_T10_in_a_site_a_torrent_may_send_an_announce_and_nothing_else(host: str) -> None:
    for url in (
        f"http://{host}:7000/announce",
        f"udp://{host}:7000",
        f"udp://{host}:7000/x",
        f"quic://{host}:1",
    ):
        assert await allowed(url)
    for target in (
        "",
        "/",
        "/admin?x",
        "/announce?x",
        "/announce/../reboot",
        "/%61nnounce",
        "//announce",
        "/announce/",
    ):
        with pytest.raises(Refused):
            await allowed(f"http://{host}:7000{target}")
    with pytest.raises(Refused):
        await allowed(f"http://{host}:7000/announce", Author.REDIRECT)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "fe80::1%lo", "0.0.0.0"])
async def test_T10_a_name_is_no_better_than_what_it_means(host: str) -> None:
    outbound = Outbound(names(host))
    with pytest.raises(Refused, match="tracker"):
        await allowed("http://tracker.example/admin", Author.TORRENT, outbound)
    with pytest.raises(Refused):
        await allowed("http://tracker.example/admin", Author.REDIRECT, outbound)


async def test_T10_of_a_name_that_means_several_only_those_that_are_allowed_are_used() -> None:
    outbound = Outbound(names("127.0.0.1", WORLD_V6, "10.0.0.1", WORLD))
    assert await allowed("https://tracker.example/a?b", Author.TORRENT, outbound) == [WORLD_V6, WORLD]
    many = Outbound(names(*(f"1.1.1.{number}" for number in range(100))))
    assert len(await allowed("https://tracker.example/", Author.TORRENT, many)) == 4


async def test_T10_a_redirect_may_lead_back_to_where_it_came_from_and_to_the_world() -> None:
    local = ServiceUrl.parse("http://127.0.0.1:7000/b?c")
    outbound = Outbound()
    back = await outbound.addresses(local, Author.REDIRECT, redirected_by=("127.0.0.1", 7000))
    assert back == (("127.0.0.1", 7000),)
    for by in (("127.0.0.1", 7001), ("127.0.0.2", 7000), (WORLD, 7000), None):
        with pytest.raises(Refused):
            await outbound.addresses(local, Author.REDIRECT, redirected_by=by)
    assert await allowed(f"http://{WORLD}/x?y", Author.REDIRECT) == [WORLD]


@pytest.mark.parametrize("port", [0, 53])
async def test_T10_a_torrent_sends_nothing_to_a_name_server(port: int) -> None:
    with pytest.raises(Refused):
        await allowed(f"udp://{WORLD}:{port}")


async def test_a_name_that_means_nothing() -> None:
    with pytest.raises(Refused, match="no address"):
        await allowed("http://tracker.example/", Author.TORRENT, Outbound(names()))


async def test_the_refusal_says_what_to_do() -> None:
    with pytest.raises(Refused) as caught:
        await allowed("http://localhost:7000/announce")
    assert "localhost:7000" in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
    assert "yourself" in str(caught.value)


# -- URLs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://Tracker.Example/announce", ("http", "tracker.example", 80, "/announce")),
        ("https://t.example:8443/a/b?k=v#frag", ("https", "t.example", 8443, "/a/b?k=v")),
        ("udp://t.example:6969", ("udp", "t.example", 6969, "/")),
        ("QUIC://[2001:DB8::1]:7001/", ("quic", "2001:db8::1", 7001, "/")),
        ("http://user:secret@t.example/a", ("http", "t.example", 80, "/a")),
        ("http://t.example/%00%ff?x=%20&é", ("http", "t.example", 80, "/%00%ff?x=%20&%C3%A9")),
        ("http://bücher.example/", ("http", "xn--bcher-kva.example", 80, "/")),
        ("http://еxample.com/", ("http", "xn--xample-2of.com", 80, "/")),
        ("http://a_b.example/", ("http", "a_b.example", 80, "/")),
    ],
)
def test_a_url_is_read_into_ascii(url: str, parts: tuple[str, str, int, str]) -> None:
    parsed = ServiceUrl.parse(url)
    assert (parsed.scheme, parsed.host, parsed.port, parsed.target) == parts
    assert ServiceUrl.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    "url",
    [
        "", "x", "file:///etc/passwd", "gopher://x:70/", "ftp://x/", "http:///announce", "http://", "udp://x",
        "quic://x", "http://x:65536/", "http://x:y/", "http://[::1/", "http://[x]/", "http://a b/", "http://a%20b/",
        "http://x\x00y/", "http://" + "ä" * 64 + "/", "http://x:-1/", "http://[fe80::1%25eth0]/",
    ],
)  # fmt: skip
def test_M11_what_is_no_url_of_a_tracker(url: str) -> None:
    with pytest.raises(AddressError):
        ServiceUrl.parse(url)


def test_the_host_header_has_the_port_only_where_it_is_not_the_usual_one() -> None:
    assert ServiceUrl.parse("http://x:80/").authority == "x"
    assert ServiceUrl.parse("https://x:80/").authority == "x:80"
    assert ServiceUrl.parse("https://[::1]/").authority == "[::1]"
    assert ServiceUrl.parse("udp://[::1]:53").authority == "[::1]:53"


@pytest.mark.parametrize(
    ("location", "to"),
    [
        ("/b?c", "http://x:7000/b?c"),
        ("b", "http://x:7000/a/b"),
        ("//y/z", "http://y/z"),
        ("https://y/z", "https://y/z"),
        ("udp://y:1", "udp://y:1/"),
    ],
)
def test_where_a_redirect_leads(location: str, to: str) -> None:
    assert str(ServiceUrl.parse("http://x:7000/a/announce").redirected(location)) == to


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://[", "gopher://y", "http://a b"])
def test_T10_a_redirect_that_leads_to_no_tracker(location: str) -> None:
    with pytest.raises(AddressError):
        ServiceUrl.parse("http://x:7000/announce").redirected(location)
