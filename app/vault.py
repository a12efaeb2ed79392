"""Keys under keys: what people said in a call is sealed under the call's own key, that is wrapped by its project's, that by a master.

Decides how secrets are sealed and how content is hashed. The master key comes from a file here (`LocalKeys`); another
key service takes its place behind the same three methods. A call's key is made with the call and stored, wrapped, in its row: with
that gone, nothing that was said opens any more. All else that needs it is derived from it (the keyed hash, the key of its
snapshots), so that a stored hash says nothing about the words, and less once the key is gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import struct
import tempfile
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.db import Database
from app.ids import new_id

HASH_BYTES = 16
NONCE_BYTES = 12
KEY_BYTES = 32
CALLS_MAX = 20_000
SELECT_PROJECT_KEY = """
select id, wrapped from vx.content_keys where project_id = $1 and wrapped is not null order by id limit 1
"""
LOCK_PROJECT_KEY = "select pg_advisory_xact_lock(hashtextextended($1, 0))"
INSERT_PROJECT_KEY = """
insert into vx.content_keys (id, project_id, wrapped) values ($1, $2, $3) returning id, wrapped
"""
_LENGTH = struct.Struct("!I")
MASTER_KEY_FILE = "master.key"


class KeyProvider(Protocol):
    """Wraps and unwraps small secrets. `bound_to` is authenticated: a wrapped key moved to another row opens nowhere."""

    def wrap(self, plain: bytes, bound_to: str) -> bytes: ...
    def unwrap(self, wrapped: bytes, bound_to: str) -> bytes:
        """Raises `VaultError` where the master key is another one or the bytes were changed."""
        ...

    def derive(self, purpose: bytes) -> bytes:
        """32 bytes, the same for the same purpose on every instance, that say nothing of the master key or of each other."""
        ...


class VaultError(Exception):
    """Something at rest cannot be opened with the master key this instance has."""


class LocalKeys:
    """AES-256-GCM under 32-byte master keys: the first wraps, all of them open. What is derived does not change with them.

    A file holds a master key and, from the second on, the 32 bytes that all else is derived from, the same in every one.
    """

    def __init__(self, *masters: bytes, folder: Path | None = None) -> None:
        if not masters or any(len(m) not in (KEY_BYTES, 2 * KEY_BYTES) for m in masters):
            raise VaultError("a master key must be 32 bytes, or 64 with what is derived from it")
        self._folder = folder
        self._seen = _stamp(folder)
        self._take(masters)

    def _take(self, masters: tuple[bytes, ...]) -> None:
        self._masters = masters
        self._aeads = [AESGCM(m[:KEY_BYTES]) for m in masters]
        first = masters[0]
        self._deriving = first[KEY_BYTES:] or hmac.digest(first, b"derive", "sha256")

    @classmethod
    def from_file(cls, path: Path) -> LocalKeys:
        """Reads the key, and makes it (0600) where there is none; two instances that race agree on one. Others beside it
        (``master-*.key``) open too."""
        if not path.exists():
            put_whole(path, os.urandom(KEY_BYTES))
        return cls(*_masters(path.parent), folder=path.parent)

    def successor(self) -> bytes:
        """A fresh master key, as its file holds it."""
        return os.urandom(KEY_BYTES) + self._deriving

    def wrap(self, plain: bytes, bound_to: str) -> bytes:
        self._look_again()
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aeads[0].encrypt(nonce, plain, bound_to.encode())

    def unwrap(self, wrapped: bytes, bound_to: str) -> bytes:
        plain = self._opened(wrapped, bound_to)
        if plain is None and self._look_again():
            plain = self._opened(wrapped, bound_to)
        if plain is None:
            raise VaultError("cannot be opened: the master key differs from the one that wrapped it")
        return plain

    def is_newest(self, wrapped: bytes, bound_to: str) -> bool:
        """Whether it was wrapped by the master key that wraps now."""
        return _decrypted(self._aeads[0], wrapped, bound_to) is not None

    def derive(self, purpose: bytes) -> bytes:
        return hmac.digest(self._deriving, purpose, "sha256")

    def _opened(self, wrapped: bytes, bound_to: str) -> bytes | None:
        found = (_decrypted(aead, wrapped, bound_to) for aead in self._aeads)
        return next((plain for plain in found if plain is not None), None)

    def _look_again(self) -> bool:
        """True where the folder has changed: a key was laid beside ours, or in its place."""
        stamp = _stamp(self._folder)
        if self._folder is None or stamp == self._seen:
            return False
        self._seen = stamp
        self._take(tuple(_masters(self._folder)))
        return True


def put_whole(path: Path, content: bytes) -> None:
    """A file (0600) that is there whole or not at all, for another instance may be reading; one that is there stays."""
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.unlink(name)


def _masters(folder: Path) -> list[bytes]:
    others = sorted(folder.glob("master-*.key"))
    return [path.read_bytes() for path in (folder / MASTER_KEY_FILE, *others)]


def _stamp(folder: Path | None) -> tuple[tuple[str, int], ...]:
    if folder is None:
        return ()
    return tuple(sorted((p.name, p.stat().st_ino) for p in folder.glob("master*.key")))


def _decrypted(aead: AESGCM, wrapped: bytes, bound_to: str) -> bytes | None:
    try:
        return aead.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], bound_to.encode())
    except (InvalidTag, ValueError):
        return None


class CallKey:
    """One call's key for content. `hash` is stable over instances and restarts, for as long as the key is there.

    `keyed`: the hash, with its key in it and nothing else: to be copied.
    """

    __slots__ = ("_aead", "_secret", "keyed", "wrapped")

    def __init__(self, secret: bytes, wrapped: bytes) -> None:
        self._secret = secret
        self._aead: AESGCM | None = None
        self.wrapped = wrapped
        self.keyed = hashlib.blake2b(key=_derived(secret, b"content hash"), digest_size=HASH_BYTES)

    @property
    def aead(self) -> AESGCM:
        if self._aead is None:
            self._aead = AESGCM(self._secret)
        return self._aead

    @property
    def snapshot_key(self) -> bytes:
        """The same in every ticket of the call, so that a snapshot outlives the ticket it came with."""
        return _derived(self._secret, b"snapshot")

    def seal(self, plain: bytes, event_id: UUID) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self.aead.encrypt(nonce, plain, event_id.bytes)

    def open(self, sealed: bytes, event_id: UUID) -> bytes:
        try:
            return self.aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], event_id.bytes)
        except InvalidTag:
            raise VaultError("stored content does not open under its key") from None

    def hash(self, *parts: bytes) -> bytes:
        """A keyed BLAKE2b over length-prefixed parts."""
        hashed = self.keyed.copy()
        hashed.update(b"".join([_LENGTH.pack(len(part)) + part for part in parts]))
        return hashed.digest()


class ProjectKey:
    """Wraps the keys of a project's calls. A wrapped key opens for the call it was made for, and no other."""

    __slots__ = ("_aead", "_secret", "id")

    def __init__(self, id_: UUID, secret: bytes) -> None:
        self.id = id_
        self._secret = secret
        self._aead = AESGCM(secret)

    def new_call(self, call_id: UUID) -> CallKey:
        fresh = os.urandom(KEY_BYTES + NONCE_BYTES)
        secret, nonce = fresh[:KEY_BYTES], fresh[KEY_BYTES:]
        return CallKey(secret, nonce + self._aead.encrypt(nonce, secret, call_id.bytes))

    def call(self, call_id: UUID, wrapped: bytes) -> CallKey:
        """Raises `VaultError`."""
        try:
            secret = self._aead.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], call_id.bytes)
        except (InvalidTag, ValueError):
            raise VaultError("a call's key does not open under its project's") from None
        return CallKey(secret, wrapped)

    def subject(self, text: str) -> bytes:
        """Whom a call is about: the same for the same words, and says nothing of them without the key."""
        return hashlib.blake2b(text.encode(), key=self.derive(b"subject"), digest_size=HASH_BYTES).digest()

    def seal(self, plain: bytes, place: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plain, place)

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """Raises `VaultError`."""
        try:
            return self._aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place)
        except (InvalidTag, ValueError):
            raise VaultError("what is stored does not open under its project's key") from None

    def derive(self, purpose: bytes) -> bytes:
        """32 bytes that say nothing of the key, the same for the same purpose."""
        return hmac.digest(self._secret, purpose, "sha256")


class Vault:
    """Keys of projects, through the database, and of calls, from their rows; kept in memory once seen."""

    def __init__(self, db: Database, provider: KeyProvider) -> None:
        self._db = db
        self._provider = provider
        self._projects: dict[UUID, ProjectKey] = {}
        self._calls: OrderedDict[UUID, CallKey] = OrderedDict()

    @property
    def provider(self) -> KeyProvider:
        return self._provider

    async def for_project(self, project_id: UUID) -> ProjectKey:
        """The project's key, created where there is none. Instances that race agree on the oldest."""
        known = self._projects.get(project_id)
        if known is not None:
            return known
        row = await self._db.pool("worker").fetchrow(SELECT_PROJECT_KEY, project_id)
        if row is None:
            row = await self._new_for_project(project_id)
        key_id, wrapped = row["id"], row["wrapped"]
        key = ProjectKey(key_id, self._provider.unwrap(wrapped, f"content:{key_id}"))
        self._projects[project_id] = key
        return key

    async def _new_for_project(self, project_id: UUID) -> Any:
        key_id = new_id(self._db.cell)
        wrapped = self._provider.wrap(os.urandom(KEY_BYTES), f"content:{key_id}")
        async with self._db.pool("admin").acquire() as connection, connection.transaction():
            await connection.execute(LOCK_PROJECT_KEY, f"content:{project_id}")
            row = await connection.fetchrow(SELECT_PROJECT_KEY, project_id)
            return row or await connection.fetchrow(INSERT_PROJECT_KEY, key_id, project_id, wrapped)

    async def of_call(self, project_id: UUID, call_id: UUID, wrapped: bytes | None) -> CallKey | None:
        """The call's key, `wrapped` as its row has it now; None where it was destroyed. Raises `VaultError`."""
        known = self._calls.get(call_id)
        if wrapped is None:
            self._calls.pop(call_id, None)
            return None
        if known is not None and known.wrapped == wrapped:
            self._calls.move_to_end(call_id)
            return known
        project = self._projects.get(project_id) or await self.for_project(project_id)
        key = self._calls[call_id] = project.call(call_id, wrapped)
        while len(self._calls) > CALLS_MAX:
            self._calls.popitem(last=False)
        return key

    def forget(self, calls: Iterable[UUID]) -> None:
        """These were erased: nothing of them is to open any more, whatever is still in memory."""
        for call_id in calls:
            self._calls.pop(call_id, None)

    def forget_calls(self) -> None:
        """All of them: this instance cannot know which were erased."""
        self._calls.clear()


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(purpose, key=secret, digest_size=KEY_BYTES).digest()
