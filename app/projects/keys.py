"""A project's keys: made, shown, narrowed, rotated, revoked. Row-level security decides whose rows are touched.

A key hands out what it has itself, and no more: neither by making another key, nor by rotating one that may do more, for longer or
from elsewhere. A rotation gives the same key another secret; the one before works on for a while, and never longer than the key.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET
from sqlalchemy import ColumnElement, delete, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.audit.service import Audit
from app.clock import Clock, rfc3339
from app.db import Database
from app.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from app.hints import Hints
from app.ids import new_id, parse
from app.peer import read_network
from app.projects import keys_policy
from app.projects.auth import Authenticator, Principal
from app.projects.keys_policy import UNHELD, Held
from app.projects.quotas_policy import NO_KEY_LIMITS, KeyLimits, in_order, no_wider, within
from app.projects.roles import ROLE_SCOPES, SCOPES, permissions
from app.projects.secrets import RANDOM_BYTES, hash_of, make
from app.projects.shapes import ChangeKey, CreatedKey, CreateKey, KeyView, RotateKey, SecretBefore
from app.tables import api_keys, key_secrets
from regions.wire import ids

PAGE_MAX = 200
WORKING_MAX = 200
"""Keys of a project that work at the same time: all of them can be listed."""
BEFORE_MAX = 8
"""Secrets of one key, the present one left out, that work at the same time."""
BEFORE_KEPT = timedelta(days=7)
"""So long one that works no more is told from one that never was."""
MANAGES = "keys:write"
TOPIC = "keys"


class Keys:
    def __init__(self, db: Database, clock: Clock, hints: Hints, auth: Authenticator, audit: Audit) -> None:
        self._db = db
        self._clock = clock
        self._hints = hints
        self._auth = auth
        self._audit = audit

    async def create_as_operator(self, project_id: UUID, mode: str, body: CreateKey) -> CreatedKey:
        async with self._db.transaction("admin") as connection:
            return await self._put(connection, project_id, mode, body, SCOPES)

    async def create(self, principal: Principal, body: CreateKey) -> CreatedKey:
        if body.role == "owner" and principal.role != "owner":
            raise Forbidden("Only an owner's key creates an owner's key.")
        async with self._db.project(principal.project_id) as connection:
            own, held = principal.bounds.key, await self._held(connection, principal)
            counted = select(func.count()).select_from(api_keys).where(self._works())
            if (await connection.execute(counted)).scalar_one() >= WORKING_MAX:
                raise Conflict(
                    f"The project has {WORKING_MAX} keys that work.",
                    fix="Revoke those that nobody uses first.",
                )
            return await self._put(
                connection, principal.project_id, principal.mode, body, _handed_out(principal), own, held
            )

    async def all(self, principal: Principal) -> list[KeyView]:
        """Those that work, the newest first, before those that do not any more."""
        async with self._db.project(principal.project_id) as connection:
            query = select(api_keys).order_by(self._works().desc(), api_keys.c.id.desc()).limit(PAGE_MAX)
            rows = (await connection.execute(query)).mappings().all()
            working = key_secrets.c.valid_until > self._clock.now()
            before = (await connection.execute(select(key_secrets).where(working))).mappings().all()
        return [KeyView(**_view(row, (b for b in before if b["key_id"] == row["id"]))) for row in rows]

    async def rotate(self, principal: Principal, text: str, body: RotateKey) -> CreatedKey:
        """Sent again, it makes one secret more, and none stops earlier than was said last: a lost answer locks nobody out. Raises
        `NotFound`, `Forbidden`, `Conflict`."""
        now = self._clock.now()
        async with self._db.project(principal.project_id) as connection:
            row = await self._locked(connection, text)
            _check_rotation(principal, row, now, await self._held(connection, principal))
            secret = make(principal.mode, self._db.cell, os.urandom(RANDOM_BYTES))
            before = await self._replace(connection, row, now, now + timedelta(seconds=body.overlap_s))
            changed = {"secret_hash": hash_of(secret), "hint": secret[-4:], "rotated_at": now}
            await connection.execute(update(api_keys).where(api_keys.c.id == row["id"]).values(**changed))
            said = {"overlap_s": body.overlap_s}
            await self._audit.record(
                connection, "key.rotated", text, project_id=principal.project_id, summary=said
            )
        self._changed()
        return CreatedKey(**_view(dict(row) | changed, before), secret=secret)

    async def change(self, principal: Principal, text: str, body: ChangeKey) -> KeyView:
        """Another name; another role or fewer scopes, by which it may do no more than before. Streams that it has open and may not
        have any more end. Raises `NotFound`, `Conflict`, `Invalid`."""
        async with self._db.project(principal.project_id) as connection:
            owners = await self._lock_owners(connection)
            row = await self._locked(connection, text)
            _check_works(row, self._clock.now(), "Create a new key.")
            role, scopes, faults = keys_policy.narrowed(
                row["role"], row["scopes"], body.role or None, None if body.scopes is UNSET else body.scopes
            )
            if faults:
                raise Invalid(
                    "A key can only be narrowed.", errors=faults, fix="Create another key for more."
                )
            if owners == [row["id"]] and (role != "owner" or MANAGES not in permissions(role, scopes)):
                raise Conflict(
                    "This is the project's last owner key that may manage keys.",
                    fix="Create another owner key first.",
                )
            name = row["name"] if body.name is UNSET else body.name
            changed = {"name": name, "role": role, "scopes": scopes}
            said = {field: value for field, value in changed.items() if value != row[field]}
            if said:
                await connection.execute(update(api_keys).where(api_keys.c.id == row["id"]).values(**changed))
                await self._audit.record(
                    connection, "key.changed", text, project_id=principal.project_id, summary=said
                )
            else:
                self._audit.unchanged("key.changed")
            before = await self._before(connection, row["id"], self._clock.now())
        self._changed()
        return KeyView(**_view(dict(row) | changed, before))

    async def revoke(self, principal: Principal, text: str) -> None:
        """All its secrets. Twice is as good as once. The last owner's key of a project cannot be revoked by its project."""
        key_id = parse(ids.KEY, text)
        async with self._db.project(principal.project_id) as connection:
            owners = await self._lock_owners(connection)
            query = select(api_keys.c.revoked_at).where(api_keys.c.id == key_id)
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                raise NotFound("There is no such key.")
            if row.revoked_at is not None:
                self._audit.unchanged("key.revoked")
                return
            if owners == [key_id]:
                raise Conflict(
                    "This is the project's last owner key.",
                    fix="Create another owner key first, then revoke this one.",
                )
            await connection.execute(
                update(api_keys).where(api_keys.c.id == key_id).values(revoked_at=self._clock.now())
            )
            await self._audit.record(connection, "key.revoked", text, project_id=principal.project_id)
        self._changed()

    def _changed(self) -> None:
        self._auth.forget()
        self._hints.wake(TOPIC)

    async def _held(self, connection: AsyncConnection, principal: Principal) -> Held:
        """What bounds the key that asks, as it is now; people are bound by nothing of the kind."""
        query = select(api_keys.c.expires_at, api_keys.c.allow_from).where(api_keys.c.id == principal.key_id)
        row = (await connection.execute(query)).one_or_none() if principal.person is None else None
        return UNHELD if row is None else Held(row.expires_at, tuple(row.allow_from))

    async def _locked(self, connection: AsyncConnection, text: str) -> Any:
        query = select(api_keys).where(api_keys.c.id == parse(ids.KEY, text)).with_for_update()
        row = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            raise NotFound("There is no such key.")
        return row

    async def _replace(
        self, connection: AsyncConnection, row: Any, now: datetime, until: datetime
    ) -> list[dict[str, Any]]:
        """The present secret becomes one of those before; none of them works beyond `until`. Gives those that still work."""
        c, mine = key_secrets.c, key_secrets.c.key_id == row["id"]
        await connection.execute(delete(key_secrets).where(mine, c.valid_until < now - BEFORE_KEPT))
        await connection.execute(
            update(key_secrets).where(mine).values(valid_until=func.least(c.valid_until, until))
        )
        present = {
            "secret_hash": row["secret_hash"],
            "key_id": row["id"],
            "project_id": row["project_id"],
            "hint": row["hint"],
            "valid_until": until,
        }
        await connection.execute(insert(key_secrets).values(**present))
        before = await self._before(connection, row["id"], now)
        if len(before) > BEFORE_MAX:
            raise Conflict(
                f"{BEFORE_MAX} older secrets of this key still work.",
                fix="Wait until one has run out (`voxplane keys list`), or rotate with overlap_s 0, which ends all of them.",
            )
        return before

    async def _before(self, connection: AsyncConnection, key_id: UUID, now: datetime) -> list[dict[str, Any]]:
        """Secrets that still work beside the present one."""
        c = key_secrets.c
        query = select(key_secrets).where(c.key_id == key_id, c.valid_until > now).order_by(c.valid_until)
        return [dict(found) for found in (await connection.execute(query)).mappings()]

    def _works(self) -> ColumnElement[bool]:
        c = api_keys.c
        return c.revoked_at.is_(None) & (c.expires_at.is_(None) | (c.expires_at > self._clock.now()))

    async def _lock_owners(self, connection: AsyncConnection) -> list[UUID]:
        """The owner keys that work and may manage keys, locked, so that two of them cannot revoke each other at the same time.
        With one that was narrowed to something else a project is as locked out as with none."""
        c = api_keys.c
        manages = (func.cardinality(c.scopes) == 0) | (literal(MANAGES) == c.scopes.any_())
        owners = (c.role == "owner") & manages & self._works()
        query = select(c.id).where(owners).order_by(c.id).with_for_update()
        return list((await connection.execute(query)).scalars())

    async def _put(
        self,
        connection: AsyncConnection,
        project_id: UUID,
        mode: str,
        body: CreateKey,
        grantable: frozenset[str],
        own: KeyLimits = NO_KEY_LIMITS,
        held: Held = UNHELD,
    ) -> CreatedKey:
        now, limits = self._clock.now(), in_order(within(body.limits, own), "/limits/destinations")
        given = _checked(body, grantable, now, held)
        secret = make(mode, self._db.cell, os.urandom(RANDOM_BYTES))
        row: dict[str, Any] = {
            "id": new_id(self._db.cell),
            "project_id": project_id,
            "name": body.name,
            "role": body.role,
            "scopes": body.scopes,
            "secret_hash": hash_of(secret),
            "hint": secret[-4:],
            "created_at": now,
            "expires_at": given.until,
            "allow_from": list(given.allow_from),
            "limits": msgspec.to_builtins(limits),
        }
        await connection.execute(insert(api_keys).values(**row))
        said: dict[str, Any] = {
            name: row[name] for name in ("name", "role", "scopes", "allow_from", "limits")
        }
        said["expires_at"] = rfc3339(given.until) if given.until is not None else None
        name = ids.encode(ids.KEY, row["id"])
        await self._audit.record(connection, "key.created", name, project_id=project_id, summary=said)
        unset = {"revoked_at": None, "last_used_at": None, "rotated_at": None}
        return CreatedKey(**_view(row | unset, []), secret=secret)


def _handed_out(principal: Principal) -> frozenset[str]:
    """What another key may be given. Each counts its calls for itself: with several, the bound of the one that asks would be none."""
    own = principal.bounds.key
    counted = own.concurrent_calls is not None or own.creates_per_s is not None
    return principal.scopes - {"calls:write"} if counted else principal.scopes


def _check_rotation(principal: Principal, row: Any, now: datetime, held: Held) -> None:
    if row["role"] == "owner" and principal.role != "owner":
        raise Forbidden("Only an owner's key rotates an owner's key.")
    mine = principal.scopes if row["id"] == principal.key_id else _handed_out(principal)
    if not permissions(row["role"], row["scopes"]) <= mine:
        raise Forbidden(
            "That key may do more than yours.", fix="Rotate it with a key that may do all that it may."
        )
    if not no_wider(msgspec.convert(row["limits"], KeyLimits), principal.bounds.key):
        raise Forbidden("That key has higher limits than yours.", fix="Rotate it with a key that has none.")
    if not keys_policy.no_wider(Held(row["expires_at"], tuple(row["allow_from"])), held):
        raise Forbidden(
            "That key can be used for longer, or from more places, than yours.",
            fix="Rotate it with a key that has no end and no allow_from.",
        )
    _check_works(row, now, "Create a new key: a rotation extends none.")


def _check_works(row: Any, now: datetime, fix: str) -> None:
    if row["revoked_at"] is not None:
        raise Conflict("This key was revoked.", fix="Create a new key.")
    if row["expires_at"] is not None and row["expires_at"] <= now:
        raise Conflict("This key has expired.", fix=fix)


def _checked(body: CreateKey, grantable: frozenset[str], now: datetime, own: Held) -> Held:
    """How long and from where it may be used, as it is written down. Raises `Invalid`."""
    faults = [
        FieldError(
            pointer=f"/scopes/{i}", detail="unknown, or beyond the role, or beyond what your key hands out"
        )
        for i, scope in enumerate(body.scopes)
        if scope not in grantable & ROLE_SCOPES[body.role]
    ]
    if not body.scopes and not ROLE_SCOPES[body.role] <= grantable:
        faults.append(FieldError(pointer="/role", detail="the role may do more than your key hands out"))
    if body.expires_at is not None and (body.expires_at.tzinfo is None or body.expires_at <= now):
        faults.append(
            FieldError(pointer="/expires_at", detail="must be a time in the future, with its offset")
        )
    networks = []
    for i, text in enumerate(body.allow_from):
        try:
            networks.append(str(read_network(text)))
        except ValueError as error:
            faults.append(FieldError(pointer=f"/allow_from/{i}", detail=str(error)))
    if not faults:
        asked = Held(body.expires_at, tuple(dict.fromkeys(networks)))
        given, faults = keys_policy.within(asked, own)
    if faults:
        raise Invalid("The key cannot be created so.", errors=faults)
    return given


def _view(row: Any, before: Iterable[Any]) -> dict[str, Any]:
    def at(name: str) -> str | None:
        value: datetime | None = row[name]
        return rfc3339(value) if value is not None else None

    end: datetime | None = row["expires_at"]
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
        "rotated_at": at("rotated_at"),
        "allow_from": list(row["allow_from"]),
        "limits": msgspec.convert(row["limits"], KeyLimits),
        "before": [
            SecretBefore(hint=b["hint"], expires_at=rfc3339(min(b["valid_until"], end or b["valid_until"])))
            for b in sorted(before, key=lambda b: b["valid_until"])
        ]
        if row["revoked_at"] is None
        else [],
    }
