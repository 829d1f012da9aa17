"""The files of a soak test are the same on every machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2pnode.cli.soak_files import SIZES, digest_of, file_set, make_files, reference_digests
from p2pnode.errors import StorageError


def test_the_set_has_exactly_these_sizes_in_this_order(tmp_path: Path) -> None:
    make_files(tmp_path / "seed", file_set(large=False))
    found = [(name, (tmp_path / "seed" / name).stat().st_size) for name in SIZES]
    assert found == [
        ("hello_world.txt", 30),
        ("small.txt", 35),
        ("data.json", 39),
        ("medium.bin", 500_000),
        ("log.txt", 1_500_000),
        ("large.bin", 20_000_000),
    ]
    assert (tmp_path / "seed" / "hello_world.txt").read_text() == "Hello World from QUIC Server!\n"
    json.loads((tmp_path / "seed" / "data.json").read_text())
    assert len(list((tmp_path / "seed").iterdir())) == len(SIZES)


def test_their_bytes_are_always_the_same(tmp_path: Path) -> None:
    sizes = {"medium.bin": 500_000, "log.txt": 1_500_000}
    for place in ("a", "b"):
        make_files(tmp_path / place, sizes)
    assert reference_digests(tmp_path / "a", sizes) == reference_digests(tmp_path / "b", sizes)
    assert digest_of(tmp_path / "a" / "medium.bin") == (
        "762ad35db05a7c7dc780fe5bebb1cb28bf365cf118ba1d4fed4894b2ec998c70"
    )


def test_a_file_of_another_size_is_made_anew_and_the_others_are_left(tmp_path: Path) -> None:
    sizes = {"small.txt": 35, "data.json": 39}
    make_files(tmp_path, sizes)
    before = (tmp_path / "data.json").stat().st_mtime_ns
    (tmp_path / "small.txt").write_text("cut")
    make_files(tmp_path, sizes)
    assert (tmp_path / "small.txt").stat().st_size == 35
    assert (tmp_path / "data.json").stat().st_mtime_ns == before


def test_with_large_there_is_a_gibibyte_too() -> None:
    assert file_set(large=True)["huge.bin"] == 2**30


def test_only_what_is_there_has_a_reference(tmp_path: Path) -> None:
    make_files(tmp_path, {"small.txt": 35})
    assert set(reference_digests(tmp_path, SIZES)) == {"small.txt"}


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError):
        make_files(tmp_path / "taken", {"small.txt": 35})
