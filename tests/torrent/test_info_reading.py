"""Each rule of the policy, broken alone: a good torrent, one change, one refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.errors import BencodeError, MetainfoError
from p2pnode.torrent import Metainfo, TorrentVersion
from p2pnode.wire.bencoding import encode
from tests.torrent.samples import KIB, TREE, canonical, content, opened, torrent

V1, V2, HYBRID = TorrentVersion.V1, TorrentVersion.V2, TorrentVersion.HYBRID
Info = dict[bytes, Any]


def refusal(info: Info, outer: Info | None = None) -> str:
    """Why a torrent is refused, for a person."""
    with pytest.raises(MetainfoError) as refused:
        Metainfo.decode(encode({**(outer or {}), b"info": info}))
    text = str(refused.value)
    assert text.isprintable()
    return text


def changed(metainfo: Metainfo, change: Callable[[Info], object]) -> str:
    outer, info = opened(metainfo)
    change(info)
    return refusal(info, outer)


@pytest.mark.parametrize("length", [0, -1, 1, 1023, 2**29 + 1, 2**31, 2**63])
def test_M7_piece_lengths_of_v1(length: int) -> None:
    assert "piece length" in changed(
        torrent("n", b"x", V1), lambda info: info.update({b"piece length": length})
    )


@pytest.mark.parametrize("length", [0, -1, 1, 8 * KIB, 24 * KIB, 2**30, 2**31])
@pytest.mark.parametrize("version", [V2, HYBRID])
def test_M7_piece_lengths_of_v2(length: int, version: TorrentVersion) -> None:
    change = {b"piece length": length}
    assert "piece length" in changed(torrent("n", b"x", version), lambda info: info.update(change))


def test_M7_a_v1_piece_length_need_not_be_a_power_of_two() -> None:
    assert torrent("n", content(5000), V1, 1500).piece_count == 4


@pytest.mark.parametrize("key", [b"name", b"piece length", b"pieces", b"length"])
def test_M7_what_must_be_there_in_v1(key: bytes) -> None:
    assert changed(torrent("n", b"x", V1), lambda info: info.pop(key))


@pytest.mark.parametrize("key", [b"name", b"piece length", b"meta version", b"file tree"])
def test_M7_what_must_be_there_in_v2(key: bytes) -> None:
    assert key.decode() in changed(torrent("n", b"x", V2), lambda info: info.pop(key))


@pytest.mark.parametrize("wrong", [1, [], {}, b"x"])
@pytest.mark.parametrize(
    "key", [b"name", b"piece length", b"pieces", b"files", b"file tree", b"meta version", b"private"]
)
def test_every_value_has_its_type(key: bytes, wrong: object) -> None:
    metainfo = torrent("n", TREE, HYBRID, is_private=True)
    _, info = opened(metainfo)
    if not isinstance(wrong, type(info[key])):
        assert "is not" in changed(metainfo, lambda info: info.update({key: wrong}))


def test_M7_hashes_must_fit_the_size() -> None:
    metainfo = torrent("n", content(100_000), V1)
    for hashes in (b"", bytes(19), bytes(60), bytes(81), bytes(100)):
        assert "piece hashes" in changed(metainfo, lambda info: info.update({b"pieces": hashes}))  # noqa: B023


@pytest.mark.parametrize("length", [-1, -(2**63), 2**63, 2**60])
def test_M7_absurd_lengths(length: int) -> None:
    assert changed(torrent("n", b"x", V1), lambda info: info.update({b"length": length}))
    assert changed(torrent("n", TREE, V1), lambda info: info[b"files"][0].update({b"length": length}))
    assert changed(
        torrent("n", b"x", V2), lambda info: info[b"file tree"][b"n"][b""].update({b"length": length})
    )


def test_M7_either_length_or_files() -> None:
    assert "either" in changed(torrent("n", TREE, V1), lambda info: info.update({b"length": 1}))
    assert "either" in changed(torrent("n", TREE, V1), lambda info: info.pop(b"files"))


@pytest.mark.parametrize(
    "file",
    [
        b"x",
        {b"path": [b"a"]},
        {b"length": 1},
        {b"length": 1, b"path": []},
        {b"length": 1, b"path": b"a"},
        {b"length": 1, b"path": [1]},
        {b"length": 1, b"path": [b"a"] * 65},
        {b"length": b"1", b"path": [b"a"]},
    ],
)
def test_M7_malformed_entries(file: object) -> None:
    refusal({b"files": [file], b"name": b"n", b"piece length": 16 * KIB, b"pieces": bytes(20)})


def test_M7_no_files_and_no_bytes() -> None:
    base = {b"name": b"n", b"piece length": 16 * KIB, b"pieces": b""}
    assert "without files" in refusal({**base, b"files": []})
    assert "no bytes" in refusal({**base, b"length": 0})
    assert "no bytes" in refusal({**base, b"files": [{b"length": 0, b"path": [b"a"]}]})


def test_M7_M9_more_pieces_than_anyone_needs() -> None:
    size = 2**21 * 16 * KIB + 1
    base = {b"name": b"n", b"piece length": 16 * KIB}
    assert "2097153 pieces" in refusal({**base, b"length": size, b"pieces": b""})
    tree = {b"n": {b"": {b"length": size, b"pieces root": bytes(32)}}}
    assert "2097153 pieces" in refusal({**base, b"file tree": tree, b"meta version": 2})


def test_M9_limits_of_bytes_tokens_and_depth() -> None:
    good = torrent("n", b"x", V1, comment="x" * 1000).encode()
    with pytest.raises(BencodeError):
        Metainfo.decode(good, size_max=len(good) - 1)
    with pytest.raises(BencodeError):
        Metainfo.decode(good.replace(b"7:comment1000:", b"7:comment10000000:") + b"x" * 10_000_000)
    with pytest.raises(BencodeError):
        Metainfo.decode(good[:-1] + b"1:zl" + b"0:" * 3_000_000 + b"ee")
    with pytest.raises(BencodeError):
        Metainfo.decode(good[:-1] + b"1:z" + b"l" * 101 + b"e" * 102)
    with pytest.raises(BencodeError):
        Metainfo.decode(good + b"e")


@pytest.mark.parametrize("data", [b"", b"le", b"i1e", b"de", b"d4:infolee", b"d4:infodee"])
def test_what_is_no_torrent(data: bytes) -> None:
    with pytest.raises((BencodeError, MetainfoError)):
        Metainfo.decode(data)


# -- v2 ----------------------------------------------------------------------------------------------------


def tree_refusal(tree: Info) -> str:
    return refusal({b"file tree": tree, b"meta version": 2, b"name": b"n", b"piece length": 16 * KIB})


LEAF = {b"": {b"length": 1, b"pieces root": bytes(32)}}


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ({}, "empty directory"),
        ({b"a": {}}, "empty directory"),
        ({b"a": b"x"}, "not a dictionary"),
        ({b"a": {b"": b"x"}}, "not a dictionary"),
        ({b"a": {**LEAF, b"b": LEAF}}, "directory too"),
        (LEAF, "directory too"),
        ({b"a": {b"": {}}}, "length"),
        ({b"a": {b"": {b"length": -1, b"pieces root": bytes(32)}}}, "-1 bytes"),
        ({b"a": {b"": {b"length": 1}}}, "pieces root"),
        ({b"a": {b"": {b"length": 1, b"pieces root": bytes(31)}}}, "pieces root"),
        ({b"a": {b"": {b"length": 0, b"pieces root": bytes(32)}}}, "pieces root"),
        ({b"a": {b"": {b"attr": b"p", b"length": 1, b"pieces root": bytes(32)}}}, "pad file"),
        ({b"a": {b"": {b"attr": b"l"}}}, "without files"),
    ],
)
def test_M7_malformed_trees(tree: Info, reason: str) -> None:
    assert reason in tree_refusal(tree)


def test_M7_trees_of_too_many_levels() -> None:
    def nested(levels: int) -> Info:
        return LEAF if levels == 0 else {b"d": nested(levels - 1)}

    assert "64 levels" in tree_refusal(nested(65))
    info = {b"file tree": nested(64), b"meta version": 2, b"name": b"n", b"piece length": 16 * KIB}
    assert len(Metainfo.decode(encode({b"info": info})).files[0].path) == 64


@pytest.mark.parametrize("version", [0, 1, 3])
def test_versions_that_nobody_knows(version: int) -> None:
    assert "version" in changed(torrent("n", b"x", V2), lambda info: info.update({b"meta version": version}))


def test_M7_layers_must_match_their_roots() -> None:
    outer, info = opened(torrent("n", content(100_000), V2))
    ((root, layer),) = outer[b"piece layers"].items()
    flipped = bytes([layer[0] ^ 1]) + layer[1:]
    assert "does not match" in refusal(info, {b"piece layers": {root: flipped}})
    assert "does not fit" in refusal(info, {b"piece layers": {root: layer + bytes(32)}})
    assert "does not fit" in refusal(info, {b"piece layers": {root: layer[:-1]}})
    assert "missing" in refusal(info, {b"piece layers": {root: [layer]}})
    assert "missing" in refusal(info, {b"piece layers": {}})
    assert "missing" in refusal(info)
    assert "is not a dictionary" in refusal(info, {b"piece layers": []})


def test_two_files_of_the_same_bytes_share_a_layer() -> None:
    data = content(100_000)
    metainfo = canonical("n", {"a": data, "b": data})
    assert [file.piece_count for file in metainfo.files] == [7, 7]
    assert metainfo.piece(0).root == metainfo.piece(7).root
    assert len(opened(metainfo)[0][b"piece layers"]) == 1


def test_layers_of_files_that_need_none_are_ignored() -> None:
    outer, _ = opened(torrent("n", b"x", V2))
    outer[b"piece layers"] = {bytes(32): b"?"}
    assert Metainfo.decode(encode(outer)).piece(0).root


# -- hybrid ------------------------------------------------------------------------------------------------

HALVES = "describe different files"


def test_M12_halves_that_differ() -> None:
    tree = torrent("n", TREE)
    assert HALVES in changed(tree, lambda info: info[b"files"][0].update({b"path": [b"other"]}))
    assert HALVES in changed(tree, lambda info: info[b"files"].pop(2))
    aligned = torrent("n", {"a": content(32 * KIB), "b": content(32 * KIB, 1)})
    assert HALVES in changed(aligned, lambda info: info[b"files"].reverse())
    assert HALVES in changed(torrent("n", b"xx"), lambda info: info.update({b"length": 1}))
    assert HALVES in changed(torrent("n", b"xx"), lambda info: info.update({b"name": b"m"}))


def test_M12_files_that_are_not_aligned() -> None:
    def without_padding(info: Info) -> None:
        info[b"files"] = [file for file in info[b"files"] if b"attr" not in file]
        info[b"pieces"] = bytes(20 * 5)

    assert HALVES in changed(torrent("n", TREE), without_padding)


def test_M12_one_file_against_a_directory_of_it() -> None:
    def into_a_directory(info: Info) -> None:
        info[b"files"] = [{b"length": info.pop(b"length"), b"path": [b"other"]}]

    assert HALVES in changed(torrent("n", b"xx"), into_a_directory)


def test_M12_padding_beyond_the_last_piece() -> None:
    def with_a_piece_of_padding(info: Info) -> None:
        for _ in range(2):
            info[b"files"].append({b"attr": b"p", b"length": 16 * KIB, b"path": [b".pad", b"x"]})
        info[b"pieces"] += bytes(20)

    assert "pad file" in changed(torrent("n", TREE), with_a_piece_of_padding)


def test_a_hybrid_need_not_be_padded_at_its_end() -> None:
    padded = torrent("n", TREE)
    outer, info = opened(padded)
    info[b"files"].pop()
    metainfo = Metainfo.decode(encode(outer))
    assert metainfo.files == padded.files
    assert metainfo.piece_count == padded.piece_count


def test_where_an_empty_file_of_a_hybrid_stands_means_nothing() -> None:
    outer, info = opened(torrent("n", {"a": b"x", "b": b"", "c": b"y"}))
    info[b"files"][1:3] = reversed(info[b"files"][1:3])
    assert [file.first_piece for file in Metainfo.decode(encode(outer)).files] == [0, 1, 1]


# -- attributes --------------------------------------------------------------------------------------------


def test_M5_symbolic_links_are_left_out() -> None:
    outer, info = opened(torrent("n", {"a": b"x", "b": b"y"}, V1))
    info[b"files"].insert(
        1, {b"attr": b"lx", b"path": [b"evil"], b"symlink path": [b"..", b"etc", b"passwd"]}
    )
    metainfo = Metainfo.decode(encode(outer))
    assert [file.path for file in metainfo.files] == [("a",), ("b",)]
    assert metainfo.symlink_count == 1
    info[b"files"][1][b"length"] = 1
    assert "1 bytes" in refusal(info)


def test_M5_symbolic_links_in_a_tree_are_left_out() -> None:
    outer, info = opened(torrent("n", {"a": b"x", "c": b"y"}, V2))
    info[b"file tree"][b"b"] = {b"": {b"attr": b"l", b"length": 0, b"symlink path": [b".."]}}
    metainfo = Metainfo.decode(encode(outer))
    assert [(file.path, file.first_piece) for file in metainfo.files] == [(("a",), 0), (("c",), 1)]
    assert metainfo.symlink_count == 1


def test_M5_a_torrent_of_one_symbolic_link_is_none() -> None:
    base = {b"length": 0, b"name": b"n", b"piece length": 16 * KIB, b"pieces": b""}
    assert refusal({**base, b"attr": b"l", b"symlink path": [b"/etc/passwd"]})
    assert refusal({**base, b"attr": b"p", b"length": 1, b"pieces": bytes(20)})


def test_the_executable_bit() -> None:
    outer, info = opened(torrent("n", {"a": b"x", "b": b"y"}, V1))
    info[b"files"][0][b"attr"] = b"xh"
    assert [file.is_executable for file in Metainfo.decode(encode(outer)).files] == [True, False]


# -- anything ----------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=3))
def test_a_torrent_with_a_few_other_bytes_is_read_or_refused(position: int, other: bytes) -> None:
    data = torrent("name", TREE, trackers=[["http://t/a"]]).encode()
    position %= len(data)
    mutant = data[:position] + other + data[position + len(other) :]
    try:
        metainfo = Metainfo.decode(mutant)
    except (BencodeError, MetainfoError):
        return
    assert metainfo.encode() == mutant
    assert [metainfo.piece(index).index for index in range(metainfo.piece_count)] == list(range(7))
