"""Creates projects, keeps what a project has set. Row-level security decides whose rows are touched."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import cast, insert, select, update
from sqlalchemy.dialects.postgresql import JSONB

from app.audit.service import Audit
from app.clock import Clock, rfc3339
from app.db import Database
from app.errors import NotFound
from app.hints import Hints
from app.ids import new_id, parse
from app.projects.auth import Authenticator, Principal
from app.projects.shapes import CreateProject, ProjectView
from app.projects.targets import checked
from app.tables import projects
from regions.wire import ids

PAGE_MAX = 10_000


class Projects:
    def __init__(
        self,
        db: Database,
        clock: Clock,
        hints: Hints,
        auth: Authenticator,
        audit: Audit,
        *,
        project_targets: bool = False,
    ) -> None:
        self._project_targets = project_targets
        self._db = db
        self._clock = clock
        self._hints = hints
        self._auth = auth
        self._audit = audit

    async def create(self, body: CreateProject) -> ProjectView:
        project_id, now = new_id(self._db.cell), self._clock.now()
        async with self._db.transaction("admin") as connection:
            await connection.execute(
                insert(projects).values(id=project_id, name=body.name, mode=body.mode, created_at=now)
            )
            name, said = ids.encode(ids.PROJECT, project_id), {"name": body.name, "mode": body.mode}
            await self._audit.record(connection, "project.created", name, project_id=project_id, summary=said)
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
            said = {"targets": wanted}
            await self._audit.record(
                connection, "targets.changed", project_id=principal.project_id, summary=said
            )
        self._auth.forget()
        self._hints.wake("keys")
        return wanted
