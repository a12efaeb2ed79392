"""Erasures as projects ask for them: by a call, by a person, by a number, by metadata.

Decides what is accepted and written down; that every place does its part is `app.erasure.worker`'s. Of whom an erasure is about
nothing is kept in the open, and nothing at all once the last of the calls is found.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import UUID

import msgspec

from app.audit.service import Audit
from app.calls.policy import normalised
from app.clock import rfc3339
from app.db import Database
from app.erasure.privacy import Privacy
from app.erasure.shapes import EraseRequest, ErasureView, PlaceView
from app.erasure.store import ADD, Erasure, ErasureStore, Place
from app.erasure.worker import TOPIC, Erasing, Selector
from app.errors import FieldError, Invalid, NotFound
from app.fleet.view import FleetView
from app.hints import Hints
from app.ids import new_id, parse
from app.log.append import Appender
from app.log.tails import Tails
from app.projects.auth import Principal
from app.settings import Settings
from app.vault import Vault
from regions.wire import ids

DESTROYED_WITHIN_S = 5.0
LOOK_EVERY_S = 0.02


class Erasures:
    def __init__(
        self, db: Database, store: ErasureStore, vault: Vault, hints: Hints, audit: Audit, worker: Erasing
    ) -> None:
        self._db = db
        self._store = store
        self._vault = vault
        self._hints = hints
        self._audit = audit
        self.worker = worker
        self.privacy = Privacy(db, audit.clock, audit)

    @classmethod
    def of(
        cls,
        db: Database,
        home: Database,
        vault: Vault,
        tails: Tails,
        appender: Appender,
        audit: Audit,
        fleet: FleetView,
        hints: Hints,
        settings: Settings,
        *,
        here: bool,
    ) -> Erasures:
        """Of one cell. `here`: whether this instance may reach the regions for it."""
        store = ErasureStore(db)
        worker = Erasing(
            store,
            ErasureStore(home),
            vault,
            tails,
            appender,
            hints,
            settings.redis_urls,
            lambda region: [e.id for e in fleet.now.edges if e.region == region],
            cell=db.cell,
            drives=here,
        )
        return cls(db, store, vault, hints, audit, worker)

    async def call(self, principal: Principal, call_id: UUID) -> ErasureView:
        """Of a call that is the project's. Its key is destroyed before this returns, unless the log cannot be reached; the rest
        follows. Twice is as good as once."""
        before = await self._store.of_call(principal.project_id, call_id)
        if before is not None:
            self._audit.unchanged("erasure.created")
            return await self.get(principal, ids.encode(ids.ERASURE, before))
        selector = Selector(call=str(call_id))
        erasure_id = await self._add(principal, "call", selector, ids.encode(ids.CALL, call_id))
        await self._destroyed(principal.project_id, erasure_id)
        return await self.get(principal, ids.encode(ids.ERASURE, erasure_id))

    async def _destroyed(self, project_id: UUID, erasure_id: UUID) -> None:
        """Returns once its call opens nowhere, whichever instance is at it; or when that takes too long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DESTROYED_WITHIN_S):
                while True:
                    await self.worker.drive(only=erasure_id)
                    found = await self._store.get(project_id, erasure_id)
                    if found is None or found[0].state != "finding":
                        return
                    await asyncio.sleep(LOOK_EVERY_S)

    async def somebody(self, principal: Principal, body: EraseRequest) -> ErasureView:
        given = [name for name in ("subject", "number", "metadata") if getattr(body, name) is not None]
        if len(given) != 1:
            faults = [
                FieldError(pointer=f"/{name}", detail="only one of them can be given") for name in given
            ]
            raise Invalid(
                "An erasure names a subject, a number or metadata.",
                errors=faults,
                fix="Give exactly one of the three.",
            )
        selector = Selector()
        if body.subject is not None:
            key = await self._vault.for_project(principal.project_id)
            selector = Selector(subject=key.subject(body.subject))
        elif body.number is not None:
            number = normalised(body.number)
            if number is None:
                fault = FieldError(pointer="/number", detail="expected an E.164 number, a tel: or a sip: URI")
                raise Invalid("This is no number.", errors=[fault])
            selector = Selector(number=number)
        elif body.metadata is not None:
            selector = Selector(metadata=body.metadata)
        erasure_id = await self._add(principal, given[0], selector)
        return await self.get(principal, ids.encode(ids.ERASURE, erasure_id))

    async def get(self, principal: Principal, text: str) -> ErasureView:
        erasure_id = parse(ids.ERASURE, text)
        found = await self._store.get(principal.project_id, erasure_id) if erasure_id is not None else None
        if found is None:
            raise NotFound("There is no such erasure.")
        return view(*found)

    async def page(self, principal: Principal, below: UUID | None, limit: int) -> list[ErasureView]:
        return [view(*found) for found in await self._store.page(principal.project_id, below, limit)]

    async def _add(self, principal: Principal, kind: str, selector: Selector, target: str = "") -> UUID:
        erasure_id = new_id(self._db.cell)
        key = await self._vault.for_project(principal.project_id)
        sealed = key.seal(msgspec.json.encode(selector), erasure_id.bytes)
        actor = f"{principal.actor.kind}:{principal.actor.id}"
        async with self._db.project_driver(principal.project_id) as connection:
            await connection.execute(ADD, erasure_id, principal.project_id, kind, sealed, actor)
            await self._audit.record(
                connection,
                "erasure.created",
                target or ids.encode(ids.ERASURE, erasure_id),
                project_id=principal.project_id,
                summary={"kind": kind, "erasure": ids.encode(ids.ERASURE, erasure_id)},
            )
        self._hints.wake(TOPIC)
        return erasure_id


def view(erasure: Erasure, places: list[Place]) -> ErasureView:
    return ErasureView(
        id=ids.encode(ids.ERASURE, erasure.id),
        kind=erasure.kind,
        state=erasure.state,
        calls=erasure.calls,
        created_at=rfc3339(erasure.created_at),
        found_at=rfc3339(erasure.found_at) if erasure.found_at else None,
        done_at=rfc3339(erasure.done_at) if erasure.done_at else None,
        places=[
            PlaceView(
                kind=p.kind,
                place=ids.encode(ids.EDGE, UUID(p.place)) if p.kind == "edge" else p.place,
                done_at=rfc3339(p.done_at) if p.done_at else None,
                how=p.how,
            )
            for p in places
        ],
    )
