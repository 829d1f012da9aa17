"""A process that downloads, and says each block when it is stored; run by `test_survival.py`.

killed_writer.py SOURCE TARGET METAINFO
"""

from __future__ import annotations

import sys
from pathlib import Path

from p2pnode.config import BLOCK_SIZE
from p2pnode.storage import FileStore
from p2pnode.torrent.metainfo import Metainfo


def main(source_path: Path, target: Path, metainfo: Metainfo) -> None:
    source = FileStore.share(metainfo, source_path)
    store = FileStore.download(metainfo, target)
    for piece in range(metainfo.piece_count):
        found = source.read_piece(piece)
        for first, count in store.missing_blocks(piece):
            assert store.begin_piece(piece, found.block_hashes)
            for block in range(first, first + count):
                store.write_blocks(
                    piece, block, b"".join(found.parts)[block * BLOCK_SIZE : (block + 1) * BLOCK_SIZE]
                )
                sys.stdout.write(f"{piece} {block}\n")
                sys.stdout.flush()
        if piece % 5 == 4:
            store.checkpoint()
    store.publish()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Metainfo.decode(Path(sys.argv[3]).read_bytes()))
