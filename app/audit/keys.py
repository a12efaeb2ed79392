"""The keys that sign the audit log: Ed25519, wrapped by the master key, one set for a cell, shared by its instances.

A public key is worth as much as who says it: here it is always that of a private key which the master key has opened, so that who
owns the database, and not the master key, can put none of his own in its place.
"""

from __future__ import annotations

import os
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from app.audit.chain import Signer
from app.db import COMMAND_DEADLINE_S, Database
from app.vault import KeyProvider, VaultError

LOCK = 7423019
SELECT = "select kid, wrapped from vx.audit_keys order by created_at desc, kid"
INSERT = "insert into vx.audit_keys (kid, wrapped) values ($1, $2)"


class AuditKeys:
    def __init__(self, db: Database, provider: KeyProvider) -> None:
        self._db = db
        self._provider = provider
        self._signer: Signer | None = None

    async def signer(self) -> Signer:
        """The newest key; made where there is none. Raises `VaultError` where the master key opens none of them."""
        if self._signer is None:
            async with (
                self._db.pool("admin").acquire(timeout=COMMAND_DEADLINE_S) as connection,
                connection.transaction(),
            ):
                await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
                rows = await connection.fetch(SELECT)
                if not rows:
                    await self._make(connection)
                    rows = await connection.fetch(SELECT)
            opened = self._opened(rows)
            if not opened:
                raise VaultError(
                    "no key of the audit log opens: the master key differs from the one that wrapped them"
                )
            self._signer = Signer(*next(iter(opened.items())))
        return self._signer

    async def public(self) -> dict[str, Ed25519PublicKey]:
        """Those that the master key vouches for. One that it does not open is not among them."""
        await self.signer()
        rows = await self._db.pool("admin").fetch(SELECT)
        return {kid: key.public_key() for kid, key in self._opened(rows).items()}

    async def _make(self, connection: Any) -> None:
        key = Ed25519PrivateKey.generate()
        kid = "aud_" + os.urandom(6).hex()
        wrapped = self._provider.wrap(key.private_bytes_raw(), f"audit:{kid}")
        await connection.execute(INSERT, kid, wrapped)

    def _opened(self, rows: list[Any]) -> dict[str, Ed25519PrivateKey]:
        """The newest first."""
        found: dict[str, Ed25519PrivateKey] = {}
        for row in rows:
            try:
                secret = self._provider.unwrap(row["wrapped"], f"audit:{row['kid']}")
                found[row["kid"]] = Ed25519PrivateKey.from_private_bytes(secret)
            except (VaultError, ValueError):
                continue
        return found
