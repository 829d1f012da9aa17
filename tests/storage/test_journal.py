from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from p2pnode.storage.block_map import BlockMap
from p2pnode.storage.journal import (
    Header,
    Journal,
    Run,
    encode_checkpoint,
    encode_doubted,
    encode_hashes,
    encode_pieces,
    encode_run,
    encode_state,
    read_header,
    replay,
)
from tests.storage.content import PIECE, metainfo_of

METAINFO = metainfo_of("data", bytes(3 * PIECE))
HASHES = bytes(4 * 32)
HEADER = Header(7, METAINFO.file_id, METAINFO.encode()).encode()


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "journal", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def put(fd: int, content: bytes) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, content, 0)


def read(fd: int, *records: bytes) -> tuple[dict[int, list[int]], list[int], list[Run]]:
    """What a journal of these records says: blocks of pieces in flight, whole pieces, suspects."""
    put(fd, HEADER + b"".join(records))
    said = replay(fd, METAINFO)
    assert said is not None
    assert said.inode == 7
    partial = {piece: list(progress.written) for piece, progress in said.blocks.partial.items()}
    return partial, list(said.blocks.have), said.suspects


def test_a_header_gives_the_metainfo(fd: int) -> None:
    put(fd, HEADER)
    assert read_header(fd) == Header(7, METAINFO.file_id, METAINFO.encode())
    assert replay(fd, metainfo_of("other", bytes(PIECE))) is None


@given(cut=st.integers(0, len(HEADER) - 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_S3_a_header_that_is_cut_is_none(fd: int, cut: int) -> None:
    put(fd, HEADER[:cut])
    assert read_header(fd) is None
    assert replay(fd, METAINFO) is None


@given(bit=st.integers(0, 8 * len(HEADER) - 1))
@example(bit=8 * (8 + 2 + 8 + 1 + 32))  # the length of the metainfo becomes enormous
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_S3_a_header_with_a_flipped_bit_is_none(fd: int, bit: int) -> None:
    content = bytearray(HEADER)
    content[bit // 8] ^= 0x80 >> bit % 8
    put(fd, bytes(content))
    assert read_header(fd) is None


class TestRecords:
    def test_what_no_checkpoint_covers_is_suspect(self, fd: int) -> None:
        run = Run(0, 1, 2)
        assert read(fd, encode_hashes(0, HASHES), encode_run(run)) == ({0: []}, [], [run])

    def test_a_checkpoint_covers_what_stands_before_its_offset(self, fd: int) -> None:
        start = [encode_hashes(0, HASHES), encode_run(Run(0, 0, 1))]
        covered = len(HEADER) + sum(map(len, start))
        late = encode_run(Run(0, 1, 1))
        assert read(fd, *start, late, encode_checkpoint(covered)) == ({0: [0]}, [], [Run(0, 1, 1)])
        covered += len(late)
        assert read(fd, *start, late, encode_checkpoint(covered)) == ({0: [0, 1]}, [], [])

    def test_with_its_last_block_a_piece_is_whole(self, fd: int) -> None:
        runs = [encode_run(Run(1, block, 1)) for block in (3, 0, 1, 2)]
        said = read(fd, encode_hashes(1, HASHES), *runs, *runs, encode_checkpoint(10**9), *runs)
        assert said == ({}, [1], [])

    def test_whole_pieces_count_once_they_are_covered(self, fd: int) -> None:
        assert read(fd, encode_pieces(1, 2), encode_checkpoint(10**9)) == ({}, [1, 2], [])
        assert read(fd, encode_pieces(1, 2)) == ({}, [], [])

    @pytest.mark.parametrize(
        "nonsense",
        [
            encode_pieces(3, 1),
            encode_pieces(0, 4),
            encode_pieces(0, 0),
            encode_hashes(3, HASHES),
            encode_hashes(0, HASHES[32:]),
            encode_hashes(0, bytes(32 * 40_000)),
            encode_run(Run(1, 0, 1)),  # before its hashes
            encode_run(Run(0, 4, 1)),
            encode_run(Run(0, 0, 5)),
            encode_run(Run(0, 0, 0)),
            encode_run(Run(2**40, 0, 1)),
            encode_doubted(1),
            b"\xff" + encode_pieces(0, 1)[1:],
        ],
    )
    def test_S3_a_record_that_makes_no_sense_ends_the_journal(self, fd: int, nonsense: bytes) -> None:
        start = [encode_hashes(0, HASHES), encode_run(Run(0, 0, 2))]
        end = [encode_run(Run(0, 2, 2)), encode_checkpoint(10**9)]
        assert read(fd, *start, nonsense, *end) == ({0: []}, [], [Run(0, 0, 2)])

    def test_nothing_counts_of_a_file_that_somebody_else_changed(self, fd: int) -> None:
        start = [encode_pieces(0, 1), encode_hashes(1, HASHES), encode_run(Run(1, 0, 1))]
        covered = [*start, encode_checkpoint(10**9), encode_run(Run(1, 1, 1))]
        for doubt in (encode_doubted(0), encode_doubted(0) + encode_pieces(2, 1) + encode_checkpoint(10**9)):
            assert read(fd, *covered, doubt) == ({}, [], [])

    def test_S3_an_unknown_kind_ends_the_journal(self, fd: int) -> None:
        import struct
        import zlib

        content = struct.pack(">BQII", 99, 0, 0, 0)
        unknown = content + struct.pack(">I", zlib.crc32(content))
        assert read(fd, unknown, encode_pieces(0, 1), encode_checkpoint(10**9)) == ({}, [], [])

    @given(data=st.data())
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_S3_damage_never_adds_anything(self, fd: int, data: st.DataObject) -> None:
        records = b"".join(
            [
                encode_hashes(0, HASHES),
                encode_run(Run(0, 0, 4)),
                encode_checkpoint(10**9),
                encode_pieces(2, 1),
            ]
        )
        damaged = bytearray(records)
        for _ in range(data.draw(st.integers(1, 3))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        partial, have, suspects = read(fd, bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
        assert set(partial) <= {0}
        assert set(have) <= {0}
        assert set(suspects) <= {Run(0, 0, 4)}


def test_a_state_is_read_as_it_was_written(fd: int) -> None:
    blocks = BlockMap(METAINFO)
    blocks.add_pieces(0, 1)
    blocks.begin(2, HASHES)
    blocks.add(2, 0, 1)
    blocks.add(2, 2, 2)
    assert read(fd, encode_state(blocks), encode_checkpoint(10**9)) == ({2: [0, 2, 3]}, [0], [])


def test_an_append_that_fails_leaves_the_journal_as_it_was(
    fd: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(fd, HEADER)
    journal = Journal(fd, len(HEADER))
    journal.append(b"first")
    real = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        real(fd, data[:-1], offset)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            journal.append(b"a longer one that is torn")
    assert (tmp_path / "journal").read_bytes() == HEADER + b"first"
    journal.append(b"third")
    journal.sync()
    assert (tmp_path / "journal").read_bytes() == HEADER + b"firstthird"
    assert journal.end == len(HEADER) + 10
