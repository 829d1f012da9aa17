"""What goes wrong in daily use: one line that says what and what to do, a documented exit code, nothing lost."""

from __future__ import annotations

import random
import re
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from p2pnode.quic import Credentials, Endpoint, EndpointOptions, NodeKey, open_udp_socket
from tests.end_to_end.conftest import MEDIUM, Place
from tests.support.processes import run

NOBODY = "00" * 32  # a pin that nobody has
HEX_ID = re.compile(r"\b[0-9a-f]{64}\b")

Settled = Callable[[Path, int], Path]


# -- certificate and key -----------------------------------------------------------------------------------


def a_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture
def pair(tmp_path: Path, certificate: Path) -> tuple[Path, Path]:
    """A certificate and its key that a test may spoil."""
    copies = tmp_path / "server.crt", tmp_path / "server.key"
    shutil.copy(certificate, copies[0])
    shutil.copy(certificate.with_suffix(".key"), copies[1])
    return copies


def missing(path: Path) -> None:
    path.unlink()


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def malformed(path: Path) -> None:
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\nnot at all\n-----END CERTIFICATE-----\n")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:150])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [missing, a_directory, malformed, cut_short, empty])
@pytest.mark.parametrize("which", ["server.crt", "server.key"])
async def test_a_certificate_or_key_that_cannot_be_used(
    tmp_path: Path, pair: tuple[Path, Path], spoil: Callable[[Path], None], which: str
) -> None:
    spoil(tmp_path / which)
    outcome = await run("server", "--cert", pair[0], "--addr", "127.0.0.1:0", state=tmp_path, cwd=tmp_path)
    assert which in outcome.error(5)


async def test_a_certificate_below_a_file_cannot_be_read(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    outcome = await run("server", "--cert", pair[0] / "server.crt", state=tmp_path, cwd=tmp_path)
    assert "server.crt/server.crt" in outcome.error(5)


async def test_a_key_of_another_certificate(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    pair[1].write_bytes(a_key())
    line = (await run("server", "--cert", pair[0], state=tmp_path, cwd=tmp_path)).error(5)
    assert line == f"{pair[1]} is not the key of {pair[0]}"


async def test_a_server_certificate_that_is_not_there(place: Place, tmp_path: Path) -> None:
    options = ["--server-addr", place.address, "--server-cert", tmp_path / "missing.crt"]
    outcome = await run("list", *options, state=tmp_path)
    assert "missing.crt" in outcome.error(5)


# -- addresses ---------------------------------------------------------------------------------------------


async def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        outcome = await run("server", "--addr", address, state=tmp_path, cwd=tmp_path)
    line = outcome.error(6)
    assert address.partition(":")[2] in line
    assert "in use" in line


async def test_an_address_of_another_machine_to_listen_on(tmp_path: Path) -> None:
    outcome = await run("server", "--addr", "192.0.2.1:8080", state=tmp_path, cwd=tmp_path)
    assert "192.0.2.1:8080" in outcome.error(6)


@pytest.mark.parametrize("verb", [["get", "x"], ["list"], ["push", "x", "--to", "all"]])
async def test_an_unknown_host(tmp_path: Path, verb: list[str]) -> None:
    server = ["--server-addr", "no-such-host.invalid:8080", "--pin", NOBODY]
    assert "no-such-host.invalid" in (await run(*verb, *server, state=tmp_path)).error(6)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "[::1:8080", "ftp://a:1"])
async def test_what_is_no_address(tmp_path: Path, address: str) -> None:
    outcome = await run("list", "--server-addr", address, "--pin", NOBODY, state=tmp_path)
    assert address in outcome.error(6)


async def test_nobody_answers_or_only_garbage_comes(tmp_path: Path) -> None:
    """Every verb gives up after 20 s (all at once here), whoever sits on the port."""
    rng = random.Random(5)

    async def babble(udp: trio.socket.SocketType) -> None:
        while True:
            _, sender = await udp.recvfrom(65_535)
            for answer in (rng.randbytes(1200), b"", bytes(21)):
                await udp.sendto(answer, sender)

    async def expect_nobody(address: str, *verb: str) -> None:
        outcome = await run(
            *verb, "--server-addr", address, "--pin", NOBODY, state=tmp_path / verb[0] / address
        )
        assert outcome.error(6).startswith(f"{address}: nobody answers")

    with (
        trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent,
        trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as babbling,
    ):
        await silent.bind(("127.0.0.1", 0))
        await babbling.bind(("127.0.0.1", 0))
        quiet, loud = (f"127.0.0.1:{udp.getsockname()[1]}" for udp in (silent, babbling))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(babble, babbling)
            async with trio.open_nursery() as asking:
                asking.start_soon(expect_nobody, quiet, "get", "x")
                asking.start_soon(expect_nobody, quiet, "list")
                asking.start_soon(expect_nobody, quiet, "push", "x", "--to", "all")
                asking.start_soon(expect_nobody, loud, "list")
            nursery.cancel_scope.cancel()


async def test_what_sends_every_datagram_back_is_no_server(tmp_path: Path) -> None:
    """A node that dials such a reflector shakes hands with itself; it must not become its own server."""

    async def reflect(udp: trio.socket.SocketType) -> None:
        while True:
            await udp.sendto(*await udp.recvfrom(65_535))

    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        await udp.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{udp.getsockname()[1]}"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reflect, udp)
            outcome = await run("list", "--server-addr", address, "--no-verify-tls", state=tmp_path)
            nursery.cancel_scope.cancel()
    assert "very node that dials" in outcome.error(8)


async def test_a_quic_server_that_speaks_another_protocol(tmp_path: Path) -> None:
    udp = await open_udp_socket(("127.0.0.1", 0))
    credentials = Credentials.from_node_key(NodeKey.generate())
    async with Endpoint(udp, credentials, EndpointOptions(alpns=["h3"])) as endpoint:
        address = f"127.0.0.1:{endpoint.local_address[1]}"
        outcome = await run("list", "--server-addr", address, "--pin", NOBODY, state=tmp_path)
    udp.close()
    assert outcome.error(6) == f"{address} is not a p2pnode server: it does not speak p2pnode/1"


# -- trust -------------------------------------------------------------------------------------------------


async def test_an_unknown_certificate_is_refused_with_the_pin_that_accepts_it(
    place: Place, tmp_path: Path
) -> None:
    line = (await run("list", "--server-addr", place.address, state=tmp_path)).error(5)
    found = re.search(r"--pin ([0-9a-f]{64})$", line)
    assert found is not None, line
    pinned = await run("list", "--server-addr", place.address, "--pin", found[1], state=tmp_path)
    assert (pinned.code, "model.bin" in pinned.out) == (0, True)


async def test_another_pin_is_refused_with_the_node_id_that_was_seen(place: Place, tmp_path: Path) -> None:
    line = (await run("list", "--server-addr", place.address, "--pin", NOBODY, state=tmp_path)).error(5)
    assert HEX_ID.findall(line) == [place.node_id]


@pytest.mark.parametrize("pin", ["12", "zz" * 32, "ab" * 33])
async def test_a_pin_that_is_none(tmp_path: Path, pin: str) -> None:
    outcome = await run("list", "--server-addr", "127.0.0.1:9", "--pin", pin, state=tmp_path)
    assert pin in outcome.error(2)


async def test_a_peer_of_a_server_that_is_not_the_pinned_one_ends(place: Place, tmp_path: Path) -> None:
    outcome = await run("peer", "--server-addr", place.address, "--pin", NOBODY, state=tmp_path, cwd=tmp_path)
    assert outcome.code == 5
    assert place.node_id in outcome.said.splitlines()[-1]
    assert outcome.said.count("p2pnode: ") == 1


async def test_without_verification_it_works_and_is_said_loudly(place: Place, tmp_path: Path) -> None:
    outcome = await run("list", "--server-addr", place.address, "--no-verify-tls", state=tmp_path)
    assert outcome.code == 0
    [warning] = [line for line in outcome.said.splitlines() if "warning" in line]
    assert "--no-verify-tls" in warning
    assert HEX_ID.findall(warning) == [place.node_id]


# -- what is asked for -------------------------------------------------------------------------------------


async def test_no_such_file_suggests_near_names(place: Place, tmp_path: Path) -> None:
    outcome = await run("get", "modle.bin", *place.options, state=tmp_path, cwd=tmp_path)
    assert "model.bin" in outcome.error(3)


async def test_several_files_of_one_name_are_told_apart_by_their_ids(place: Place, tmp_path: Path) -> None:
    outcome = await run("get", "twin.bin", *place.options, state=tmp_path, cwd=tmp_path)
    ids = HEX_ID.findall(outcome.error(3))
    sizes = set()
    for file_id in ids:
        got = await run("get", file_id, "-o", file_id, *place.options, state=tmp_path, cwd=tmp_path)
        assert got.code == 0, got.said
        sizes.add((tmp_path / file_id).stat().st_size)
    assert len(sizes) == len(ids) == 2


@pytest.mark.parametrize(
    ("reference", "code", "says"),
    [
        ("p2pnode1aaaa", 12, "ticket"),
        ("magnet:?dn=x", 12, "magnet"),
        (f"magnet:?xt=urn:btih:{'0' * 40}", 12, "v2"),
        ("broken.torrent", 12, "broken.torrent"),
        ("directory.torrent", 10, "directory.torrent"),
        ("missing.torrent", 3, "missing.torrent"),
        ("", 3, "called"),
    ],
)
async def test_a_reference_that_is_malformed(
    place: Place, tmp_path: Path, reference: str, code: int, says: str
) -> None:
    (tmp_path / "broken.torrent").write_bytes(b"d4:info")
    (tmp_path / "directory.torrent").mkdir()
    outcome = await run("get", reference, *place.options, state=tmp_path, cwd=tmp_path)
    assert says in outcome.error(code)


async def test_a_v1_torrent_is_declined(place: Place, tmp_path: Path, settled: Settled) -> None:
    settled(tmp_path / "model.bin", MEDIUM)
    made = await run("torrent", "create", "--v1", "model.bin", state=tmp_path, cwd=tmp_path)
    outcome = await run("get", made.out.strip(), *place.options, state=tmp_path, cwd=tmp_path)
    assert "v1 torrent" in outcome.error(12)


async def test_a_name_without_a_server(tmp_path: Path) -> None:
    assert "--server-addr" in (await run("get", "model.bin", state=tmp_path)).error(2)


# -- where it shall go -------------------------------------------------------------------------------------


async def test_a_target_with_other_bytes_is_never_touched(place: Place, tmp_path: Path) -> None:
    target = tmp_path / "mine.bin"
    target.write_bytes(b"mine")
    before = target.stat()
    outcome = await run("get", "model.bin", "-o", target, *place.options, state=tmp_path)
    assert "mine.bin" in outcome.error(13)
    assert (target.read_bytes(), target.stat().st_mtime_ns) == (b"mine", before.st_mtime_ns)
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


async def test_a_target_with_the_same_bytes_is_success(
    place: Place, tmp_path: Path, settled: Settled
) -> None:
    target = tmp_path / "model.bin"
    target.write_bytes(settled(tmp_path / "source", MEDIUM).read_bytes())
    before = target.stat()
    outcome = await run("get", "model.bin", "-o", target, *place.options, state=tmp_path)
    assert (outcome.code, outcome.lines) == (0, [str(target)])
    assert target.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("/sys/model.bin", "/sys"),  # even root cannot write there
        ("/sys/no/", "/sys/no"),
        ("file/model.bin", "no directory 'file'"),
        ("file/", "file"),
        ("missing/model.bin", "no directory 'missing'"),
    ],
)
async def test_a_directory_that_cannot_be_written(
    place: Place, tmp_path: Path, output: str, says: str
) -> None:
    (tmp_path / "file").write_bytes(b"a file")
    outcome = await run("get", "model.bin", "-o", output, *place.options, state=tmp_path, cwd=tmp_path)
    assert says in outcome.error(10)
    assert (tmp_path / "file").read_bytes() == b"a file"
    assert not (tmp_path / "missing").exists()


async def test_a_state_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = await run(
        "server", "--addr", "127.0.0.1:0", "--state-dir", "file/state", state=tmp_path, cwd=tmp_path
    )
    assert "file/state" in outcome.error(10)


# -- settings and options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("server-addr = ", "config.toml"),
        ('sever-addr = "a:1"', "server-addr"),
        ('[get]\noutptu = "x"', "output"),
        ('[gte]\noutput = "x"', "get"),
        ("[server]\naddr = 5", "addr"),
        ('[server]\naddr = ["127.0.0.1:9"]', "addr"),
        ('[server]\nallow = "00"', "list"),
        ('[peer]\npush-max = "much"', "much"),
        ('pin = "00"\nno-verify-tls = true\nserver-addr = "127.0.0.1:9"', "give one"),
    ],
)
async def test_a_file_of_settings_that_makes_no_sense(tmp_path: Path, settings: str, says: str) -> None:
    path = tmp_path / "config" / "p2pnode" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(settings)
    verb = re.search(r"^\[(server|peer)\]", settings)
    arguments = [verb[1]] if verb else ["get", "x"]
    server = ["--server-addr", "127.0.0.1:9"] if arguments == ["peer"] else []
    outcome = await run(*arguments, *server, state=tmp_path, cwd=tmp_path)
    assert says in outcome.error(2)


async def test_a_file_of_settings_that_is_not_there(tmp_path: Path) -> None:
    assert "mine.toml" in (await run("--config", "mine.toml", "list", state=tmp_path)).error(2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["get", "x", "--sever-addr", "a:1"], "--server-addr"),
        (["gte"], "get"),
        (["get"], "REF"),
        (["peer"], "--server-addr"),
        (["push", "x"], "--to"),
        (["server", "--addr", "here"], "host:port"),
        (["server", "--allow", "friend"], "friend"),
        (["get", "x", "-o", "-", "--json"], "stdout"),
        (["get", "x", "--pin", NOBODY, "--no-verify-tls"], "give one"),
        (["torrent", "create", "missing.bin"], "missing.bin"),
    ],
)
async def test_a_command_line_that_makes_no_sense(tmp_path: Path, arguments: list[str], says: str) -> None:
    outcome = await run(*arguments, state=tmp_path, cwd=tmp_path)
    line = replace(outcome, stdout=b"").error(2)
    assert says in line
    assert "--help" in line


# -- two at once -------------------------------------------------------------------------------------------


async def test_a_second_process_on_one_state_directory(place: Place, tmp_path: Path) -> None:
    second_server = await run(
        "server", "--addr", "127.0.0.1:0", "--files-dir", place.state.parent / "server_files",
        state=place.state,
    )  # fmt: skip
    assert "--state-dir" in second_server.error(11)
    second_peer = await run(
        "peer", *place.options, "--files-dir", place.peer_files, state=place.state.parent / "peer"
    )
    assert "--state-dir" in second_peer.error(11)
