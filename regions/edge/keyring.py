"""The keys an edge admits callers with. They come over the uplink and are kept on disk: an edge that has registered and waits
for its first uplink serves those who hold a ticket of its own."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from regions.wire.ticket import unb64
from regions.wire.uplink import FleetKey, Keys

log = structlog.get_logger()


class _Jwk(msgspec.Struct):
    kid: str
    x: str
    kty: str = ""
    crv: str = ""


class _Jwks(msgspec.Struct):
    keys: list[_Jwk]


class _Kept(msgspec.Struct):
    fleet_keys: list[FleetKey]
    jwks: msgspec.Raw


class Keyring:
    def __init__(self, file: Path) -> None:
        self._file = file
        self.public: dict[str, Ed25519PublicKey] = {}
        self.fleet: dict[str, bytes] = {}
        try:
            kept = msgspec.json.decode(file.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("keys.unreadable", error=type(error).__name__)
            return
        self._take(kept.fleet_keys, bytes(kept.jwks))

    @property
    def newest(self) -> tuple[str, bytes]:
        """The fleet key to seal with. Raises `LookupError` before the first uplink."""
        for key in self.fleet.items():
            return key
        raise LookupError("no fleet key is known yet")

    def update(self, keys: Keys) -> None:
        """Takes a new key set, whole, and keeps it (0600). A disk that is full costs the copy, not the uplink."""
        self._take(keys.fleet_keys, bytes(keys.jwks))
        part = self._file.with_suffix(".part")
        try:
            descriptor = os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(_Kept(keys.fleet_keys, keys.jwks)))
            part.replace(self._file)
        except OSError as error:
            log.error("keys.not_kept", error=error.strerror)

    def _take(self, fleet_keys: list[FleetKey], jwks: bytes) -> None:
        found = msgspec.json.decode(jwks, type=_Jwks).keys
        self.public = {
            k.kid: Ed25519PublicKey.from_public_bytes(unb64(k.x))
            for k in found
            if k.kty == "OKP" and k.crv == "Ed25519"
        }
        self.fleet = {k.id: unb64(k.key) for k in fleet_keys}
