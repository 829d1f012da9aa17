"""`generate_certs.sh`, run for real with the system's openssl."""

from __future__ import annotations

import os
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

SCRIPT = Path(__file__).resolve().parent.parent / "generate_certs.sh"
BASH = "/bin/bash"


def generate(
    directory: Path, *hosts: str, path: str = os.environ.get("PATH", "")
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BASH, str(SCRIPT), *hosts],
        cwd=directory,
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def certificate_in(directory: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory / "server.crt").read_bytes())


def names_in(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A path with a space, as people have them."""
    path = tmp_path / "my certificates"
    path.mkdir()
    return path


def test_makes_what_every_quic_client_takes(directory: Path) -> None:
    done = generate(directory)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in directory.iterdir()) == ["server.crt", "server.key"]
    certificate = certificate_in(directory)
    key = load_pem_private_key((directory / "server.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert certificate.public_key() == key.public_key()
    certificate.verify_directly_issued_by(certificate)
    assert names_in(certificate) == {"localhost", "127.0.0.1", "::1"}
    extensions = certificate.extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert ExtendedKeyUsageOID.SERVER_AUTH in usage
    assert certificate.not_valid_after_utc - datetime.now(UTC) > timedelta(days=825)
    assert certificate.not_valid_before_utc <= datetime.now(UTC)


def test_the_key_is_for_its_owner_alone(directory: Path) -> None:
    generate(directory)
    assert stat.S_IMODE((directory / "server.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((directory / "server.crt").stat().st_mode) == 0o644


def test_takes_names_and_addresses_of_both_families(directory: Path) -> None:
    hosts = ["files.example.org", "192.0.2.7", "2001:db8::7", "[2001:db8::8]", "*.example.org", "localhost"]
    done = generate(directory, *hosts)
    assert done.returncode == 0, done.stderr
    asked = {"files.example.org", "192.0.2.7", "2001:db8::7", "2001:db8::8", "*.example.org"}
    assert names_in(certificate_in(directory)) == {"localhost", "127.0.0.1", "::1"} | asked
    assert ip_address("2001:db8::7") in certificate_in(directory).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value.get_values_for_type(x509.IPAddress)


def test_a_second_run_changes_nothing_and_succeeds(directory: Path) -> None:
    generate(directory)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    again = generate(directory, "other.example.org")
    assert again.returncode == 0
    assert "stay as they are" in again.stdout
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_a_key_that_is_there_gets_its_certificate(directory: Path) -> None:
    generate(directory)
    key = (directory / "server.key").read_bytes()
    (directory / "server.crt").unlink()
    again = generate(directory, "files.example.org")
    assert again.returncode == 0, again.stderr
    assert (directory / "server.key").read_bytes() == key
    assert "files.example.org" in names_in(certificate_in(directory))


def test_a_certificate_without_its_key_is_not_replaced(directory: Path) -> None:
    (directory / "server.crt").write_text("precious")
    done = generate(directory)
    assert done.returncode == 1
    assert "server.key" in done.stderr
    assert [path.name for path in directory.iterdir()] == ["server.crt"]
    assert (directory / "server.crt").read_text() == "precious"


def test_a_key_that_cannot_be_read_stays(directory: Path) -> None:
    (directory / "server.key").write_text("no key")
    done = generate(directory)
    assert done.returncode == 1
    assert "could not make the certificate" in done.stderr
    assert [path.name for path in directory.iterdir()] == ["server.key"]
    assert (directory / "server.key").read_text() == "no key"


@pytest.mark.parametrize("host", ["a b", "", "-x", "--days", "a/b", "DNS:x,CA:TRUE", "fe80::g", "x\ny"])
def test_what_is_no_host_is_refused_before_anything_is_made(directory: Path, host: str) -> None:
    done = generate(directory, host)
    assert done.returncode == 2
    assert done.stderr.startswith("generate_certs.sh: ")
    assert list(directory.iterdir()) == []


def test_an_impossible_address_leaves_nothing(directory: Path) -> None:
    assert generate(directory, "999.1.1.1").returncode == 1
    assert list(directory.iterdir()) == []


def test_says_how_to_get_openssl(directory: Path) -> None:
    done = generate(directory, path="/nonexistent")
    assert done.returncode == 127
    assert "openssl" in done.stderr
    assert "apt install openssl" in done.stderr


def test_help_makes_nothing(directory: Path) -> None:
    done = generate(directory, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: generate_certs.sh")
    assert list(directory.iterdir()) == []
