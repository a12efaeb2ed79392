"""Whether a certificate can be served: it is one, it has begun and not ended, it fits its key, and the names it is to be reached by.

Decides that for both, the control plane and edges, and whether files that have changed are taken. Leaves reading them, and TLS, to
whoever serves. Errors say what to do; a key never stands in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

LOOK_EVERY_S = 5.0
SOON_S = 14 * 86_400
"""Before it ends, it is said once a day."""


class CertificateError(Exception):
    """`code`: ``unreadable``, ``not_a_certificate``, ``not_a_key``, ``key_encrypted``, ``wrong_key``, ``not_yet_valid``, ``expired``,
    ``wrong_host``, ``unusable``."""

    def __init__(self, code: str, detail: str, fix: str) -> None:
        super().__init__(f"{detail}: {fix}")
        self.code, self.detail, self.fix = code, detail, fix


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """`fingerprint`: SHA-256, as browsers and `openssl x509 -fingerprint` show it."""

    names: tuple[str, ...]
    not_after_s: float
    fingerprint: str


def checked(certificate: bytes, key: bytes, *, now_s: float, hosts: Iterable[str] = ()) -> Certificate:
    """Both in PEM, the certificate first in its chain. `hosts`: names and addresses that it has to be good for. Raises
    `CertificateError`."""
    try:
        first = x509.load_pem_x509_certificates(certificate)[0]
    except (ValueError, IndexError):
        raise CertificateError(
            "not_a_certificate",
            "the certificate is not in PEM",
            "name a file that begins with -----BEGIN CERTIFICATE-----, the server's own first, then what signed it",
        ) from None
    _check_key(first, key)
    begins_s, ends_s = first.not_valid_before_utc.timestamp(), first.not_valid_after_utc.timestamp()
    if now_s < begins_s:
        raise CertificateError(
            "not_yet_valid",
            f"the certificate is not valid before {first.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
            "set this machine's clock, or wait",
        )
    if now_s >= ends_s:
        raise CertificateError(
            "expired",
            f"the certificate has expired on {first.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            "renew it; the new files are taken without a restart",
        )
    names = _names(first)
    for host in hosts:
        if not any(_matches(name, host) for name in names):
            raise CertificateError(
                "wrong_host",
                f"the certificate is for {', '.join(names) or 'no host'}, not for {host}",
                "have it issued for the public name (subjectAltName), or correct the public URL",
            )
    digest = first.fingerprint(hashes.SHA256()).hex(":").upper()
    return Certificate(names=names, not_after_s=ends_s, fingerprint=digest)


def _check_key(certificate: x509.Certificate, key: bytes) -> None:
    try:
        private = load_pem_private_key(key, password=None)
    except TypeError:
        raise CertificateError(
            "key_encrypted",
            "the key is encrypted",
            "store it without a passphrase, readable by this process alone",
        ) from None
    except ValueError:
        raise CertificateError(
            "not_a_key", "the key is not in PEM", "name a file that begins with -----BEGIN PRIVATE KEY-----"
        ) from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise CertificateError(
            "wrong_key",
            "the key does not belong to the certificate",
            "name the key that the certificate was issued for",
        )


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = [str(address) for address in found.get_values_for_type(x509.IPAddress)]
    return (*found.get_values_for_type(x509.DNSName), *addresses)


def _matches(name: str, host: str) -> bool:
    """As clients do: an address is an address, and a wildcard stands for one label (RFC 6125, 6.4.3)."""
    try:
        return ip_address(host) == ip_address(name)
    except ValueError:
        pass
    name, host = name.lower().rstrip("."), host.lower().rstrip(".")
    return name == host or (name.startswith("*.") and host.partition(".")[2] == name[2:])


class Served:
    """The certificate that is being served. `files`: reads both, raises `OSError`. `load`: has them served from now on, raises
    `OSError` or `ssl.SSLError`, which is one. Those that are there have to be good; later ones that are not are passed over."""

    def __init__(
        self,
        files: Callable[[], tuple[bytes, bytes]],
        load: Callable[[], object],
        *,
        now_s: Callable[[], float],
        hosts: tuple[str, ...] = (),
    ) -> None:
        """Raises `CertificateError`."""
        self._files, self._load, self._now_s, self._hosts = files, load, now_s, hosts
        self._seen: tuple[bytes, bytes] | None = None
        self.certificate = self._take()

    def look(self) -> bool:
        """Whether another certificate is served from now on. Raises `CertificateError` where the new one is not good (once), or
        cannot be read."""
        if self._read() == self._seen:
            return False
        self.certificate = self._take()
        return True

    @property
    def ends_in_s(self) -> float:
        return self.certificate.not_after_s - self._now_s()

    def _read(self) -> tuple[bytes, bytes]:
        try:
            return self._files()
        except OSError as error:
            raise CertificateError(
                "unreadable",
                f"{error.filename or 'a file'} cannot be read ({error.strerror or type(error).__name__})",
                "name files that this process may read",
            ) from None

    def _take(self) -> Certificate:
        self._seen = self._read()
        found = checked(*self._seen, now_s=self._now_s(), hosts=self._hosts)
        try:
            self._load()
        except OSError as error:
            raise CertificateError(
                "unusable",
                f"TLS does not take the certificate ({error})",
                "renew it with a usual key: ECDSA P-256 or RSA 2048",
            ) from None
        return found
