"""Reads and rotates a project's agent secret. What it is stands in `app.projects.agent_secret`; here only its number is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import cast, select, update
from sqlalchemy.dialects.postgresql import JSONB

from app.audit.service import Audit
from app.clock import Clock, at_ms, rfc3339
from app.db import Database
from app.errors import Conflict
from app.hints import Hints
from app.projects.agent_secret import SETTING, secret, setting, version_of
from app.projects.auth import Authenticator, Principal
from app.projects.shapes import AgentSecretBefore, AgentSecretView, RotateAgentSecret
from app.tables import projects
from app.vault import KeyProvider


@dataclass(slots=True)
class AgentSecrets:
    db: Database
    provider: KeyProvider
    clock: Clock
    hints: Hints
    auth: Authenticator
    audit: Audit

    async def read(self, principal: Principal) -> AgentSecretView:
        await self.audit.read(principal.project_id, "agent_secret.read")
        query = select(projects.c.settings).where(projects.c.id == principal.project_id)
        async with self.db.project(principal.project_id) as connection:
            return self._view(principal, await connection.scalar(query) or {})

    async def rotate(self, principal: Principal, body: RotateAgentSecret) -> AgentSecretView:
        """What was before the present one, and may still have been valid, is not from now on. Raises `Conflict`."""
        mine = projects.c.id == principal.project_id
        async with self.db.project(principal.project_id) as connection:
            query = select(projects.c.settings).where(mine).with_for_update()
            settings: dict[str, Any] = await connection.scalar(query) or {}
            present = version_of(settings)
            if body.version not in (None, present.number):
                raise Conflict(
                    f"The present version is {present.number}.",
                    fix="GET /v1/agent-secret, and decide again.",
                )
            now = self.clock.now()
            changed = setting(present.following(int(now.timestamp()), body.overlap_s), rfc3339(now))
            await connection.execute(
                update(projects)
                .where(mine)
                .values(
                    settings=projects.c.settings.op("||")(cast(changed, JSONB)),
                    version=projects.c.version + 1,
                )
            )
            said = {"version": present.number + 1, "overlap_s": body.overlap_s}
            await self.audit.record(
                connection, "agent_secret.rotated", project_id=principal.project_id, summary=said
            )
        self.auth.forget()
        self.hints.wake("keys")
        return self._view(principal, settings | changed)

    def _view(self, principal: Principal, settings: dict[str, Any]) -> AgentSecretView:
        version, derive = version_of(settings), self.provider.derive
        until_ms = version.before_until_s * 1000
        return AgentSecretView(
            version=version.number,
            secret=secret(derive, principal.project_id, version.number),
            rotated_at=settings.get(SETTING, {}).get("rotated_at"),
            before=AgentSecretBefore(
                version=version.number - 1,
                secret=secret(derive, principal.project_id, version.number - 1),
                expires_at=rfc3339(at_ms(until_ms)),
            )
            if until_ms > self.clock.now_ms()
            else None,
        )
