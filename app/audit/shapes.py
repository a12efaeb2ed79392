"""The audit log on the wire of the REST API."""

from __future__ import annotations

from typing import Any

import msgspec


class ActorView(msgspec.Struct, frozen=True, kw_only=True):
    """`kind`: ``key``, ``person``, ``operator``, ``edge`` or ``system``."""

    kind: str
    id: str


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """`address`, `summary`: null once they were erased. `writer`, `n`: its place in its chain; `hash`: SHA-256 of it and of the entry
    before, in hex."""

    id: str
    at: str
    actor: ActorView
    address: str | None
    request_id: str
    action: str
    target: str
    summary: dict[str, Any] | None
    writer: str
    n: int
    hash: str


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    data: list[AuditEntry]
    next_cursor: str | None = None


class AuditFault(msgspec.Struct, frozen=True, kw_only=True):
    """`what`: ``changed``, ``missing``, ``inserted``, ``not_signed``, ``unknown_key``, ``erased`` or ``misplaced``. `where`: which
    entry of which writer, or which anchor. `entry`: its id, where it is still there."""

    what: str
    where: str
    detail: str
    entry: str | None


class AuditKey(msgspec.Struct, frozen=True, kw_only=True):
    """`public_key`: Ed25519, in hex."""

    kid: str
    public_key: str


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """`ok`: nothing is wrong. `unanchored`: so many of the newest entries no anchor binds yet: a minute's at most. `erased`:
    entries whose address and summary were erased. `dropped`: entries that were dropped for their age, all in all, the last of them at
    `dropped_at`; signed anchors say so, and nothing can be said of them but that. `anchor`: the newest, by number and hash: whoever
    keeps it sees a log that is set back later."""

    ok: bool
    entries: int
    anchors: int
    unanchored: int
    erased: int
    dropped: int
    dropped_at: str | None
    anchor: str | None
    anchored_at: str | None
    faults: list[AuditFault]
    keys: list[AuditKey]
