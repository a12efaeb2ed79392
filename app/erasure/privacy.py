"""What a project keeps, for how long, and what is struck out before it is kept: its privacy settings.

Decides what may be set. They stand in the project's settings, and carry its version: who changes them names the one that was read.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from app.audit.service import Audit
from app.clock import Clock
from app.db import Database
from app.erasure.redaction import RULES_MAX, BadPattern, Rule, changed, compiled, history_of
from app.errors import FieldError, Invalid, NotFound, PreconditionFailed
from app.projects.auth import Principal

DAYS_MAX = 3_650
Days = Annotated[int, Meta(ge=1, le=DAYS_MAX)]

READ = "select version, settings -> 'redaction' as redaction, settings -> 'retention' as retention from vx.projects where id = $1"
CHANGE = """
update vx.projects set settings = settings || $3::jsonb, version = version + 1 where id = $1 and version = $2 returning version
"""


class Retention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """After how many days; null: as long as the deployment keeps it. `conversation_days`: the key of what was said is destroyed.
    `personal_days`: numbers, metadata, parameters and all else that may name somebody is taken out, and the key is destroyed.
    `deliveries_days`: attempts and finished deliveries of webhooks are deleted. `audit_days`: entries of the audit log are dropped,
    whole beginnings of its chains."""

    conversation_days: Days | None = None
    personal_days: Days | None = None
    deliveries_days: Days | None = None
    audit_days: Annotated[int, Meta(ge=30, le=DAYS_MAX)] | None = None


class ChangePrivacy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is named takes the place of what was there. `redaction`: for calls that are created ten seconds from now on."""

    redaction: Annotated[list[Rule], Meta(max_length=RULES_MAX)] | msgspec.UnsetType = msgspec.UNSET
    retention: Retention | msgspec.UnsetType = msgspec.UNSET


class PrivacyView(msgspec.Struct, frozen=True, kw_only=True):
    """`version`: of the project's settings, for `If-Match`."""

    version: int
    redaction: list[Rule]
    retention: Retention


class Privacy:
    def __init__(self, db: Database, clock: Clock, audit: Audit) -> None:
        self._db = db
        self._clock = clock
        self._audit = audit

    async def read(self, principal: Principal) -> PrivacyView:
        async with self._db.project_driver(principal.project_id) as connection:
            row = await _row(connection, principal.project_id)
        return _view(row)

    async def change(self, principal: Principal, version: int, body: ChangePrivacy) -> PrivacyView:
        """Raises `Invalid` and `PreconditionFailed`."""
        if body.redaction is not msgspec.UNSET:
            check_rules(body.redaction)
        async with self._db.project_driver(principal.project_id) as connection:
            row = await _row(connection, principal.project_id)
            fresh: dict[str, Any] = {}
            if body.redaction is not msgspec.UNSET:
                fresh["redaction"] = changed(
                    history_of(row["redaction"]), body.redaction, self._clock.now_ms()
                )
            if body.retention is not msgspec.UNSET:
                fresh["retention"] = body.retention
            given = msgspec.json.encode(fresh).decode()
            reached = await connection.fetchval(CHANGE, principal.project_id, version, given)
            if reached is None:
                raise PreconditionFailed("The project's settings have changed since you read them.")
            said = {"changed": ", ".join(sorted(fresh))}
            await self._audit.record(
                connection, "privacy.changed", project_id=principal.project_id, summary=said
            )
            return _view(await _row(connection, principal.project_id))


def check_rules(rules: list[Rule]) -> None:
    """Raises `Invalid`."""
    faults: list[FieldError] = []
    for i, rule in enumerate(rules):
        if bool(rule.pattern) != (rule.kind == "pattern"):
            faults.append(
                FieldError(
                    pointer=f"/redaction/{i}/pattern",
                    detail="is given with the kind pattern, and with no other",
                )
            )
        elif rule.kind == "pattern":
            try:
                compiled(rule.pattern)
            except BadPattern as error:
                faults.append(FieldError(pointer=f"/redaction/{i}/pattern", detail=str(error)))
    if len({rule.name for rule in rules}) < len(rules):
        faults.append(FieldError(pointer="/redaction", detail="two rules have the same name"))
    if faults:
        raise Invalid("These rules cannot be kept.", errors=faults)


async def _row(connection: Any, project_id: UUID) -> Any:
    row = await connection.fetchrow(READ, project_id)
    if row is None:
        raise NotFound("There is no such project.")
    return row


def _view(row: Any) -> PrivacyView:
    history = history_of(row["redaction"])
    retention = msgspec.json.decode(row["retention"] or "{}", type=Retention)
    rules = history[-1].rules if history else []
    return PrivacyView(version=row["version"], redaction=rules, retention=retention)
