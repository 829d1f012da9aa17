from __future__ import annotations

from base64 import b32encode
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.errors import InvalidData
from p2pnode.torrent.ticket import PREFIX, Ticket, TicketNode, TicketServer

hashes = st.binary(min_size=32, max_size=32)
addresses = st.tuples(
    st.sampled_from(["10.0.0.1", "fe80::1%eth0", "::1", "a-host.example.org"]), st.integers(1, 65535)
)
tickets = st.builds(
    Ticket,
    hashes | st.binary(min_size=20, max_size=20),
    st.integers(0, 2**63 - 1),
    st.text(max_size=30),
    st.lists(st.builds(TicketNode, hashes, st.lists(addresses, max_size=8).map(tuple)), max_size=8).map(
        tuple
    ),
    st.none() | st.builds(TicketServer, addresses, st.none() | hashes),
)
EXAMPLE = Ticket(
    bytes(range(32)),
    5,
    "hello.txt",
    (TicketNode(bytes(32), (("192.0.2.1", 4433),)),),
    TicketServer(("files.example.org", 8080), bytes(range(32, 64))),
)


def spelled(body: bytes) -> str:
    """A ticket of any content with a good checksum."""
    return PREFIX + b32encode(body + sha256(body).digest()[:4]).decode().rstrip("=").lower()


@given(tickets)
def test_a_line_leads_back_in_any_case(ticket: Ticket) -> None:
    line = str(ticket)
    assert Ticket.parse(line) == ticket
    assert Ticket.parse(f" {line.upper()}\n") == ticket
    assert line.isalnum()
    assert line.isascii()


def test_the_line_of_an_ordinary_ticket_is_short() -> None:
    assert len(str(EXAMPLE)) < 320


@given(st.integers(0, 10**6), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_one_wrong_character_is_noticed(position: int, character: str) -> None:
    line = str(EXAMPLE)
    position = len(PREFIX) + position % (len(line) - len(PREFIX))
    slipped = line[:position] + character + line[position + 1 :]
    if slipped != line:
        with pytest.raises(InvalidData, match="slip"):
            Ticket.parse(slipped)


@given(st.text(max_size=50))
def test_any_text_is_a_ticket_or_invalid(text: str) -> None:
    for line in (text, PREFIX + text):
        with pytest.raises(InvalidData):
            Ticket.parse(line)


@given(st.binary(max_size=100))
def test_any_content_is_a_ticket_or_invalid(body: bytes) -> None:
    try:
        ticket = Ticket.parse(spelled(body))
    except InvalidData:
        return
    assert str(ticket) == spelled(body)


def content(**changes: object) -> list[object]:
    nodes = [[bytes(32), [["h", 1]]]]
    fields = {"file_id": bytes(32), "size": 1, "name": "n", "nodes": nodes, "server": [["h", 1], None]}
    return list((fields | changes).values())


def test_the_hostile_contents_below_differ_from_a_good_one_in_one_field() -> None:
    assert Ticket.parse(spelled(msgspec.msgpack.encode(content()))).name == "n"


@pytest.mark.parametrize(
    "changes",
    [
        {"file_id": bytes(31)},
        {"file_id": bytes(21)},
        {"file_id": "x" * 32},
        {"size": -1},
        {"size": 2**63},
        {"size": 1.0},
        {"name": "x" * 1025},
        {"name": b"n"},
        {"nodes": [[bytes(32), []]] * 9},
        {"nodes": [[bytes(31), []]]},
        {"nodes": [[bytes(32), [["h", 1]] * 9]]},
        {"nodes": [[bytes(32), [["h", 0]]]]},
        {"nodes": [[bytes(32), [["h", 65536]]]]},
        {"nodes": [[bytes(32), [["", 1]]]]},
        {"nodes": [[bytes(32), [["a b", 1]]]]},
        {"nodes": [[bytes(32), [["h\n", 1]]]]},
        {"nodes": [[bytes(32), [["h" * 256, 1]]]]},
        {"server": ["h", 1]},
        {"server": [["h", 1], b"short"]},
        {"one more": 1},
    ],
)
def test_hostile_contents(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidData):
        Ticket.parse(spelled(msgspec.msgpack.encode(content(**changes))))


def test_two_spellings_of_one_content_are_not_both_tickets() -> None:
    line = str(EXAMPLE)
    spare_bits_set = line[:-1] + chr(ord(line[-1]) + 1)
    long_form_of_5 = msgspec.msgpack.encode(EXAMPLE).replace(b"\x05\xa9hello", b"\xcc\x05\xa9hello")
    for other in (spare_bits_set, spelled(long_form_of_5), line + "a" * 8, PREFIX, line + "=", "x" * 10_000):
        with pytest.raises(InvalidData):
            Ticket.parse(other)


def test_what_would_not_be_read_is_not_written() -> None:
    for ticket in (
        Ticket(b"short", 1, "n"),
        Ticket(bytes(32), -1, "n"),
        Ticket(bytes(32), 1, "n", (TicketNode(bytes(32), (("not a host", 1),)),)),
        Ticket(bytes(32), 1, "\U0001f600" * 1024, (TicketNode(bytes(32), (("h" * 200, 1),) * 8),) * 8),
    ):
        with pytest.raises(InvalidData):
            str(ticket)
