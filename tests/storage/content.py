"""Files with known bytes, their metainfo, and the ways tests move blocks between stores."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random

from p2pnode.config import BLOCK_SIZE
from p2pnode.storage import FileStore, PieceData, WholePiece, hash_path
from p2pnode.torrent.creation import HashedFile, TorrentVersion, create_metainfo
from p2pnode.torrent.merkle import FileHasher
from p2pnode.torrent.metainfo import Metainfo

PIECE = 4 * BLOCK_SIZE  # small pieces of several blocks, so that partly written ones exist


def random_bytes(size: int, seed: object = 0) -> bytes:
    return Random(repr((size, seed))).randbytes(size)


def make_tree(root: Path, sizes: dict[str, int]) -> dict[str, bytes]:
    """Files of random bytes below `root`, by their relative paths."""
    contents = {}
    for name, size in sizes.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        contents[name] = random_bytes(size, name)
        path.write_bytes(contents[name])
    return contents


def hashed(data: bytes, piece_length: int, *parts: str) -> HashedFile:
    hasher = FileHasher(piece_length)
    hasher.update(data)
    return HashedFile(parts, hasher.finish())


def metainfo_of(name: str, contents: dict[str, bytes] | bytes, piece_length: int = PIECE) -> Metainfo:
    """A v2 torrent in pieces of `piece_length` of one file, or of a tree by relative paths."""
    if isinstance(contents, bytes):
        files = [hashed(contents, piece_length, name)]
    else:
        files = [hashed(data, piece_length, *path.split("/")) for path, data in contents.items()]
    return create_metainfo(
        name,
        files,
        is_directory=isinstance(contents, dict),
        version=TorrentVersion.V2,
        piece_length=piece_length,
    )


def bytes_of(piece: PieceData) -> bytes:
    return b"".join(piece.parts)


class Source:
    """A shared file or tree at `directory/name`, and its pieces."""

    def __init__(self, directory: Path, contents: int | bytes | dict[str, int], name: str = "data") -> None:
        directory.mkdir(exist_ok=True)
        self.path = directory / name
        self.data: bytes | dict[str, bytes]
        if isinstance(contents, dict):
            self.path.mkdir()
            self.data = make_tree(self.path, contents)
        else:
            self.data = contents if isinstance(contents, bytes) else random_bytes(contents)
            self.path.write_bytes(self.data)
        self.metainfo = metainfo_of(name, self.data)
        self.store = FileStore.share(self.metainfo, self.path)

    def canonical(self) -> Metainfo:
        return hash_path(self.path)

    def piece(self, index: int) -> PieceData:
        return self.store.read_piece(index)

    def block(self, piece: int, block: int) -> bytes:
        return bytes_of(self.piece(piece))[block * BLOCK_SIZE : (block + 1) * BLOCK_SIZE]

    def give_block(self, store: FileStore, piece: int, block: int) -> bool:
        assert store.begin_piece(piece, self.piece(piece).block_hashes)
        return store.write_blocks(piece, block, self.block(piece, block))

    def whole(self, index: int) -> WholePiece:
        piece = self.piece(index)
        return WholePiece(index, piece.block_hashes, bytes_of(piece))

    def give_whole(self, store: FileStore) -> int:
        """Write all that is missing, as one; how many pieces that was."""
        pieces = [self.whole(index) for index in ~store.have()]
        left = pieces
        while left:
            left = left[store.write_pieces(left) :]
        return len(pieces)

    def give_pieces(self, store: FileStore, pieces: Iterable[int] | None = None) -> int:
        """Write what is missing of these pieces, of all by default; how many blocks that was."""
        given = 0
        for index in range(self.metainfo.piece_count) if pieces is None else pieces:
            missing = store.missing_blocks(index)
            piece = self.piece(index)
            assert store.begin_piece(index, piece.block_hashes)
            for first, count in missing:
                store.write_blocks(
                    index, first, bytes_of(piece)[first * BLOCK_SIZE : (first + count) * BLOCK_SIZE]
                )
                given += count
        return given

    def is_at(self, target: Path) -> bool:
        """Whether exactly the same bytes are at `target`."""
        if isinstance(self.data, bytes):
            return target.read_bytes() == self.data
        found = {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}
        return found == self.data


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def unchanging(path: Path) -> tuple[int, ...]:
    """What tells that nobody touched it. To look at it is allowed, and sets the time of access."""
    status = path.lstat()
    return status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
