"""Strict bencode: one spelling of each value, within limits, and never a surprise for hostile bytes."""

from __future__ import annotations

import tracemalloc
from typing import Any

import bencode2
import bencodepy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.errors import BencodeError
from p2pnode.wire.bencoding import KeyOrder, Value, decode, encode, is_canonical, raw_value

values: st.SearchStrategy[Value] = st.recursive(
    st.integers(-(10**20) + 1, 10**20 - 1) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=6), inner, max_size=4),
    max_leaves=15,
)

# bytes that look like bencode more often than random ones do
near_misses = st.lists(
    st.sampled_from(b"d|l|e|i|i1e|i-0e|i0e|i-7e|i+5e|0:|1:a|1:b|2:ab|3:ab|01:a|:|-|9| |d1:ai1ee".split(b"|")),
    max_size=12,
).map(b"".join)


def refused(data: bytes, **options: Any) -> str:
    with pytest.raises(BencodeError) as caught:
        decode(data, **options)
    text = str(caught.value)
    assert text.isprintable()
    return text


# -- what goes in comes out --------------------------------------------------------------------------------


@given(values)
def test_decoding_what_was_encoded_gives_the_same_value(value: Value) -> None:
    data = encode(value)
    assert decode(data) == value
    assert is_canonical(data)


@given(values)
def test_bencode2_agrees_on_what_we_encode(value: Value) -> None:
    assert encode(value) == bencode2.bencode(value)
    assert bencode2.bdecode(encode(value)) == value


@settings(max_examples=500)
@given(near_misses | st.binary(max_size=30))
@example(b"d1:ai1e1:ai1ee")
@example(b"d1:bi1e1:ai1ee")
@example(b"i+5e")
@example(b"i1_0e")
@example(b"2:a")
def test_bencode2_accepts_exactly_what_we_accept(data: bytes) -> None:
    try:
        theirs = bencode2.bdecode(data)
    except ValueError:
        refused(data)
        assert not is_canonical(data)
    else:
        assert decode(data) == theirs
        assert is_canonical(data)


@settings(max_examples=500)
@given(near_misses | st.binary(max_size=30))
def test_what_is_accepted_is_its_own_encoding_in_bencode_py(data: bytes) -> None:
    if is_canonical(data):
        assert bencodepy.encode(bencodepy.decode(data)) == data


@given(values, st.data())
def test_one_byte_changed_is_refused_or_still_canonical(value: Value, draw: st.DataObject) -> None:
    data = bytearray(encode(value))
    data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        changed = decode(bytes(data))
    except BencodeError:
        return
    assert encode(changed) == data


def test_keys_and_strings_are_bytes_even_when_they_are_text() -> None:
    assert decode(b"d4:name5:p2pxxe") == {b"name": b"p2pxx"}
    assert decode(b"d2:\xff\xfe2:\xfe\xffe") == {b"\xff\xfe": b"\xfe\xff"}
    assert decode(b"d0:0:e") == {b"": b""}


# -- M1: nesting -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opening", [b"l", b"d0:", b"ld0:"])
def test_M1_a_nesting_bomb_is_refused_where_the_limit_is_passed(opening: bytes) -> None:
    assert "nested deeper" in refused(opening * 10**6)


def test_M1_a_nesting_bomb_under_an_unknown_key_is_refused() -> None:
    assert "nested deeper" in refused(b"d1:al" + b"i1e" * 10 + b"e7:unknown" + b"l" * 10**6)


def test_M1_the_depth_limit_is_exact() -> None:
    deepest = config.BENCODE_DEPTH_MAX
    data = b"l" * deepest + b"e" * deepest
    assert encode(decode(data)) == data
    assert "nested deeper" in refused(b"l" * (deepest + 1) + b"e" * (deepest + 1))


def test_M1_the_stack_does_not_grow_with_siblings() -> None:
    assert decode(b"l" + b"le" * 5000 + b"e") == [[]] * 5000


# -- M2: integers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "digits",
    [
        *b"|-|-0|03|00|-03|+5| 5|5 |1_000|5\n|\n5|\x005|0x5|5.0|1e3|--5|5-".split(b"|"),
        *("٥".encode(), "５".encode(), b"9" * 21, b"-" + b"9" * 21, b"9" * 4301),
    ],
)
def test_M2_integers_have_one_spelling(digits: bytes) -> None:
    refused(b"i" + digits + b"e")
    refused(b"d1:ai" + digits + b"ee")
    refused(b"li" + digits + b"ee")


@pytest.mark.parametrize("number", [0, 1, -1, 10, 2**63 - 1, -(2**63), 2**64 - 1, 10**20 - 1, -(10**20) + 1])
def test_M2_integers_of_up_to_20_digits_are_read(number: int) -> None:
    assert decode(b"i%de" % number) == number
    assert encode(number) == b"i%de" % number


def test_M2_an_integer_without_end_is_refused() -> None:
    refused(b"i5")
    refused(b"i" + b"1" * 10**6)


# -- M3: strings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        *b"-1:a|-0:|00003:abc|03:abc|00:|+1:a| 1:a|1 :a|1_0:abcdefghij|1|:|1:|4:abc".split(b"|"),
        *(b"2147483648:", b"1000000000000:abc", b"18446744073709551617:a", b"9" * 5000 + b":"),
    ],
)
def test_M3_string_lengths_have_one_spelling_and_fit_what_is_there(data: bytes) -> None:
    refused(data)
    refused(b"d" + data + b"i1ee")
    refused(b"d1:a" + data + b"e")
    refused(b"l" + data + b"e")


def test_M3_a_huge_length_is_refused_before_anything_is_allocated() -> None:
    tracemalloc.start()
    try:
        refused(b"999999999999:abc")
        refused(b"l999999999999:abce")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


# -- whole values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    b"|e|l|d|d1:a|d1:ae|d1:ai1e1:be|di1ei1ee|dlei1ee|ddei1ee|le0:|i1ei1e|dee|lee|x|null|{}|\x80".split(b"|"),
)
def test_what_is_not_one_whole_value_is_refused(data: bytes) -> None:
    refused(data)
    refused(data, key_order=KeyOrder.ANY)


@pytest.mark.parametrize("data", ["i1e", bytearray(b"i1e"), memoryview(b"i1e"), None, 5])
def test_only_bytes_are_taken(data: Any) -> None:
    assert "bytes" in refused(data)


def test_the_size_is_limited_first() -> None:
    assert "100 bytes" in refused(b"l" * 100, size_max=99)
    assert decode(b"100:" + b"a" * 100, size_max=104) == b"a" * 100
    refused(b"x" * (config.FOREIGN_METAINFO_SIZE_MAX + 1))
    with pytest.raises(BencodeError):
        raw_value(b"d1:ai1ee", b"a", size_max=7)


def test_M9_tokens_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "BENCODE_TOKENS_MAX", 10)
    most = b"l" + b"le" * 4 + b"e"
    assert decode(most) == [[]] * 4
    assert "tokens" in refused(b"l" + b"le" * 4 + b"i1ee")
    assert "in the middle" in refused(b"l" + b"le" * 4 + b"l")


# -- order of keys -----------------------------------------------------------------------------------------

UNSORTED_TOP = b"d1:bi1e1:ad1:ci2e1:di3eee"
UNSORTED_BELOW = b"d1:ad1:di2e1:ci3eee"
UNSORTED_IN_LIST = b"ld1:di2e1:ci3eee"


@pytest.mark.parametrize(
    ("data", "accepted_by"),
    [
        (b"d1:ai1e1:bi2ee", set(KeyOrder)),
        (UNSORTED_TOP, {KeyOrder.SORTED_BELOW_TOP, KeyOrder.ANY}),
        (UNSORTED_BELOW, {KeyOrder.ANY}),
        (UNSORTED_IN_LIST, {KeyOrder.ANY}),
        (b"d1:ai1e1:ai2ee", set()),
        (b"d1:ai1e1:bi2e1:ai3ee", set()),
        (b"d1:xd1:ai1e1:ai2eee", set()),
        (b"d0:i1e0:i2ee", set()),
    ],
)
def test_M8_the_order_of_keys_can_be_relaxed_but_none_may_repeat(
    data: bytes, accepted_by: set[KeyOrder]
) -> None:
    for order in KeyOrder:
        if order in accepted_by:
            assert decode(data, key_order=order) == bencodepy.decode(data)
        else:
            assert "key" in refused(data, key_order=order)
    assert is_canonical(data) == (KeyOrder.SORTED in accepted_by)


def test_keys_are_ordered_by_their_raw_bytes() -> None:
    assert is_canonical(b"d1:Bi1e1:ai1e2:aai1e1:\xffi1ee")
    assert not is_canonical(b"d1:ai1e1:Bi1ee")
    assert not is_canonical(b"d2:aai1e1:ai1ee")
    assert encode({b"b": 1, b"": 2, b"\xff": 3, b"B": 4}) == b"d0:i2e1:Bi4e1:bi1e1:\xffi3ee"


# -- the raw slice -----------------------------------------------------------------------------------------


@given(
    st.dictionaries(st.binary(max_size=6), values, min_size=1, max_size=5), st.randoms(use_true_random=False)
)
def test_M8_a_raw_value_is_the_exact_slice_in_any_order_of_keys(
    outer: dict[bytes, Value], random: Any
) -> None:
    items = list(outer.items())
    random.shuffle(items)
    data = b"d" + b"".join(encode(key) + encode(value) for key, value in items) + b"e"
    for key, value in items:
        assert raw_value(data, key) == encode(value)


def test_M8_a_raw_value_keeps_what_an_encoder_would_change() -> None:
    info = b"d6:lengthi1e4:infod1:bi1e1:ai2eee"
    data = b"d7:comment1:x4:info" + info + b"8:announce1:ye"
    assert raw_value(data, b"info") == info
    assert raw_value(data, b"announce") == b"1:y"


@pytest.mark.parametrize("data", [b"de", b"d1:ai1ee", b"d1:ad4:infoi1eee", b"le", b"i1e", b"4:info"])
def test_a_raw_value_that_is_not_there_is_an_error(data: bytes) -> None:
    with pytest.raises(BencodeError, match="info"):
        raw_value(data, b"info")


@pytest.mark.parametrize("data", [b"d4:infoi1e", b"d4:infoi1e4:infoi2ee", b"d4:infoi-0ee", b"d4:infoi1eex"])
def test_a_raw_value_is_only_given_out_of_well_formed_bytes(data: bytes) -> None:
    with pytest.raises(BencodeError):
        raw_value(data, b"info")


# -- encoding ----------------------------------------------------------------------------------------------


def nested(depth: int) -> Value:
    value: Value = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        *(None, 1.5, "\udc80", {"\udc80": 1}, bytearray(b"x"), {1, 2}, [object()], {1: 1}, {b"a": None}),
        *({"a": 1, b"a": 2}, 10**20, -(10**21), nested(config.BENCODE_DEPTH_MAX + 1), nested(5000)),
    ],
)
def test_what_could_not_be_read_again_is_not_encoded(value: Any) -> None:
    with pytest.raises(BencodeError):
        encode(value)
