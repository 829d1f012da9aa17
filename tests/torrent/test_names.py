from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2pnode.torrent.names import printable, safe_component, safe_name, safe_paths

NASTY = [
    b"..", b".", b"", b"/etc/passwd", b"a/../../b", b"a\\..\\b", b"\\\\?\\C:\\x", b"C:", b"C:\\x", b"a\0b",
    b"x" * 256, "ü".encode() * 128, b"\xff\xfe", "a\ud800".encode("utf-8", "surrogatepass"), b"CON", b"nul",
    b"COM1.txt", b"con .txt", "LPT¹".encode(), b"CONIN$", b"dot.", b"space ", b"dots. . ", b"f:s", b"...",
    "\u202egpj.exe".encode(), b"a\nb", b"\x1b[2J", b"what?*", b"x" * 300 + b".tar", b"." + b"e" * 300,
    b"CON." + b"a" * 251,
]  # fmt: skip
raw_components = st.sampled_from(NASTY) | st.binary(max_size=40) | st.text(max_size=20).map(str.encode)
PORTS = {f"{port}{number}" for port in ("com", "lpt") for number in range(10)}
DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"} | PORTS


def assert_is_safe(component: str) -> None:
    assert 0 < len(component.encode()) <= 255
    assert PurePosixPath("/root", component).parent == PurePosixPath("/root")
    windows = PureWindowsPath("D:/root", component)
    assert windows.parent == PureWindowsPath("D:/root")
    assert windows.name == component != ".."
    assert component.rstrip(". ") == component
    assert component.split(".")[0].rstrip(" ").lower() not in DEVICES
    assert not set(component) & set('\0\n\x1b\x7f/\\:*?"<>|\u202e\u2066')


@given(raw_components)
def test_M4_every_component_becomes_safe_and_stays_so(raw: bytes) -> None:
    component = safe_component(raw)
    assert_is_safe(component)
    assert safe_component(component) == component
    assert_is_safe(safe_name(raw))
    assert not safe_name(raw).startswith(".")


@pytest.mark.parametrize("raw", NASTY)
def test_M4_each_known_attack(raw: bytes) -> None:
    assert_is_safe(safe_component(raw))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"..", "__"),
        (b".", "_"),
        (b"", "_"),
        (b"/etc/passwd", "_etc_passwd"),
        (b"a\\..\\b", "a_.._b"),
        (b"C:", "C_"),
        (b"f:s", "f_s"),
        (b"a\0b", "a_b"),
        (b"con", "_con"),
        (b"COM1.txt", "_COM1.txt"),
        (b"COM10.txt", "COM10.txt"),
        (b"console.log", "console.log"),
        (b"end. ", "end__"),
        (b"\xffname", "_name"),
        (b"x" * 300 + b".tar", "x" * 251 + ".tar"),
        ("ü".encode() * 200, "ü" * 127),
    ],
)
def test_M4_what_becomes_of_it(raw: bytes, expected: str) -> None:
    assert safe_component(raw) == expected


@pytest.mark.parametrize(
    "name", ["a", "Ärger.txt", "a b (1).mkv", ".gitignore", "日本語", "x" * 255, "👩‍👩‍👧"]
)
def test_ordinary_names_stay(name: str) -> None:
    assert safe_component(name) == safe_component(name.encode()) == name


def test_M4_a_lone_surrogate_of_our_own_disk_is_no_error() -> None:
    assert safe_component("a\udcff") == "a_"


def test_M4_a_torrent_never_lands_as_a_hidden_file() -> None:
    assert safe_name(b".ssh") == "_ssh"
    assert safe_name(b"..") == "__"
    assert safe_name(b"ordinary") == "ordinary"


@given(st.lists(st.lists(raw_components, min_size=1, max_size=3).map(tuple), max_size=12))
@example([(b"a",), (b"a", b"b"), (b"a", b"c"), (b"a.1",), (b"A",), (b"a.1", b"b")])
@example([(b"a", b"b"), (b"a",), (b"a.1", b"x"), (b"a",)])
def test_M6_no_two_files_meet(raw: list[tuple[bytes, ...]]) -> None:
    paths = safe_paths(raw)
    assert paths == safe_paths(raw)
    assert [len(path) for path in paths] == [len(path) for path in raw]
    for path in paths:
        for component in path:
            assert_is_safe(component)
    files = {tuple(unicodedata.normalize("NFC", part.casefold()) for part in path) for path in paths}
    assert len(files) == len(paths)
    directories = {file[:depth] for file in files for depth in range(1, len(file))}
    assert not files & directories


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (["a.txt", "a.txt", "a.txt"], ["a.txt", "a.1.txt", "a.2.txt"]),
        (["README", "readme"], ["README", "readme.1"]),
        (["caf\u00e9", "cafe\u0301"], ["caf\u00e9", "cafe\u0301.1"]),
        (["\u1f80\u0301", "\u1f84"], ["\u1f80\u0301", "\u1f84.1"]),
        (["straße", "STRASSE"], ["straße", "STRASSE.1"]),
        (["a.1.txt", "a.txt", "a.txt"], ["a.1.txt", "a.txt", "a.2.txt"]),
        (["a", "a/b", "a/c"], ["a", "a.1/b", "a.1/c"]),
        (["a/b", "a"], ["a/b", "a.1"]),
        (["A/x", "a/x", "a/y"], ["A/x", "a/x.1", "a/y"]),
        ([".x", ".x"], [".x", ".x.1"]),
        (["c:", "c_"], ["c_", "c_.1"]),
    ],
)
def test_M6_the_later_one_is_renamed(raw: list[str], expected: list[str]) -> None:
    paths = safe_paths(tuple(path.encode().split(b"/")) for path in raw)
    assert ["/".join(path) for path in paths] == expected


def test_M6_a_number_fits_into_a_long_name() -> None:
    long = b"x" * 251 + b".txt"
    _, second = safe_paths([(long,), (long,)])
    assert second == ("x" * 243 + ".1.txt",)


def test_M6_many_equal_paths_are_numbered_in_one_pass() -> None:
    paths = safe_paths([(b"x" * 255,)] * 20_000)
    assert paths[-1] == ("x" * 247 + ".19999",)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 日本", "plain ü 日本"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\x9b31m", "\\x9b31m"),
        ("\udcff", "\\udcff"),
    ],
)
def test_C4_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(exclude_categories=[])))
def test_C4_whatever_it_is_it_can_be_written_and_is_one_line(text: str) -> None:
    shown = printable(text)
    assert len(shown.encode().decode().splitlines()) <= 1
    assert printable(shown) == shown
