from __future__ import annotations

from hashlib import sha1, sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.errors import BencodeError, MetainfoError
from p2pnode.torrent import (
    FileHashes,
    Metainfo,
    PieceMatch,
    PieceSpan,
    TorrentVersion,
    block_hashes,
)
from p2pnode.wire.bencoding import encode
from tests.torrent.samples import KIB, TREE, Tree, canonical, content, opened, torrent

V1, V2, HYBRID = TorrentVersion.V1, TorrentVersion.V2, TorrentVersion.HYBRID

trees = st.dictionaries(
    st.from_regex(r"[a-c]{1,2}(/[d-f]{1,2})?", fullmatch=True),
    st.integers(0, 100_000).map(content),
    min_size=1,
    max_size=5,
).filter(lambda tree: any(tree.values()))


def bytes_of(metainfo: Metainfo, tree: Tree, span: PieceSpan) -> bytes:
    if span.file_index is None:
        return bytes(span.length)
    file = metainfo.files[span.file_index]
    data = tree["/".join(file.path)][span.offset : span.offset + span.length]
    assert len(data) == span.length
    return data


# -- info hashes -------------------------------------------------------------------------------------------


def test_M8_the_info_hash_is_that_of_the_raw_bytes() -> None:
    info = b"d6:lengthi1e4:name1:n12:piece lengthi16384e6:pieces20:" + bytes(20) + b"7:unknownli1eee"
    assert Metainfo.decode(b"d4:info" + info + b"e").info_hash_v1 == sha1(info).digest()


def test_M8_an_unsorted_outer_dictionary_changes_nothing() -> None:
    info = b"d6:lengthi1e4:name1:n12:piece lengthi16384e6:pieces20:" + bytes(20) + b"e"
    metainfo = Metainfo.decode(b"d4:info" + info + b"8:announce7:udp://xe")
    assert metainfo.info_hash_v1 == sha1(info).digest()
    assert metainfo.trackers == (("udp://x",),)
    assert metainfo.encode() == b"d4:info" + info + b"8:announce7:udp://xe"


@pytest.mark.parametrize(
    "info",
    [
        b"d4:name1:n6:lengthi1e12:piece lengthi16384e6:pieces20:" + bytes(20) + b"e",
        b"d6:lengthi1e4:name1:n4:name1:m12:piece lengthi16384e6:pieces20:" + bytes(20) + b"e",
        b"d6:lengthi01e4:name1:n12:piece lengthi16384e6:pieces20:" + bytes(20) + b"e",
        b"d5:filesld4:pathl1:ae6:lengthi1eee4:name1:n12:piece lengthi16384e6:pieces20:" + bytes(20) + b"e",
    ],
)
def test_M8_unsorted_or_repeated_keys_in_info(info: bytes) -> None:
    with pytest.raises(BencodeError):
        Metainfo.decode(b"d4:info" + info + b"e")


@pytest.mark.parametrize("version", TorrentVersion)
def test_other_outer_keys_leave_the_info_hash_alone(version: TorrentVersion) -> None:
    plain = torrent("n", TREE, version)
    outer, info = opened(plain)
    outer |= {b"announce": b"http://t/", b"comment": b"c", b"other": [1, {b"x": b"y"}]}
    metainfo = Metainfo.decode(encode(outer))
    assert (metainfo.info_hash_v1, metainfo.info_hash_v2) == (plain.info_hash_v1, plain.info_hash_v2)
    assert metainfo != plain
    assert metainfo.info_hash_v1 == (sha1(encode(info)).digest() if version is not V2 else None)
    assert metainfo.info_hash_v2 == (sha256(encode(info)).digest() if version is not V1 else None)
    assert metainfo.file_id == (metainfo.info_hash_v2 or metainfo.info_hash_v1)


def test_equal_is_what_has_the_same_bytes() -> None:
    assert torrent("n", b"x") == torrent("n", b"x") != torrent("m", b"x")
    assert len({torrent("n", b"x"), torrent("n", b"x"), torrent("m", b"x")}) == 2
    assert torrent("n", b"x") != b"x"


# -- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"E:\\x\\seed\\hello_world.txt", "hello_world.txt"),
        (b"..\\seed\\data.json", "data.json"),
        (b"/etc/passwd", "passwd"),
        (b"dir/", "dir"),
        (b"..", "__"),
        (b"", "_"),
        (b"CON", "_CON"),
        (b".ssh", "_ssh"),
        (b"\xff\xfe", "__"),
        (b"\x1b[2J\n", "_[2J_"),
    ],
)
def test_M4_M10_names_of_v1_torrents(raw: bytes, name: str) -> None:
    for shared in (b"x", {"a": b"x"}):
        outer, info = opened(torrent("n", shared, V1))
        info[b"name"] = raw
        metainfo = Metainfo.decode(encode(outer))
        assert metainfo.name == name
        assert metainfo.raw_name == raw
        assert metainfo.files[0].path == (("a",) if metainfo.is_directory else (name,))


def test_M4_a_v2_name_is_one_component() -> None:
    outer, info = opened(torrent("n", {"a": b"x"}, V2))
    info[b"name"] = b"..\\a/b:c"
    assert Metainfo.decode(encode(outer)).name == "_._a_b_c"


def test_M4_M6_paths_are_safe_and_raw_ones_kept() -> None:
    raw = [[b"..", b"a"], [b"x", b"..", b"..", b"y"], [b"c:\\z"], [b"A"], [b"a"], [b"a", b"b"], [b"\xff"]]
    info = {
        b"files": [{b"length": 1, b"path": path} for path in raw],
        b"name": b"n",
        b"piece length": 16 * KIB,
        b"pieces": bytes(20),
    }
    metainfo = Metainfo.decode(encode({b"info": info}))
    assert ["/".join(file.path) for file in metainfo.files] == [
        "__/a", "x/__/__/y", "c__z", "A", "a.1", "a.2/b", "_"
    ]  # fmt: skip
    assert [list(file.raw_path) for file in metainfo.files] == raw


def test_M10_the_utf8_form_of_old_programs_is_preferred() -> None:
    info = {
        b"files": [{b"length": 1, b"path": [b"\x82"], b"path.utf-8": ["é".encode()]}],
        b"name": b"\x81",
        b"name.utf-8": "ü".encode(),
        b"piece length": 16 * KIB,
        b"pieces": bytes(20),
    }
    metainfo = Metainfo.decode(encode({b"info": info}))
    assert (metainfo.name, metainfo.files[0].path) == ("ü", ("é",))
    del info[b"name"]
    with pytest.raises(MetainfoError):
        Metainfo.decode(encode({b"info": info}))


# -- pieces ------------------------------------------------------------------------------------------------


@given(trees, st.sampled_from(TorrentVersion), st.sampled_from([16 * KIB, 32 * KIB, 64 * KIB]))
@settings(max_examples=60, deadline=None)
def test_pieces_and_spans_cover_every_byte_once(
    tree: Tree, version: TorrentVersion, piece_length: int
) -> None:
    tree = {
        path: data for path, data in tree.items() if not any(other.startswith(f"{path}/") for other in tree)
    }
    if not any(tree.values()):
        return
    metainfo = torrent("n", tree, version, piece_length)
    joined = {file.path: b"" for file in metainfo.files}
    for index in range(metainfo.piece_count):
        piece = metainfo.piece(index)
        spans = metainfo.spans(index)
        assert piece.index == index
        assert (spans[0].file_index, spans[0].offset) == (piece.file_index, piece.offset)
        assert sum(span.length for span in spans) == piece.length
        for span in spans:
            if span.file_index is not None:
                file = metainfo.files[span.file_index]
                assert index in metainfo.pieces_of(span.file_index)
                assert span.offset == len(joined[file.path])
                joined[file.path] += bytes_of(metainfo, tree, span)
        data = b"".join(bytes_of(metainfo, tree, span) for span in spans)
        if version is not V2:
            assert metainfo.match_piece_v1(index, data) is PieceMatch.EXACT
        if version is not V1:
            assert metainfo.check_block_hashes(index, block_hashes(data))
            assert not metainfo.check_block_hashes(index, block_hashes(b"?" + data[1:] + b"?"))
    assert joined == {tuple(path.split("/")): data for path, data in tree.items()}
    assert metainfo.size == sum(map(len, tree.values()))


def test_a_v1_piece_runs_over_files_and_skips_empty_ones() -> None:
    metainfo = torrent("n", TREE, V1, 32 * KIB)
    spans = (PieceSpan(0, 65536, 4464), PieceSpan(2, 0, 8), PieceSpan(3, 0, 28296))
    assert metainfo.spans(2) == spans
    assert [list(metainfo.pieces_of(index)) for index in range(5)] == [[0, 1, 2], [], [2], [2, 3], [3, 4]]


def test_padding_of_a_v1_torrent_is_zeros_of_no_file() -> None:
    _, info = opened(torrent("n", {"a": b"x" * 20_000, "b": b"y", "c": b""}, HYBRID, 16 * KIB))
    del info[b"file tree"], info[b"meta version"]
    metainfo = Metainfo.decode(encode({b"info": info}))
    assert [file.path for file in metainfo.files] == [("a",), ("b",), ("c",)]
    assert metainfo.spans(0) == (PieceSpan(0, 0, 16384),)
    assert metainfo.spans(1) == (PieceSpan(0, 16384, 3616), PieceSpan(None, 0, 12768))
    assert metainfo.spans(2) == (PieceSpan(1, 0, 1), PieceSpan(None, 0, 16383))
    assert metainfo.piece(1).length == 16384
    assert metainfo.match_piece_v1(1, b"x" * 3616 + bytes(12768)) is PieceMatch.EXACT
    assert metainfo.size == 20_001
    assert list(metainfo.pieces_of(2)) == []


@pytest.mark.parametrize("size", [32 * KIB, 32 * KIB - 1, 1])
def test_a_piece_of_a_small_file_is_its_root(size: int) -> None:
    metainfo = torrent("n", content(size), V2)
    assert metainfo.piece(0).root == metainfo.files[0].pieces_root
    assert metainfo.check_block_hashes(0, block_hashes(content(size)))


def test_block_hashes_of_another_count_are_wrong() -> None:
    metainfo = torrent("n", content(40_000), V2)
    hashes = block_hashes(content(32 * KIB))
    assert metainfo.check_block_hashes(0, hashes)
    for wrong in (b"", hashes[:-1], hashes[:32], hashes + bytes(32), bytes(64)):
        assert not metainfo.check_block_hashes(0, wrong)


def test_pieces_that_there_are_none_of() -> None:
    metainfo = torrent("n", b"x")
    for index in (-1, 1):
        with pytest.raises(IndexError):
            metainfo.piece(index)


def test_a_last_piece_hashed_with_zeros_to_its_end_is_told_apart() -> None:
    data = content(40_000)
    outer, info = opened(torrent("n", data, V1))
    info[b"pieces"] = info[b"pieces"][:20] + sha1(data[32 * KIB :].ljust(32 * KIB, b"\0")).digest()
    metainfo = Metainfo.decode(encode(outer))
    assert metainfo.match_piece_v1(0, data[: 32 * KIB]) is PieceMatch.EXACT
    assert metainfo.match_piece_v1(1, data[32 * KIB :]) is PieceMatch.ZERO_PADDED
    assert metainfo.match_piece_v1(1, bytearray(40_000 - 32 * KIB)) is PieceMatch.DIFFERENT


def test_questions_that_a_version_cannot_answer() -> None:
    with pytest.raises(ValueError, match="v1 only"):
        torrent("n", b"x", V1).check_block_hashes(0, bytes(32))
    with pytest.raises(ValueError, match="1 bytes"):
        torrent("n", b"x", V2).match_piece_v1(0, b"x")
    with pytest.raises(ValueError, match="2 bytes"):
        torrent("n", b"x", V1).match_piece_v1(0, b"xx")


# -- the canonical form ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [b"hello", TREE, b"", {"a": b""}])
def test_the_canonical_form_is_read_back(shared: bytes | Tree) -> None:
    metainfo = canonical("name", shared)
    assert metainfo.is_canonical
    assert Metainfo.decode_canonical(metainfo.encode()) == Metainfo.decode(metainfo.encode()) == metainfo


def test_M9_a_canonical_empty_file_has_no_pieces() -> None:
    metainfo = canonical("empty", b"")
    assert (metainfo.size, metainfo.piece_count, metainfo.is_directory) == (0, 0, False)
    assert (metainfo.files[0].pieces_root, metainfo.files[0].piece_count) == (None, 0)
    outer, _ = opened(metainfo)
    with pytest.raises(MetainfoError, match="no bytes"):
        Metainfo.decode(encode({**outer, b"comment": b"made elsewhere"}))


@pytest.mark.parametrize("shared", [b"hello", content(100_000), TREE])
@pytest.mark.parametrize("version", TorrentVersion)
def test_only_the_canonical_form_travels(shared: bytes | Tree, version: TorrentVersion) -> None:
    assert not torrent("name", shared, version).is_canonical
    with pytest.raises(MetainfoError, match="canonical"):
        Metainfo.decode_canonical(torrent("name", shared, version).encode())


def test_M4_no_second_metainfo_for_one_name_and_bytes() -> None:
    good, _ = opened(canonical("name", TREE))
    variants = []
    for key, value in ((b"private", 1), (b"source", b"x"), (b"piece length", 32 * KIB), (b"name", b"..")):
        variants.append({**good, b"info": {**good[b"info"], key: value}})
    variants.append({**good, b"comment": b""})
    variants.append({**good, b"piece layers": {**good[b"piece layers"], bytes(32): bytes(32)}})
    for attributes in ({b"attr": b"xh"}, {b"attr": b""}, {b"attr": b"h"}):
        outer, info = opened(canonical("name", TREE))
        info[b"file tree"][b"a.bin"][b""] |= attributes
        variants.append(outer)
    for name in (b"..", b".", b"a/b", b"a\0", b"x" * 1025):
        outer, info = opened(canonical("name", TREE))
        info[b"file tree"][name] = info[b"file tree"].pop(b"a.bin")
        variants.append(outer)
    for variant in variants:
        with pytest.raises(MetainfoError):
            Metainfo.decode_canonical(encode(variant))
    encoding = canonical("name", TREE).encode()
    assert encoding.startswith(b"d4:infod") and b"e12:piece layersd" in encoding
    info_part, layers_part = encoding[1:-1].split(b"12:piece layers")
    with pytest.raises(MetainfoError, match="canonical"):
        Metainfo.decode_canonical(b"d12:piece layers" + layers_part + info_part + b"e")


def test_the_executable_files_of_a_tree_are_part_of_it() -> None:
    outer, info = opened(canonical("name", TREE))
    info[b"file tree"][b"a.bin"][b""] |= {b"attr": b"x"}
    metainfo = Metainfo.decode_canonical(encode(outer))
    assert [file.path for file in metainfo.files if file.is_executable] == [("a.bin",)]
    assert metainfo.file_id != canonical("name", TREE).file_id


def test_M4_a_single_file_has_no_mode() -> None:
    outer, info = opened(canonical("a.bin", b"x"))
    info[b"file tree"][b"a.bin"][b""] |= {b"attr": b"x"}
    with pytest.raises(MetainfoError):
        Metainfo.decode_canonical(encode(outer))


def test_a_canonical_metainfo_may_be_larger_than_a_foreign_one() -> None:
    encoding = canonical("n", {f"{number:01000}": b"" for number in range(10_000)} | {"x": b"x"}).encode()
    assert len(encoding) > 10_000_000
    assert len(Metainfo.decode_canonical(encoding).files) == 10_001
    with pytest.raises(BencodeError):
        Metainfo.decode(encoding)


def test_hashes_are_those_of_the_bytes() -> None:
    (file,) = canonical("n", b"hello").files
    assert FileHashes(file.size, file.pieces_root, b"") == FileHashes(5, sha256(b"hello").digest(), b"")
