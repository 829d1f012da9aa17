"""The seeded directory: what is made in it, what can be asked for, and that nothing outside of it ever is."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path

import pytest
import trio

from p2pnode import config
from p2pnode.errors import StorageError
from p2pnode.services import seed_torrents
from p2pnode.services.seed_files import HELLO_CONTENT, OpenedFile, SeedFiles, asked_name
from p2pnode.testing.nodes import inline_blocking
from p2pnode.torrent import Metainfo, PieceMatch
from p2pnode.wire.bencoding import decode

ANNOUNCE = "http://127.0.0.1:7000/announce"
HELLO = b"Hello World from QUIC Server!\n"

_opened: list[Path] = []
_listening = False


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if _listening and event == "open" and isinstance(arguments[0], str | bytes):
        _opened.append(Path(os.fsdecode(arguments[0])))


sys.addaudithook(_note)  # can never be removed, so it is switched


@pytest.fixture
def opened() -> Iterator[list[Path]]:
    """The paths of all opens so far; those of a name in an open directory are relative."""
    global _listening
    _opened.clear()
    _listening = True
    yield _opened
    _listening = False


def seed_files(directory: Path, announce_url: str = ANNOUNCE) -> SeedFiles:
    return SeedFiles(directory, announce_url, run_blocking=inline_blocking())


async def content(files: SeedFiles, name: str) -> bytes | None:
    found = await files.open(name)
    if found is None:
        return None
    with found:
        return await found.read(0, found.size)


# -- what is made ------------------------------------------------------------------------------------------


async def test_the_directory_and_the_hello_file_are_made(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "seed"
    await seed_files(directory).prepare()
    assert (directory / "hello_world.txt").read_bytes() == HELLO == HELLO_CONTENT
    assert len(HELLO) == 30
    assert sorted(os.listdir(directory)) == ["hello_world.txt", "hello_world.txt.torrent"]


async def test_the_hello_file_is_made_whenever_it_is_missing(tmp_path: Path) -> None:
    files = seed_files(tmp_path)
    assert await content(files, "hello_world.txt") == HELLO
    (tmp_path / "hello_world.txt").unlink()
    assert await content(files, "") == HELLO
    (tmp_path / "hello_world.txt").write_bytes(b"mine")
    await files.prepare()
    assert await content(files, "hello_world.txt") == b"mine"


async def test_one_who_asks_while_others_do_gets_the_hello_file_too(tmp_path: Path) -> None:
    async def run_blocking(function, *arguments):  # type: ignore[no-untyped-def]
        return await trio.to_thread.run_sync(function, *arguments)

    files = SeedFiles(tmp_path, ANNOUNCE, run_blocking=run_blocking)
    found: list[bytes | None] = []

    async def ask() -> None:
        found.append(await content(files, ""))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask)
    assert found == [HELLO] * 10


async def test_the_torrent_beside_a_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 200  # three pieces and a part
    (tmp_path / "data.bin").write_bytes(data)
    await seed_files(tmp_path).prepare()
    raw = (tmp_path / "data.bin.torrent").read_bytes()
    metainfo = Metainfo.decode(raw)
    assert metainfo.name == "data.bin"
    assert (metainfo.size, metainfo.piece_length, metainfo.piece_count) == (51_200, 16_384, 4)
    assert metainfo.info_hash_v1 is not None
    assert metainfo.info_hash_v2 is None
    assert metainfo.trackers == ((ANNOUNCE,),)
    assert metainfo.web_seeds == ("http://127.0.0.1:7000/files/data.bin",)  # BEP 19
    for piece in range(4):
        part = data[piece * 16_384 : (piece + 1) * 16_384]
        assert metainfo.match_piece_v1(piece, part) is PieceMatch.EXACT  # the last one is not padded


def lists_in(value: object) -> int:
    if isinstance(value, dict):
        return sum(map(lists_in, value.values()))
    return 1 if isinstance(value, list) else 0


async def test_a_torrent_has_no_list_anywhere_and_the_keys_of_bep_3(tmp_path: Path) -> None:
    await seed_files(tmp_path, "quic://[::1]:7001").prepare()
    outer = decode((tmp_path / "hello_world.txt.torrent").read_bytes())
    assert isinstance(outer, dict)
    assert lists_in(outer) == 0
    assert outer[b"announce"] == b"quic://[::1]:7001"
    info = outer[b"info"]
    assert isinstance(info, dict)
    assert set(info) == {b"name", b"length", b"piece length", b"pieces"}
    assert info[b"length"] == 30


async def test_what_gets_no_torrent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "inside").write_bytes(b"x")
    (tmp_path / ".hidden").write_bytes(b"x")
    (tmp_path / f".big.bin{config.PARTIAL_SUFFIX}").write_bytes(b"x")
    (tmp_path / "other.torrent").write_bytes(b"x")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "directory" / "inside")
    os.mkfifo(tmp_path / "fifo")
    before = set(os.listdir(tmp_path))
    await seed_files(tmp_path).prepare()
    assert set(os.listdir(tmp_path)) - before == {"hello_world.txt", "hello_world.txt.torrent"}
    assert not caplog.records


async def test_a_torrent_is_renewed_when_its_file_changes(tmp_path: Path) -> None:
    files = seed_files(tmp_path)
    (tmp_path / "x").write_bytes(b"one")
    await files.prepare()
    old = Metainfo.decode((tmp_path / "x.torrent").read_bytes())
    (tmp_path / "x").write_bytes(b"two")  # the same size
    await files.prepare()
    new = Metainfo.decode((tmp_path / "x.torrent").read_bytes())
    assert new.info_hash_v1 != old.info_hash_v1
    assert new.match_piece_v1(0, b"two") is PieceMatch.EXACT


async def test_a_torrent_is_renewed_after_a_restart(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"one")
    await seed_files(tmp_path).prepare()
    (tmp_path / "x").write_bytes(b"two")
    await seed_files(tmp_path).prepare()
    assert (
        Metainfo.decode((tmp_path / "x.torrent").read_bytes()).match_piece_v1(0, b"two") is PieceMatch.EXACT
    )


async def test_a_torrent_names_the_tracker_as_it_is_now(tmp_path: Path) -> None:
    await seed_files(tmp_path, "http://old:7000/announce").prepare()
    os.utime(tmp_path / "hello_world.txt.torrent", (2**31, 2**31))  # long after its file was changed
    await seed_files(tmp_path, "http://new:7000/announce").prepare()
    raw = (tmp_path / "hello_world.txt.torrent").read_bytes()
    assert Metainfo.decode(raw).trackers == (("http://new:7000/announce",),)


async def test_after_a_restart_only_what_may_have_changed_is_hashed(tmp_path: Path) -> None:
    for name in ("late", "soon"):
        (tmp_path / name).write_bytes(b"one")
    await seed_files(tmp_path).prepare()
    for name, after_s in (("late", 2.5), ("soon", 1.5)):
        torrent = tmp_path / f"{name}.torrent"
        torrent.write_bytes(torrent.read_bytes().replace(sha1(b"one").digest(), bytes(20)))
        changed_ns = (tmp_path / name).stat().st_ctime_ns
        os.utime(torrent, ns=(0, changed_ns + int(after_s * 1e9)))
    await seed_files(tmp_path).prepare()
    assert bytes(20) in (tmp_path / "late.torrent").read_bytes()
    assert sha1(b"one").digest() in (tmp_path / "soon.torrent").read_bytes()


async def test_the_torrent_of_somebody_else_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other"
    await seed_files(other).prepare()
    foreign = (other / "hello_world.txt.torrent").read_bytes().replace(b"7:p2pnode", b"5:other")
    (tmp_path / "right").write_bytes(HELLO)
    (tmp_path / "wrong").write_bytes(b"of another size")
    for name in ("right", "wrong"):
        (tmp_path / f"{name}.torrent").write_bytes(foreign)
    with caplog.at_level(logging.WARNING):
        await seed_files(tmp_path).prepare()
    assert (tmp_path / "right.torrent").read_bytes() == (tmp_path / "wrong.torrent").read_bytes() == foreign
    assert [record.getMessage() for record in caplog.records] == [
        "the torrent beside 'wrong', which is not ours, is of another file"
    ]


async def test_what_is_no_torrent_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"one")
    (tmp_path / "x.torrent").write_bytes(b"")  # a power cut
    await seed_files(tmp_path).prepare()
    assert Metainfo.decode((tmp_path / "x.torrent").read_bytes()).size == 3


async def test_one_file_that_cannot_be_described_does_not_stop_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "a.torrent").mkdir()
    (tmp_path / "b").write_bytes(b"x")
    (tmp_path / ("n" * 250)).write_bytes(b"x")
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "c").write_bytes(b"x")
    (tmp_path / "c.torrent").symlink_to(tmp_path / "victim")
    with caplog.at_level(logging.WARNING):
        await seed_files(tmp_path).prepare()
    assert (tmp_path / "b.torrent").is_file()
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert (tmp_path / "c.torrent").is_symlink()
    assert len(caplog.records) == 3


async def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot make"):
        await seed_files(tmp_path / "file").prepare()


async def test_files_are_looked_after_while_it_runs(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    files = seed_files(tmp_path)
    await files.prepare()
    (tmp_path / "new").write_bytes(b"x")
    os.utime(tmp_path / "new")
    (tmp_path / "hello_world.txt").unlink()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(files.run)
        await trio.sleep(config.RESCAN_INTERVAL_S * 1.5)
        assert (tmp_path / "hello_world.txt").read_bytes() == HELLO
        assert not (tmp_path / "new.torrent").exists()  # it may still be written
        nursery.cancel_scope.cancel()


async def test_files_that_are_settled_get_their_torrents_while_it_runs(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "SETTLE_S", 0)
    files = seed_files(tmp_path)
    await files.prepare()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(files.run)
        await trio.sleep(config.RESCAN_INTERVAL_S / 2)
        for data in (b"one", b"another", b"the third"):
            (tmp_path / "new").write_bytes(data)
            await trio.sleep(config.RESCAN_INTERVAL_S)
            assert Metainfo.decode((tmp_path / "new.torrent").read_bytes()).size == len(data)
        (tmp_path / "new.torrent").unlink()
        await trio.sleep(config.RESCAN_INTERVAL_S)
        assert (tmp_path / "new.torrent").exists()
        nursery.cancel_scope.cancel()


async def test_what_could_have_changed_within_one_tick_is_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_in_steps = seed_torrents.read_in_steps
    hashed: list[int] = []

    def read(fd: int, offset: int, length: int) -> Iterator[bytes]:
        hashed.append(length)
        return read_in_steps(fd, offset, length)

    monkeypatch.setattr(seed_torrents, "read_in_steps", read)
    files = seed_files(tmp_path)
    await files.prepare()
    await files.prepare()
    assert hashed == [30, 30]
    monkeypatch.setattr(config, "SETTLE_S", 0)  # as if time had passed
    await files.prepare()
    seen = len(hashed)
    await files.prepare()
    assert len(hashed) == seen


async def test_a_file_that_grows_while_it_is_hashed_gets_no_torrent_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read_in_steps = seed_torrents.read_in_steps

    def read_and_append(fd: int, offset: int, length: int) -> Iterator[bytes]:
        yield from read_in_steps(fd, offset, length)
        with (tmp_path / "x").open("ab") as file:
            file.write(b"more")

    (tmp_path / "x").write_bytes(b"one")
    with monkeypatch.context() as patched:
        patched.setattr(seed_torrents, "read_in_steps", read_and_append)
        await seed_files(tmp_path).prepare()
    assert not (tmp_path / "x.torrent").exists()
    assert "no torrent is made for 'x': it was changed while it was hashed" in caplog.text
    await seed_files(tmp_path).prepare()
    torrent = Metainfo.decode((tmp_path / "x.torrent").read_bytes())
    assert torrent.match_piece_v1(0, (tmp_path / "x").read_bytes()) is PieceMatch.EXACT


async def test_a_share_that_vanishes_is_a_warning(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    files = seed_files(tmp_path / "seed")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(files.run)
        await trio.sleep(config.RESCAN_INTERVAL_S * 1.5)
        nursery.cancel_scope.cancel()
    assert "cannot be looked after" in caplog.text
    assert await files.open("x") is None


# -- what can be asked for ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("a.txt", "a.txt"),
        ("", "hello_world.txt"),
        ("dir/", "hello_world.txt"),
        ("/a/b/c.txt", "c.txt"),
        (r"E:\x\seed\c.txt", "c.txt"),
        (r"..\seed/c.txt", "c.txt"),
        ("..%2fc.txt", "..%2fc.txt"),
    ],
)
def test_the_last_component_is_meant(asked: str, meant: str) -> None:
    assert asked_name(asked) == meant


async def test_a_file_is_read_in_ranges(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    found = await seed_files(tmp_path).open(r"seed\x")
    assert found is not None
    with found:
        assert (found.name, found.size) == ("x", 10)
        assert found.modified_ns == (tmp_path / "x").stat().st_mtime_ns
        assert await found.read(3, 4) == b"3456"
        assert await found.read(0, 10) == b"0123456789"
        assert await found.read(10, 0) == b""


async def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    found = await seed_files(tmp_path).open("x")
    assert found is not None
    with found:
        os.truncate(tmp_path / "x", 5)
        with pytest.raises(StorageError, match="shorter"):
            await found.read(3, 4)


async def test_a_device_that_fails_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    fd = os.open(tmp_path, os.O_RDONLY)  # reading a directory fails as a broken disk does
    with (
        OpenedFile(fd, "x", inline_blocking()) as found,
        pytest.raises(StorageError, match="cannot read 'x'"),
    ):
        await found.read(0, 1)


async def test_hard_links_and_torrents_can_be_asked_for(tmp_path: Path) -> None:
    files = seed_files(tmp_path)
    await files.prepare()
    os.link(tmp_path / "hello_world.txt", tmp_path / "again")
    assert await content(files, "again") == HELLO
    raw = await content(files, "hello_world.txt.torrent")
    assert raw == (tmp_path / "hello_world.txt.torrent").read_bytes()


async def test_the_names_are_those_that_can_be_opened(tmp_path: Path) -> None:
    files = seed_files(tmp_path)
    await files.prepare()
    (tmp_path / "directory").mkdir()
    (tmp_path / ".hidden").write_bytes(b"")
    (tmp_path / "link").symlink_to("hello_world.txt")
    (tmp_path / os.fsdecode(b"\xff")).write_bytes(b"")
    assert await files.names() == ["hello_world.txt", "hello_world.txt.torrent"]
    for name in ("directory", ".hidden", "link", os.fsdecode(b"\xff")):
        assert await files.open(name) is None


async def test_a_file_that_may_not_be_opened_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"")
    real_open = os.open

    def open_refused(path, *arguments, **keywords):  # type: ignore[no-untyped-def]
        if path == "x":
            raise PermissionError(13, "Permission denied")
        return real_open(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", open_refused)
    with pytest.raises(StorageError, match="cannot open 'x': permission denied"):
        await seed_files(tmp_path).open("x")


OUTSIDE = [
    "../secret",
    "..%2fsecret",
    "..%2Fsecret",
    "%2e%2e/secret",
    r"..\secret",
    "..%5csecret",
    r"..%5c..%5csecret",
    "//etc/passwd",
    "/etc/passwd",
    "....//etc/passwd",
    r"C:\etc\passwd",
    r"\\?\C:\secret",
    "secret\0",
    "link\0.txt",
    "\0",
    ".",
    "..",
    "../",
    "link",
    "directory/inside",
    "link_to_directory/inside",
    "n" * 5000,
    "\ud800",
    "/dev/zero",
    "fifo",
    "directory",
]


@pytest.mark.parametrize("name", OUTSIDE)
async def test_C2_no_name_leads_outside(name: str, tmp_path: Path, opened: list[Path]) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    seed = tmp_path / "seed"
    (seed / "directory").mkdir(parents=True)
    (seed / "directory" / "inside").write_bytes(b"secret")
    (seed / "link").symlink_to(tmp_path / "secret")
    (seed / "link_to_directory").symlink_to(tmp_path)
    os.mkfifo(seed / "fifo")
    files = seed_files(seed)
    opened.clear()  # what the test itself wrote
    found = await content(files, name)
    assert found in (None, HELLO)  # `../` asks for nothing, which is the hello file
    assert (found is None) == (asked_name(name) != "hello_world.txt")
    for path in opened:
        assert path == seed or (len(path.parts) == 1 and path.name not in ("..", ".")), path


async def test_a_torrent_of_another_web_seed_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "a b.bin").write_bytes(b"data")
    for address, web_seeds in (
        ("http://h:1/announce", ("http://h:1/files/a%20b.bin",)),
        ("https://h:2/passkey/announce", ("https://h:2/files/a%20b.bin",)),
        ("udp://h:3/announce", ()),
    ):
        await seed_files(tmp_path, address).prepare()
        assert Metainfo.decode((tmp_path / "a b.bin.torrent").read_bytes()).web_seeds == web_seeds


# -- what the system refuses -------------------------------------------------------------------------------


async def test_a_directory_that_cannot_be_listed_for_want_of_descriptors_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = seed_files(tmp_path)
    await files.prepare()

    def refuse(_directory: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="cannot list"):
        seed_torrents.SeedTorrents(tmp_path, ANNOUNCE).renew(settled_only=True)


async def test_a_file_with_a_long_name_gets_its_torrent(tmp_path: Path) -> None:
    name = "n" * 240
    (tmp_path / name).write_bytes(b"content")
    await seed_files(tmp_path).prepare()
    assert Metainfo.decode((tmp_path / f"{name}.torrent").read_bytes()).size == 7
