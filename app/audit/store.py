"""The audit log in the database. Entries are put in whatever transaction the act itself has; rows stay in here."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.audit.chain import NOTHING, PLATFORM, SALT_BYTES, Anchor, Entry, Signer, next_entry
from app.db import COMMAND_DEADLINE_S, Database
from app.ids import new_id
from app.projects.roles import Actor
from app.times import unix_ms

CLOCK_OFF_MAX = timedelta(minutes=5)
"""An entry of an instance whose clock is further off has the database's time. Entries are anchored, listed and dropped in the order
of their times: one that seems to be from long ago would be bound by no anchor."""
HEAD = """
select h.n, h.hash, clock_timestamp() as now from (values (1)) as one left join vx.audit_head($1, $2) h on true
"""
COLUMNS = """project_id, writer, n, id, at, actor_kind, actor_id, action, target, request_id, details, salt, digest, prev, hash,
 kid, signature"""
INSERT = f"insert into vx.audit_entries ({COLUMNS}) values ({', '.join(f'${i}' for i in range(1, 18))})"
IN_ORDER = f"""
select {COLUMNS} from vx.audit_entries
 where project_id = $1 and (writer, n) > ($2, $3) and ($5::uuid is null or id >= $5) and ($6::uuid is null or id < $6)
 order by writer, n limit $4
"""
COUNT = "select count(*) from (select from vx.audit_entries where project_id = $1 and ($2::uuid is null or id >= $2) limit $3) e"
ANCHOR_COLUMNS = "project_id, n, body, hash, kid, signature"
ANCHORS = (
    f"select {ANCHOR_COLUMNS} from vx.audit_anchors where project_id = $1 and n > $2 order by n limit $3"
)
ANCHOR_HASH = "select hash from vx.audit_anchors where project_id = $1 and n = $2"
NEWEST_FIRST = f"""
select {COLUMNS} from vx.audit_entries
 where project_id = $1 and id < $2 and ($4::uuid is null or id >= $4)
   and ($5::text is null or actor_id = $5) and ($6::text is null or action = $6 or action like $7)
   and ($8::text is null or target = $8)
 order by id desc limit $3
"""
PAGE = 1_000
LAST_ID = UUID(int=(1 << 128) - 1)


class Noted(NamedTuple):
    """What is to be written down, and is not yet an entry."""

    at: datetime
    actor: Actor
    address: str
    request_id: str
    action: str
    target: str
    summary: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Of a list. `action`: its name, or all below one (`keys.*`). `since`, `until`: ids of the first moments in and out."""

    actor: str | None = None
    action: str | None = None
    target: str | None = None
    since: UUID | None = None
    before: UUID = LAST_ID
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Chains:
    """Puts entries into the chains of one writer."""

    cell: int
    _writer: UUID = field(default_factory=new_id)
    _others: dict[UUID, UUID] = field(default_factory=dict)
    """By project: in the place of a chain of which all was dropped for its age while this writer lived."""
    _known: set[UUID] = field(default_factory=set)

    async def put(self, driver: Any, signer: Signer, project_id: UUID, noted: Sequence[Noted]) -> None:
        """In the open transaction of `driver`; the chain is this transaction's until it ends. Raises what the driver raises."""
        writer = self._others.get(project_id, self._writer)
        head = await driver.fetchrow(HEAD, project_id, writer)
        begun = head["n"] is not None
        if not begun and project_id in self._known:
            writer = self._others[project_id] = new_id(self.cell)
        after: tuple[int, bytes] = (head["n"], head["hash"]) if begun else (0, NOTHING)
        made: list[Entry] = []
        for one in noted:
            at = one.at if abs(one.at - head["now"]) <= CLOCK_OFF_MAX else head["now"]
            made.append(
                next_entry(
                    signer,
                    project_id=project_id,
                    writer=writer,
                    after=after,
                    id_=new_id(self.cell, unix_ms(at)),
                    at=at,
                    actor=one.actor,
                    action=one.action,
                    target=one.target,
                    request_id=one.request_id,
                    address=one.address,
                    summary=one.summary,
                    salt=os.urandom(SALT_BYTES),
                )
            )
            after = (made[-1].n, made[-1].hash)
        await driver.executemany(INSERT, [_row(e) for e in made])
        if begun:
            self._known.add(project_id)


async def driver_of(connection: Any) -> Any:
    """The driver's connection in whose transaction the toolkit's statements run; a driver's own is given back."""
    if isinstance(connection, AsyncConnection):
        connection = (await connection.get_raw_connection()).driver_connection
    if not connection.is_in_transaction():
        raise RuntimeError("an act is written down in its own transaction, after it was done")
    return connection


class AuditReader:
    """What stands there: as a project under row-level security, or of the platform (`PLATFORM`) as the admin role."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def _as(self, project_id: UUID) -> AbstractAsyncContextManager[Any]:
        return self._admin() if project_id == PLATFORM else self._db.project_driver(project_id)

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[Any]:
        async with (
            self._db.pool("admin").acquire(timeout=COMMAND_DEADLINE_S) as connection,
            connection.transaction(),
        ):
            yield connection

    async def newest(self, project_id: UUID, wanted: Wanted) -> list[Entry]:
        action = wanted.action
        like = action.replace("_", r"\_")[:-1] + "%" if action is not None and action.endswith(".*") else None
        async with self._as(project_id) as connection:
            rows = await connection.fetch(
                NEWEST_FIRST, project_id, wanted.before, wanted.limit, wanted.since, wanted.actor, action, like, wanted.target
            )  # fmt: skip
        return [_entry(row) for row in rows]

    async def count(self, project_id: UUID, since: UUID | None, most: int) -> int:
        """`most` at most."""
        async with self._as(project_id) as connection:
            found: int = await connection.fetchval(COUNT, project_id, since, most)
        return found

    async def entries(
        self, project_id: UUID, *, since: UUID | None = None, until: UUID | None = None
    ) -> AsyncIterator[list[Entry]]:
        """All, chain by chain, each in its order."""
        writer, n = UUID(int=0), 0
        while True:
            async with self._as(project_id) as connection:
                rows = await connection.fetch(IN_ORDER, project_id, writer, n, PAGE, since, until)
            if rows:
                yield [_entry(row) for row in rows]
            if len(rows) < PAGE:
                return
            writer, n = rows[-1]["writer"], rows[-1]["n"]

    async def anchors(self, project_id: UUID, *, after: int = 0) -> AsyncIterator[list[Anchor]]:
        n = after
        while True:
            async with self._as(project_id) as connection:
                rows = await connection.fetch(ANCHORS, project_id, n, PAGE)
            if rows:
                yield [anchor_of(row) for row in rows]
            if len(rows) < PAGE:
                return
            n = rows[-1]["n"]

    async def has_anchor(self, project_id: UUID, n: int, hash_: str) -> bool:
        """Of any project, for the platform."""
        async with self._admin() as connection:
            found = await connection.fetchval(ANCHOR_HASH, project_id, n)
        return found is not None and bytes(found).hex() == hash_


def _row(e: Entry) -> tuple[Any, ...]:
    return (
        e.project_id, e.writer, e.n, e.id, e.at, e.actor.kind, e.actor.id, e.action, e.target, e.request_id, e.details, e.salt,
        e.digest, e.prev, e.hash, e.kid, e.signature,
    )  # fmt: skip


def _entry(row: Any) -> Entry:
    plain = ("project_id", "writer", "n", "id", "at", "action", "target", "request_id", "details", "salt", "digest", "prev",
             "hash", "kid", "signature")  # fmt: skip
    return Entry(
        actor=Actor(kind=row["actor_kind"], id=row["actor_id"]), **{name: row[name] for name in plain}
    )


def anchor_of(row: Any) -> Anchor:
    names = ("project_id", "n", "body", "hash", "kid", "signature")
    return Anchor(**{name: row[name] for name in names})
