from __future__ import annotations

from pathlib import Path

import pytest

from p2pnode.storage import hash_path
from p2pnode.torrent import Magnet
from tests.cli.conftest import P2PNode


@pytest.fixture(autouse=True)
def in_own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def tree() -> Path:
    path = Path("photos")
    (path / "deep").mkdir(parents=True)
    (path / "a.jpg").write_bytes(b"a" * 40_000)
    (path / "deep" / "b.jpg").write_bytes(b"b" * 70_000)
    return path


def damage(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("flags", "has_v1", "has_v2"), [([], True, True), (["--v1"], True, False), (["--v2"], False, True)]
)
def test_what_is_created_can_be_shown_and_verifies(
    p2pnode: P2PNode, flags: list[str], has_v1: bool, has_v2: bool
) -> None:
    tree()
    created = p2pnode("torrent", "create", "photos", "--tracker", "udp://t.example.org:1", *flags)
    assert (created.code, created.out) == (0, "photos.torrent\n")
    (shown,) = p2pnode("torrent", "show", "photos.torrent", "--json").events
    assert (shown["info_hash_v1"] is not None, shown["info_hash_v2"] is not None) == (has_v1, has_v2)
    assert shown["name"] == "photos"
    assert shown["size"] == 110_000
    assert shown["piece_length"] == 16384
    assert shown["pieces"] in (7, 8)  # v1 alone does not begin each file at a piece
    assert shown["private"] is False
    assert shown["trackers"] == [["udp://t.example.org:1"]]
    assert shown["web_seeds"] == []
    assert shown["files"] == [{"path": "a.jpg", "size": 40_000}, {"path": "deep/b.jpg", "size": 70_000}]
    assert p2pnode("torrent", "verify", "photos.torrent", "photos").code == 0
    assert p2pnode("torrent", "verify", "photos.torrent", ".").code == 0


@pytest.mark.parametrize(
    ("flags", "is_file_id"),
    [
        (["--v2"], True),
        (["--v2", "--tracker", "udp://t.example.org:1", "--comment", "hi"], True),
        (["--v2", "--piece-length", "1M"], False),
        (["--v2", "--private"], False),
        ([], False),
    ],
)
@pytest.mark.parametrize("name", ["photos", "photos/a.jpg"])
def test_which_magnet_link_get_can_fetch(
    p2pnode: P2PNode, name: str, flags: list[str], is_file_id: bool
) -> None:
    tree()
    assert p2pnode("torrent", "create", name, "-o", "x.torrent", *flags).code == 0
    magnet = Magnet.parse(p2pnode("torrent", "magnet", "x.torrent").out.strip())
    assert (magnet.info_hash_v2 == hash_path(Path(name)).file_id) is is_file_id


def test_what_was_asked_for_is_in_it(p2pnode: P2PNode) -> None:
    Path("x").write_bytes(b"x" * 100)
    flags = ["--private", "--piece-length", "1M", "--web-seed", "https://w.example.org/x", "--comment", "hi"]
    p2pnode("torrent", "create", "x", "-o", "y.torrent", *flags)
    (shown,) = p2pnode("torrent", "show", "y.torrent", "--json").events
    assert shown["private"] is True
    assert shown["piece_length"] == 1 << 20
    assert shown["web_seeds"] == ["https://w.example.org/x"]
    text = p2pnode("torrent", "show", "y.torrent").out
    for line in (
        "name          x",
        "private       yes",
        "web seed      https://w.example.org/x",
        "comment       hi",
    ):
        assert line in text
    assert shown["info_hash_v2"] in text


def test_names_bad_pieces_and_files(p2pnode: P2PNode) -> None:
    tree()
    p2pnode("torrent", "create", "photos", "--v2")
    damage(Path("photos/deep/b.jpg"), 20_000)
    damage(Path("photos/deep/b.jpg"), 40_000)
    Path("photos/a.jpg").unlink()
    found = p2pnode("torrent", "verify", "photos.torrent", "photos")
    assert found.code == 12
    assert "a.jpg: missing" in found.out
    assert "deep/b.jpg: " in found.out
    assert "bad pieces: 0-2, 4-5" in found.out
    assert found.err == "p2pnode: 'photos' is not what 'photos.torrent' says\n"
    as_json = p2pnode("torrent", "verify", "photos.torrent", "photos", "--json")
    assert as_json.code == 12
    verified, error = as_json.events
    assert verified["ok"] is False
    assert verified["bad_pieces"] == [0, 1, 2, 4, 5]
    assert set(verified["bad_files"]) == {"a.jpg", "deep/b.jpg"}
    assert (error["event"], error["exit_code"]) == ("error", 12)


def test_a_hash_of_a_padded_last_piece_is_taken_with_a_warning(p2pnode: P2PNode) -> None:
    Path("x").write_bytes(b"x" * 20_000)
    p2pnode("torrent", "create", "x", "--v1", "-o", "short.torrent")
    Path("x").write_bytes(b"x" * 20_000 + bytes(2 * 16384 - 20_000))
    p2pnode("torrent", "create", "x", "--v1", "-o", "long.torrent")
    # What programs that pad make: the hashes of the long file, the length of the short one.
    padded = Path("long.torrent").read_bytes().replace(b"6:lengthi32768e", b"6:lengthi20000e")
    Path("padded.torrent").write_bytes(padded)
    Path("x").write_bytes(b"x" * 20_000)
    found = p2pnode("torrent", "verify", "padded.torrent", "x")
    assert found.code == 0
    assert "zeros" in found.err


def test_the_magnet_link_leads_back_to_it(p2pnode: P2PNode) -> None:
    Path("x").write_bytes(b"x" * 100)
    p2pnode("torrent", "create", "x", "--tracker", "udp://t.example.org:1")
    (shown,) = p2pnode("torrent", "show", "x.torrent", "--json").events
    magnet = Magnet.parse(p2pnode("torrent", "magnet", "x.torrent").out.strip())
    assert magnet.info_hash_v1 == bytes.fromhex(shown["info_hash_v1"])
    assert magnet.info_hash_v2 == bytes.fromhex(shown["info_hash_v2"])
    assert magnet.trackers == ("udp://t.example.org:1",)
    assert p2pnode("torrent", "magnet", "x.torrent", "--json").events[0]["magnet"] == str(magnet)


def test_never_writes_over_what_is_there(p2pnode: P2PNode) -> None:
    Path("x").write_bytes(b"x")
    Path("x.torrent").write_bytes(b"precious")
    assert p2pnode("torrent", "create", "x").code == 13
    assert Path("x.torrent").read_bytes() == b"precious"
    assert p2pnode("torrent", "create", "x", "-o", "missing/x.torrent").code == 10


def test_both_versions_need_no_flag(p2pnode: P2PNode) -> None:
    Path("x").write_bytes(b"x")
    outcome = p2pnode("torrent", "create", "x", "--v1", "--v2")
    assert outcome.code == 2
    assert "default" in outcome.err


def test_creation_can_be_watched_by_a_program(p2pnode: P2PNode) -> None:
    Path("x").write_bytes(b"x")
    (created,) = p2pnode("torrent", "create", "x", "--json").events
    assert created["event"] == "torrent_created"
    assert created["path"] == "x.torrent"
    assert len(created["info_hash_v2"]) == 64


def test_C4_names_in_a_torrent_are_escaped(p2pnode: P2PNode) -> None:
    name = "a\u200fb"
    Path(name).write_bytes(b"x")
    p2pnode("torrent", "create", name, "-o", "y.torrent")
    assert "\u200f" not in p2pnode("torrent", "show", "y.torrent").out


@pytest.mark.parametrize(
    ("content", "code"), [(None, 3), (b"", 12), (b"not a torrent", 12), (b"d4:infodee", 12)]
)
def test_what_is_no_torrent_is_one_line(p2pnode: P2PNode, content: bytes | None, code: int) -> None:
    if content is not None:
        Path("bad.torrent").write_bytes(content)
    outcome = p2pnode("torrent", "show", "bad.torrent")
    assert outcome.code == code
    assert outcome.err.startswith("p2pnode: ")
    assert "bad.torrent" in outcome.err
    assert outcome.err.count("\n") == 1
