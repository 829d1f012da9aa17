"""What people name a torrent by, and what nodes make of it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pnode.errors import InvalidData, NotFound
from p2pnode.node.references import Reference, Wanted, pick_by_name, wanted_from
from p2pnode.torrent import (
    FileHasher,
    HashedFile,
    Magnet,
    Metainfo,
    Ticket,
    TicketNode,
    TorrentVersion,
    canonical_metainfo,
    create_metainfo,
)
from p2pnode.wire.communication import FileItem, NodeItem
from tests.node.conftest import Swarm, write_random

ID = bytes(range(32))
DATA = bytes(100)


def hashed(data: bytes, piece_length: int, name: str = "a.bin") -> HashedFile:
    hasher = FileHasher(piece_length)
    hasher.update(data)
    return HashedFile((name,), hasher.finish())


def canonical() -> Metainfo:
    return canonical_metainfo("a.bin", [hashed(DATA, 16384)], is_directory=False)


def foreign(version: TorrentVersion, *, is_directory: bool = False) -> Metainfo:
    """The same bytes as others describe them."""
    return create_metainfo(
        "dir" if is_directory else "a.bin",
        [hashed(DATA, 32768)],
        is_directory=is_directory,
        version=version,
        piece_length=32768,
        piece_hashes_v1=bytes(20),
    )


TICKET = Ticket(ID, 5, "a.bin", (TicketNode(bytes(32), (("10.0.0.1", 5),)),))
TICKET_SOURCES = (NodeItem(bytes(32), (("10.0.0.1", 5),), ID),)

MEANINGS: list[tuple[Reference, Wanted]] = [
    (ID, Wanted(file_id=ID)),
    (ID.hex(), Wanted(file_id=ID)),
    (ID.hex().upper(), Wanted(file_id=ID)),
    (ID[:20].hex(), Wanted(file_id=ID[:20])),
    (ID.hex()[:-1], Wanted(name=ID.hex()[:-1])),
    ("a.bin", Wanted(name="a.bin")),
    (TICKET, Wanted(file_id=ID, name="a.bin", sources=TICKET_SOURCES)),
    (str(TICKET), Wanted(file_id=ID, name="a.bin", sources=TICKET_SOURCES)),
    (str(TICKET).upper(), Wanted(file_id=ID, name="a.bin", sources=TICKET_SOURCES)),
    (Magnet(info_hash_v2=ID, name="a.bin"), Wanted(file_id=ID, name="a.bin")),
    (f"magnet:?xt=urn:btmh:1220{ID.hex()}", Wanted(file_id=ID)),
    (canonical(), Wanted(file_id=canonical().file_id, name="a.bin", metainfo=canonical())),
]


@pytest.mark.parametrize(("reference", "wanted"), MEANINGS)
def test_a_reference_means(reference: Reference, wanted: Wanted) -> None:
    assert wanted_from(reference) == wanted
    assert wanted_from(wanted) is wanted


@pytest.mark.parametrize("version", [TorrentVersion.V2, TorrentVersion.HYBRID])
def test_a_foreign_torrent_of_a_file_is_known_by_its_bytes(version: TorrentVersion) -> None:
    root = canonical().files[0].pieces_root
    assert wanted_from(foreign(version)) == Wanted(pieces_root=root, name="a.bin")


def test_a_foreign_torrent_of_a_directory_is_known_by_its_hash() -> None:
    metainfo = foreign(TorrentVersion.V2, is_directory=True)
    assert wanted_from(metainfo) == Wanted(file_id=metainfo.info_hash_v2, name="dir")


@pytest.mark.parametrize(
    "reference",
    [
        foreign(TorrentVersion.V1),
        Magnet(info_hash_v1=bytes(20)),
        "magnet:?dn=nothing",
        str(TICKET)[:-1] + ("a" if str(TICKET)[-1] != "a" else "b"),
    ],
)
def test_what_cannot_be_fetched_is_invalid(reference: Reference) -> None:
    with pytest.raises(InvalidData):
        wanted_from(reference)


def item(name: str, number: int = 1) -> FileItem:
    return FileItem(bytes([number]) * 32, name, number)


def test_a_name_picks_the_one_file_of_that_name() -> None:
    assert pick_by_name("a", [item("a", 1), item("ab", 2)]) == item("a", 1)


def test_a_name_with_several_ids_lists_them() -> None:
    with pytest.raises(NotFound, match="2 different files") as caught:
        pick_by_name("a", [item("a", 1), item("a", 2)])
    assert (bytes([1]) * 32).hex() in str(caught.value) and (bytes([2]) * 32).hex() in str(caught.value)


def test_an_unknown_name_names_near_ones_safely() -> None:
    with pytest.raises(NotFound, match=r"near it: wei\\x1bghts"):
        pick_by_name("weights", [item("wei\x1bghts"), item("something else")])
    with pytest.raises(NotFound) as caught:
        pick_by_name("weights", [item("zzz")])
    assert "near" not in str(caught.value)


# -- in a node ---------------------------------------------------------------------------------------------


async def test_a_ticket_alone_leads_to_the_file(autojump_clock: MockClock, swarm: Swarm) -> None:
    sharing = await swarm.start("10.0.1.1")
    data = write_random(sharing.files_dir / "a.bin", 100_000)
    shared = await sharing.node.share(sharing.files_dir / "a.bin")
    ticket = await sharing.node.ticket(shared.file_id)
    fetching = await swarm.start("10.0.1.2")
    with trio.fail_after(60):
        done = await fetching.node.fetch(str(ticket), to=fetching.files_dir)
    assert done.target.read_bytes() == data
    assert ticket.server is None


async def test_a_ticket_names_the_server_and_its_pin(autojump_clock: MockClock, swarm: Swarm) -> None:
    server = await swarm.start_server()
    sharing = await swarm.start_peer()
    write_random(sharing.files_dir / "a.bin", 5)
    shared = await sharing.node.share(sharing.files_dir / "a.bin")
    ticket = await sharing.node.ticket(shared.file_id)
    assert ticket.server is not None
    assert (ticket.server.address, ticket.server.pin) == (server.node.listen_address, server.node.node_id)
    with pytest.raises(NotFound):
        await sharing.node.ticket(ID)


async def test_a_foreign_torrent_leads_to_a_renamed_copy(autojump_clock: MockClock, swarm: Swarm) -> None:
    await swarm.start_server()
    sharing = await swarm.start_peer()
    (sharing.files_dir / "renamed.bin").write_bytes(DATA)
    await sharing.node.share(sharing.files_dir / "renamed.bin")
    fetching = await swarm.start_peer()
    await trio.sleep(1)
    done = await fetching.node.fetch(foreign(TorrentVersion.HYBRID), to=fetching.files_dir)
    assert done.target == fetching.files_dir / "a.bin"
    assert done.target.read_bytes() == DATA


async def test_a_name_waits_until_somebody_offers_it(autojump_clock: MockClock, swarm: Swarm) -> None:
    await swarm.start_server()
    sharing, fetching = await swarm.start_peer(), await swarm.start_peer()
    with pytest.raises(NotFound, match="nobody offers"):
        await fetching.node.fetch("a.bin", to=fetching.files_dir)

    async def share_later() -> None:
        await trio.sleep(100)
        write_random(sharing.files_dir / "a.bin", 5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(share_later)
        done = await fetching.node.fetch("a.bin", to=fetching.files_dir, wait=True)
    assert done.size == 5
