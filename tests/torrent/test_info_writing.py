from __future__ import annotations

import pytest

from p2pnode.errors import MetainfoError
from p2pnode.torrent import FileHashes
from p2pnode.torrent.info_writing import (
    NamedFile,
    canonical_encoding,
    check_file_name,
    half_v1,
    half_v2,
    piece_layers,
)

ROOT = bytes(range(32))


def named(path: bytes, size: int, layer: bytes = b"") -> NamedFile:
    return NamedFile(tuple(path.split(b"/")), FileHashes(size, ROOT if size else None, layer))


def test_the_tree_has_a_dictionary_for_each_level() -> None:
    assert half_v2([named(b"d/a", 5), named(b"d/b", 0), named(b"c", 1)]) == {
        b"file tree": {
            b"c": {b"": {b"length": 1, b"pieces root": ROOT}},
            b"d": {b"a": {b"": {b"length": 5, b"pieces root": ROOT}}, b"b": {b"": {b"length": 0}}},
        },
        b"meta version": 2,
    }


@pytest.mark.parametrize(
    "paths", [[b"a", b"a"], [b"a", b"a/b"], [b"a/b", b"a"], [b"a/../b"], [b""], [b"/a"], [b"a/" * 64 + b"a"]]
)
def test_paths_that_make_no_tree(paths: list[bytes]) -> None:
    with pytest.raises(MetainfoError):
        half_v2([named(path, 1) for path in paths])


def test_v1_without_padding_and_with_it() -> None:
    files = [named(b"a", 25), named(b"d/e", 0), named(b"d/x", 10), named(b"z", 1)]

    def file(length: int, *path: bytes) -> dict[bytes, object]:
        return {b"length": length, b"path": list(path)}

    plain = [file(25, b"a"), file(0, b"d", b"e"), file(10, b"d", b"x"), file(1, b"z")]
    assert half_v1(files, b"hashes", is_directory=True, pad_to=None) == {
        b"files": plain,
        b"pieces": b"hashes",
    }
    pads = [{b"attr": b"p", **file(5, b".pad", b"5")}, {b"attr": b"p", **file(9, b".pad", b"9")}]
    padded = [plain[0], pads[0], plain[1], plain[2], plain[3], pads[1]]
    assert half_v1(files, b"", is_directory=True, pad_to=10)[b"files"] == padded
    assert half_v1([named(b"n", 25)], b"", is_directory=False, pad_to=None) == {b"length": 25, b"pieces": b""}


def test_layers_are_only_of_files_that_have_one() -> None:
    assert piece_layers([named(b"a", 0), named(b"b", 1), named(b"c", 40_000, b"layer")]) == {ROOT: b"layer"}


def test_the_canonical_form_is_checked() -> None:
    encoding = canonical_encoding(b"n", [named(b"n", 1)])
    assert encoding.startswith(b"d4:infod9:file treed1:n")
    with pytest.raises(MetainfoError):
        canonical_encoding(b"..", [named(b"n", 1)])


def test_names_of_files() -> None:
    for name in (b"a", b"...", b"a\\b", b"\xff", b"x" * 1024):
        check_file_name(name)
    for name in (b"", b".", b"..", b"a/", b"\0", b"x" * 1025):
        with pytest.raises(MetainfoError):
            check_file_name(name)
