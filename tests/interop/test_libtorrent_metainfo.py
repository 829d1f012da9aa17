"""Our torrents against those of libtorrent: the same files must give the same info hashes."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pnode.torrent import Metainfo, TorrentVersion, piece_length_for
from tests.interop.programs import module
from tests.torrent.samples import KIB, TREE, Tree, canonical, content, torrent

SHARED: dict[str, bytes | Tree] = {
    "one block": b"hello\n",
    "one piece": content(32 * KIB),
    "many pieces": content(300_001),
    "tree": TREE,
    "tree of one file": {"only.bin": content(50_000)},
    "tree of one and an empty file": {"a": content(50_000), "b": b""},
    "tree that ends in an empty file": {"a": content(32 * KIB), "b": content(5), "c": b""},
}

libtorrent = module("libtorrent")

FLAGS = {
    TorrentVersion.V1: libtorrent.create_torrent.v1_only,
    TorrentVersion.V2: libtorrent.create_torrent.v2_only,
    TorrentVersion.HYBRID: 0,
}


def write(path: Path, shared: bytes | Tree) -> None:
    if isinstance(shared, bytes):
        path.write_bytes(shared)
        return
    for name, data in shared.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


def made_by_libtorrent(path: Path, version: TorrentVersion, piece_length: int) -> bytes:
    files = libtorrent.list_files(str(path))
    creator = libtorrent.create_torrent(files, piece_length, FLAGS[version])
    libtorrent.set_piece_hashes(creator, str(path.parent))
    return libtorrent.bencode(creator.generate())


def hashes(metainfo: Metainfo) -> tuple[str, str]:
    nothing_v1, nothing_v2 = bytes(20), bytes(32)
    return (metainfo.info_hash_v1 or nothing_v1).hex(), (metainfo.info_hash_v2 or nothing_v2).hex()


def hashes_of_libtorrent(encoding: bytes) -> tuple[str, str]:
    found = libtorrent.torrent_info(libtorrent.bdecode(encoding)).info_hashes()
    return str(found.v1), str(found.v2)


@pytest.mark.parametrize("version", TorrentVersion)
@pytest.mark.parametrize("case", SHARED)
def test_libtorrent_reads_our_torrents(case: str, version: TorrentVersion) -> None:
    ours = torrent("name", SHARED[case], version)
    assert hashes_of_libtorrent(ours.encode()) == hashes(ours)


@pytest.mark.parametrize("version", TorrentVersion)
@pytest.mark.parametrize("case", SHARED)
def test_we_read_those_of_libtorrent(case: str, version: TorrentVersion, tmp_path: Path) -> None:
    write(tmp_path / "name", SHARED[case])
    encoding = made_by_libtorrent(tmp_path / "name", version, 32 * KIB)
    theirs = Metainfo.decode(encoding)
    assert hashes(theirs) == hashes_of_libtorrent(encoding)
    assert theirs.is_directory == isinstance(SHARED[case], dict)
    if version is not TorrentVersion.V1:  # the order of files is free in v1
        assert hashes(torrent("name", SHARED[case], version)) == hashes(theirs)


@pytest.mark.parametrize("case", SHARED)
def test_the_canonical_form_is_a_torrent_as_libtorrent_makes_it(case: str, tmp_path: Path) -> None:
    shared = SHARED[case]
    size = len(shared) if isinstance(shared, bytes) else sum(map(len, shared.values()))
    write(tmp_path / "name", shared)
    encoding = made_by_libtorrent(tmp_path / "name", TorrentVersion.V2, piece_length_for(size))
    assert hashes_of_libtorrent(encoding) == hashes(canonical("name", shared))
