from __future__ import annotations

import stat
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from p2pnode.errors import StorageError, TrustError
from p2pnode.quic import Credentials, NodeKey
from p2pnode.services.known_trackers import KnownTrackers


def certificate() -> x509.Certificate:
    return Credentials.from_node_key(NodeKey.generate()).certificate


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def known(tmp_path: Path, said: list[str]) -> KnownTrackers:
    return KnownTrackers(tmp_path / "state" / "known_trackers", said.append)


def test_the_first_key_is_pinned_and_said_once(known: KnownTrackers, said: list[str]) -> None:
    first = certificate()
    trust = known.trust("127.0.0.1:7001")
    for _ in range(3):
        assert trust.check_certificate([first], "127.0.0.1")
    [line] = said
    assert "127.0.0.1:7001" in line
    assert str(known.path) in line
    assert stat.S_IMODE(known.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(known.path.parent.stat().st_mode) == 0o700
    trust.check_node_id(b"whoever", True)


def test_another_key_is_refused_in_one_line_that_says_what_to_do(
    known: KnownTrackers, said: list[str]
) -> None:
    trust = known.trust("localhost:7001")
    trust.check_certificate([certificate()], "localhost")
    with pytest.raises(TrustError) as caught:
        known.trust("LOCALHOST:7001").check_certificate([certificate()], "localhost")
    text = str(caught.value)
    assert "\n" not in text
    assert str(known.path) in text
    assert "--pin" in text
    assert len(said) == 1


def test_each_address_has_its_own(known: KnownTrackers) -> None:
    certificates = {f"10.0.0.{number}:7001": certificate() for number in range(3)}
    for _ in range(2):
        for address, shown in certificates.items():
            assert known.trust(address).check_certificate([shown], None)
    assert len(known.path.read_text().splitlines()) == 3


def test_of_two_pins_the_first_counts(known: KnownTrackers) -> None:
    known.remember("a:1", bytes(32))
    known.remember("a:1", b"\1" * 32)
    assert known.pin_of("a:1") == bytes(32)
    assert known.pin_of("b:1") is None


def test_a_file_that_makes_no_sense_is_not_passed_over(known: KnownTrackers) -> None:
    known.remember("a:1", bytes(32))
    with known.path.open("a") as file:
        file.write("b:1 5f0c\n")
    with pytest.raises(StorageError, match="line 2"):
        known.trust("b:1").check_certificate([certificate()], None)


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "state").write_text("a file")
    known = KnownTrackers(tmp_path / "state" / "known_trackers", said.append)
    with pytest.raises(StorageError):
        known.trust("a:1").check_certificate([certificate()], None)
    assert said == []


def test_who_was_vouched_for_must_be_so_from_then_on(
    known: KnownTrackers, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    trust = known.trust("tracker.example:7001")
    for _ in range(2):  # another key each time
        pem = authority.issue_cert("tracker.example").cert_chain_pems[0].bytes()
        assert trust.check_certificate([x509.load_pem_x509_certificate(pem)], "tracker.example")
    assert known.path.read_text() == "tracker.example:7001 ca\n"
    assert said == []
    with pytest.raises(TrustError, match="none does now"):
        trust.check_certificate([certificate()], "tracker.example")
