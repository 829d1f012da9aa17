from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from p2pnode.assembly import load_credentials, server_reference, torrent_of, verify_path
from p2pnode.errors import AddressError, ConfigError, CredentialsError, NotFound
from p2pnode.quic import CertificateTrust, NoTrust, PinTrust, SystemTrust
from p2pnode.torrent import TorrentVersion


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate and its key in one PEM file."""
    path = tmp_path / "server.pem"
    issued = trustme.CA(key_type=trustme.KeyType.ECDSA).issue_cert(
        "localhost", key_type=trustme.KeyType.ECDSA
    )
    issued.private_key_and_cert_chain_pem.write_to_path(path)
    return path


def test_without_a_certificate_the_node_key_serves() -> None:
    assert load_credentials(None, None) is None


def test_a_certificate_may_hold_its_key(certificate: Path, tmp_path: Path) -> None:
    credentials = load_credentials(certificate, None)
    assert credentials is not None
    assert len(credentials.pin) == 32
    with pytest.raises(CredentialsError):
        load_credentials(tmp_path / "missing.crt", None)


def test_each_way_to_trust_is_one_kind_of_trust(certificate: Path) -> None:
    assert type(server_reference("h:1").trust) is SystemTrust
    assert type(server_reference("h:1", pin="ab" * 32).trust) is PinTrust
    assert type(server_reference("h:1", certificate=certificate).trust) is CertificateTrust
    assert type(server_reference("h:1", verify=False).trust) is NoTrust


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AddressError):
        server_reference("nowhere")
    with pytest.raises(ConfigError):
        server_reference("h:1", pin="ab")
    with pytest.raises(CredentialsError):
        server_reference("h:1", certificate=tmp_path / "missing.crt")


@pytest.mark.parametrize("version", TorrentVersion)
def test_a_torrent_of_a_tree_fits_the_tree(tmp_path: Path, version: TorrentVersion) -> None:
    root = tmp_path / "tree"
    (root / "deep").mkdir(parents=True)
    (root / "a").write_bytes(b"a" * 20_000)
    (root / "deep" / "b").write_bytes(b"b" * 40_000)
    seen: list[tuple[int, int]] = []
    metainfo = torrent_of(
        root, version=version, piece_length=32768, on_progress=lambda done, size: seen.append((done, size))
    )
    assert metainfo.piece_length == 32768
    assert (metainfo.info_hash_v1 is not None) == (version is not TorrentVersion.V2)
    assert (metainfo.info_hash_v2 is not None) == (version is not TorrentVersion.V1)
    assert verify_path(metainfo, root).is_good
    assert seen[-1] == (60_000, 60_000)
    (root / "a").write_bytes(b"A" * 20_000)
    assert not verify_path(metainfo, root).is_good


def test_a_torrent_of_nothing_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        torrent_of(tmp_path / "missing", version=TorrentVersion.V2)
