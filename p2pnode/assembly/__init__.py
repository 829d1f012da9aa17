"""Puts parts together: the one place that knows them all.

The command line knows paths, hex and flags; a node wants credentials and trust, a torrent wants hashes. What
turns the ones into the others stands here, so that the doors need know neither transport nor storage.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import p2pnode
from p2pnode.errors import CredentialsError
from p2pnode.node.server_reference import ServerReference
from p2pnode.quic import (
    CertificateTrust,
    Credentials,
    Diagnostics,
    Impairment,
    NodeKey,
    NoTrust,
    PinTrust,
    SystemTrust,
    Trust,
)
from p2pnode.storage import OnProgress, find_item, hash_files, hash_pieces_v1, verify_path
from p2pnode.storage.faults import translated
from p2pnode.torrent import Metainfo, Selection, TorrentVersion, create_metainfo, piece_length_for

__all__ = [
    "Diagnostics",
    "Impairment",
    "kept_credentials",
    "load_credentials",
    "server_reference",
    "torrent_of",
    "verify_path",
]


def load_credentials(certificate: Path | None, key: Path | None) -> Credentials | None:
    """The TLS certificate a node shows; None: one made of its own key. Raises CredentialsError."""
    return None if certificate is None else Credentials.load(certificate, key)


def kept_credentials(state_dir: Path) -> Credentials:
    """The certificate of a tracker without one of its own: made of its node key, kept as `tracker.crt`.

    So who pinned it, or was given the file, finds the same after a restart. Raises CredentialsError, StorageError.
    """
    path, key_path = state_dir / "tracker.crt", state_dir / "node.key"
    with translated("make", state_dir):
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    node_key = NodeKey.load_or_create(key_path)
    try:
        return Credentials.load(path, key_path)
    except CredentialsError:  # missing, expired, or of a key that is gone
        made = Credentials.from_node_key(node_key)
    with translated("write", path):
        unfinished = path.with_name(f".{path.name}")
        unfinished.write_bytes(made.pem)
        unfinished.replace(path)
    return made


def server_reference(
    address: str, *, pin: str | None = None, certificate: Path | None = None, verify: bool = True
) -> ServerReference:
    """A server and what makes us believe that it is it.

    `address` is "host:port", "[v6]:port" or "https://host:port". `pin` is the hex of its node id or of its
    certificate's public key hash, `certificate` the path of its certificate or CA; with neither the system's
    roots decide, unless `verify` is false. Raises AddressError, CredentialsError, ConfigError.
    """
    return ServerReference(address, _trust(pin, certificate, verify))


def _trust(pin: str | None, certificate: Path | None, verify: bool) -> Trust:
    if pin is not None:
        return PinTrust(pin)
    if certificate is not None:
        return CertificateTrust(certificate)
    return SystemTrust() if verify else NoTrust()


def torrent_of(
    path: Path,
    *,
    version: TorrentVersion,
    piece_length: int | None = None,
    trackers: Iterable[Iterable[str]] = (),
    web_seeds: Sequence[str] = (),
    is_private: bool = False,
    comment: str = "",
    select: Selection = Selection(),  # noqa: B008 (it is frozen)
    on_progress: OnProgress | None = None,
) -> Metainfo:
    """Hash the file or tree at `path`, or what is selected of it, into a torrent for any program.

    The piece length follows from its size.

    Raises NotFound, StorageError, SourceChanged, MetainfoError.
    """
    item = find_item(path, select)
    chosen = piece_length or piece_length_for(item.size)
    aligned = version is TorrentVersion.HYBRID
    v1 = b"" if version is TorrentVersion.V2 else hash_pieces_v1(item, chosen, on_progress, aligned=aligned)
    return create_metainfo(
        item.path.name,
        hash_files(item, chosen, on_progress),
        is_directory=item.is_directory,
        version=version,
        piece_length=chosen,
        piece_hashes_v1=v1,
        trackers=trackers,
        web_seeds=web_seeds,
        is_private=is_private,
        comment=comment,
        created_by=f"p2pnode {p2pnode.__version__}",
    )
