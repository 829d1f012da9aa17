"""Hypothesis strategies for every message, derived from the types and bounds that the messages state."""

from __future__ import annotations

from typing import Any, get_args

import msgspec.inspect as inspect
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.wire.communication import Message, PieceRanges

MESSAGE_TYPES: tuple[type[Message], ...] = get_args(Message)

_FEW = 3  # elements of a generated array: more would only be slower


@st.composite
def piece_ranges(draw: st.DrawFn) -> PieceRanges:
    """Ranges that ascend and do not overlap; neighbours may touch."""
    ranges = []
    end = 0
    for gap, count in draw(st.lists(st.tuples(st.integers(0, 2**40), st.integers(1, 2**40)), max_size=_FEW)):
        ranges.append((end + gap, count))
        end += gap + count
    return tuple(ranges)


# what a type cannot say, by the name of the field
_BY_FIELD: dict[str, st.SearchStrategy[Any]] = {
    "file_id": st.one_of(st.binary(min_size=20, max_size=20), st.binary(min_size=32, max_size=32)),
    "ranges": piece_ranges(),
    "have": piece_ranges(),
    "offset": st.integers(0, 2**40).map(lambda blocks: blocks * config.BLOCK_SIZE),
}


def _of(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.Metadata(type=inner):
            return _of(inner)
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType(ge=low, le=high, lt=below):
            return st.integers(low, high if below is None else below - 1)
        case inspect.FloatType(ge=low, le=high):
            return st.floats(low, high)
        case inspect.StrType(max_length=size):
            return st.text(max_size=min(size or 64, 64))
        case inspect.BytesType(min_length=low, max_length=high):
            return st.binary(min_size=low or 0, max_size=min(high or 64, (low or 0) + 64))
        case inspect.VarTupleType(item_type=item, max_length=size):
            return st.lists(_of(item), max_size=min(size or _FEW, _FEW)).map(tuple)
        case inspect.TupleType(item_types=items):
            return st.tuples(*map(_of, items))
        case inspect.UnionType(types=types):
            return st.one_of(*map(_of, types))
        case inspect.NoneType():
            return st.none()
        case inspect.StructType(cls=cls):
            return of_struct(cls)
    raise AssertionError(f"no strategy for {kind}")


def of_struct(cls: type) -> st.SearchStrategy[Any]:
    """Instances of a message or of a row of one."""
    structure = inspect.type_info(cls)
    assert isinstance(structure, inspect.StructType)
    fields = {field.name: _BY_FIELD.get(field.name, _of(field.type)) for field in structure.fields}
    if cls.__name__ == "FindSources":  # one of the two must be there
        fields["pieces_root"] = st.binary(min_size=32, max_size=32)
    return st.builds(cls, **fields)


messages: st.SearchStrategy[Message] = st.one_of([of_struct(cls) for cls in MESSAGE_TYPES])
