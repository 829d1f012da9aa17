"""What a person types, and what comes back: each verb against a real server and a real peer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from p2pnode import __version__
from p2pnode.cli.app import VERBS
from p2pnode.node.node import Node
from p2pnode.node.offers import Offer
from p2pnode.node.server_reference import ServerReference
from p2pnode.quic import CertificateTrust
from p2pnode.wire.communication import FileAnnounce
from tests.end_to_end.conftest import HOSTILE_NAME, HOSTILE_NAME_SHOWN, MEDIUM, SMALL, Place, Served
from tests.support.processes import run

Settled = Callable[[Path, int], Path]
UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f\u202e]|\n\\u202e"
)  # but for tabs and newlines, which divide


async def file_id_of(place: Place, name: str) -> str:
    listed = await run("list", name, "--json", state=place.state)
    return str(listed.only("file")["file_id"])


def bytes_of(place: Place, name: str) -> bytes:
    return (place.state.parent / "server_files" / name).read_bytes()


# -- get ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "lands"),
    [
        ([], "model.bin"),
        (["-o", "copy.bin"], "copy.bin"),
        (["-o", "new/sub/"], "new/sub/model.bin"),
        (["-o", "there"], "there/model.bin"),
    ],
)
async def test_get_puts_it_where_it_is_told(
    place: Place, tmp_path: Path, output: list[str], lands: str
) -> None:
    (tmp_path / "there").mkdir()
    got = await run("get", "model.bin", *output, *place.options, state=tmp_path, cwd=tmp_path)
    assert (got.code, got.lines) == (0, [lands]), got.said
    assert (tmp_path / lands).read_bytes() == bytes_of(place, "model.bin")


async def test_get_writes_to_stdout_what_is_verified_and_nothing_else(place: Place, tmp_path: Path) -> None:
    got = await run("get", "model.bin", "-o", "-", *place.options, state=tmp_path, cwd=tmp_path)
    assert got.code == 0, got.said
    assert got.stdout == bytes_of(place, "model.bin")
    assert not (tmp_path / "model.bin").exists()


async def test_get_takes_a_directory_as_a_tree(place: Place, tmp_path: Path) -> None:
    got = await run("get", "photos", *place.options, state=tmp_path, cwd=tmp_path)
    assert (got.code, got.lines) == (0, ["photos"]), got.said
    for name in ("photos/a.jpg", "photos/deep/b.jpg"):
        assert (tmp_path / name).read_bytes() == bytes_of(place, name)
    assert sum(len(files) for _, _, files in os.walk(tmp_path / "photos")) == 2


async def test_get_takes_an_id(place: Place, tmp_path: Path) -> None:
    file_id = await file_id_of(place, "model.bin")
    got = await run("get", file_id.upper(), "-o", "by-id", *place.options, state=tmp_path, cwd=tmp_path)
    assert got.code == 0, got.said
    assert (tmp_path / "by-id").read_bytes() == bytes_of(place, "model.bin")


@pytest.mark.parametrize("version", [[], ["--v2"], ["--piece-length", "256K"]])
async def test_get_takes_a_torrent_file_or_its_magnet_link(
    place: Place, tmp_path: Path, settled: Settled, version: list[str]
) -> None:
    """Whatever its piece length: the file's root in the Merkle tree is the same."""
    source = settled(tmp_path / "source" / "model.bin", MEDIUM)
    made = await run("torrent", "create", source, *version, state=tmp_path, cwd=tmp_path)
    assert (made.code, made.lines) == (0, ["model.bin.torrent"]), made.said
    got = await run("get", made.lines[0], *place.options, state=tmp_path, cwd=tmp_path)
    assert (got.code, got.lines) == (0, ["model.bin"]), got.said
    assert (tmp_path / "model.bin").read_bytes() == source.read_bytes()


async def test_get_takes_a_magnet_link(place: Place, tmp_path: Path) -> None:
    magnet = f"magnet:?xt=urn:btmh:1220{await file_id_of(place, 'model.bin')}"
    got = await run("get", magnet, *place.options, state=tmp_path, cwd=tmp_path)
    assert (got.code, got.lines) == (0, ["model.bin"]), got.said
    assert (tmp_path / "model.bin").read_bytes() == bytes_of(place, "model.bin")


async def test_get_finds_the_server_of_this_machine_or_in_the_settings(place: Place, tmp_path: Path) -> None:
    near = await run("get", "model.bin", state=place.state, cwd=tmp_path)
    assert near.code == 0, near.said
    settings = tmp_path / "config" / "p2pnode" / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'server-addr = "{place.address}"\npin = "{"00" * 32}"\n')
    by_file = await run("get", "model.bin", state=tmp_path, cwd=tmp_path)
    assert place.node_id in by_file.error(5)
    by_both = await run("get", "model.bin", state=tmp_path, cwd=tmp_path, env={"P2PNODE_PIN": place.node_id})
    assert by_both.code == 0, by_both.said


async def test_get_in_json_tells_what_happens(place: Place, tmp_path: Path) -> None:
    got = await run("--json", "get", "model.bin", *place.options, state=tmp_path, cwd=tmp_path)
    assert got.only("server_connected")["node_id"] == place.node_id
    started, completed = got.only("fetch_started"), got.only("fetch_completed")
    assert started["bytes_resumed"] == 0
    assert (completed["name"], completed["size"]) == ("model.bin", MEDIUM)
    assert completed["sources"] == {place.node_id: MEDIUM}
    assert completed["target"] == "model.bin"
    assert got.said == ""


# -- list, peers -------------------------------------------------------------------------------------------


async def test_list_has_a_line_for_each_file(place: Place, tmp_path: Path) -> None:
    listed = await run("list", *place.options, state=tmp_path)
    rows = [line.split("\t") for line in listed.lines]
    names = [row[0] for row in rows]
    assert names == sorted(names)
    assert sorted(names) == sorted(["ice_[31m__gpj.bin", "model.bin", "photos/", "twin.bin", "twin.bin"])
    [model] = [row for row in rows if row[0] == "model.bin"]
    assert model[1:] == ["1.4 MiB", "1", await file_id_of(place, "model.bin")]


async def test_list_in_json_and_by_prefix(place: Place, tmp_path: Path) -> None:
    listed = await run("list", "pho", "--json", state=place.state)
    [photos] = listed.events
    assert photos["event"] == "file"
    assert (photos["name"], photos["size"], photos["is_directory"]) == ("photos", 2 * SMALL, True)
    assert (await run("list", "nothing", state=place.state)).lines == []


async def test_list_of_a_peer_shows_what_it_offers_itself(place: Place, tmp_path: Path) -> None:
    options = ["--server-addr", place.peer_address, "--pin", place.peer_id]
    listed = await run("list", *options, state=tmp_path)
    assert [line.split("\t")[0] for line in listed.lines] == ["ice_[31m__gpj.bin", "twin.bin"]


async def test_peers_are_listed_for_their_operator(place: Place) -> None:
    [row] = [line.split("\t") for line in (await run("peers", state=place.state)).lines if "gpu-1" in line]
    assert (row[0], row[1], row[2], row[-1]) == ("gpu-1", "peer", "2", place.peer_id)
    peer = (await run("peers", "--json", state=place.state)).events
    assert place.peer_id in {event["node_id"] for event in peer if event["event"] == "peer"}


# -- names that others chose -------------------------------------------------------------------------------


async def test_C4_a_hostile_name_on_our_own_disk_is_offered_as_a_harmless_one(
    place: Place, tmp_path: Path
) -> None:
    assert (place.peer_files / HOSTILE_NAME).exists()
    got = await run("get", "ice_[31m__gpj.bin", "-o", "here/", *place.options, state=tmp_path, cwd=tmp_path)
    assert (got.code, got.lines) == (0, ["here/ice_[31m__gpj.bin"]), got.said


class Misnamed(Offer):
    """An offer that lies about its name."""

    def message(self) -> FileAnnounce:
        return msgspec.structs.replace(super().message(), name=HOSTILE_NAME)


async def test_C4_hostile_names_that_a_node_announces_are_escaped_wherever_they_are_shown(
    server: Served, tmp_path: Path, settled: Settled
) -> None:
    reference = ServerReference(server.address, CertificateTrust(server.certificate))
    node = Node(server=reference)
    node._name = HOSTILE_NAME  # our own node refuses it; one that is not ours says what it likes
    async with node:
        shared = await node.share(settled(tmp_path / "source.bin", SMALL))
        await node.wait_for_server()
        assert node._announcer is not None
        node._announcer.announce(Misnamed(shared.metainfo, shared.store.have()))
        while HOSTILE_NAME not in {file.name for file in await node.list_files()}:
            pass  # the announce is on its way
        get = ["get", "-o", tmp_path / "target" / "", *server.options]
        operator = tmp_path / "server"
        outcomes = {
            "list": await run("list", state=operator),
            "peers": await run("peers", state=operator),
            "near": await run(*get, "icegpj.bin", state=tmp_path),
            "missing": await run(*get, "no" + HOSTILE_NAME, state=tmp_path),
            "get": await run(*get, HOSTILE_NAME, state=tmp_path),
            "push": await run("push", HOSTILE_NAME, "--to", "nobody" + HOSTILE_NAME, state=operator),
        }
    for name, outcome in outcomes.items():
        assert not UNPRINTABLE.search(outcome.out + outcome.said), (name, outcome)
    for name in ("list", "peers"):
        assert HOSTILE_NAME_SHOWN in outcomes[name].out
    for name in ("near", "missing", "push"):
        assert HOSTILE_NAME_SHOWN in outcomes[name].error(3).replace("\\\\", "\\")  # quoted, or as it is


# -- torrent -----------------------------------------------------------------------------------------------


async def test_torrent_files_are_made_shown_and_verified(tmp_path: Path, settled: Settled) -> None:
    source = settled(tmp_path / "data" / "model.bin", MEDIUM)

    async def torrent(*arguments: str | Path) -> list[str]:
        outcome = await run("torrent", *arguments, state=tmp_path, cwd=tmp_path)
        assert outcome.code == 0, outcome.said
        return outcome.lines

    tracker = "udp://tracker.example.org:6969"
    assert await torrent("create", source, "-o", "m.torrent", "--tracker", tracker) == ["m.torrent"]
    shown = "\n".join(await torrent("show", "m.torrent"))
    assert "model.bin" in shown
    assert tracker in shown
    [verified] = await torrent("verify", "m.torrent", source)
    assert "everything is right" in verified
    [magnet] = await torrent("magnet", "m.torrent")
    v1, v2 = re.findall(r"info hash v[12]\s+([0-9a-f]+)", shown)
    assert f"xt=urn:btih:{v1}" in magnet
    assert f"xt=urn:btmh:1220{v2}" in magnet

    copy = tmp_path / "model.bin"
    copy.write_bytes(source.read_bytes()[:-1] + b"!")
    bad = await run("torrent", "verify", "m.torrent", copy, state=tmp_path, cwd=tmp_path)
    assert bad.code == 12
    assert "bad pieces" in bad.out
    there = await run("torrent", "create", source, "-o", "m.torrent", state=tmp_path, cwd=tmp_path)
    assert "m.torrent" in there.error(13)


# -- the program itself ------------------------------------------------------------------------------------


async def test_version_and_help(tmp_path: Path) -> None:
    assert (await run("--version", state=tmp_path)).lines == [f"p2pnode {__version__}"]
    shown = await run("--help", state=tmp_path)
    assert (shown.code, shown.said) == (0, "")
    assert all(f"\n  {verb} " in shown.out for verb in VERBS)


def test_help_loads_nothing_that_is_slow_to_load() -> None:
    # Measured coverage comes into every process, and brings half of the standard library along.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "p2pnode", "--help"],
        capture_output=True,
        check=True,
        env=environment,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert "p2pnode.cli.app" in loaded
    assert not loaded & {
        "aioquic",
        "cryptography",
        "msgspec",
        "msgpack",
        "rich",
        "trio",
        "sqlite3",
        "asyncio",
    }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_is_a_script_for_the_shell(tmp_path: Path, shell: str) -> None:
    script = await run("completion", shell, state=tmp_path)
    assert script.code == 0
    assert "_P2PNODE_COMPLETE" in script.out


async def test_completion_completes_verbs_and_options(tmp_path: Path) -> None:
    async def complete(words: str, number: int) -> set[str]:
        environment = {
            "_P2PNODE_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(number),
        }
        outcome = await run(state=tmp_path, env=environment)
        return {line.partition(",")[2] for line in outcome.lines}

    assert await complete("p2pnode pee", 1) == {"peer", "peers"}
    assert "--server-addr" in await complete("p2pnode get --server", 2)
