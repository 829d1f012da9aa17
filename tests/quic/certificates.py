"""Certificates as tests want them, odd ones among them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from p2pnode.quic import Credentials

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
LOCALHOST = x509.DNSName("localhost")


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def make_certificate(
    key: Any,
    names: Sequence[x509.GeneralName] = (LOCALHOST,),
    *,
    issuer: tuple[x509.Certificate, Any] | None = None,
    is_ca: bool = False,
    days: int = 30,
    began: datetime.datetime = NOW - 2 * DAY,
) -> x509.Certificate:
    """A certificate for `key`: self-signed, or signed by `issuer`."""
    subject = x509.Name(
        [x509.NameAttribute(x509.NameOID.COMMON_NAME, f"test {x509.random_serial_number():x}"[:40])]
    )
    signing_key = issuer[1] if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(0x0102030405060708090A0B0C)
        .not_valid_before(began)
        .not_valid_after(began + days * DAY)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    algorithm = None if isinstance(signing_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(signing_key, algorithm)


def with_negative_serial(certificate: x509.Certificate) -> x509.Certificate:
    """The same with a serial number below zero, which RFC 5280 forbids; its signature is wrong then."""
    der = certificate.public_bytes(serialization.Encoding.DER)
    serial = bytes.fromhex("0102030405060708090a0b0c")
    return x509.load_der_x509_certificate(der.replace(serial, b"\x81" + serial[1:], 1))


def credentials_for(certificate: x509.Certificate, key: Any, *chain: x509.Certificate) -> Credentials:
    return Credentials(certificate, chain, key)


def pem(*parts: Any) -> bytes:
    """Certificates and private keys as one PEM file."""
    return b"".join(
        part.public_bytes(serialization.Encoding.PEM)
        if isinstance(part, x509.Certificate)
        else part.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        for part in parts
    )
