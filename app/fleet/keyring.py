"""The key sets of the fleet: one that signs tickets (Ed25519), one under which edges' secrets are sealed (AES-256).

Created by the first instance that starts, wrapped by the key provider, shared by all through the database. Keys that are
retired still verify and open; new ones sign and seal.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.db import Database
from app.supervisor import wait_for_stop
from app.vault import KeyProvider
from regions.wire.keeping import Seal, sealing
from regions.wire.ticket import b64
from regions.wire.uplink import FleetKey

REFRESH_S = 30.0
LOCK = 7423010


class Keyring:
    def __init__(self, db: Database, provider: KeyProvider) -> None:
        self._db = db
        self._provider = provider
        self.signer: tuple[str, Ed25519PrivateKey]
        self.fleet_key: tuple[str, bytes]
        self.public_keys: dict[str, Ed25519PublicKey] = {}
        self.fleet_keys: list[FleetKey] = []
        self.fleet_secrets: dict[str, bytes] = {}
        """The same keys, by their ids."""
        self._root = b""
        self.seal: Seal = sealing(lambda: self.fleet_key)

    async def open(self) -> None:
        """Reads the keys and makes what is missing; raises `VaultError` where the master key is another one."""
        async with self._db.pool("admin").acquire() as connection, connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
            if not await connection.fetchval(
                "select exists (select from vx.signing_keys where retired_at is null)"
            ):
                key = Ed25519PrivateKey.generate()
                kid = "sig_" + os.urandom(6).hex()
                await connection.execute(
                    "insert into vx.signing_keys (kid, public_key, wrapped) values ($1, $2, $3)",
                    kid,
                    raw_public(key.public_key()),
                    self._provider.wrap(key.private_bytes_raw(), f"signing:{kid}"),
                )
            if not await connection.fetchval(
                "select exists (select from vx.fleet_keys where retired_at is null)"
            ):
                key_id = "fk_" + os.urandom(6).hex()
                await connection.execute(
                    "insert into vx.fleet_keys (id, wrapped) values ($1, $2)",
                    key_id,
                    self._provider.wrap(os.urandom(32), f"fleet:{key_id}"),
                )
            signing = await connection.fetch(
                "select kid, wrapped, retired_at from vx.signing_keys order by created_at desc, kid"
            )
            fleet = await connection.fetch(
                "select id, wrapped, retired_at from vx.fleet_keys order by created_at desc, id"
            )
        self._take(signing, fleet)

    def _take(self, signing: list[Any], fleet: list[Any]) -> None:
        private = {
            r["kid"]: Ed25519PrivateKey.from_private_bytes(
                self._provider.unwrap(r["wrapped"], f"signing:{r['kid']}")
            )
            for r in signing
        }
        self.public_keys = {kid: key.public_key() for kid, key in private.items()}
        self._root = private[signing[-1]["kid"]].private_bytes_raw()
        kid = next(r["kid"] for r in signing if r["retired_at"] is None)
        self.signer = (kid, private[kid])
        secrets = {r["id"]: self._provider.unwrap(r["wrapped"], f"fleet:{r['id']}") for r in fleet}
        self.fleet_keys = [FleetKey(id=key_id, key=b64(secret)) for key_id, secret in secrets.items()]
        self.fleet_secrets = secrets
        newest = next(r["id"] for r in fleet if r["retired_at"] is None)
        self.fleet_key = (newest, secrets[newest])

    def secret_for(self, purpose: bytes) -> bytes:
        """A secret that every instance derives and no edge can: from the oldest signing key, so that rotation leaves it alone."""
        return hmac.digest(self._root, purpose, "sha256")

    def jwks(self) -> dict[str, Any]:
        """RFC 7517, with OKP keys after RFC 8037."""
        return {
            "keys": [
                {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "use": "sig",
                    "alg": "EdDSA",
                    "kid": kid,
                    "x": b64(raw_public(key)),
                }
                for kid, key in sorted(self.public_keys.items())
            ]
        }

    async def worker(self, stop: asyncio.Event) -> None:
        while not await wait_for_stop(stop, REFRESH_S):
            await self.open()


def raw_public(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
