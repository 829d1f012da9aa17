from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import pytest

from p2pnode.assembly import Diagnostics, Impairment
from p2pnode.cli import app
from p2pnode.cli.console import Console
from p2pnode.cli.options import (
    ServerChoice,
    diagnostic_options,
    limit_options,
    listen_address,
    made_directory,
    node_ids,
    server_options,
    service_state_dir,
    size,
    union,
    user_state_dir,
)
from p2pnode.cli.verb import Verb
from p2pnode.errors import ConfigError, StorageError
from p2pnode.node.rate_limits import RateLimits
from tests.cli.conftest import P2PNode

ID_A, ID_B = b"\xaa" * 32, b"\xbb" * 32


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("all:8080", ("::", 8080)),
        ("localhost:8080", ("localhost", 8080)),
    ],
)
def test_reads_where_to_listen(text: str, address: tuple[str, int]) -> None:
    assert listen_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "8080", "host", "host:", ":8080", "host:65536", "::1:8080", "host:-1", "[]:1"]
)
def test_refuses_what_is_no_address(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not host:port"):
        listen_address(text)


def test_reads_sizes_and_takes_numbers_as_bytes() -> None:
    assert size("1M") == 1 << 20
    assert size(77) == 77
    with pytest.raises(click.BadParameter, match="is no size"):
        size("big")


def test_node_ids_come_one_by_one_or_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "fleet"
    path.write_text(f"# our machines\n{ID_A.hex()}  # gpu-1\n\n{ID_B.hex().upper()}\n")
    assert node_ids(ID_A.hex()) == {ID_A}
    assert node_ids(str(path)) == {ID_A, ID_B}
    assert union([node_ids(str(path)), node_ids(ID_A.hex())]) == {ID_A, ID_B}


def test_an_empty_file_allows_nobody_but_no_option_allows_all(tmp_path: Path) -> None:
    path = tmp_path / "nobody"
    path.write_text("# nobody yet\n")
    assert union([node_ids(str(path))]) == frozenset()
    assert union([]) is None


@pytest.mark.parametrize("content", [b"abc\n", ID_A.hex().encode() + b"00\n", b"\n\xff\n"])
def test_refuses_a_file_with_anything_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fleet"
    path.write_bytes(content)
    with pytest.raises(click.BadParameter, match=r"64 hex digits"):
        node_ids(str(path))


def test_refuses_a_file_that_is_not_there() -> None:
    with pytest.raises(click.BadParameter, match="neither 64 hex digits nor a file"):
        node_ids("missing")


def test_makes_missing_directories(tmp_path: Path) -> None:
    assert made_directory(tmp_path / "a" / "b").is_dir()
    assert made_directory(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot make the directory"):
        made_directory(tmp_path / "file" / "c")


def test_each_role_and_directory_is_a_node_of_its_own(own_home: Path, tmp_path: Path) -> None:
    first = service_state_dir("peer", tmp_path / "a")
    assert first.parent == own_home / "state" / "p2pnode" == user_state_dir().parent
    assert first == service_state_dir("peer", tmp_path / "b" / ".." / "a")
    assert (
        len({first, service_state_dir("server", tmp_path / "a"), service_state_dir("peer", tmp_path / "b")})
        == 3
    )


def test_a_directory_has_one_node_however_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    for role, is_one in (("server", True), ("peer", True), ("share", False)):
        by_link = service_state_dir(role, tmp_path / "link")
        assert (by_link == service_state_dir(role, tmp_path / "a")) is is_one


# -- which server, and why we believe it -------------------------------------------------------------------

Choose = Callable[..., ServerChoice]


@pytest.fixture
def choose(p2pnode: P2PNode, monkeypatch: pytest.MonkeyPatch) -> Choose:
    """`p2pnode get ARGUMENTS`, which gives what the options came to, or fails the test with the usage error."""
    chosen: list[ServerChoice] = []

    @click.command(cls=Verb)
    @server_options(required=False)
    @click.pass_obj
    def command(console: Console, server: ServerChoice) -> None:
        chosen.append(server)

    monkeypatch.setattr(app._Verbs, "get_command", lambda *_: command)

    def choose(*arguments: str) -> ServerChoice:
        outcome = p2pnode("get", *arguments)
        assert outcome.code == 0, outcome.err
        return chosen.pop()

    return choose


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "server.crt"
    path.write_text("")
    return path


def test_there_may_be_no_server(choose: Choose) -> None:
    assert choose() == ServerChoice(None)


def test_the_ways_to_trust_it(choose: Choose, certificate: Path) -> None:
    address = ["--server-addr", "h:1"]
    assert choose(*address) == ServerChoice("h:1", verify=True)
    assert choose(*address, "--pin", "5f") == ServerChoice("h:1", pin="5f")
    assert choose(*address, "--server-cert", str(certificate)) == ServerChoice("h:1", certificate=certificate)
    assert choose(*address, "--no-verify-tls") == ServerChoice("h:1", verify=False)


def test_two_ways_at_once_are_refused(p2pnode: P2PNode, choose: Choose) -> None:
    outcome = p2pnode("get", "--pin", "5f", "--no-verify-tls")
    assert outcome.code == 2
    assert "--no-verify-tls and --pin say two things" in outcome.err


def test_a_flag_beats_a_way_from_the_environment_and_the_file(
    choose: Choose, own_home: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = own_home / "config" / "p2pnode" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(f"server-addr = 'h:1'\nserver-cert = '{certificate}'\n")
    assert choose() == ServerChoice("h:1", certificate=certificate)
    monkeypatch.setenv("P2PNODE_PIN", "5f")
    assert choose() == ServerChoice("h:1", pin="5f")
    assert choose("--no-verify-tls") == ServerChoice("h:1", verify=False)


def test_diagnostics_are_where_they_were_asked_for(
    p2pnode: P2PNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Diagnostics] = []

    @click.command(cls=Verb)
    @diagnostic_options
    @click.pass_obj
    def command(console: Console, diagnostics: Diagnostics) -> None:
        seen.append(diagnostics)

    monkeypatch.setattr(app._Verbs, "get_command", lambda *_: command)
    p2pnode("get")
    monkeypatch.setenv("SSLKEYLOGFILE", "keys.log")
    monkeypatch.setenv("P2PNODE_BATCH", "0")
    p2pnode("get", "--qlog", str(tmp_path / "q" / "log"))
    assert seen == [
        Diagnostics(),
        Diagnostics(tmp_path / "q" / "log", Path("keys.log"), batching=False),
    ]
    assert (tmp_path / "q" / "log").is_dir()
    monkeypatch.setenv("P2PNODE_IMPAIR", "20ms,1%")
    p2pnode("get")
    assert seen[-1].impairment == Impairment(delay_s=0.02, loss=0.01)
    monkeypatch.setenv("P2PNODE_IMPAIR", "a lot")
    ended = p2pnode("get")
    assert ended.code == ConfigError("").exit_code
    assert "P2PNODE_IMPAIR: 'a lot' is no duration" in ended.err


@pytest.fixture
def limits(p2pnode: P2PNode, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RateLimits]:
    """The limits that a command line comes to."""
    seen: list[RateLimits] = []

    @click.command(cls=Verb)
    @limit_options
    @click.pass_obj
    def command(console: Console, limits: RateLimits) -> None:
        seen.append(limits)

    monkeypatch.setattr(app._Verbs, "get_command", lambda *_: command)

    def chosen(*arguments: str) -> RateLimits:
        outcome = p2pnode("get", *arguments)
        assert outcome.code == 0, outcome.err
        return seen.pop()

    return chosen


def test_there_is_no_limit_unless_one_is_given(limits: Callable[..., RateLimits]) -> None:
    assert limits() == RateLimits()
    assert limits("--limit-up", "10MB", "--limit-down", "8Mbit", "--limit-peer", "2k") == RateLimits(
        up=10_000_000, down=1_000_000, peer=2048
    )


def test_a_limit_of_the_file_or_the_environment_can_be_lifted(
    limits: Callable[..., RateLimits], own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = own_home / "config" / "p2pnode" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text("limit-up = 500000\nlimit-down = '1MB'\nlimit-peer = '1MB'\n")
    monkeypatch.setenv("P2PNODE_LIMIT_DOWN", "2MB")
    assert limits("--limit-peer", "unlimited") == RateLimits(up=500_000, down=2_000_000)
    assert limits("--limit-up", "0", "--limit-peer", "0") == RateLimits(down=2_000_000)


def test_upload_slots_are_off_unless_a_number_is_given(
    limits: Callable[..., RateLimits], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert limits("--upload-slots", "4") == RateLimits(upload_slots=4)
    monkeypatch.setenv("P2PNODE_UPLOAD_SLOTS", "7")
    assert limits() == RateLimits(upload_slots=7)
    assert limits("--upload-slots", "0") == RateLimits()


@pytest.mark.parametrize("verb", ["server", "peer", "get x", "share x"])
@pytest.mark.parametrize("flag", ["--limit-up", "--limit-down", "--limit-peer"])
def test_a_limit_that_makes_no_sense_is_one_line(p2pnode: P2PNode, verb: str, flag: str) -> None:
    extra = ["--server-addr", "127.0.0.1:1"] if verb == "peer" else []
    for value, says in (("fast", "'fast' is no rate"), ("100", "too low: 1024 is the least")):
        outcome = p2pnode(*verb.split(), *extra, flag, value)
        assert (outcome.code, outcome.out) == (2, "")
        assert says in outcome.err
        assert outcome.err.count("\n") == 1
