from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from p2pnode import config
from p2pnode.tracker.file_index import FileIndex
from p2pnode.wire.codec import encode
from p2pnode.wire.communication import FileAnnounce, FileItem, FileList, NodeItem, Sources

ALICE, BOB, MALLORY = b"a" * 32, b"b" * 32, b"m" * 32
ROOT = b"r" * 32


def index(**limits: int) -> FileIndex:
    return FileIndex(**{"files_per_node_max": 100, "offers_max": 1000, "ranges_total_max": 1000} | limits)


def announce(number: int = 1, name: str = "file", **fields: Any) -> FileAnnounce:
    facts: dict[str, Any] = {"size": 100, "piece_length": 10, "have": ((0, 10),)} | fields
    return FileAnnounce(number.to_bytes(32, "big"), name, **facts)


def names(files: FileIndex, prefix: str = "", limit: int = 48) -> list[str]:
    """All pages, one after the other."""
    found: list[str] = []
    after = b""
    while True:
        rows, after = files.page(prefix, after, limit)
        assert len(rows) <= limit
        found += [row.name for row in rows]
        if not after:
            return found


def holders(files: FileIndex, number: int = 1) -> dict[bytes, Any]:
    [file] = files.find(announce(number).file_id, None)
    return {node_id: holding.ranges for node_id, holding in file.holders.items()}


def test_an_offer_is_found_by_its_id() -> None:
    files = index()
    assert files.offer(ALICE, announce(have=((0, 3),))) is None
    [file] = files.find(announce().file_id, None)
    assert holders(files) == {ALICE: ((0, 3),)}
    assert (file.facts.name, file.facts.size, file.facts.have) == ("file", 100, ())


def test_a_later_offer_replaces_the_earlier_one() -> None:
    files = index()
    files.offer(ALICE, announce(have=((0, 3),)))
    files.offer(ALICE, announce(have=((5, 1),)))
    assert holders(files) == {ALICE: ((5, 1),)}
    assert files.offers_of(ALICE) == 1


CHANGED: list[dict[str, Any]] = [
    {"name": "other"},
    {"size": 99},
    {"piece_length": 20},
    {"pieces_root": ROOT},
    {"is_directory": True},
]


@pytest.mark.parametrize("changed", CHANGED)
def test_T6_a_stranger_who_came_first_shuts_nobody_out(changed: dict[str, Any]) -> None:
    files = index()
    files.offer(MALLORY, announce(**changed))
    [lie] = files.find(announce().file_id, None)
    assert files.offer(ALICE, announce()) is None
    assert lie.facts == replace(announce(**changed), have=())  # one word against one: the first
    assert files.offer(BOB, announce()) is None
    assert set(holders(files)) == {MALLORY, ALICE, BOB}
    [file] = files.find(announce().file_id, None)
    assert file.facts == replace(announce(), have=())
    assert files.page("", b"", 10)[0] == (FileItem(announce().file_id, "file", 100, sources=3),)
    files.withdraw(BOB, announce().file_id)
    files.withdraw(ALICE, announce().file_id)
    assert file.facts == replace(announce(**changed), have=())
    files.withdraw(MALLORY, announce().file_id)
    assert names(files) == []
    assert list(files.find(announce().file_id, ROOT)) == []


@pytest.mark.parametrize("changed", CHANGED)
def test_T6_our_own_word_counts_above_all_others(changed: dict[str, Any]) -> None:
    files = index()
    for stranger in (MALLORY, BOB):
        files.offer(stranger, announce(**changed))
    assert files.offer(ALICE, announce(), is_own=True) is None
    [file] = files.find(announce().file_id, None)
    assert file.facts == replace(announce(), have=())
    assert [found.facts for found in files.find(None, ROOT)] == []
    files.withdraw(ALICE, announce().file_id)
    assert file.facts == replace(announce(**changed), have=())


def test_who_changes_his_word_has_one() -> None:
    files = index()
    files.offer(ALICE, announce(name="a"))
    files.offer(BOB, announce(name="b"))
    for name in ("x", "b", "a", "b"):
        files.offer(ALICE, announce(name=name))
    assert names(files) == ["b"]
    files.withdraw(BOB, announce().file_id)
    assert names(files) == ["b"]
    files.offer(ALICE, announce(name="c"))
    assert names(files) == ["c"]


def test_for_ourselves_there_is_always_room() -> None:
    files = index(files_per_node_max=0, offers_max=0, ranges_total_max=0)
    assert files.offer(BOB, announce()) is not None
    assert files.offer(ALICE, announce(), is_own=True) is None
    assert files.offer(ALICE, announce(2, "\0"), is_own=True) is not None
    assert names(files) == ["file"]


@pytest.mark.parametrize("name", ["", "a\0b", "ä" * (config.NAME_LENGTH_MAX // 2 + 1)])
def test_m10_names_that_cannot_be_listed_are_refused(name: str) -> None:
    files = index()
    assert files.offer(ALICE, announce(name=name)) is not None
    assert names(files) == []


@pytest.mark.parametrize("have", [((3, 1), (0, 1)), ((0, config.PIECES_MAX + 1),)])
def test_malformed_ranges_are_refused(have: Any) -> None:
    files = index()
    assert files.offer(ALICE, announce(have=have)) is not None
    files.offer(ALICE, announce(have=((0, 1),)))
    assert files.offer(ALICE, announce(have=have)) is not None
    assert holders(files) == {ALICE: ((0, 1),)}


def test_a_file_is_there_while_somebody_offers_it() -> None:
    files = index()
    files.offer(ALICE, announce(pieces_root=ROOT))
    files.offer(BOB, announce(pieces_root=ROOT))
    files.withdraw(ALICE, announce().file_id)
    files.withdraw(ALICE, announce().file_id)
    assert names(files) == ["file"]
    files.withdraw_all(BOB)
    assert names(files) == []
    assert list(files.find(announce().file_id, ROOT)) == []
    assert files.offers_of(BOB) == 0


def test_the_same_bytes_under_another_name_are_found_after_the_file_itself() -> None:
    files = index()
    for number, name in ((3, "c"), (1, "a"), (2, "b")):
        files.offer(ALICE, announce(number, name, pieces_root=ROOT))
    files.offer(ALICE, announce(4, "d", pieces_root=b"s" * 32))
    assert [file.facts.name for file in files.find(announce(2).file_id, ROOT)] == ["b", "a", "c"]
    assert [file.facts.name for file in files.find(None, ROOT)] == ["a", "b", "c"]
    assert list(files.find(None, None)) == []
    files.withdraw(ALICE, announce(1).file_id)
    assert [file.facts.name for file in files.find(None, ROOT)] == ["b", "c"]


def test_a_list_is_sorted_by_name_then_id() -> None:
    files = index()
    for number, name in ((5, "b"), (2, "a"), (1, "b"), (3, "ä"), (4, "B")):
        files.offer(ALICE, announce(number, name))
    rows, after = files.page("", b"", 10)
    assert [(row.name, row.file_id[-1]) for row in rows] == [
        ("B", 4),
        ("a", 2),
        ("b", 1),
        ("b", 5),
        ("ä", 3),
    ]
    assert after == b""


def test_a_row_says_what_the_file_is_and_how_many_have_it() -> None:
    files = index()
    files.offer(ALICE, announce(is_directory=True))
    files.offer(BOB, announce(is_directory=True))
    assert files.page("", b"", 10)[0] == (
        FileItem(announce().file_id, "file", 100, sources=2, is_directory=True),
    )


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 48])
def test_pages_together_are_the_list(limit: int) -> None:
    files = index()
    for number in range(7):
        files.offer(ALICE, announce(number, f"x{number % 3}"))
        files.offer(ALICE, announce(100 + number, f"y{number}"))
    assert names(files, "x", limit) == ["x0"] * 3 + ["x1"] * 2 + ["x2"] * 2
    assert len(names(files, "", limit)) == 14
    assert names(files, "z", limit) == []


def test_a_page_of_nothing_has_no_next() -> None:
    files = index()
    files.offer(ALICE, announce())
    assert files.page("", b"", 0) == ((), b"")


def test_a_page_goes_on_where_its_last_row_has_gone() -> None:
    files = index()
    for number in range(4):
        files.offer(ALICE, announce(number, f"n{number}"))
    [first, second], after = files.page("", b"", 2)
    files.withdraw(ALICE, second.file_id)
    files.withdraw(ALICE, first.file_id)
    rows, after = files.page("", after, 2)
    assert [row.name for row in rows] == ["n2", "n3"]
    assert after == b""


@pytest.mark.parametrize("after", [b"\xff" * 2000, b"\0", b"zzz"])
def test_any_bytes_are_a_place_in_the_list(after: bytes) -> None:
    files = index()
    files.offer(ALICE, announce(name="mm"))
    assert len(files.page("", after, 5)[0]) == (after < b"mm")


def test_T6_one_node_may_announce_so_many_files() -> None:
    files = index(files_per_node_max=2)
    assert [files.offer(ALICE, announce(number)) is None for number in range(3)] == [True, True, False]
    assert files.offer(ALICE, announce(1, have=((0, 1),))) is None  # of what it has, it may say more
    assert files.offer(BOB, announce(5)) is None
    files.withdraw(ALICE, announce(0).file_id)
    assert files.offer(ALICE, announce(2)) is None


def test_T6_all_nodes_together_may_offer_so_much() -> None:
    files = index(offers_max=2)
    assert files.offer(ALICE, announce(1)) is None
    assert files.offer(BOB, announce(1)) is None
    assert files.offer(BOB, announce(2)) is not None
    files.withdraw_all(ALICE)
    assert files.offer(BOB, announce(2)) is None


def test_T6_piece_runs_are_bounded_in_all() -> None:
    files = index(ranges_total_max=3)
    assert files.offer(ALICE, announce(have=((0, 1), (2, 1)))) is None
    assert files.offer(BOB, announce(have=((0, 1), (2, 1)))) is not None
    assert files.offer(ALICE, announce(have=((0, 1), (2, 1), (4, 1)))) is None
    assert files.offer(ALICE, announce(have=((0, 1), (2, 1), (4, 1), (6, 1)))) is not None
    assert holders(files) == {ALICE: ((0, 1), (2, 1), (4, 1))}
    assert files.offer(ALICE, announce(have=((0, 5),))) is None
    assert files.offer(BOB, announce(have=((0, 1), (2, 1)))) is None


def test_T6_a_withdrawal_makes_room_for_other_piece_runs() -> None:
    files = index(ranges_total_max=2)
    for _ in range(3):
        assert files.offer(ALICE, announce(have=((0, 1), (2, 1)))) is None
        files.withdraw(ALICE, announce().file_id)
    assert files.offer(ALICE, announce(have=((0, 1),))) is None
    assert files.offer(ALICE, announce(have=((0, 1), (2, 1)))) is None  # the bound included
    assert holders(files) == {ALICE: ((0, 1), (2, 1))}


def test_T6_an_offer_in_crumbs_is_kept_in_part() -> None:
    crumbs = (*((2 * number, 1) for number in range(config.OFFER_RANGES_MAX)), (10_000, 50))
    files = index()
    files.offer(ALICE, announce(have=crumbs))
    assert len(holders(files)[ALICE]) == config.OFFER_RANGES_MAX
    assert (10_000, 50) in holders(files)[ALICE]


def test_the_largest_page_fits_a_frame() -> None:
    files = index()
    for number in range(config.LIST_PAGE_MAX + 1):
        name = "ä" * (config.NAME_LENGTH_MAX // 2)
        assert files.offer(ALICE, announce(number, name, size=2**63 - 1)) is None
    rows, after = files.page("", b"", config.LIST_PAGE_MAX)
    encode(FileList(prefix="ä" * config.NAME_LENGTH_MAX, after=after, files=rows, next=after))


def test_the_largest_answer_about_sources_fits_a_frame() -> None:
    high = config.PIECES_MAX - 2 * config.OFFER_RANGES_MAX
    have = tuple((high + 2 * number, 1) for number in range(config.OFFER_RANGES_MAX))
    addresses = (("2a00:1450:4001:1234:5678:9abc:def0:1234", 65_535),) * config.ADDRESSES_PER_NODE_MAX
    item = NodeItem(ALICE, addresses, ROOT, have, zone="z" * 64)
    encode(Sources((item,) * config.SOURCES_PER_MESSAGE_MAX))


# -- what is being fetched ---------------------------------------------------------------------------------


def fetching(*have: tuple[int, int], **fields: Any) -> FileAnnounce:
    return announce(have=have, is_fetching=True, **fields)


def turns(files: FileIndex, count: int) -> list[bytes]:
    [file] = files.find(announce().file_id, None)
    return file.take_turns(count)


def test_who_fetches_is_found_before_he_has_a_piece_and_lists_nothing() -> None:
    files = index()
    assert files.offer(ALICE, fetching(pieces_root=ROOT)) is None
    assert holders(files) == {ALICE: ()}
    assert [file.facts.name for file in files.find(None, ROOT)] == ["file"]
    assert names(files) == []
    files.withdraw(ALICE, announce().file_id)
    assert list(files.find(announce().file_id, ROOT)) == []


def test_a_row_tells_who_shares_from_who_fetches() -> None:
    files = index()
    files.offer(ALICE, announce())
    files.offer(BOB, fetching((0, 3)))
    assert files.page("", b"", 10)[0] == (FileItem(announce().file_id, "file", 100, sources=1, fetching=1),)
    files.offer(BOB, announce())
    assert files.page("", b"", 10)[0] == (FileItem(announce().file_id, "file", 100, sources=2),)


def test_what_nobody_has_whole_is_listed_while_those_who_fetch_it_may() -> None:
    files = index()
    files.offer(ALICE, fetching((0, 4)))
    files.offer(BOB, fetching((5, 4)))
    assert names(files) == []  # eight pieces of ten
    files.offer(BOB, fetching((4, 6)))
    assert names(files) == ["file"]
    files.offer(BOB, fetching((4, 5)))
    assert names(files) == []
    files.offer(MALLORY, announce())
    assert names(files) == ["file"]
    files.withdraw(MALLORY, announce().file_id)
    assert names(files) == []
    files.withdraw(ALICE, announce().file_id)
    files.withdraw(BOB, announce().file_id)
    assert files.offers_of(ALICE) == files.offers_of(BOB) == 0


def test_pieces_in_crumbs_count_though_not_all_are_kept() -> None:
    files = index()
    crumbs = tuple((2 * number, 1) for number in range(500))
    files.offer(ALICE, fetching(*crumbs, size=10_000))
    files.offer(BOB, fetching(*((first + 1, 1) for first, _ in crumbs), size=10_000))
    assert names(files) == ["file"]


def test_half_of_an_answer_is_of_those_who_share_and_half_of_those_who_fetch() -> None:
    files = index()
    for number in range(10):
        files.offer(bytes([number]) * 32, announce())
        files.offer(bytes([100 + number]) * 32, fetching())
    assert [node_id[0] // 100 for node_id in turns(files, 4)] == [0, 0, 1, 1]
    for number in range(8):
        files.withdraw(bytes([100 + number]) * 32, announce().file_id)
    assert [node_id[0] // 100 for node_id in turns(files, 6)] == [0, 0, 0, 0, 1, 1]
    for number in range(9):
        files.withdraw(bytes([number]) * 32, announce().file_id)
    assert len(turns(files, 6)) == 3
