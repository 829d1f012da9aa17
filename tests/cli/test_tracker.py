"""The tracker as a real process: its doors, its files, its log; and `server` with the same doors."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pnode.torrent import Metainfo
from p2pnode.wire.tracker_udp import ConnectRequest, ConnectResponse, decode_response
from tests.cli.processes import Home, Running, new_home

LOOPBACK = ("--addr", "127.0.0.1")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = new_home(tmp_path_factory.mktemp("tracker"))
    seeded = home.path / "seed" / "seeded.bin"
    seeded.parent.mkdir()
    seeded.write_bytes(os.urandom(300_000))
    os.utime(seeded, (1_700_000_000, 1_700_000_000))
    return home


@pytest.fixture(scope="module")
def tracker(home: Home) -> Iterator[tuple[Running, dict[str, int], str]]:
    """The process, its ports by what is spoken there, and its node id."""
    with home.running("tracker", *LOOPBACK, "--quic", "0", "--http", "0", "--udp", "0") as running:
        node_id = running.first("listening")["node_id"]
        doors = running.first("front_ends_ready")["doors"]
        yield running, {door["language"]: door["address"][1] for door in doors}, node_id


def test_the_files_of_a_tracker_have_torrents_and_a_hello(
    home: Home, tracker: tuple[Running, dict[str, int], str]
) -> None:
    names = {path.name for path in (home.path / "seed").iterdir()}
    assert {"hello_world.txt", "hello_world.txt.torrent", "seeded.bin", "seeded.bin.torrent"} <= names


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        content: bytes = answer.read()
        return content


def counted(root: str) -> set[tuple[str, str]]:
    """What was asked so far, by language and kind: a request is counted, and logged, once its answer has left."""
    return {(one["language"], one["kind"]) for one in json.loads(read(f"{root}/stats"))["requests"]}


def logged(path: Path) -> set[tuple[str, str]]:
    """The language and kind of each request that has a line; the last one may be half written."""
    whole = path.read_text().rpartition("\n")[0]
    lines = [json.loads(line) for line in whole.splitlines()]
    return {(line["language"], line["kind"]) for line in lines if "kind" in line}


def test_it_answers_over_http_and_udp(home: Home, tracker: tuple[Running, dict[str, int], str]) -> None:
    _, ports, _ = tracker
    root = f"http://127.0.0.1:{ports['http']}"
    assert read(f"{root}/files/hello_world.txt") == b"Hello World from QUIC Server!\n"
    words = f"info_hash={'a' * 20}&peer_id={'b' * 20}&port=6881&left=0"
    assert b"8:completei1e" in read(f"{root}/announce?{words}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(20)
        asker.sendto(ConnectRequest(7).encode(), ("127.0.0.1", ports["udp"]))
        assert isinstance(decode_response(asker.recv(2048)), ConnectResponse)
    asked = {("http/1.1", "files"), ("http/1.1", "announce"), ("udp", "connect")}
    while not asked <= counted(root):
        pass
    while not asked <= logged(
        home.path / "tracker.log"
    ):  # each line is written a moment after it was counted
        pass


def test_the_torrents_name_the_tracker(home: Home, tracker: tuple[Running, dict[str, int], str]) -> None:
    metainfo = Metainfo.decode((home.path / "seed" / "seeded.bin.torrent").read_bytes())
    assert metainfo.trackers == ((f"http://127.0.0.1:{tracker[1]['http']}/announce",),)


def without(package: str, *words: str) -> list[str]:
    """The command line of a p2pnode that lacks a package."""
    program = f"import sys; sys.modules[{package!r}] = None; from p2pnode.cli.app import main; main({list(words)!r})"
    return [sys.executable, "-c", program]


def test_an_extra_that_is_missing_is_one_line_that_names_it(tmp_path: Path) -> None:
    ended = subprocess.run(
        without("hypercorn", "tracker", *LOOPBACK, "--http", "0", "--log-file", "-"),
        cwd=tmp_path,
        env=new_home(tmp_path).environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == ["p2pnode: HTTP needs hypercorn: pip install 'p2pnode[web]'"]


def test_over_quic_it_needs_no_extra(tmp_path: Path) -> None:
    with subprocess.Popen(
        without("starlette", "tracker", *LOOPBACK, "--quic", "0", "--json"),
        cwd=tmp_path,
        env=new_home(tmp_path).environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            Running(process).first("front_ends_ready")
        finally:
            process.kill()


def test_it_is_a_server_for_our_own_nodes(
    home: Home, tracker: tuple[Running, dict[str, int], str], tmp_path: Path
) -> None:
    _, ports, node_id = tracker
    server = ["--server-addr", f"127.0.0.1:{ports['quic']}", "--pin", node_id]
    elsewhere = new_home(tmp_path)
    got = elsewhere.run("get", "seeded.bin", "--wait", "-o", "got.bin", *server)
    assert got.code == 0, got.err
    assert (tmp_path / "got.bin").read_bytes() == (home.path / "seed" / "seeded.bin").read_bytes()
    address = server[1]
    assert home.run("get", "hello_world.txt", "--server-addr", address).code == 0, "its own user pins nothing"
    listed = home.run("list")
    assert "seeded.bin" in listed.out, "its own user needs no address"


def test_without_a_flag_all_doors_are_open_and_a_person_is_told_where(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "p2pnode", "tracker", "--addr", "127.53.7.1"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=new_home(tmp_path).environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = []
        try:
            for line in process.stderr:
                said.append(line)
                if line.startswith("peers join with"):
                    break
        finally:
            process.kill()
    block = [line.split(maxsplit=2)[1:] for line in said if line.startswith("  on ")]
    assert [(where, what.partition(":")[0].partition(" ")[0]) for where, what in block] == [
        ("127.53.7.1:7001", "QUIC"),
        ("127.53.7.1:7000", "TCP"),
        ("127.53.7.1:7000", "UDP"),
    ]


def test_its_certificate_stays(home: Home, tmp_path: Path) -> None:
    words = (
        "tracker",
        *LOOPBACK,
        "--quic",
        "0",
        "--seed-dir",
        str(tmp_path),
        "--state-dir",
        str(tmp_path / "s"),
    )
    pins = []
    for _ in range(2):
        with home.running(*words, "--log-file", "-") as running:
            pins.append(running.first("listening")["certificate_pin"])
            assert running.end() == 0
    assert pins[0] == pins[1]
    certificates = [path for path in (tmp_path / "s").iterdir() if path.name == "tracker.crt"]
    assert len(certificates) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_when_told(tmp_path: Path, number: int) -> None:
    with new_home(tmp_path).running("tracker", *LOOPBACK, "-q", "0") as running:
        running.first("front_ends_ready")
        assert running.end(number) == (0 if number == signal.SIGTERM else 130)


def test_a_taken_port_is_one_line(tmp_path: Path, tracker: tuple[Running, dict[str, int], str]) -> None:
    port = str(tracker[1]["quic"])
    ended = new_home(tmp_path).run("tracker", *LOOPBACK, "--quic", port, "--log-file", "-")
    assert ended.code == 6
    assert len(ended.err.splitlines()) == 1
    assert port in ended.err


def test_a_server_has_no_other_doors_unless_asked(tmp_path: Path) -> None:
    home = new_home(tmp_path)
    with home.running("server", "--addr", "127.0.0.1:0") as running:
        running.first("listening")
        assert running.end() == 0
    assert not list((tmp_path / "server_files").glob("*"))
    assert not list(tmp_path.glob("*.log"))


def test_a_server_may_be_a_tracker_too(tmp_path: Path) -> None:
    home = new_home(tmp_path)
    with home.running("server", "--addr", "127.0.0.1:0", "--quic", "--log-file", "server.log") as running:
        (door,) = running.first("front_ends_ready")["doors"]
        assert door["language"] == "quic"
        assert running.end() == 0
    assert (tmp_path / "server_files" / "hello_world.txt.torrent").exists()
    assert all(json.loads(line) for line in (tmp_path / "server.log").read_text().splitlines())
