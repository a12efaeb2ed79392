"""Entries and anchors of the audit log: what is hashed, what is signed, and in which form. Pure.

An entry belongs to a chain: one project's, of one writer (one life of an API instance). Its hash covers all its fields and the
hash of the entry before it; its signature (Ed25519) covers the hash. An anchor binds the newest entries of a project's chains and
the anchor before it, so that nothing can be taken away at the end either. What may have to be erased (the address, and the summary)
is hashed by itself, with a salt: without it the chain still holds, and a guess cannot be tried out. See docs/reference/audit.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from app.clock import rfc3339
from app.projects.roles import Actor

VERSION = 1
NOTHING = bytes(32)
"""The hash before the first."""
PLATFORM = UUID(int=0)
"""In the place of a project: the platform's own chains."""
SALT_BYTES = 16
ERASED = "audit.details_erased"
ANCHOR, DROPPED = "anchor", "dropped"
_ENTRY, _ANCHOR = b"voxplane audit entry\0", b"voxplane audit anchor\0"

Heads = dict[str, tuple[int, str]]
"""By writer (or, of projects, by project): a number, and the hash that it has, in hex."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """`details`, `salt`: None once they were erased. `at`: exact to the millisecond."""

    project_id: UUID
    writer: UUID
    n: int
    id: UUID
    at: datetime
    actor: Actor
    action: str
    target: str
    request_id: str
    details: str | None
    salt: bytes | None
    digest: bytes
    prev: bytes
    hash: bytes
    kid: str
    signature: bytes

    @property
    def said(self) -> tuple[str | None, dict[str, Any] | None]:
        """Address and summary. None of what was erased, or is not what anybody here has written: the log is looked at and exported
        all the same, and its verification says that this was changed."""
        try:
            found = json.loads(self.details or "{}")
        except ValueError:
            found = None
        if not isinstance(found, dict):
            return None, None
        address, summary = found.get("address"), found.get("summary")
        return address if isinstance(address, str) else None, summary if isinstance(summary, dict) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """`body`: canonical JSON, of which `hash` is the SHA-256."""

    project_id: UUID
    n: int
    body: str
    hash: bytes
    kid: str
    signature: bytes

    @property
    def said(self) -> dict[str, Any]:
        """What it says; empty where that is no object."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Signer:
    kid: str
    key: Ed25519PrivateKey


def canonical(value: Any) -> str:
    """One text for one value: JSON in ASCII, names sorted, nothing between."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(details: str, salt: bytes) -> bytes:
    return hashlib.sha256(salt + details.encode()).digest()


def hash_of(entry: Entry) -> bytes:
    """Of all its fields but those that can be erased, for which `digest` stands, and `hash`, `kid` and `signature` themselves."""
    fields = {
        "v": VERSION,
        "project": str(entry.project_id),
        "writer": str(entry.writer),
        "n": entry.n,
        "id": str(entry.id),
        "at": rfc3339(entry.at),
        "actor": [entry.actor.kind, entry.actor.id],
        "action": entry.action,
        "target": entry.target,
        "request_id": entry.request_id,
        "digest": entry.digest.hex(),
        "prev": entry.prev.hex(),
    }
    return hashlib.sha256(canonical(fields).encode()).digest()


def sign(signer: Signer, hash_: bytes, *, anchor: bool = False) -> bytes:
    return signer.key.sign((_ANCHOR if anchor else _ENTRY) + hash_)


def signed(key: Ed25519PublicKey, hash_: bytes, signature: bytes, *, anchor: bool = False) -> bool:
    try:
        key.verify(signature, (_ANCHOR if anchor else _ENTRY) + hash_)
    except InvalidSignature:
        return False
    return True


def next_entry(
    signer: Signer,
    *,
    project_id: UUID,
    writer: UUID,
    after: tuple[int, bytes],
    id_: UUID,
    at: datetime,
    actor: Actor,
    action: str,
    target: str,
    request_id: str,
    address: str,
    summary: Mapping[str, Any],
    salt: bytes,
) -> Entry:
    """`after`: number and hash of the chain's newest. `at` is cut to milliseconds."""
    details = canonical({"address": address, "summary": dict(summary)})
    given: dict[str, Any] = {
        "project_id": project_id, "writer": writer, "n": after[0] + 1, "id": id_,
        "at": at.replace(microsecond=at.microsecond // 1000 * 1000), "actor": actor, "action": action, "target": target,
        "request_id": request_id, "details": details, "salt": salt, "digest": digest_of(details, salt), "prev": after[1],
        "kid": signer.kid,
    }  # fmt: skip
    made = hash_of(Entry(**given, hash=b"", signature=b""))
    return Entry(**given, hash=made, signature=sign(signer, made))


def next_anchor(
    signer: Signer,
    *,
    project_id: UUID,
    after: tuple[int, bytes],
    at: datetime,
    heads: Heads,
    kind: str = ANCHOR,
    projects: Heads | None = None,
    before: tuple[int, str] | None = None,
) -> Anchor:
    """`heads`: of the chains that have grown since the anchor before; of kind `DROPPED`: up to which entries were dropped, and
    `before`: number and hash of the newest anchor that was dropped with them. `projects`: in the platform's, anchors of projects."""
    said: dict[str, Any] = {
        "v": VERSION, "project": str(project_id), "n": after[0] + 1, "at": rfc3339(at), "kind": kind,
        "prev": after[1].hex(), "heads": heads,
    }  # fmt: skip
    if projects:
        said["projects"] = projects
    if before is not None:
        said["before"] = before
    body = canonical(said)
    made = hashlib.sha256(body.encode()).digest()
    return Anchor(
        project_id=project_id, n=after[0] + 1, body=body, hash=made, kid=signer.kid, signature=sign(signer, made, anchor=True)
    )  # fmt: skip
