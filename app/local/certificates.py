"""TLS for a deployment of this machine alone: a certificate authority of its own, and one certificate for all of its listeners.

Decides how long they last and what they may be used for: the authority signs for loopback and nothing else, so that whoever trusts
its file trusts nobody elsewhere. Its key never leaves the folder. Not for production: there a certificate is given
(`docs/how-to/serve-with-tls.md`).
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from app.local.folder import writable
from regions.wire.certificate import CertificateError, checked

CA_DAYS, DAYS, RENEW_DAYS = 3_650, 90, 30
HOSTS = ("localhost",)
ADDRESSES = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Plain:
    """No TLS: what a deployment says where it has none."""

    http: str = "http"
    ws: str = "ws"
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def verify(self) -> ssl.SSLContext | bool:
        """For this machine's own clients, as httpx takes it."""
        return True


@dataclass(frozen=True, slots=True)
class LocalTls(Plain):
    """`environment`: of each instance and edge. `fingerprints`: of the authority and of the certificate, SHA-256."""

    http: str = "https"
    ws: str = "wss"
    ca_file: Path = Path()
    fingerprints: tuple[str, str] = ("", "")

    @property
    def verify(self) -> ssl.SSLContext | bool:
        return ssl.create_default_context(cafile=self.ca_file)


def local_tls(folder: Path) -> LocalTls:
    """What is in the folder, as long as it lasts; else made. Raises `EngineError` where it cannot be written."""
    now = datetime.now(UTC)
    ca, ca_key, own, own_key = (folder / name for name in ("ca.pem", "ca.key", "certificate.pem", "key.pem"))
    with writable(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        authority = _usable(ca, ca_key, now)
        if authority is None:
            authority = _make_authority(ca, ca_key, now)
            own.unlink(missing_ok=True)
        certificate = _usable(own, own_key, now)
        if certificate is None or not _signed_by(own, ca):
            certificate = _make_certificate(own, own_key, ca, ca_key, now)
    served = {"VOXPLANE_TLS_CERT": str(own), "VOXPLANE_TLS_KEY": str(own_key), "VOXPLANE_CA_FILE": str(ca)}
    return LocalTls(environment=served, ca_file=ca, fingerprints=(authority, certificate))


def _usable(path: Path, key: Path, now: datetime) -> str | None:
    """The fingerprint of what is there and will last for a while."""
    try:
        later_s = (now + timedelta(days=RENEW_DAYS)).timestamp()
        return checked(path.read_bytes(), key.read_bytes(), now_s=later_s).fingerprint
    except (OSError, CertificateError):
        return None


def _signed_by(path: Path, ca: Path) -> bool:
    try:
        x509.load_pem_x509_certificate(path.read_bytes()).verify_directly_issued_by(
            x509.load_pem_x509_certificate(ca.read_bytes())
        )
    except Exception:  # noqa: BLE001  whatever is wrong with it, another one is made
        return False
    return True


def _make_authority(path: Path, key_path: Path, now: datetime) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Voxplane, this machine only")])
    loopback: list[x509.GeneralName] = [x509.DNSName(host) for host in HOSTS]
    loopback += [x509.IPAddress(ip_network(net)) for net in ("127.0.0.0/8", "::1/128")]
    built = (
        _builder(name, name, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.NameConstraints(loopback, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _write(path, key_path, built.sign(key, hashes.SHA256()), key)


def _make_certificate(path: Path, key_path: Path, ca_path: Path, ca_key_path: Path, now: datetime) -> str:
    ca = x509.load_pem_x509_certificate(ca_path.read_bytes())
    ca_key = load_pem_private_key(ca_key_path.read_bytes(), password=None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOSTS[0])])
    names: list[x509.GeneralName] = [x509.DNSName(host) for host in HOSTS]
    names += [x509.IPAddress(ip_address(address)) for address in ADDRESSES]
    built = (
        _builder(name, ca.subject, key.public_key(), now, DAYS)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _write(path, key_path, built.sign(ca_key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _write(path: Path, key_path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> str:
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key_path.unlink(missing_ok=True)
    with os.fdopen(os.open(key_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(plain)
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()
