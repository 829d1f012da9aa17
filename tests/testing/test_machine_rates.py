"""What a machine can do, measured with as few bytes as it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pnode import config
from p2pnode.testing import machine_rates


@pytest.mark.parametrize("size", [0, 1, config.MIB, 2 * config.MIB - 1])
def test_exactly_the_bytes_that_are_counted_are_written(tmp_path: Path, size: int) -> None:
    with (tmp_path / "a.bin").open("wb") as file:
        machine_rates.fill(file, size)
    assert (tmp_path / "a.bin").stat().st_size == size


def test_a_disk_is_measured_after_as_much_was_written_before_and_nothing_is_left(tmp_path: Path) -> None:
    def written() -> int:
        lines = Path("/proc/self/io").read_text("ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))

    before = written()
    assert machine_rates.disk(tmp_path, config.MIB + 5) > 0
    assert 2 * (config.MIB + 5) <= written() - before < 3 * config.MIB
    assert list(tmp_path.iterdir()) == []
