"""The verbs with real processes, real UDP and real certificates: what a person types, and what comes back."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.processes import PROJECT, Home, Running, new_home

MODEL = os.urandom(3_000_000)


@dataclass(frozen=True)
class Place:
    """A server with files, a peer of it, and the homes they and others run in."""

    home: Home  # of the server's user
    elsewhere: Home  # of somebody who knows the server only by its address
    server: Running
    peer: Running
    address: str
    node_id: str

    @property
    def pinned(self) -> list[str]:
        return ["--server-addr", self.address, "--pin", self.node_id]


def settled(path: Path, data: bytes) -> None:
    """Write a file that has not changed for a while, so that it is shared at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (1_700_000_000, 1_700_000_000))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = new_home(tmp_path_factory.mktemp("server side"))
    elsewhere = new_home(tmp_path_factory.mktemp("elsewhere"))
    settled(home.path / "server_files" / "model.bin", MODEL)
    settled(home.path / "server_files" / "photos" / "a.jpg", b"a" * 50_000)
    settled(home.path / "server_files" / "photos" / "deep" / "b.jpg", b"b")
    subprocess.run([str(PROJECT / "generate_certs.sh")], cwd=home.path, check=True, capture_output=True)
    with home.running("server", "--cert", "server.crt", "--addr", "127.0.0.1:0") as server:
        listening = server.first("listening")
        for _ in range(2):
            server.first("file_shared")
        address = f"127.0.0.1:{listening['address'][1]}"
        certificate = ["--server-cert", str(home.path / "server.crt")]
        with home.running("peer", "--server-addr", address, *certificate, "--name", "gpu-1") as peer:
            peer.first("server_connected")
            yield Place(home, elsewhere, server, peer, address, listening["node_id"])


def test_get_finds_the_server_that_runs_here(place: Place) -> None:
    got = place.home.run("get", "model.bin", "-o", "got/")
    assert (got.code, got.out) == (0, "got/model.bin\n"), got.err
    assert (place.home.path / "got" / "model.bin").read_bytes() == MODEL


def test_get_from_elsewhere_with_a_pin_resumes_nothing_when_all_is_there(place: Place) -> None:
    for _ in range(2):
        got = place.elsewhere.run("get", "model.bin", *place.pinned, "-o", "copy.bin", "--json")
        assert got.code == 0, got.err
    assert (place.elsewhere.path / "copy.bin").read_bytes() == MODEL
    (completed,) = [event for event in got.events if event["event"] == "fetch_completed"]
    assert completed["bytes_fetched"] == 0


def test_get_never_replaces_other_bytes(place: Place) -> None:
    target = place.elsewhere.path / "mine.bin"
    target.write_bytes(b"mine")
    got = place.elsewhere.run("get", "model.bin", *place.pinned, "-o", "mine.bin")
    assert got.code == 13
    assert "mine.bin" in got.err
    assert target.read_bytes() == b"mine"


def test_get_writes_to_stdout_only_what_is_verified(place: Place) -> None:
    command = [sys.executable, "-m", "p2pnode", "get", "model.bin", *place.pinned, "-o", "-"]
    done = subprocess.run(
        command, cwd=place.elsewhere.path, env=place.elsewhere.environment, capture_output=True, check=True
    )
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(MODEL).digest()


def test_get_takes_a_directory_as_one(place: Place) -> None:
    got = place.elsewhere.run("get", "photos", *place.pinned)
    assert (got.code, got.out) == (0, "photos\n"), got.err
    assert (place.elsewhere.path / "photos" / "deep" / "b.jpg").read_bytes() == b"b"
    to_stdout = place.elsewhere.run("get", "photos", *place.pinned, "-o", "-")
    assert to_stdout.code == 10
    assert "is a directory" in to_stdout.err


def test_get_takes_an_id_or_a_torrent_file(place: Place) -> None:
    (item,) = [e for e in place.home.run("list", "--json").events if e["name"] == "model.bin"]
    by_id = place.elsewhere.run("get", item["file_id"], *place.pinned, "-o", "by-id.bin")
    assert by_id.code == 0, by_id.err
    made = place.home.run(
        "torrent", "create", "server_files/model.bin", "-o", str(place.elsewhere.path / "m.torrent")
    )
    assert made.code == 0, made.err
    by_torrent = place.elsewhere.run("get", "m.torrent", *place.pinned, "-o", "by-torrent.bin")
    assert by_torrent.code == 0, by_torrent.err
    assert (place.elsewhere.path / "by-id.bin").read_bytes() == MODEL
    assert (place.elsewhere.path / "by-torrent.bin").read_bytes() == MODEL


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["modle.bin"], 3, "model.bin"),
        (["model.bin", "-o", "-", "--json"], 2, "stdout"),
        (["p2pnode1aaaa"], 12, "ticket"),
        (["magnet:?dn=x"], 12, "magnet"),
    ],
)
def test_get_says_in_one_line_what_is_wrong(place: Place, arguments: list[str], code: int, says: str) -> None:
    got = place.elsewhere.run("get", *arguments, *place.pinned)
    assert got.code == code, got.err
    assert says in got.err.splitlines()[-1]


def test_a_name_without_any_server_is_a_usage_error(place: Place) -> None:
    got = place.elsewhere.run("get", "model.bin")
    assert got.code == 2
    assert (
        got.err == "p2pnode: a server must say who has it: give --server-addr, a ticket, --lan or --tracker\n"
    )


def test_a_server_that_is_not_the_pinned_one_is_refused(place: Place) -> None:
    got = place.elsewhere.run("get", "model.bin", "--server-addr", place.address, "--pin", "00" * 32)
    assert got.code == 5
    assert place.node_id in got.err
    unknown = place.elsewhere.run("get", "model.bin", "--server-addr", place.address)
    assert unknown.code == 5  # the system's roots do not know it


def test_giving_up_verification_is_said_loudly_each_time(place: Place) -> None:
    for _ in range(2):
        listed = place.elsewhere.run("get", "model.bin", "--server-addr", place.address, "--no-verify-tls")
        assert listed.code == 0
        assert "warning: --no-verify-tls" in listed.err
        assert place.node_id in listed.err


@pytest.mark.parametrize("address", ["no-such-host.invalid:8080", "127.0.0.1", "127.0.0.1:0", "[::1:8080"])
def test_an_address_that_leads_nowhere_is_a_network_error(place: Place, address: str) -> None:
    got = place.elsewhere.run("get", "model.bin", "--server-addr", address, "--pin", place.node_id)
    assert got.code == 6
    assert address.partition(":")[0] in got.err.splitlines()[-1]


def test_a_get_keeps_to_its_limit(place: Place) -> None:
    got = place.elsewhere.run(
        "get", "model.bin", *place.pinned, "-o", "slowly.bin", "--limit-down", "1MB", "--json"
    )
    assert got.code == 0, got.err
    assert (place.elsewhere.path / "slowly.bin").read_bytes() == MODEL
    (completed,) = [event for event in got.events if event["event"] == "fetch_completed"]
    assert completed["seconds"] >= 0.95 * len(MODEL) / 1_000_000
    assert completed["limit_waited_s"] > 0


def test_list_shows_what_the_server_knows(place: Place) -> None:
    lines = [line.split("\t") for line in place.home.run("list").out.splitlines()]
    assert [line[0] for line in lines][:1] == ["model.bin"]
    assert "photos/" in [line[0] for line in lines]
    (model,) = place.home.run("list", "mod", "--json").events
    assert (model["event"], model["name"], model["size"]) == ("file", "model.bin", len(MODEL))
    assert model["file_id"] == lines[0][3]
    far = place.elsewhere.run("list", "mod", *place.pinned, "--json")
    assert far.events[-1]["file_id"] == model["file_id"]


def test_peers_are_for_the_operator_alone(place: Place) -> None:
    near = place.home.run("peers")
    assert near.out.startswith("gpu-1\tpeer\t")
    (peer,) = [e for e in place.home.run("peers", "--json").events if e["name"] == "gpu-1"]
    assert peer["event"] == "peer"
    far = place.elsewhere.run("peers", *place.pinned)
    assert far.code == 8


def test_push_reaches_the_peer_and_shows_what_it_did(place: Place) -> None:
    pushed = place.home.run("push", "model.bin", "--to", "gpu-1")
    assert pushed.code == 0, pushed.err
    assert pushed.out.split("\t")[:2] == ["gpu-1", "complete"]
    assert (place.home.path / "files" / "model.bin").read_bytes() == MODEL
    again = place.home.run("push", "model.bin", "--to", "all", "--json")
    assert again.code == 0, again.err
    assert again.events[-1]["event"] == "push_report"
    assert again.events[-1]["state"] == "complete"


@pytest.mark.parametrize(("reference", "target"), [("missing.bin", "all"), ("model.bin", "nobody")])
def test_push_of_nothing_or_to_nobody_is_not_found(place: Place, reference: str, target: str) -> None:
    assert place.home.run("push", reference, "--to", target).code == 3


def test_share_prints_the_command_that_fetches_it(place: Place, tmp_path: Path) -> None:
    sharer, getter = new_home(tmp_path / "a"), new_home(tmp_path / "b")
    settled(sharer.path / "movie.mkv", MODEL)
    with sharer.running("share", "movie.mkv") as sharing:
        ticket = sharing.first("ticket")["ticket"]
        got = getter.run("get", ticket)
        assert (got.code, got.out) == (0, "movie.mkv\n"), got.err
        assert sharing.end(signal.SIGINT) == 130
    assert (getter.path / "movie.mkv").read_bytes() == MODEL


def test_share_through_a_server_takes_stdin_too(place: Place, tmp_path: Path) -> None:
    sharer = new_home(tmp_path / "a")
    with sharer.running("share", "-", "--name", "src.tar", *place.pinned, stdin=b"tar" * 1000) as sharing:
        ticket = sharing.first("ticket")["ticket"]
        assert shlex.quote(ticket) == ticket
        got = place.elsewhere.run("get", ticket)
        assert got.code == 0, got.err
        assert sharing.end() == 0
    assert (place.elsewhere.path / "src.tar").read_bytes() == b"tar" * 1000


def test_a_get_that_waits_can_be_interrupted(place: Place) -> None:
    with place.elsewhere.running("get", "not-yet.bin", "--wait", *place.pinned) as waiting:
        waiting.first("server_connected")
        assert waiting.end(signal.SIGINT) == 130
        assert "run the same command again to resume" in waiting.talk()


def test_a_second_process_on_one_state_gets_one_line(place: Place) -> None:
    second = place.home.run("server", "--addr", "127.0.0.1:0")
    assert second.code == 11
    assert second.err.count("\n") == 1
    assert "--state-dir" in second.err


def test_a_port_in_use_is_one_line(place: Place) -> None:
    port = place.address.partition(":")[2]
    second = place.elsewhere.run("server", "--addr", f"127.0.0.1:{port}")
    assert second.code == 6
    assert port in second.err
    assert second.err.count("\n") == 1


def test_bad_credentials_are_one_line(place: Place) -> None:
    missing = place.elsewhere.run("server", "--cert", "missing.crt")
    assert missing.code == 5
    assert "missing.crt" in missing.err
    assert missing.err.count("\n") == 1


def test_a_service_ends_with_0_when_its_supervisor_stops_it(place: Place, tmp_path: Path) -> None:
    home = new_home(tmp_path / "c")
    with home.running("server", "--addr", "127.0.0.1:0") as server:
        server.first("listening")
        assert (home.path / "server_files").is_dir()
        assert server.end() == 0
    assert list((home.path / "state").rglob("control.sock")) == []
