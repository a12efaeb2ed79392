"""Creates projects and keys, revokes keys, keeps what a project has set. Row-level security decides whose rows are touched."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import cast, insert, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app.clock import Clock, rfc3339
from app.db import Database
from app.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from app.hints import Hints
from app.ids import new_id, parse
from app.projects.auth import ROLE_SCOPES, SCOPES, Authenticator, Principal
from app.projects.secrets import RANDOM_BYTES, hash_of, make
from app.projects.shapes import CreatedKey, CreateKey, CreateProject, KeyView, ProjectView
from app.projects.targets import checked
from app.tables import api_keys, projects
from regions.wire import ids

PAGE_MAX = 200


class Projects:
    def __init__(
        self,
        db: Database,
        clock: Clock,
        hints: Hints,
        auth: Authenticator,
        *,
        project_targets: bool = False,
    ) -> None:
        self._project_targets = project_targets
        self._db = db
        self._clock = clock
        self._hints = hints
        self._auth = auth

    async def create(self, body: CreateProject) -> ProjectView:
        project_id, now = new_id(self._db.cell), self._clock.now()
        async with self._db.transaction("admin") as connection:
            await connection.execute(
                insert(projects).values(id=project_id, name=body.name, mode=body.mode, created_at=now)
            )
        return self._view({"id": project_id, "name": body.name, "mode": body.mode, "created_at": now})

    async def all(self) -> list[ProjectView]:
        async with self._db.transaction("admin") as connection:
            rows = (
                (await connection.execute(select(projects).order_by(projects.c.id).limit(PAGE_MAX)))
                .mappings()
                .all()
            )
        return [self._view(row) for row in rows]

    def _view(self, row: Any) -> ProjectView:
        return ProjectView(
            id=ids.encode(ids.PROJECT, row["id"]),
            name=row["name"],
            mode=row["mode"],
            created_at=rfc3339(row["created_at"]),
            cell=self._db.cell,
            jurisdiction=self._db.jurisdiction or None,
        )

    async def mode_of(self, text: str) -> tuple[UUID, str]:
        """The project's id and mode; raises `NotFound`."""
        project_id = parse(ids.PROJECT, text)
        async with self._db.transaction("admin") as connection:
            mode = await connection.scalar(select(projects.c.mode).where(projects.c.id == project_id))
        if project_id is None or mode is None:
            raise NotFound("There is no such project.")
        return project_id, mode

    async def get(self, text: str) -> ProjectView:
        project_id, _ = await self.mode_of(text)
        async with self._db.transaction("admin") as connection:
            row = (
                (await connection.execute(select(projects).where(projects.c.id == project_id)))
                .mappings()
                .one()
            )
        return self._view(row)

    async def create_key_as_operator(self, text: str, body: CreateKey) -> CreatedKey:
        project_id, mode = await self.mode_of(text)
        async with self._db.transaction("admin") as connection:
            return await self._put_key(connection, project_id, mode, body, SCOPES)

    async def create_key(self, principal: Principal, body: CreateKey) -> CreatedKey:
        """A key may hand out what it has itself, and no more."""
        if body.role == "owner" and principal.role != "owner":
            raise Forbidden("Only an owner's key creates an owner's key.")
        async with self._db.project(principal.project_id) as connection:
            return await self._put_key(
                connection, principal.project_id, principal.mode, body, principal.scopes
            )

    async def list_keys(self, principal: Principal) -> list[KeyView]:
        async with self._db.project(principal.project_id) as connection:
            rows = (
                (await connection.execute(select(api_keys).order_by(api_keys.c.id.desc()).limit(PAGE_MAX)))
                .mappings()
                .all()
            )
        return [KeyView(**_key(row)) for row in rows]

    async def revoke_key(self, principal: Principal, text: str) -> None:
        """Twice is as good as once. The last owner's key of a project cannot be revoked by its project."""
        key_id = parse(ids.KEY, text)
        async with self._db.project(principal.project_id) as connection:
            owners = await self._lock_owners(connection)
            query = select(api_keys.c.revoked_at).where(api_keys.c.id == key_id)
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                raise NotFound("There is no such key.")
            if row.revoked_at is not None:
                return
            if owners == [key_id]:
                raise Conflict(
                    "This is the project's last owner key.",
                    fix="Create another owner key first, then revoke this one.",
                )
            await connection.execute(
                update(api_keys).where(api_keys.c.id == key_id).values(revoked_at=self._clock.now())
            )
        self._auth.forget()
        self._hints.wake("keys")

    async def targets(self, principal: Principal) -> list[str]:
        """The inner addresses its webhooks may reach, as they were written."""
        query = select(projects.c.settings).where(projects.c.id == principal.project_id)
        async with self._db.project(principal.project_id) as connection:
            settings = await connection.scalar(query)
        return list((settings or {}).get("targets", []))

    async def set_targets(self, principal: Principal, given: list[str]) -> list[str]:
        """All of them, in place of those before. Raises `Forbidden`, `NotAvailable`, `Invalid`."""
        wanted = checked(given, mode=principal.mode, allowed=self._project_targets)
        changed = projects.c.settings.op("||")(cast({"targets": wanted}, JSONB))
        statement = (
            update(projects)
            .where(projects.c.id == principal.project_id)
            .values(settings=changed, version=projects.c.version + 1)
        )
        async with self._db.project(principal.project_id) as connection:
            await connection.execute(statement)
        self._auth.forget()
        self._hints.wake("keys")
        return wanted

    async def _lock_owners(self, connection: AsyncConnection) -> list[UUID]:
        """The owner keys that work, locked, so that two of them cannot revoke each other at the same time."""
        c = api_keys.c
        live = (c.role == "owner") & c.revoked_at.is_(None)
        lasting = c.expires_at.is_(None) | (c.expires_at > self._clock.now())
        query = select(c.id).where(live & lasting).order_by(c.id).with_for_update()
        return list((await connection.execute(query)).scalars())

    async def _put_key(
        self,
        connection: AsyncConnection,
        project_id: UUID,
        mode: str,
        body: CreateKey,
        grantable: frozenset[str],
    ) -> CreatedKey:
        faults = [
            FieldError(pointer=f"/scopes/{i}", detail="unknown, or beyond the role, or beyond your own")
            for i, scope in enumerate(body.scopes)
            if scope not in grantable & ROLE_SCOPES[body.role]
        ]
        if not body.scopes and not ROLE_SCOPES[body.role] <= grantable:
            faults.append(FieldError(pointer="/role", detail="the role may do more than your key"))
        if body.expires_at is not None and (
            body.expires_at.tzinfo is None or body.expires_at <= self._clock.now()
        ):
            faults.append(
                FieldError(pointer="/expires_at", detail="must be a time in the future, with its offset")
            )
        if faults:
            raise Invalid("The key cannot be created so.", errors=faults)
        key_id, now = new_id(self._db.cell), self._clock.now()
        secret = make(mode, self._db.cell, os.urandom(RANDOM_BYTES))
        row: dict[str, Any] = {
            "id": key_id,
            "project_id": project_id,
            "name": body.name,
            "role": body.role,
            "scopes": body.scopes,
            "secret_hash": hash_of(secret),
            "hint": secret[-4:],
            "created_at": now,
            "expires_at": body.expires_at,
        }
        await connection.execute(insert(api_keys).values(**row))
        return CreatedKey(**_key(row | {"revoked_at": None, "last_used_at": None}), secret=secret)


def _key(row: Any) -> dict[str, Any]:
    def at(name: str) -> str | None:
        value: datetime | None = row[name]
        return rfc3339(value) if value is not None else None

    return {
        "id": ids.encode(ids.KEY, row["id"]),
        "name": row["name"],
        "role": row["role"],
        "scopes": list(row["scopes"]),
        "hint": row["hint"],
        "created_at": at("created_at"),
        "expires_at": at("expires_at"),
        "revoked_at": at("revoked_at"),
        "last_used_at": at("last_used_at"),
    }
