from __future__ import annotations

import warnings
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.errors import ConfigError
from p2pnode.torrent.selection import Selection, pieces_of
from tests.storage.content import PIECE, metainfo_of

TREE = (
    "a.c",
    "a.h",
    "lib/b.c",
    "lib/c/d.c",
    "lib/c/notes.txt",
    "docs/lib/x.md",
    ".hidden",
    "build/out",
    "with space/[odd]*.txt",
)


def taken(*include: str, exclude: tuple[str, ...] = ()) -> list[str]:
    selection = Selection(include, exclude)
    return [path for path in TREE if selection.fits(path.split("/"))]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.c", ["a.c", "lib/b.c", "lib/c/d.c"]),
        ("/*.c", ["a.c"]),
        ("lib", ["lib/b.c", "lib/c/d.c", "lib/c/notes.txt", "docs/lib/x.md"]),
        ("/lib", ["lib/b.c", "lib/c/d.c", "lib/c/notes.txt"]),
        ("lib/", ["lib/b.c", "lib/c/d.c", "lib/c/notes.txt", "docs/lib/x.md"]),
        ("lib/c", ["lib/c/d.c", "lib/c/notes.txt"]),
        ("lib/*", ["lib/b.c", "lib/c/d.c", "lib/c/notes.txt"]),
        ("lib/*.c", ["lib/b.c"]),
        ("lib/**/*.c", ["lib/b.c", "lib/c/d.c"]),
        ("**/lib/**", ["lib/b.c", "lib/c/d.c", "lib/c/notes.txt", "docs/lib/x.md"]),
        ("lib/**", ["lib/b.c", "lib/c/d.c", "lib/c/notes.txt"]),
        ("**/d.c", ["lib/c/d.c"]),
        ("**", list(TREE)),
        ("*", list(TREE)),
        ("?.c", ["a.c", "lib/b.c", "lib/c/d.c"]),
        ("[ab].c", ["a.c", "lib/b.c"]),
        ("[!ab].c", ["lib/c/d.c"]),
        ("[^ab].c", ["lib/c/d.c"]),
        ("[a-b].[a-g]", ["a.c", "lib/b.c"]),
        ("out/", []),
        ("out", ["build/out"]),
        ("A.C", []),
        ("li", []),
        ("a?c", ["a.c"]),
        ("lib?b.c", []),
        ("lib[!x]b.c", []),
        (".hidden", [".hidden"]),
        (r"\[odd\]\*.txt", ["with space/[odd]*.txt"]),
        ("[[]odd[]][*].txt", ["with space/[odd]*.txt"]),
        ("with space", ["with space/[odd]*.txt"]),
    ],
)
def test_patterns(pattern: str, expected: list[str]) -> None:
    assert taken(pattern) == expected
    assert [path for path in TREE if path not in taken(exclude=(pattern,))] == expected


def test_includes_add_up_and_an_exclude_wins() -> None:
    assert taken("*.c", "*.h", exclude=("lib/c/",)) == ["a.c", "a.h", "lib/b.c"]
    assert taken("lib/c/d.c", exclude=("lib",)) == []
    assert taken(exclude=("*.c", "lib/", "/docs")) == ["a.h", ".hidden", "build/out", "with space/[odd]*.txt"]


def test_without_patterns_it_is_everything() -> None:
    assert not Selection()
    assert Selection(("a",))
    assert Selection(exclude=("a",))
    assert taken() == list(TREE)


@pytest.mark.parametrize("pattern", ["", "/", "//", "a//b", "a\0", "[z-a]"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"no pattern|no set"):
        Selection((pattern,)).fits(("a",))


@given(st.text(st.sampled_from("ab*?[]!^-/\\.&~|"), min_size=1), st.lists(st.sampled_from("abc"), min_size=1))
def test_any_text_is_a_pattern_or_refused(pattern: str, path: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with suppress(ConfigError):
            Selection((pattern,)).fits(path)


@given(st.lists(st.text(st.sampled_from("ab.^$(){}+|"), min_size=1), min_size=1, max_size=4))
def test_a_path_without_wildcards_fits_itself_alone(path: list[str]) -> None:
    selection = Selection(("/" + "/".join(path),))
    assert selection.fits(path)
    assert selection.fits([*path, "below"])
    assert not selection.fits(["above", *path])
    assert not selection.fits([*path[:-1], path[-1] + "x"])


def test_files_and_their_pieces() -> None:
    metainfo = metainfo_of(
        "tree", {"a/1": bytes(PIECE + 1), "a/empty": b"", "b": b"x", "c": bytes(2 * PIECE)}
    )
    files = Selection(("a", "c")).files_of(metainfo)
    assert {"/".join(metainfo.files[index].path) for index in files} == {"a/1", "a/empty", "c"}
    assert list(pieces_of(metainfo, files)) == [0, 1, 3, 4]
    assert Selection(("data",)).files_of(metainfo_of("data", b"x")) == {0}
    assert not pieces_of(metainfo, ()).bits
