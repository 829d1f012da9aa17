"""Strict bencode (BEP 3): a scan that refuses every second way to write a value, then bencode.py.

bencode.py accepts what the format forbids (unsorted and repeated keys, ``i+5e``, ``i 5e``, ``i1_0e``, text
instead of bytes), and it recurses. So bytes are first scanned here, iteratively and within limits, and
bencode.py gets only what is left: exactly one spelling of each value. What is encoded goes through the same
scan, so nothing is written that would not be read.

Only the order of keys can be relaxed (`KeyOrder`): other programs write it wrong, and an info hash is taken
of raw bytes anyway (`raw_value`). A key that occurs twice is always an error: two readers could differ on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import Final, TypeAlias, cast

from bencodepy import Bencode

from p2pnode import config
from p2pnode.errors import BencodeError

__all__ = ["KeyOrder", "Value", "decode", "encode", "is_canonical", "raw_value"]

Value: TypeAlias = "int | bytes | list[Value] | dict[bytes, Value]"

_CODEC: Final = Bencode(encoding=None, max_depth=config.BENCODE_DEPTH_MAX)


class KeyOrder(Enum):
    """Where the keys of dictionaries must ascend by their raw bytes, as BEP 3 demands."""

    SORTED = "in every dictionary"
    SORTED_BELOW_TOP = "in all but the outermost dictionary"
    ANY = "nowhere"


def decode(
    data: bytes,
    size_max: int = config.FOREIGN_METAINFO_SIZE_MAX,
    *,
    key_order: KeyOrder = KeyOrder.SORTED,
) -> Value:
    """Return the one value that `data` holds; strings and keys are bytes.

    Raises `BencodeError` for anything but strict bencode of at most `size_max` bytes, `BENCODE_TOKENS_MAX`
    tokens, integers of `BENCODE_INTEGER_DIGITS_MAX` digits, and nesting `BENCODE_DEPTH_MAX` deep.
    """
    _scan(data, size_max, key_order)
    return cast("Value", _CODEC.decode(data))


def encode(value: Value) -> bytes:
    """Return the canonical bencode of `value`: keys sorted, no second spelling.

    Raises `BencodeError` for a value that bencode cannot say or that `decode` would refuse.
    """
    try:
        data = cast("bytes", _CODEC.encode(value))
    except (KeyError, TypeError, ValueError, RecursionError):
        raise BencodeError("only integers, bytes, lists and dictionaries can be bencoded") from None
    _scan(data, len(data), KeyOrder.SORTED)
    return data


def raw_value(data: bytes, key: bytes, size_max: int = config.FOREIGN_METAINFO_SIZE_MAX) -> bytes:
    """Return the exact bytes that stand for `key` in the outermost dictionary, whatever the order of keys.

    An info hash is taken of these and never of a re-encoding. Raises `BencodeError` as `decode` does, and
    when `data` is no dictionary or lacks the key.
    """
    span = _scan(data, size_max, KeyOrder.ANY).get(key)
    if span is None:
        raise BencodeError(f"no key {key!r} in the outermost dictionary")
    return data[span]


def is_canonical(data: bytes) -> bool:
    """Whether `data` is strict bencode with sorted keys: decoding and encoding gives the same bytes."""
    try:
        _scan(data, len(data), KeyOrder.SORTED)
    except BencodeError:
        return False
    return True


# -- the scan: bytes → tokens → one well-formed value ------------------------------------------------------

_TOKEN: Final = re.compile(
    rb"(0|[1-9][0-9]{0,11}):|(i(?:0|-?[1-9][0-9]{0,%d})e)|(l)|(d)|(e)"
    % (config.BENCODE_INTEGER_DIGITS_MAX - 1)
)
_STRING, _INTEGER, _LIST, _DICTIONARY, _END = range(1, 6)

_Token: TypeAlias = tuple[int, int, int]


def _tokens(data: bytes) -> Iterator[_Token]:
    """Yield (kind, start, end) of each token; of a string, those of its content.

    No length or number is believed before it is checked, and nothing is copied.
    """
    match = _TOKEN.match
    size = len(data)
    position = 0
    for _ in range(config.BENCODE_TOKENS_MAX):
        if position == size:
            return
        token = match(data, position)
        if token is None:
            raise BencodeError(f"malformed bencode at byte {position}")
        kind = cast("int", token.lastindex)
        start, end = token.span()
        if kind == _STRING:
            start, end = end, end + int(token[1])
            if end > size:
                raise BencodeError(f"the string at byte {position} is longer than what is left")
        yield kind, start, end
        position = end
    if position != size:
        raise BencodeError(f"more than {config.BENCODE_TOKENS_MAX} bencode tokens")


class _OpenDictionary:
    """A dictionary whose end has not come: the key that waits for its value, and the keys seen."""

    __slots__ = ("_last_key", "_seen", "key", "value_start")

    def __init__(self, *, is_sorted: bool) -> None:
        self.key: bytes | None = None
        self.value_start = 0
        self._last_key: bytes | None = None
        self._seen: set[bytes] | None = None if is_sorted else set()

    def open_key(self, key: bytes, start: int, end: int) -> None:
        """Take the next key, which stands at `start` and whose value begins at `end`."""
        if self._seen is not None:
            if key in self._seen:
                raise BencodeError(f"the key at byte {start} occurs twice")
            self._seen.add(key)
        elif self._last_key is not None and key <= self._last_key:
            raise BencodeError(f"the key at byte {start} is repeated or out of order")
        self.key = self._last_key = key
        self.value_start = end


def _check_size(data: bytes, size_max: int) -> None:
    if not isinstance(data, bytes):
        raise BencodeError(f"bencode is bytes, not {type(data).__name__}")
    if len(data) > size_max:
        raise BencodeError(f"{len(data)} bytes of bencode are more than the {size_max} that are allowed")


def _scan(data: bytes, size_max: int, key_order: KeyOrder) -> dict[bytes, slice]:
    """Check that `data` is one strict value; return where the values of the outermost dictionary are."""
    _check_size(data, size_max)
    spans: dict[bytes, slice] = {}
    containers: list[_OpenDictionary | None] = []  # those that are open, outermost first; None is a list
    dictionary: _OpenDictionary | None = None  # the innermost, if that is a dictionary
    end = 0
    for kind, start, end in _tokens(data):
        if dictionary is not None and dictionary.key is None and kind != _END:
            if kind != _STRING:
                raise BencodeError(f"the key at byte {start} is not a string")
            dictionary.open_key(data[start:end], start, end)
            continue
        if kind in (_LIST, _DICTIONARY):
            if len(containers) == config.BENCODE_DEPTH_MAX:
                raise BencodeError(f"bencode nested deeper than {config.BENCODE_DEPTH_MAX}")
            dictionary = _open(kind, len(containers), key_order)
            containers.append(dictionary)
            continue
        if kind == _END:
            if not containers or (dictionary is not None and dictionary.key is not None):
                raise BencodeError(f"unexpected end of a list or dictionary at byte {start}")
            containers.pop()
            dictionary = containers[-1] if containers else None
        # here a value is complete
        if not containers:
            break
        if dictionary is not None:
            if len(containers) == 1:
                spans[cast("bytes", dictionary.key)] = slice(dictionary.value_start, end)
            dictionary.key = None
    else:
        raise BencodeError("bencode ends in the middle of a value")
    if end != len(data):
        raise BencodeError(f"{len(data) - end} bytes after the end of the bencoded value")
    return spans


def _open(kind: int, depth: int, key_order: KeyOrder) -> _OpenDictionary | None:
    """What to note of a list or dictionary that begins inside `depth` others."""
    if kind == _LIST:
        return None
    is_sorted = key_order is KeyOrder.SORTED or (key_order is KeyOrder.SORTED_BELOW_TOP and depth > 0)
    return _OpenDictionary(is_sorted=is_sorted)
