"""Keys, certificates, and whom a dialer trusts."""

from __future__ import annotations

import stat
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from p2pnode.errors import ConfigError, ConnectFailed, CredentialsError, TrustError
from p2pnode.quic import (
    CertificateTrust,
    Credentials,
    NodeIdTrust,
    NodeKey,
    NoTrust,
    PinTrust,
    SystemTrust,
    Trust,
    check_signature,
    node_id_of,
    pin_of_certificate,
)
from p2pnode.testing.network import Network
from tests.quic.certificates import (
    DAY,
    LOCALHOST,
    NOW,
    credentials_for,
    make_certificate,
    new_key,
    pem,
    with_negative_serial,
)
from tests.quic.endpoints import DIALER, LISTENER, connect, endpoint_at
from tests.quic.engines import credentials

# -- node keys ---------------------------------------------------------------------------------------------


def test_a_node_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    key = NodeKey.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert NodeKey.load_or_create(path).node_id == key.node_id == node_id_of(key.spki)
    assert [entry.name for entry in tmp_path.iterdir()] == ["node.key"]
    assert len(key.node_id) == 32


def test_a_process_that_was_first_keeps_its_key(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    first = NodeKey.load_or_create(path)
    NodeKey.generate()._save(path)
    assert NodeKey.load_or_create(path).node_id == first.node_id


@pytest.mark.parametrize("content", [b"", b"garbage", pem(ec.generate_private_key(ec.SECP384R1()))])
def test_a_file_that_holds_no_node_key(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(content)
    with pytest.raises(CredentialsError, match=r"node\.key"):
        NodeKey.load_or_create(path)


def test_a_node_key_that_cannot_be_written_or_read(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="cannot write"):
        NodeKey.load_or_create(tmp_path / "missing" / "node.key")
    with pytest.raises(CredentialsError, match="cannot read"):
        NodeKey.load_or_create(tmp_path)


def test_signatures() -> None:
    key = NodeKey.generate()
    signature = key.sign(b"data")
    check_signature(key.spki, signature, b"data")
    for spki, signed, data in [
        (key.spki, signature, b"other"),
        (NodeKey.generate().spki, signature, b"data"),
        (key.spki, signature[:-1], b"data"),
        (key.spki, b"", b"data"),
        (b"", signature, b"data"),
        (key.spki[:-5], signature, b"data"),
        (_spki(ed25519.Ed25519PrivateKey.generate()), signature, b"data"),
        (_spki(ec.generate_private_key(ec.SECP384R1())), signature, b"data"),
        (_compressed_spki(key), signature, b"data"),
    ]:
        with pytest.raises(TrustError):
            check_signature(spki, signed, data)


def _spki(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _compressed_spki(key: NodeKey) -> bytes:
    """The same key in another DER form would be another node id."""
    point = key.private_key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    algorithm = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
    body = algorithm + b"\x03" + bytes([len(point) + 1]) + b"\x00" + point
    return b"\x30" + bytes([len(body)]) + body


# -- our own certificate -----------------------------------------------------------------------------------


def test_a_node_keys_own_certificate() -> None:
    key = NodeKey.generate()
    own = Credentials.from_node_key(key)
    assert own.pin == key.node_id == pin_of_certificate(own.certificate)
    extensions = own.certificate.extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert set(names.get_values_for_type(x509.IPAddress)) == {ip_address("127.0.0.1"), ip_address("::1")}
    assert own.certificate.not_valid_after_utc > NOW + 3650 * DAY


@pytest.mark.parametrize("where", ["beside", "elsewhere", "inside"])
def test_the_key_is_found_where_it_may_be(tmp_path: Path, where: str) -> None:
    key, certificate_path, key_path = new_key(), tmp_path / "server.crt", None
    certificate = make_certificate(key)
    certificate_path.write_bytes(pem(certificate))
    if where == "beside":
        (tmp_path / "server.key").write_bytes(pem(key))
    elif where == "elsewhere":
        key_path = tmp_path / "other.pem"
        key_path.write_bytes(pem(key))
    else:
        certificate_path.write_bytes(pem(certificate, key))
    loaded = Credentials.load(certificate_path, key_path)
    assert loaded.certificate == certificate
    assert loaded.chain == ()


def test_a_chain_is_loaded_with_its_certificate(tmp_path: Path) -> None:
    authority_key, key = new_key(), new_key()
    authority = make_certificate(authority_key, is_ca=True)
    certificate = make_certificate(key, issuer=(authority, authority_key))
    (tmp_path / "server.pem").write_bytes(pem(certificate, authority, key))
    assert Credentials.load(tmp_path / "server.pem").chain == (authority,)


def _expired(key: object) -> x509.Certificate:
    return make_certificate(key, began=NOW - 60 * DAY, days=30)


def _huge(key: object) -> x509.Certificate:
    return make_certificate(key, [x509.DNSName(f"{'x' * 60}{n}.example") for n in range(250)])


_key = new_key()
_ed25519 = ed25519.Ed25519PrivateKey.generate()
_encrypted = _key.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
)


@pytest.mark.parametrize(
    ("certificate", "key", "text"),
    [
        (None, None, "there is no certificate file"),
        (pem(make_certificate(_key)), None, "there is no key file"),
        (b"garbage", pem(_key), "no readable PEM certificate"),
        (pem(make_certificate(_key)), b"garbage", "no readable PEM private key"),
        (pem(make_certificate(_key)), _encrypted, "encrypted"),
        (pem(make_certificate(_key)), pem(new_key()), "is not the key of"),
        (pem(make_certificate(_ed25519)), pem(_ed25519), "Ed25519"),
        (pem(_expired(_key)), pem(_key), "expired on"),
        (pem(_huge(_key)), pem(_key), "at most 14000 fit"),
    ],
)
def test_credentials_that_cannot_be_used_say_why_in_one_line(
    tmp_path: Path, certificate: bytes | None, key: bytes | None, text: str
) -> None:
    if certificate is not None:
        (tmp_path / "server.crt").write_bytes(certificate)
    if key is not None:
        (tmp_path / "server.key").write_bytes(key)
    with pytest.raises(CredentialsError, match=text) as error:
        Credentials.load(tmp_path / "server.crt")
    assert "\n" not in str(error.value)


def test_a_key_of_a_strange_kind(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import x25519

    path = tmp_path / "server.pem"
    path.write_bytes(pem(make_certificate(_key), x25519.X25519PrivateKey.generate()))
    with pytest.raises(CredentialsError, match="neither"):
        Credentials.load(path)


def test_rsa_is_taken(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    path = tmp_path / "server.pem"
    path.write_bytes(pem(make_certificate(key), key))
    assert Credentials.load(path).pin == pin_of_certificate(Credentials.load(path).certificate)


# -- trust -------------------------------------------------------------------------------------------------


def dns(*names: str) -> list[x509.GeneralName]:
    return [x509.DNSName(name) for name in names]


def ip(address: str) -> x509.GeneralName:
    return x509.IPAddress(ip_address(address))


@pytest.mark.parametrize(
    ("names", "server_name", "matches"),
    [
        (dns("example.org"), "example.org", True),
        (dns("example.org"), "EXAMPLE.org.", True),
        (dns("other.org", "example.org"), "example.org", True),
        (dns("example.org"), "www.example.org", False),
        (dns("*.example.org"), "www.example.org", True),
        (dns("*.example.org"), "a.b.example.org", False),
        (dns("*.example.org"), "example.org", False),
        (dns("*"), "localhost", False),
        (dns("*.org"), "example.org", False),
        (dns("a*b.example.org"), "axb.example.org", False),
        (dns("www.*.org"), "www.example.org", False),
        (dns("192.0.2.1"), "192.0.2.1", False),
        ([ip("192.0.2.1")], "192.0.2.1", True),
        ([ip("2001:db8::1")], "2001:0db8:0:0::1", True),
        ([ip("192.0.2.1")], "192.0.2.2", False),
        ([ip("192.0.2.1")], "example.org", False),
        (dns("example.org\0.evil.net"), "example.org", False),
        (dns(""), "example.org", False),
        ([], "example.org", False),
        (dns("example.org"), None, False),
    ],
)
def test_which_names_a_certificate_is_for(
    tmp_path: Path, names: list[x509.GeneralName], server_name: str | None, matches: bool
) -> None:
    authority_key, key = new_key(), new_key()
    authority = make_certificate(authority_key, is_ca=True)
    certificate = make_certificate(key, names, issuer=(authority, authority_key))
    (tmp_path / "ca.crt").write_bytes(pem(authority))
    trust = CertificateTrust(tmp_path / "ca.crt")
    if matches:
        assert trust.check_certificate([certificate], server_name)
    else:
        with pytest.raises(TrustError):
            trust.check_certificate([certificate], server_name)


def test_a_given_certificate_is_itself_or_an_authority(tmp_path: Path) -> None:
    authority_key, middle_key, key = new_key(), new_key(), new_key()
    authority = make_certificate(authority_key, is_ca=True)
    middle = make_certificate(middle_key, is_ca=True, issuer=(authority, authority_key))
    leaf = make_certificate(key, issuer=(middle, middle_key))
    (tmp_path / "ca.crt").write_bytes(pem(authority))
    trust = CertificateTrust(tmp_path / "ca.crt")
    assert trust.check_certificate([authority], "any.example")
    assert trust.check_certificate([leaf, middle], "localhost")
    for chain in ([leaf], [make_certificate(key)]):
        with pytest.raises(TrustError, match=r"ca\.crt"):
            trust.check_certificate(chain, "localhost")
    expired = make_certificate(key, issuer=(authority, authority_key), began=NOW - 60 * DAY)
    with pytest.raises(TrustError, match="no longer valid"):
        trust.check_certificate([expired], "localhost")
    trust.check_node_id(bytes(32), certificate_trusted=True)


def test_a_node_certificate_mints_no_others(tmp_path: Path) -> None:
    node_key = NodeKey.generate()
    own = Credentials.from_node_key(node_key)
    minted = make_certificate(new_key(), issuer=(own.certificate, node_key.private_key))
    (tmp_path / "node.crt").write_bytes(pem(own.certificate))
    with pytest.raises(TrustError):
        CertificateTrust(tmp_path / "node.crt").check_certificate([minted], "localhost")


def test_pins() -> None:
    certificate = credentials().certificate
    pin, other = pin_of_certificate(certificate), bytes(32)
    assert PinTrust(pin.hex()).check_certificate([certificate], None)
    assert not PinTrust(other.hex()).check_certificate([certificate], None)
    PinTrust(pin.hex().upper()).check_node_id(other, certificate_trusted=True)
    PinTrust(pin.hex()).check_node_id(pin, certificate_trusted=False)
    with pytest.raises(TrustError, match="not the pinned one"):
        PinTrust(pin.hex()).check_node_id(other, certificate_trusted=False)
    for text in ("", "zz", pin.hex()[:-2], pin.hex() + "00"):
        with pytest.raises(ConfigError, match="64 hex digits"):
            PinTrust(text)


def test_node_ids_and_no_trust() -> None:
    certificate, node_id = credentials().certificate, bytes(range(32))
    assert not NodeIdTrust(node_id).check_certificate([certificate], None)
    NodeIdTrust(node_id).check_node_id(node_id, certificate_trusted=False)
    with pytest.raises(TrustError, match="answered"):
        NodeIdTrust(node_id).check_node_id(bytes(32), certificate_trusted=True)
    assert not NoTrust().check_certificate([certificate], None)
    NoTrust().check_node_id(node_id, certificate_trusted=False)


def test_the_systems_roots_know_no_strangers_and_the_error_says_how_to_pin() -> None:
    certificate = credentials().certificate
    with pytest.raises(TrustError, match=f"--pin {pin_of_certificate(certificate).hex()}"):
        SystemTrust().check_certificate([certificate], "localhost")
    SystemTrust().check_node_id(bytes(32), certificate_trusted=True)


# -- hostile certificates ----------------------------------------------------------------------------------


def _chain_of_16_kb() -> Credentials:
    authority_key, key = new_key(), new_key()
    authority = make_certificate(
        authority_key, [x509.DNSName(f"{'y' * 50}{n}.example") for n in range(235)], is_ca=True
    )
    return credentials_for(make_certificate(key, issuer=(authority, authority_key)), key, authority)


def _self_signed(*names: x509.GeneralName, **options: object) -> Callable[[], Credentials]:
    def make() -> Credentials:
        key = new_key()
        return credentials_for(make_certificate(key, names, **options), key)  # type: ignore[arg-type]

    return make


def _negative_serial() -> Credentials:
    key = new_key()
    return credentials_for(with_negative_serial(make_certificate(key)), key)


class _Raw:
    """What a listener can send as its certificate, which need not be one."""

    def __init__(self, der: bytes) -> None:
        self._der = der

    def public_bytes(self, _: serialization.Encoding) -> bytes:
        return self._der


def _raw(change: Callable[[bytes], bytes]) -> Callable[[], Credentials]:
    def make() -> Credentials:
        key = new_key()
        der = make_certificate(key).public_bytes(serialization.Encoding.DER)
        return credentials_for(_Raw(change(der)), key)  # type: ignore[arg-type]

    return make


def _version_99(der: bytes) -> bytes:
    return der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x63", 1)


def _unknown_curve(der: bytes) -> bytes:
    p256 = bytes.fromhex("06082a8648ce3d030107")
    return der.replace(p256, p256[:-1] + b"\x7f", 1)


def _ed25519_key() -> Credentials:
    key = ed25519.Ed25519PrivateKey.generate()
    return credentials_for(make_certificate(key), key)


def _key_of_another_kind() -> Credentials:
    return credentials_for(make_certificate(rsa.generate_private_key(65537, 2048)), new_key())


HOSTILE: dict[str, Callable[[], Credentials]] = {
    "star": _self_signed(x509.DNSName("*")),
    "star inside": _self_signed(x509.DNSName("a*b.example")),
    "ip as dns": _self_signed(x509.DNSName("127.0.0.1")),
    "nul": _self_signed(x509.DNSName("localhost\0.example")),
    "40 names": _self_signed(*[x509.DNSName(f"name{n}.{'x' * 50}.example") for n in range(40)]),
    "no names": _self_signed(),
    "16 kB chain": _chain_of_16_kb,
    "negative serial": _negative_serial,
    "expired": _self_signed(LOCALHOST, began=NOW - 60 * DAY),
    "not yet": _self_signed(LOCALHOST, began=NOW + 60 * DAY),
    "version 99": _raw(_version_99),
    "unknown curve": _raw(_unknown_curve),
    "no certificate": _raw(lambda der: b""),
    "half a certificate": _raw(lambda der: der[:100]),
    "ed25519": _ed25519_key,
    "key of another kind": _key_of_another_kind,
}


@pytest.mark.filterwarnings("ignore:.*serial number.*")
@pytest.mark.parametrize("policy", ["system", "certificate", "pin"])
@pytest.mark.parametrize("kind", HOSTILE)
async def test_Q4_hostile_certificates_end_the_dial_cleanly(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, kind: str, policy: str
) -> None:
    (tmp_path / "server.crt").write_bytes(pem(credentials().certificate))
    good = PinTrust(credentials().pin.hex())
    trust: Trust = {
        "system": SystemTrust(),
        "certificate": CertificateTrust(tmp_path / "server.crt"),
        "pin": good,
    }[policy]
    async with Network() as network, endpoint_at(network, DIALER) as dialer:
        async with endpoint_at(network, LISTENER, credentials=HOSTILE[kind]()):
            began_at = trio.current_time()
            with pytest.raises((TrustError, ConnectFailed)):
                dialled = await dialer.dial(LISTENER, server_name="localhost", trust=trust)
                trust.check_node_id(bytes(32), dialled.certificate_trusted)
            assert trio.current_time() - began_at < 2
        async with endpoint_at(network, LISTENER) as listener:
            await connect(dialer, listener)
        assert dialer.statistics.escapes == 0
