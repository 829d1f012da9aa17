"""How the protocol document words the types, bounds and defaults that the messages state."""

from __future__ import annotations

from typing import Any

import msgspec
import msgspec.inspect as inspect

from p2pnode.wire import communication

Row = tuple[str, str, str]  # field, type, default

_ALIASES = [
    (inspect.type_info(kind), word)
    for kind, word in [
        (communication.PieceRanges, "ranges"),
        (communication.Addresses, "addresses"),
        (communication.HostPort, "address"),
        (communication.FileId, "file id"),
        (communication.Cursor, "cursor"),
        (communication.Count, "count"),
        (communication.Port, "port"),
        (communication.Name, "name"),
        (communication.Word, "word"),
        (communication.Text, "line"),
        (communication.Seconds, "seconds"),
        (communication.Duration, "duration"),
    ]
]


def type_word(kind: inspect.Type) -> str:
    """The word for a type, with its bounds."""
    for alias, word in _ALIASES:
        if alias == kind:
            return word
    match kind:
        case inspect.BoolType():
            return "boolean"
        case inspect.IntType(ge=low, le=high, lt=below):
            return f"integer {low} … {high if below is None else below - 1}"
        case inspect.BytesType(min_length=low, max_length=high):
            return f"bytes {low}" if low == high else f"bytes {low} … {high}"
        case inspect.VarTupleType(item_type=item, max_length=size):
            return f"array ≤ {size} of {type_word(item)}"
        case inspect.StructType(cls=cls):
            return f"`{cls.__name__}`"
        case inspect.UnionType(types=(first, inspect.NoneType())):
            return f"{type_word(first)}, or nil"
    raise AssertionError(f"no word for {kind}")


def default_word(default: Any) -> str:
    """The word for what an absent field means."""
    words: list[tuple[Any, str]] = [(msgspec.NODEFAULT, "required"), (b"", "no bytes"), ((), "[]")]
    words += [(None, "nil"), (False, "false"), (True, "true"), ("", '""')]
    for value, word in words:
        if type(default) is type(value) and default == value:
            return word
    return f'"{default}"' if isinstance(default, str) else f"{default:g}"


def field_rows(cls: type) -> list[Row]:
    """The table of a message or of a row of one."""
    structure = inspect.type_info(cls)
    assert isinstance(structure, inspect.StructType)
    return [
        (f"`{field.name}`", type_word(field.type), default_word(field.default)) for field in structure.fields
    ]
