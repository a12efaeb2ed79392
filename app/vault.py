"""Keys under keys: what is secret at rest is wrapped by a master key, what people said by a key of their project.

Decides how secrets are sealed and how content is hashed. The master key comes from a file here (`LocalKeys`); another
key service takes its place behind the same two methods. A content key is created by the first event that needs it and
kept in memory afterwards; the hash is keyed too, so that a stored hash says nothing about the words.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.db import Database
from app.ids import new_id

HASH_BYTES = 16
NONCE_BYTES = 12
_LENGTH = struct.Struct("!I")
MASTER_KEY_FILE = "master.key"


class KeyProvider(Protocol):
    """Wraps and unwraps small secrets. `bound_to` is authenticated: a wrapped key moved to another row opens nowhere."""

    def wrap(self, plain: bytes, bound_to: str) -> bytes: ...
    def unwrap(self, wrapped: bytes, bound_to: str) -> bytes:
        """Raises `VaultError` where the master key is another one or the bytes were changed."""
        ...


class VaultError(Exception):
    """Something at rest cannot be opened with the master key this instance has."""


class LocalKeys:
    """AES-256-GCM under one 32-byte master key."""

    def __init__(self, master: bytes) -> None:
        if len(master) != 32:
            raise VaultError("the master key must be 32 bytes")
        self._aead = AESGCM(master)

    @classmethod
    def from_file(cls, path: Path) -> LocalKeys:
        """Reads the key, and makes it (0600) where there is none; two instances that race agree on one."""
        if not path.exists():
            descriptor, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(os.urandom(32))
                    file.flush()
                    os.fsync(file.fileno())
                with contextlib.suppress(FileExistsError):
                    os.link(name, path)  # whole, or not at all: another instance may be reading
            finally:
                os.unlink(name)
        return cls(path.read_bytes())

    def wrap(self, plain: bytes, bound_to: str) -> bytes:
        nonce = os.urandom(12)
        return nonce + self._aead.encrypt(nonce, plain, bound_to.encode())

    def unwrap(self, wrapped: bytes, bound_to: str) -> bytes:
        try:
            return self._aead.decrypt(wrapped[:12], wrapped[12:], bound_to.encode())
        except InvalidTag:
            raise VaultError(
                "cannot be opened: the master key differs from the one that wrapped it"
            ) from None


@dataclass(frozen=True, slots=True)
class ContentKey:
    """One project's key for content. `hash` is stable over instances and restarts."""

    id: UUID
    secret: bytes
    aead: AESGCM
    keyed: Any = field(init=False, repr=False, compare=False)
    """The hash, with the key in it and nothing else: to be copied."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "keyed", hashlib.blake2b(key=self.secret, digest_size=HASH_BYTES))

    def seal(self, plain: bytes, event_id: UUID) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self.aead.encrypt(nonce, plain, event_id.bytes)

    def open(self, sealed: bytes, event_id: UUID) -> bytes:
        try:
            return self.aead.decrypt(sealed[:12], sealed[12:], event_id.bytes)
        except InvalidTag:
            raise VaultError("stored content does not open under its key") from None

    def hash(self, *parts: bytes) -> bytes:
        """A keyed BLAKE2b over length-prefixed parts."""
        hashed = self.keyed.copy()
        hashed.update(b"".join([_LENGTH.pack(len(part)) + part for part in parts]))
        digest: bytes = hashed.digest()
        return digest


class Vault:
    """Content keys by project, through the database, kept in memory once seen."""

    def __init__(self, db: Database, provider: KeyProvider) -> None:
        self._db = db
        self._provider = provider
        self._newest: dict[UUID, ContentKey] = {}
        self._by_id: dict[UUID, ContentKey] = {}

    @property
    def provider(self) -> KeyProvider:
        return self._provider

    async def for_project(self, project_id: UUID) -> ContentKey:
        """The project's present key, created where there is none. Instances that race agree on the oldest."""
        known = self._newest.get(project_id)
        if known is not None:
            return known
        async with self._db.pool("admin").acquire() as connection, connection.transaction():
            await connection.execute(
                "select pg_advisory_xact_lock(hashtextextended($1, 0))", f"content:{project_id}"
            )
            select = "select id, wrapped from vx.content_keys where project_id = $1 and wrapped is not null order by id limit 1"
            row = await connection.fetchrow(select, project_id)
            if row is None:
                key_id = new_id(self._db.cell)
                wrapped = self._provider.wrap(os.urandom(32), f"content:{key_id}")
                await connection.execute(
                    "insert into vx.content_keys (id, project_id, wrapped) values ($1, $2, $3)",
                    key_id,
                    project_id,
                    wrapped,
                )
            else:
                key_id, wrapped = row["id"], row["wrapped"]
        key = self._keep(key_id, wrapped)
        self._newest[project_id] = key
        return key

    async def by_id(self, key_id: UUID) -> ContentKey | None:
        """The key of stored content; None where it was destroyed."""
        known = self._by_id.get(key_id)
        if known is not None:
            return known
        wrapped = await self._db.pool("admin").fetchval(
            "select wrapped from vx.content_keys where id = $1", key_id
        )
        return self._keep(key_id, wrapped) if wrapped is not None else None

    def _keep(self, key_id: UUID, wrapped: bytes) -> ContentKey:
        secret = self._provider.unwrap(wrapped, f"content:{key_id}")
        hash_key = hmac.digest(secret, b"content hash", "sha256")
        key = ContentKey(key_id, hash_key, AESGCM(secret))
        self._by_id[key_id] = key
        return key
