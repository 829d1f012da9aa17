"""Who we are, and whom we trust: node keys, TLS certificates, pins.

A *pin* is the SHA-256 of a SubjectPublicKeyInfo, of a TLS certificate or of a node key. A *node id* is the
pin of the node's own key, which is P-256; the certificate that a node serves without being given one is made
of it. All trust in a listener is decided here, once the handshake is complete: what a `Trust` raises is a
`TrustError` that says what to do.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final, Protocol, Self

from aioquic import tls
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from p2pnode.errors import ConfigError, CredentialsError, TrustError

PIN_SIZE: Final = 32  # bytes of a SHA-256
CHAIN_SIZE_MAX: Final = 14_000  # bytes of DER that fit into one TLS flight of aioquic's
VALIDITY: Final = datetime.timedelta(days=365 * 20)  # a node key's own certificate: the pin is what counts
KEY_FILE_MODE: Final = 0o600

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def pin_of_spki(spki: bytes) -> bytes:
    """The pin of a DER SubjectPublicKeyInfo."""
    return hashlib.sha256(spki).digest()


def pin_of_certificate(certificate: x509.Certificate) -> bytes:
    """The pin of a certificate's key."""
    return pin_of_spki(_spki(certificate.public_key()))


def node_id_of(spki: bytes) -> bytes:
    """The node id that belongs to a node key's DER SubjectPublicKeyInfo."""
    return pin_of_spki(spki)


def check_signature(spki: bytes, signature: bytes, data: bytes) -> None:
    """Check a node key's signature (ECDSA P-256, SHA-256, DER) over `data`. `TrustError`."""
    try:
        key = serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TrustError("the node's key is malformed") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise TrustError("the node's key is not P-256")
    if _spki(key) != spki:
        raise TrustError("the node's key is not in its one DER form")
    try:
        key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise TrustError("the node's signature is wrong") from error


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


class NodeKey:
    """A node's own key, P-256. Its pin is the node id."""

    def __init__(self, private_key: ec.EllipticCurvePrivateKey) -> None:
        self.private_key = private_key
        self.spki = _spki(private_key.public_key())
        self.node_id = node_id_of(self.spki)

    @classmethod
    def generate(cls) -> Self:
        """A fresh one."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """The key in the PEM file `path`, made (mode 0600) when there is none. `CredentialsError`."""
        if not path.exists():
            cls.generate()._save(path)
        key = _load_private_key(_read(path, "node key"), path)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise CredentialsError(f"{path} is not a P-256 key; move it away and a new one is made")
        return cls(key)

    def _save(self, path: Path) -> None:
        """Write the file whole or not at all; when another process was first, leave its key there."""
        pem = self.private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        try:
            with NamedTemporaryFile(dir=path.parent, prefix=".node-key-") as file:  # made with mode 0600
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
                os.link(file.name, path)
        except FileExistsError:
            return
        except OSError as error:
            raise CredentialsError(f"cannot write the node key {path}: {error.strerror}") from error

    def sign(self, data: bytes) -> bytes:
        """ECDSA with SHA-256, DER."""
        return self.private_key.sign(data, ec.ECDSA(hashes.SHA256()))


@dataclass(frozen=True)
class Credentials:
    """The certificate that a listener shows, the rest of its chain, and its key."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKey

    @property
    def pin(self) -> bytes:
        """What a dialer may give as `--pin`, in bytes."""
        return pin_of_certificate(self.certificate)

    @property
    def pem(self) -> bytes:
        """The certificate as a file has it."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def load(cls, certificate_path: Path, key_path: Path | None = None) -> Self:
        """A PEM certificate (chain) and its key.

        Without `key_path` the key is in the same file, or in the one ending in `.key`. `CredentialsError`.
        """
        pem = _read(certificate_path, "certificate")
        chain = _load_certificates(pem, certificate_path)
        if key_path is None:
            key_path = (
                certificate_path if b"PRIVATE KEY-----" in pem else certificate_path.with_suffix(".key")
            )
        key = _load_private_key(_read(key_path, "key"), key_path)
        credentials = cls(chain[0], tuple(chain[1:]), key)
        credentials._check(certificate_path, key_path)
        return credentials

    @classmethod
    def from_node_key(cls, node_key: NodeKey) -> Self:
        """A self-signed certificate of the node's own key, for localhost: dialers know it by its pin."""
        name = x509.Name(
            [x509.NameAttribute(x509.NameOID.COMMON_NAME, f"p2pnode {node_key.node_id.hex()[:16]}")]
        )
        now = datetime.datetime.now(datetime.UTC)
        names = [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("::1")),
        ]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(node_key.private_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
            .not_valid_after(now + VALIDITY)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(node_key.private_key, hashes.SHA256())
        )
        return cls(certificate, (), node_key.private_key)

    def _check(self, certificate_path: Path, key_path: Path) -> None:
        if _spki(self.certificate.public_key()) != _spki(self.private_key.public_key()):
            raise CredentialsError(f"{key_path} is not the key of {certificate_path}")
        if datetime.datetime.now(datetime.UTC) > self.certificate.not_valid_after_utc:
            expiry = self.certificate.not_valid_after_utc.date()
            raise CredentialsError(f"{certificate_path} expired on {expiry}; make a new one")
        size = sum(
            len(certificate.public_bytes(serialization.Encoding.DER))
            for certificate in (self.certificate, *self.chain)
        )
        if size > CHAIN_SIZE_MAX:
            raise CredentialsError(
                f"{certificate_path} holds {size} bytes of certificates; at most {CHAIN_SIZE_MAX} fit"
            )


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CredentialsError(f"there is no {what} file {path}") from None
    except OSError as error:
        raise CredentialsError(f"cannot read the {what} file {path}: {error.strerror}") from error


def _load_certificates(pem: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CredentialsError(f"{path} holds no readable PEM certificate") from error


def _load_private_key(pem: bytes, path: Path) -> PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise CredentialsError(f"the key in {path} is encrypted; store it without a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CredentialsError(f"{path} holds no readable PEM private key") from error
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        raise CredentialsError(
            f"{path} is an Ed25519 or Ed448 key, which other QUIC stacks refuse; use P-256"
        )
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise CredentialsError(f"{path} is neither an elliptic curve nor an RSA key; use P-256")
    return key


# -- trust -------------------------------------------------------------------------------------------------


class Trust(Protocol):
    """A dialer's policy: asked about the certificate first, then about the node key that was proven."""

    def check_certificate(self, chain: list[x509.Certificate], server_name: str | None) -> bool:
        """True: this is who it should be. False: the node key must tell. `TrustError`: it is not."""
        ...

    def check_node_id(self, node_id: bytes, certificate_trusted: bool) -> None:
        """`TrustError` unless the certificate or this node id is what was expected."""
        ...


class NoTrust:
    """Take anyone: encrypted, but with whom is unknown."""

    def check_certificate(self, chain: list[x509.Certificate], server_name: str | None) -> bool:
        """Undecided."""
        return False

    def check_node_id(self, node_id: bytes, certificate_trusted: bool) -> None:
        """Anyone will do."""


@dataclass(frozen=True)
class SystemTrust:
    """A certificate for the name that was dialled, from an authority that this system trusts."""

    def check_certificate(self, chain: list[x509.Certificate], server_name: str | None) -> bool:
        """True, or `TrustError`."""
        paths = ssl.get_default_verify_paths()
        try:
            _check_name(chain[0], server_name)
            _check_chain(chain, cafile=paths.cafile, capath=paths.capath)
        except TrustError as error:
            pin = _pin_text(chain[0])
            raise TrustError(
                f"{error}. If it is the right one, --server-cert FILE, --pin and the node id that it prints, or the "
                f"key of this certificate: --pin {pin}"
            ) from error
        return True

    def check_node_id(self, node_id: bytes, certificate_trusted: bool) -> None:
        """The certificate was enough."""


class CertificateTrust:
    """The very certificate in a PEM file, or one that it signed, for the name that was dialled."""

    def __init__(self, path: Path) -> None:
        """Read the file. `CredentialsError`."""
        self.path = path
        self._certificates = _load_certificates(_read(path, "certificate"), path)

    def check_certificate(self, chain: list[x509.Certificate], server_name: str | None) -> bool:
        """True, or `TrustError`."""
        if chain[0] in self._certificates:
            return True
        pem = b"".join(
            certificate.public_bytes(serialization.Encoding.PEM) for certificate in self._certificates
        )
        try:
            _check_name(chain[0], server_name)
            _check_chain(chain, cadata=pem)
        except TrustError as error:
            raise TrustError(f"{error}; nor is it the one in {self.path}") from error
        return True

    def check_node_id(self, node_id: bytes, certificate_trusted: bool) -> None:
        """The certificate was enough."""


class PinTrust:
    """A certificate or a node key with this pin."""

    def __init__(self, text: str) -> None:
        """From 64 hex digits. `ConfigError`."""
        try:
            self.pin = bytes.fromhex(text)
        except ValueError:
            self.pin = b""
        if len(self.pin) != PIN_SIZE:
            raise ConfigError(f"a pin is {2 * PIN_SIZE} hex digits, not {text!r}")

    def check_certificate(self, chain: list[x509.Certificate], server_name: str | None) -> bool:
        """True when it has the pin; otherwise the node key may have it."""
        return pin_of_certificate(chain[0]) == self.pin

    def check_node_id(self, node_id: bytes, certificate_trusted: bool) -> None:
        """`TrustError` when neither has the pin."""
        if not certificate_trusted and node_id != self.pin:
            raise TrustError(f"the server is not the pinned one: its node id is {node_id.hex()}")


@dataclass(frozen=True)
class NodeIdTrust:
    """The node with this id, whatever its certificate."""

    node_id: bytes

    def check_certificate(self, chain: list[x509.Certificate], server_name: str | None) -> bool:
        """Undecided."""
        return False

    def check_node_id(self, node_id: bytes, certificate_trusted: bool) -> None:
        """`TrustError` for another one."""
        if node_id != self.node_id:
            raise TrustError(f"dialled node {self.node_id.hex()[:16]}…, but {node_id.hex()[:16]}… answered")


def _pin_text(certificate: x509.Certificate) -> str:
    try:
        return pin_of_certificate(certificate).hex()
    except (ValueError, UnsupportedAlgorithm):
        return "NODE_ID"


def _check_chain(
    chain: Sequence[x509.Certificate],
    *,
    cadata: bytes | None = None,
    cafile: str | None = None,
    capath: str | None = None,
) -> None:
    """Dates, and a path to an authority. The name is `_check_name`'s: aioquic's check raises on odd ones."""
    try:
        tls.verify_certificate(chain[0], list(chain[1:]), None, cadata, cafile, capath)
    except tls.Alert as alert:
        raise TrustError(f"the server's certificate is not trusted: {alert}") from alert
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise TrustError(f"the server's certificate is malformed: {error}") from error


def _check_name(certificate: x509.Certificate, server_name: str | None) -> None:
    """Whether a certificate is for a name or an IP address (RFC 9525): SAN only, `*` for one whole label."""
    if server_name is None:
        raise TrustError("there is no name to check the server's certificate against")
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise TrustError("the server's certificate names no host") from None
    except (ValueError, x509.DuplicateExtension, UnsupportedAlgorithm) as error:
        raise TrustError("the server's certificate is malformed") from error
    try:
        address = ipaddress.ip_address(server_name)
    except ValueError:
        matches = any(_matches(name, server_name) for name in names.get_values_for_type(x509.DNSName))
    else:
        matches = address in names.get_values_for_type(x509.IPAddress)
    if not matches:
        raise TrustError(f"the server's certificate is not for {server_name}")


def _matches(pattern: str, host: str) -> bool:
    pattern_labels = pattern.lower().rstrip(".").split(".")
    host_labels = host.lower().rstrip(".").split(".")
    if pattern_labels[0] == "*" and len(pattern_labels) >= 3:
        return pattern_labels[1:] == host_labels[1:]
    return pattern_labels == host_labels
