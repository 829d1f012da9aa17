"""Sizes, rates and durations as people write and read them."""

from __future__ import annotations

import re
from math import inf
from typing import Final

from p2pnode.errors import ConfigError

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(I?B)?", re.IGNORECASE | re.ASCII)
_BITS: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)bit", re.ASCII)
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s)?", re.ASCII)
_FRACTION: Final = re.compile(r"(\d+(?:\.\d+)?)(%)?", re.ASCII)
_PREFIXES: Final = "KMGTP"


def parse_size(text: str) -> int:
    """Bytes of `65536`, `256M`, `1.5GiB` (powers of 1024) or `10MB` (of 1000); ConfigError otherwise."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text!r} is no size: write 65536, 256M, 1.5GiB or 10MB")
    number, prefix, unit = match.groups()
    scale = 1000 if (unit or "").upper() == "B" else 1024
    return round(float(number) * int(scale ** _power(prefix)))


def parse_rate(text: str) -> float | None:
    """Bytes a second of `500k` (any size) or `100Mbit` (bits, by 1000s), with or without `/s`.

    None for `0` and `unlimited`; ConfigError otherwise.
    """
    word = text.strip().lower().removesuffix("/s")
    if word == "unlimited":
        return None
    bits = _BITS.fullmatch(word)
    try:
        rate = float(bits[1]) * 1000 ** _power(bits[2]) / 8 if bits else float(parse_size(word))
    except ConfigError:
        raise ConfigError(
            f"{text!r} is no rate: write 500k, 10MB, 1.5MiB or 100Mbit (a second), or unlimited"
        ) from None
    return rate or None


def parse_duration(text: str) -> float:
    """Seconds of `20ms`, `1.5s` or `0.02`; ConfigError otherwise."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text!r} is no duration: write 20ms, 1.5s or 0.02 (seconds)")
    return float(match[1]) / (1000 if match[2] == "ms" else 1)


def parse_fraction(text: str) -> float:
    """0 … 1 of `1.5%` or `0.015`; ConfigError otherwise."""
    match = _FRACTION.fullmatch(text.strip())
    fraction = float(match[1]) / (100 if match[2] else 1) if match else inf
    if fraction > 1:
        raise ConfigError(f"{text!r} is no fraction: write 1.5% or 0.015")
    return fraction


def _power(prefix: str) -> int:
    return _PREFIXES.index(prefix.upper()) + 1 if prefix else 0


def size_text(size: float) -> str:
    """`512 B`, `1.5 KiB`, `162 GiB`: three digits are enough for a person."""
    if size < 1024:
        return f"{size:.0f} B"
    for prefix in _PREFIXES:
        size /= 1024
        if size < 1000 or prefix == _PREFIXES[-1]:
            break
    return f"{size:.{0 if size >= 99.95 else 1}f} {prefix}iB"


def rate_text(bytes_per_s: float) -> str:
    """`1.9 GiB/s`."""
    return f"{size_text(bytes_per_s)}/s"


def duration_text(seconds: float) -> str:
    """`0.4s`, `16s`, `2m05s`, `3h04m`."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"
