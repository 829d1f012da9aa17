from __future__ import annotations

import pytest

from p2pnode.errors import MetainfoError
from p2pnode.torrent.layout import EntryKind, FileEntry, lay_out, offsets_v1, offsets_v2


def entry(name: bytes, size: int, kind: EntryKind = EntryKind.FILE) -> FileEntry:
    return FileEntry((name,), size, kind=kind)


ENTRIES = [entry(b"a", 25), entry(b"e", 0), entry(b"p", 5, EntryKind.PAD), entry(b"b", 10), entry(b"c", 3)]


def test_v1_files_follow_each_other() -> None:
    assert offsets_v1(ENTRIES, 10) == [0, 25, 25, 30, 40]


def test_v2_files_start_at_pieces() -> None:
    assert offsets_v2([entry for entry in ENTRIES if entry.kind is EntryKind.FILE], 10) == [0, 30, 30, 40]


def test_pieces_are_numbered_through_the_files() -> None:
    files = lay_out(ENTRIES, offsets_v1(ENTRIES, 10), 10, name="n", is_directory=True)
    assert [(file.path, file.offset, file.first_piece, file.piece_count) for file in files] == [
        (("a",), 0, 0, 3),
        (("e",), 25, 2, 0),
        (("b",), 30, 3, 1),
        (("c",), 40, 4, 1),
    ]


def test_v1_files_may_share_a_piece() -> None:
    entries = [entry(b"a", 5), entry(b"b", 16), entry(b"c", 1)]
    files = lay_out(entries, offsets_v1(entries, 10), 10, name="n", is_directory=True)
    assert [(file.first_piece, file.piece_count) for file in files] == [(0, 1), (0, 3), (2, 1)]


def test_the_only_file_gets_the_name_of_the_torrent() -> None:
    (file,) = lay_out([entry(b"raw", 5)], [0], 10, name="safe", is_directory=False)
    assert (file.path, file.raw_path) == (("safe",), (b"raw",))


@pytest.mark.parametrize("sizes", [(5, 4), (5, 6), (5, 15), (10, 10)])
def test_padding_ends_where_a_piece_ends(sizes: tuple[int, int]) -> None:
    with pytest.raises(MetainfoError, match="pad file"):
        offsets_v1([entry(b"a", sizes[0]), entry(b"p", sizes[1], EntryKind.PAD)], 10)


@pytest.mark.parametrize("kind", [EntryKind.PAD, EntryKind.SYMLINK])
def test_what_is_no_file_is_no_torrent(kind: EntryKind) -> None:
    with pytest.raises(MetainfoError, match="without files"):
        lay_out([entry(b"x", 0, kind)], [0], 10, name="n", is_directory=True)
