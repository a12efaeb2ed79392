"""What is kept of people: accounts, memberships, sessions, links, tries. The statements, and rows as frozen values.

Decides nothing. Everything is in the home cell; whatever is removed takes what hangs on it along.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from app.audit import asker
from app.audit.service import Audit
from app.db import Database
from app.projects.roles import Actor
from regions.wire import ids

LISTED_MAX = 10_000
_OF_PERSON = """
       p.id, p.email, p.name, p.operator, p.created_at, p.signed_in_at, p.password_hash is not null as has_password,
       p.issuer is not null as has_provider,
       (select coalesce(json_object_agg(m.project_id, m.role), '{}') from vx.memberships m where m.person_id = p.id) as roles
"""
INSERT = """
insert into vx.people (id, email, name, operator, created_at) values ($1, $2, $3, $4, $5) on conflict (email) do nothing returning id
"""
SELECT_ALL = f"select {_OF_PERSON} from vx.people p order by p.email limit {LISTED_MAX}"
SELECT_OF_PROJECT = f"""
select {_OF_PERSON} from vx.people p
 where exists (select from vx.memberships m where m.person_id = p.id and m.project_id = $1) order by p.email limit {LISTED_MAX}
"""
SELECT_ONE = f"select {_OF_PERSON} from vx.people p where p.id = $1"
SELECT_BY_EMAIL = f"select {_OF_PERSON} from vx.people p where p.email = $1"
SELECT_PASSWORD = "select id, password_hash from vx.people where email = $1"
SELECT_BY_SUBJECT = f"select {_OF_PERSON} from vx.people p where p.issuer = $1 and p.subject = $2"
LINK_SUBJECT = """
update vx.people set issuer = $2, subject = $3 where email = $1 and issuer is null returning id
"""
DELETE = "delete from vx.people where id = $1 returning id"
SET_OPERATOR = "update vx.people set operator = $2 where id = $1 returning id"
SET_PASSWORD = "update vx.people set password_hash = $2 where id = $1"
SIGNED_IN = "update vx.people set signed_in_at = $2 where id = $1"
PUT_MEMBERSHIP = """
insert into vx.memberships (person_id, project_id, role) values ($1, $2, $3)
on conflict (person_id, project_id) do update set role = excluded.role
"""
DELETE_MEMBERSHIP = "delete from vx.memberships where person_id = $1 and project_id = $2 returning role"
LOCK_OWNERS = "select person_id from vx.memberships where project_id = $1 and role = 'owner' order by person_id for update"

INSERT_SESSION = """
insert into vx.sessions (secret_hash, person_id, created_at, seen_at, expires_at) values ($1, $2, $3, $3, $4)
"""
SELECT_SESSION = f"""
select s.seen_at, s.created_at as began_at, {_OF_PERSON} from vx.sessions s join vx.people p on p.id = s.person_id
 where s.secret_hash = $1 and s.expires_at > $2 and s.seen_at > $3
"""
SEEN = "update vx.sessions set seen_at = $2 where secret_hash = $1 and seen_at < $2"
DELETE_SESSION = "delete from vx.sessions where secret_hash = $1"
DELETE_SESSIONS = "delete from vx.sessions where person_id = $1"
SWEEP_SESSIONS = "delete from vx.sessions where expires_at < $1 or seen_at < $2"
SWEEP_LINKS = "delete from vx.sign_in_links where expires_at < $1"
SWEEP_FLOWS = "delete from vx.sign_in_flows where expires_at < $1"
SWEEP_TRIES = "delete from vx.sign_in_tries where at < $1"

INSERT_LINK = """
insert into vx.sign_in_links (secret_hash, person_id, purpose, expires_at) values ($1, $2, $3, $4)
"""
LOOK_AT_LINK = """
select p.email from vx.sign_in_links l join vx.people p on p.id = l.person_id
 where l.secret_hash = $1 and l.purpose = $2 and l.expires_at > $3
"""
TAKE_LINK = """
delete from vx.sign_in_links where secret_hash = $1 and purpose = $2 and expires_at > $3 returning person_id
"""
DROP_LINKS = "delete from vx.sign_in_links where person_id = $1"
INSERT_FLOW = """
insert into vx.sign_in_flows (state_hash, browser_hash, nonce, verifier, return_to, expires_at) values ($1, $2, $3, $4, $5, $6)
"""
TAKE_FLOW = """
delete from vx.sign_in_flows where state_hash = $1 and browser_hash = $2 and expires_at > $3
returning nonce, verifier, return_to
"""
TRY = "insert into vx.sign_in_tries (subject, at) values ($1, $2)"
COUNT_TRIES = "select count(*) from vx.sign_in_tries where subject = $1 and at > $2"
# The try that has to be past before one more is among the first `most`.
NTH_NEWEST = "select at from vx.sign_in_tries where subject = $1 order by at desc offset $2 - 1 limit 1"
FORGET_TRIES = "delete from vx.sign_in_tries where subject = $1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """`roles`: by project, of whichever cell."""

    id: UUID
    email: str
    name: str
    operator: bool
    created_at: datetime
    signed_in_at: datetime | None
    has_password: bool
    has_provider: bool
    roles: dict[UUID, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    nonce: str
    verifier: str
    return_to: str


class PeopleStore:
    """On the pool of operators' services. Raises what the driver raises. What is changed is written down in the same transaction."""

    def __init__(self, db: Database, audit: Audit) -> None:
        self._db = db
        self._audit = audit

    @property
    def _pool(self) -> asyncpg.Pool:
        return self._db.pool("admin")

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[Any]:
        async with self._pool.acquire() as connection, connection.transaction():
            yield connection

    async def _note(
        self,
        connection: Any,
        action: str,
        person_id: UUID,
        said: dict[str, Any] | None = None,
        project_id: UUID | None = None,
    ) -> None:
        """In the project's log where it lives here; one that lives in another cell is named in the platform's."""
        name, summary = ids.encode(ids.PERSON, person_id), dict(said or {})
        if project_id is not None and ids.cell_of(project_id) != self._db.cell:
            summary["project"], project_id = ids.encode(ids.PROJECT, project_id), None
        await self._audit.record(connection, action, name, project_id=project_id, summary=summary)

    def _came(self, person_id: UUID) -> None:
        """Who signs in is not known before."""
        asker.is_(Actor(kind="person", id=ids.encode(ids.PERSON, person_id)))

    async def insert(self, id_: UUID, email: str, name: str, operator: bool, now: datetime) -> bool:
        """False where the address has an account already."""
        async with self._changing() as connection:
            if await connection.fetchval(INSERT, id_, email, name, operator, now) is None:
                return False
            await self._note(connection, "person.created", id_, {"operator": operator})
        return True

    async def all(self) -> list[Person]:
        return [_person(r) for r in await self._pool.fetch(SELECT_ALL)]

    async def of_project(self, project_id: UUID) -> list[Person]:
        return [_person(r) for r in await self._pool.fetch(SELECT_OF_PROJECT, project_id)]

    async def one(self, person_id: UUID) -> Person | None:
        row = await self._pool.fetchrow(SELECT_ONE, person_id)
        return _person(row) if row is not None else None

    async def by_email(self, email: str) -> Person | None:
        row = await self._pool.fetchrow(SELECT_BY_EMAIL, email)
        return _person(row) if row is not None else None

    async def password_of(self, email: str) -> tuple[UUID, str | None] | None:
        row = await self._pool.fetchrow(SELECT_PASSWORD, email)
        return (row["id"], row["password_hash"]) if row is not None else None

    async def by_subject(self, issuer: str, subject: str) -> Person | None:
        row = await self._pool.fetchrow(SELECT_BY_SUBJECT, issuer, subject)
        return _person(row) if row is not None else None

    async def link_subject(self, email: str, issuer: str, subject: str) -> UUID | None:
        """Whose account is the provider's from now on; None where the address has none, or another's already."""
        found: UUID | None = await self._pool.fetchval(LINK_SUBJECT, email, issuer, subject)
        return found

    async def remove(self, person_id: UUID) -> bool:
        async with self._changing() as connection:
            if await connection.fetchval(DELETE, person_id) is None:
                return False
            await self._note(connection, "person.removed", person_id)
        return True

    async def set_operator(self, person_id: UUID, operator: bool) -> bool:
        async with self._changing() as connection:
            if await connection.fetchval(SET_OPERATOR, person_id, operator) is None:
                return False
            await self._note(connection, "person.changed", person_id, {"operator": operator})
        return True

    async def set_password(self, person_id: UUID, hash_: str) -> None:
        """Every session and every other link of the account ends with it."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(SET_PASSWORD, person_id, hash_)
            await connection.execute(DELETE_SESSIONS, person_id)
            await connection.execute(DROP_LINKS, person_id)
            self._came(person_id)
            await self._note(connection, "person.password_set", person_id)

    async def put_membership(self, person_id: UUID, project_id: UUID, role: str) -> bool:
        """False where it would leave the project without an owner among its people, that had one."""
        async with self._pool.acquire() as connection, connection.transaction():
            owners = [r["person_id"] for r in await connection.fetch(LOCK_OWNERS, project_id)]
            if owners == [person_id] and role != "owner":
                return False
            await connection.execute(PUT_MEMBERSHIP, person_id, project_id, role)
            await self._note(connection, "member.set", person_id, {"role": role}, project_id)
        return True

    async def drop_membership(
        self, person_id: UUID, project_id: UUID, *, last_owner: bool = False
    ) -> bool | None:
        """None where there is none; False where it is the last owner's and that was not allowed."""
        async with self._pool.acquire() as connection, connection.transaction():
            owners = [r["person_id"] for r in await connection.fetch(LOCK_OWNERS, project_id)]
            if owners == [person_id] and not last_owner:
                return False
            if not await connection.fetchval(DELETE_MEMBERSHIP, person_id, project_id):
                return None
            await self._note(connection, "member.removed", person_id, None, project_id)
        return True

    # ------------------------------------------------------------------------------------------------ sessions, links

    async def open_session(self, hash_: bytes, person_id: UUID, now: datetime, until: datetime) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(INSERT_SESSION, hash_, person_id, now, until)
            await connection.execute(SIGNED_IN, person_id, now)
            self._came(person_id)
            await self._note(connection, "person.signed_in", person_id)

    async def session(
        self, hash_: bytes, now: datetime, idle_since: datetime
    ) -> tuple[Person, datetime, datetime] | None:
        """Whose it is, when it was seen last and when it began."""
        row = await self._pool.fetchrow(SELECT_SESSION, hash_, now, idle_since)
        return (_person(row), row["seen_at"], row["began_at"]) if row is not None else None

    async def seen(self, hash_: bytes, now: datetime) -> None:
        await self._pool.execute(SEEN, hash_, now)

    async def close_session(self, hash_: bytes) -> None:
        await self._pool.execute(DELETE_SESSION, hash_)

    async def close_sessions(self, person_id: UUID) -> None:
        async with self._changing() as connection:
            await connection.execute(DELETE_SESSIONS, person_id)
            await self._note(connection, "person.signed_out_everywhere", person_id)

    async def put_link(self, hash_: bytes, person_id: UUID, purpose: str, until: datetime) -> None:
        async with self._changing() as connection:
            await connection.execute(INSERT_LINK, hash_, person_id, purpose, until)
            await self._note(connection, "person.link_made", person_id, {"purpose": purpose})

    async def look_at_link(self, hash_: bytes, purpose: str, now: datetime) -> str | None:
        found: str | None = await self._pool.fetchval(LOOK_AT_LINK, hash_, purpose, now)
        return found

    async def take_link(self, hash_: bytes, purpose: str, now: datetime) -> UUID | None:
        """Once: whoever comes second is told that there is none."""
        found: UUID | None = await self._pool.fetchval(TAKE_LINK, hash_, purpose, now)
        return found

    async def put_flow(self, state: bytes, browser: bytes, flow: Flow, until: datetime) -> None:
        await self._pool.execute(
            INSERT_FLOW, state, browser, flow.nonce, flow.verifier, flow.return_to, until
        )

    async def take_flow(self, state: bytes, browser: bytes, now: datetime) -> Flow | None:
        """Once, and only for the browser that began it."""
        row = await self._pool.fetchrow(TAKE_FLOW, state, browser, now)
        return Flow(**row) if row is not None else None

    async def count_try(self, subject: bytes, now: datetime, since: datetime) -> int:
        """How many there were since, this one included: it is written down before anything is looked at."""
        await self._pool.execute(TRY, subject, now)
        found: int = await self._pool.fetchval(COUNT_TRIES, subject, since)
        return found

    async def nth_newest_try(self, subject: bytes, nth: int) -> datetime | None:
        return await self._pool.fetchval(NTH_NEWEST, subject, nth)  # type: ignore[no-any-return]

    async def forget_tries(self, subject: bytes) -> None:
        await self._pool.execute(FORGET_TRIES, subject)

    async def sweep(self, now: datetime, idle_since: datetime) -> None:
        await self._pool.execute(SWEEP_SESSIONS, now, idle_since)
        await self._pool.execute(SWEEP_LINKS, now)
        await self._pool.execute(SWEEP_FLOWS, now)
        await self._pool.execute(SWEEP_TRIES, idle_since)


def _person(row: Any) -> Person:
    roles: dict[str, str] = msgspec.json.decode(row["roles"])
    return Person(
        id=row["id"],
        email=row["email"],
        name=row["name"],
        operator=row["operator"],
        created_at=row["created_at"],
        signed_in_at=row["signed_in_at"],
        has_password=row["has_password"],
        has_provider=row["has_provider"],
        roles={UUID(p): role for p, role in roles.items()},
    )
