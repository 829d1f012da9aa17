from __future__ import annotations

import random

import pytest

from p2pnode.errors import MetainfoError
from p2pnode.torrent import (
    FileHashes,
    HashedFile,
    Metainfo,
    TorrentVersion,
    canonical_metainfo,
    create_metainfo,
)
from tests.torrent import naive
from tests.torrent.samples import KIB, TREE, Tree, canonical, content, hash_file, hash_tree, opened, torrent

V1, V2, HYBRID = TorrentVersion.V1, TorrentVersion.V2, TorrentVersion.HYBRID


def test_the_canonical_form_of_a_file_byte_for_byte() -> None:
    root = naive.pieces_root(b"hello")
    assert canonical("hello.txt", b"hello").encode() == (
        b"d4:infod9:file treed9:hello.txtd0:d6:lengthi5e11:pieces root32:" + root + b"eee"
        b"12:meta versioni2e4:name9:hello.txt12:piece lengthi16384ee12:piece layersdee"
    )


@pytest.mark.parametrize(
    ("name", "shared", "file_id"),
    [
        ("hello.txt", b"hello", "08c0d0c2f2df56a68b9eed45b3ef00fb165ee245ea95e1aa71e802311680f4bc"),
        ("empty", b"", "29dea24395d9c2ee4891fb7e2349faa601c9ca8a26c28fe3be98dc31e3f96d6b"),
        ("zeros", bytes(100_000), "2bfa5e7b6bb1813fd3b5e6f2fefc0c6056578c88ea92e2f842cbb19209bee806"),
        ("tree", TREE, "82380ef4ec10bf25004c2fb568aa478738e31848030d2a959aa8d12c06d1cc19"),
        ("ünïcode", {"日本/ß": b"x"}, "5c48ff9e33a541109af6cecfa98844ef5f02e132870edf7036bc3deaf67fe375"),
    ],
)
def test_file_ids_never_change(name: str, shared: bytes | Tree, file_id: str) -> None:
    assert canonical(name, shared).file_id.hex() == file_id


def test_the_order_of_the_files_does_not_matter() -> None:
    files = hash_tree(TREE, 16 * KIB)
    expected = canonical_metainfo("n", files, is_directory=True)
    for seed in range(5):
        shuffled = random.Random(seed).sample(files, len(files))
        assert canonical_metainfo("n", shuffled, is_directory=True) == expected
    assert ["/".join(file.path) for file in expected.files] == sorted(TREE)


def test_the_name_and_each_byte_matter() -> None:
    ids = {
        canonical("n", shared).file_id
        for shared in (b"", b"a", b"b", b"ab", {"n.": b"a"}, {"a": b"a"}, {"b": b"a"}, {"a": b"a", "b": b""})
    }
    assert len(ids | {canonical("m", b"a").file_id}) == 9


def test_files_are_in_the_order_of_their_components() -> None:
    """A directory sorts by its own name: 'a-b' stands before 'a/b' as text, but after it in a tree."""
    metainfo = canonical("n", {"a-b": b"1", "a/b": b"2", "a.c": b"3"})
    assert ["/".join(file.path) for file in metainfo.files] == ["a/b", "a-b", "a.c"]


def test_names_that_are_not_utf8_keep_their_bytes_and_get_a_safe_path() -> None:
    names = [raw.decode("utf-8", "surrogateescape") for raw in (b"a\xff", b"a\xfe")]
    metainfo = canonical("n", dict.fromkeys(names, b"x"))
    assert [file.raw_path for file in metainfo.files] == [(b"a\xfe",), (b"a\xff",)]
    assert [file.path for file in metainfo.files] == [("a_",), ("a_.1",)]


def test_ordinary_names_of_linux_stay_in_the_torrent_and_are_safe_elsewhere() -> None:
    metainfo = canonical("aux.c", b"x")
    assert (metainfo.raw_name, metainfo.name, metainfo.files[0].path) == (b"aux.c", "_aux.c", ("_aux.c",))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0", "x" * 1025, "\ud800"])
def test_M4_names_that_no_file_can_have(name: str) -> None:
    (file,) = hash_tree({"good": b"x"}, 16 * KIB)
    with pytest.raises(MetainfoError):
        canonical_metainfo(name, [HashedFile((name,), file.hashes)], is_directory=False)
    with pytest.raises(MetainfoError):
        canonical_metainfo(name, [file], is_directory=True)
    with pytest.raises(MetainfoError):
        canonical_metainfo("n", [HashedFile((name, "b"), file.hashes)], is_directory=True)
    for version in TorrentVersion:
        with pytest.raises(MetainfoError):
            torrent(name, {"a": b"x"}, version)
        with pytest.raises(MetainfoError):
            create_metainfo(
                "n",
                [HashedFile((name,), file.hashes)],
                is_directory=True,
                version=version,
                piece_length=16 * KIB,
                piece_hashes_v1=naive.hashes_v1(b"x", 16 * KIB),
            )


@pytest.mark.parametrize("paths", [[], [("a",), ("a",)], [("a",), ("a", "b")], [()], [("d",) * 65]])
def test_M6_trees_that_no_disk_can_hold(paths: list[tuple[str, ...]]) -> None:
    hashes = hash_file(b"x", 16 * KIB)
    with pytest.raises(MetainfoError):
        canonical_metainfo("n", [HashedFile(path, hashes) for path in paths], is_directory=True)


@pytest.mark.parametrize("version", [None, V2])
def test_a_directory_with_only_a_file_of_its_own_name(version: TorrentVersion | None) -> None:
    with pytest.raises(MetainfoError, match="own name"):
        torrent("n", {"n": b"x"}, version) if version else canonical("n", {"n": b"x"})


def test_v1_can_tell_a_directory_with_only_a_file_of_its_own_name() -> None:
    for version in (V1, HYBRID):
        assert torrent("n", {"n": b"x"}, version).is_directory


def test_the_only_file_has_the_name_of_the_torrent() -> None:
    with pytest.raises(ValueError, match="torrent's name"):
        canonical_metainfo("n", hash_tree({"m": b"x"}, 16 * KIB), is_directory=False)


def test_hashes_of_another_piece_length_are_refused() -> None:
    data = content(100_000)
    with pytest.raises(MetainfoError):
        canonical_metainfo("n", [HashedFile(("n",), hash_file(data, 32 * KIB))], is_directory=False)


def test_sizes_are_enough_for_v1() -> None:
    metainfo = create_metainfo(
        "n",
        [HashedFile(("n",), FileHashes(5, None, b""))],
        is_directory=False,
        version=V1,
        piece_length=16 * KIB,
        piece_hashes_v1=naive.hashes_v1(b"hello", 16 * KIB),
    )
    assert (metainfo.size, metainfo.info_hash_v2) == (5, None)


@pytest.mark.parametrize("version", TorrentVersion)
def test_everything_that_can_be_said(version: TorrentVersion) -> None:
    metainfo = torrent(
        "n",
        TREE,
        version,
        trackers=[["http://a/announce", "udp://b:1"], ["https://c/"]],
        web_seeds=["http://seed/", "https://seed/"],
        is_private=True,
        comment="für alle",
        created_by="p2pnode",
        creation_date=1_700_000_000,
    )
    assert metainfo.trackers == (("http://a/announce", "udp://b:1"), ("https://c/",))
    assert metainfo.web_seeds == ("http://seed/", "https://seed/")
    assert metainfo.is_private
    assert (metainfo.comment, metainfo.created_by) == ("für alle", "p2pnode")
    assert metainfo.creation_date == 1_700_000_000
    assert metainfo.info_hash_v1 != torrent("n", TREE, version).info_hash_v1 or version is V2


def test_nothing_that_was_not_said() -> None:
    outer, info = opened(torrent("n", b"x", V1))
    assert sorted(outer) == [b"info"]
    assert sorted(info) == [b"length", b"name", b"piece length", b"pieces"]


def test_one_tracker_and_one_web_seed_need_no_list() -> None:
    """The reader of a known client refuses lists."""
    metainfo = torrent("n", b"x", V1, trackers=[["http://a/announce"]], web_seeds=["http://s/"])
    outer, _ = opened(metainfo)
    assert outer[b"announce"] == b"http://a/announce"
    assert outer[b"url-list"] == b"http://s/"
    assert b"announce-list" not in outer


@pytest.mark.parametrize("version", TorrentVersion)
@pytest.mark.parametrize("shared", [b"x", content(100_000), TREE, {"only": content(40_000)}])
def test_what_is_made_is_read(shared: bytes | Tree, version: TorrentVersion) -> None:
    metainfo = torrent("n", shared, version)
    assert Metainfo.decode(metainfo.encode()) == metainfo
    assert (metainfo.info_hash_v1 is None) == (version is V2)
    assert (metainfo.info_hash_v2 is None) == (version is V1)
    assert metainfo.is_directory == isinstance(shared, dict)


def test_a_torrent_of_nothing_is_not_made() -> None:
    with pytest.raises(MetainfoError, match="no bytes"):
        torrent("n", b"")
