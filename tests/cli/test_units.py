from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.cli.units import (
    duration_text,
    parse_duration,
    parse_fraction,
    parse_rate,
    parse_size,
    rate_text,
    size_text,
)
from p2pnode.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("65536", 65536),
        ("12B", 12),
        ("256M", 256 << 20),
        ("256m", 256 << 20),
        ("1.5GiB", 3 << 29),
        ("10MB", 10_000_000),
        ("2 kB", 2000),
        (" 1T ", 1 << 40),
        ("3P", 3 << 50),
    ],
)
def test_reads_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1,5M", "1e3", "12X", "1 M M", "\u0661", "0x10", "1.M"])
def test_refuses_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigError, match="is no size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1500", 1500),
        ("500k", 500 * 1024),
        ("10MB", 10_000_000),
        ("1.5MiB", 1.5 * 1024**2),
        ("10 MB/s", 10_000_000),
        ("100Mbit", 12_500_000),
        ("2.5 gbit/s", 312_500_000),
        ("20000bit", 2500),
        ("0", None),
        ("0Mbit", None),
        ("unlimited", None),
        (" Unlimited ", None),
    ],
)
def test_reads_rates_as_people_write_them(text: str, rate: float | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "-1", "10MB/min", "10Mibit", "/s", "bit", "1.bit", "100Mbps"])
def test_refuses_what_is_no_rate(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is no rate: write 500k, 10MB, 1\.5MiB or 100Mbit"):
        parse_rate(text)


@given(st.integers(0, 2**62))
def test_a_plain_number_is_bytes(size: int) -> None:
    assert parse_size(str(size)) == pytest.approx(size, rel=1e-15)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (100 * 1024, "100 KiB"),
        (256 << 20, "256 MiB"),
        (1000 << 20, "1.0 GiB"),
        (5 << 50, "5.0 PiB"),
        (9999 << 50, "9999 PiB"),
    ],
)
def test_shows_three_digits(size: int, text: str) -> None:
    assert size_text(size) == text


def test_a_rate_is_a_size_in_a_second() -> None:
    assert rate_text(1.9 * 2**30) == "1.9 GiB/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0s"),
        (3.21, "3.2s"),
        (9.97, "10s"),
        (59.4, "59s"),
        (125, "2m05s"),
        (3600, "1h00m"),
        (11045, "3h04m"),
    ],
)
def test_shows_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(("text", "seconds"), [("20ms", 0.02), ("1.5s", 1.5), ("0.02", 0.02), (" 0 ", 0.0)])
def test_reads_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "ms", "-1s", "1h", "1e3", "nan"])
def test_refuses_what_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigError, match="is no duration: write 20ms"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "fraction"), [("1.5%", 0.015), ("0.25", 0.25), ("100%", 1.0), ("0", 0.0)])
def test_reads_fractions(text: str, fraction: float) -> None:
    assert parse_fraction(text) == fraction


@pytest.mark.parametrize("text", ["", "%", "-1%", "101%", "2", "nan"])
def test_refuses_what_is_no_fraction(text: str) -> None:
    with pytest.raises(ConfigError, match="is no fraction"):
        parse_fraction(text)
