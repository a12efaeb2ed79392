"""The audit log as it is looked at: listed, verified, exported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app import cursors
from app.audit import exporting
from app.audit.anchoring import Anchoring
from app.audit.chain import PLATFORM, Entry
from app.audit.keys import AuditKeys
from app.audit.service import Audit
from app.audit.shapes import ActorView, AuditEntry, AuditFault, AuditKey, AuditReport
from app.audit.store import LAST_ID, AuditReader, Wanted
from app.audit.verifying import Fault, Verifier
from app.clock import ms_of, rfc3339
from app.db import Database
from app.errors import BadRequest, FieldError, Invalid
from app.settings import Settings
from app.times import read_time
from regions.wire import ids

CURSOR_KIND = "audit"
VERIFIED_MAX = 50_000
"""Entries at a time: some seconds of work. A longer log is verified in parts, or from its export."""


class AuditLog:
    def __init__(self, reader: AuditReader, keys: AuditKeys, anchoring: Anchoring) -> None:
        self._reader = reader
        self._keys = keys
        self.anchoring = anchoring

    @classmethod
    def of(cls, db: Database, audit: Audit, settings: Settings) -> AuditLog:
        anchoring = Anchoring(db, audit.keys, audit.clock, settings.data, kept_d=settings.audit_kept_d)
        return cls(AuditReader(db), audit.keys, anchoring)

    async def page(
        self,
        project_id: UUID,
        *,
        actor: str | None,
        action: str | None,
        target: str | None,
        since: str | None,
        until: str | None,
        cursor: str | None,
        limit: int,
    ) -> tuple[list[AuditEntry], str | None]:
        """The newest first, and where to go on. Raises `Invalid`, `BadRequest`."""
        first, last = window(since, until)
        filters = cursors.encode(
            "audit-filter", str(project_id), actor or "", action or "", target or "", since or "", until or ""
        )
        before = _place(cursor, filters) if cursor else last or LAST_ID
        wanted = Wanted(actor=actor, action=action, target=target, since=first, before=before, limit=limit)
        found = await self._reader.newest(project_id, wanted)
        more = (
            cursors.encode(CURSOR_KIND, found[-1].id.hex, _digest(filters)) if len(found) == limit else None
        )
        return [_view(entry) for entry in found], more

    async def verify(self, project_id: UUID, since: str | None) -> AuditReport:
        """Reads all of it. Raises `Invalid`."""
        first, _ = window(since, None)
        if await self._reader.count(project_id, first, VERIFIED_MAX + 1) > VERIFIED_MAX:
            raise Invalid(
                f"More than {VERIFIED_MAX} entries are not verified in one request.",
                code="too_many_entries",
                errors=[FieldError(pointer="/from", detail="must be later")],
                fix="Give a later `from`, or export the log and run `voxplane audit verify FILE`.",
            )
        keys = await self._keys.public()
        verifier = Verifier(keys, project_id, whole=first is None)
        async for anchors in self._reader.anchors(project_id):
            await asyncio.to_thread(verifier.take_anchors, anchors)
        async for entries in self._reader.entries(project_id, since=first):
            await asyncio.to_thread(verifier.take_entries, entries)
        seen = self.anchoring.seen.get(str(project_id))
        verifier.finish(seen, witnessed=await self.anchoring.witnessed(project_id))
        if project_id == PLATFORM:
            await self._check_projects(verifier)
        return AuditReport(
            ok=not verifier.faults,
            entries=verifier.entries,
            anchors=verifier.anchors,
            unanchored=verifier.unanchored,
            erased=verifier.erased,
            dropped=verifier.dropped,
            dropped_at=verifier.dropped_at,
            anchor="{}:{}".format(*verifier.newest_anchor) if verifier.newest_anchor else None,
            anchored_at=verifier.anchored_at,
            faults=[AuditFault(what=f.what, where=f.where, detail=f.detail, entry=f.entry) for f in verifier.faults],
            keys=[AuditKey(kid=kid, public_key=exporting.raw(key)) for kid, key in sorted(keys.items())],
        )  # fmt: skip

    async def _check_projects(self, verifier: Verifier) -> None:
        """The platform's anchors bind those of the projects."""
        for project, (n, hash_) in sorted(verifier.projects.items()):
            if not await self._reader.has_anchor(UUID(project), n, hash_):
                if await self.anchoring.was_dropped(UUID(project), n):
                    continue
                name = ids.encode(ids.PROJECT, UUID(project))
                gone = Fault(
                    "missing",
                    f"anchor {n} of {name}",
                    "the platform's anchors bind it, and it is gone or another one",
                )
                verifier.faults.append(gone)

    async def export(
        self, project_id: UUID, format_: exporting.Format, since: str | None, until: str | None
    ) -> AsyncIterator[str]:
        """Line by line, from now on. Raises `Invalid`."""
        window(since, until)
        return self._exported(project_id, format_, since, until, await self._keys.public())

    async def _exported(
        self,
        project_id: UUID,
        format_: exporting.Format,
        since: str | None,
        until: str | None,
        keys: Mapping[str, Ed25519PublicKey],
    ) -> AsyncIterator[str]:
        first, last = window(since, until)
        if format_ == "csv":
            yield exporting.header()
        head = [
            exporting.about(project_id, since, until),
            *(exporting.of_key(kid, key) for kid, key in keys.items()),
        ]
        yield "".join(exporting.lines(head, format_))
        async for anchors in self._reader.anchors(project_id):
            yield "".join(exporting.lines(map(exporting.of_anchor, anchors), format_))
        async for entries in self._reader.entries(project_id, since=first, until=last):
            yield "".join(exporting.lines(map(exporting.of_entry, entries), format_))


def window(since: str | None, until: str | None) -> tuple[UUID | None, UUID | None]:
    """As the first ids of these moments. Raises `Invalid`."""
    faults: list[FieldError] = []
    found: list[UUID | None] = []
    for name, given in (("from", since), ("to", until)):
        if given is None:
            found.append(None)
            continue
        at, wrong = read_time(f"/{name}", given)
        faults += wrong
        found.append(_first_id(at) if not wrong else None)
    first, last = found
    if not faults and first is not None and last is not None and last <= first:
        faults.append(FieldError(pointer="/to", detail="is not after from"))
    if faults:
        raise Invalid("The time is not one that can be asked for.", errors=faults)
    return first, last


def _first_id(at: datetime) -> UUID:
    return UUID(int=min(max(ms_of(at), 0), (1 << 48) - 1) << 80)


def _digest(filters: str) -> str:
    return filters[:6]  # the checksum of a cursor stands first


def _place(cursor: str, filters: str) -> UUID:
    match cursors.decode(CURSOR_KIND, cursor):
        case [str(text), str(digest)] if len(text) == 32:
            if digest != _digest(filters):
                raise BadRequest(
                    "The cursor was made with other filters.", code="bad_cursor", fix=cursors.FIX
                )
            try:
                return UUID(hex=text)
            except ValueError:
                pass
    raise BadRequest("The cursor cannot be read.", code="bad_cursor", fix=cursors.FIX)


def _view(entry: Entry) -> AuditEntry:
    address, summary = entry.said
    return AuditEntry(
        id=ids.encode(ids.AUDIT, entry.id),
        at=rfc3339(entry.at),
        actor=ActorView(kind=entry.actor.kind, id=entry.actor.id),
        address=address,
        request_id=entry.request_id,
        action=entry.action,
        target=entry.target,
        summary=summary,
        writer=str(entry.writer),
        n=entry.n,
        hash=entry.hash.hex(),
    )
