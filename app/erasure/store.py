"""The statements of an erasure. Rows stay in here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.db import Database

FOUND_AT_ONCE = 200
CALLS_MAX = 100_000
"""Of one erasure, that an instance forgets by name; with more it forgets all that it has in memory."""
CLAIM_S = 10
ALIVE_S = 45
"""An instance that cannot say for so long that it lives has forgotten everything by itself."""

COLUMNS = "id, project_id, kind, selector, state, calls, created_at, found_at, done_at"
ADD = "insert into vx.erasures (id, project_id, kind, selector, actor) values ($1, $2, $3, $4, $5)"
SELECT = f"select {COLUMNS} from vx.erasures where id = $1"
PAGE = f"select {COLUMNS} from vx.erasures where ($1::uuid is null or id < $1) order by id desc limit $2"
PLACES = """
select erasure_id, kind, place, done_at, how from vx.erasure_places where erasure_id = any($1::uuid[]) order by kind, place
"""
OF_CALL = "select erasure_id from vx.erasure_calls where call_id = $1 limit 1"
SEEN = """
insert into vx.instances (id, seen_at) values ($1, clock_timestamp())
on conflict (id) do update set seen_at = clock_timestamp()
"""
LEAVE = "delete from vx.instances where id = $1"
GONE = "delete from vx.instances where seen_at < clock_timestamp() - interval '1 hour'"
OPEN = f"select {COLUMNS} from vx.erasures where state <> 'done' order by id limit 100"
CALLS_OF = f"select call_id from vx.erasure_calls where erasure_id = $1 limit {CALLS_MAX + 1}"
CLAIM = f"""
update vx.erasures set claimed_until = clock_timestamp() + interval '{CLAIM_S} seconds'
 where id = (select id from vx.erasures where state <> 'done' and claimed_until < clock_timestamp() and ($1::uuid is null or id = $1)
              order by claimed_until limit 1 for no key update skip locked)
returning {COLUMNS}
"""
RELEASE = "update vx.erasures set claimed_until = clock_timestamp() + make_interval(secs => $2) where id = $1"
FIND = f"select call_id, live from vx.calls_to_erase($1, $2, $3, $4, {FOUND_AT_ONCE})"
FIND_CALL = "select id as call_id, ended_at is null as live from vx.calls where id = $1 and project_id = $2 and erased_at is null"
ERASE = "select * from vx.erase_calls($1, $2, $3)"
ALL_FOUND = (
    "update vx.erasures set state = 'telling', selector = null, found_at = clock_timestamp() where id = $1"
)
ADD_INSTANCES = f"""
insert into vx.erasure_places (erasure_id, project_id, kind, place)
select $1, $2, 'instance', i.id::text from vx.instances i where i.seen_at > clock_timestamp() - interval '{ALIVE_S} seconds'
on conflict do nothing
"""
ADD_REGIONS = """
insert into vx.erasure_places (erasure_id, project_id, kind, place) select $1, $2, 'valkey', r from unnest($3::text[]) r
on conflict do nothing
"""
DONE_HERE = """
insert into vx.erasure_places as p (erasure_id, project_id, kind, place, done_at) values ($1, $2, $3, $4, clock_timestamp())
on conflict (erasure_id, kind, place) do update set done_at = coalesce(p.done_at, excluded.done_at)
"""
UNDONE = "select kind, place from vx.erasure_places where erasure_id = $1 and done_at is null"
EXPIRE = "update vx.erasure_places set done_at = clock_timestamp(), how = $4 where erasure_id = $1 and kind = $2 and place = $3"
INSTANCE_LIVES = f"""
select exists (select from vx.instances where id = $1 and seen_at > clock_timestamp() - interval '{ALIVE_S} seconds')
"""
NOT_CARRIED_OUT = """
select distinct edge_id from vx.desired where kind = 'end' and call_id = any($1::uuid[]) and edge_id = any($2::uuid[])
"""
LAST_GRANT = "select max(grants_expire_at) < clock_timestamp() from vx.calls where id = any($1::uuid[])"
# What an attempt that was under way has written since.
SCRUB = """
update vx.delivery_attempts a set excerpt = null, url = null
 where a.call_id = any($1::uuid[]) and (a.excerpt is not null or a.url is not null)
"""
FINISH = (
    "update vx.erasures set state = 'done', done_at = clock_timestamp() where id = $1 and state = 'telling'"
)


@dataclass(frozen=True, slots=True)
class Erasure:
    """`selector`: sealed; None once nothing is looked for any more."""

    id: UUID
    project_id: UUID
    kind: str
    selector: bytes | None
    state: str
    calls: int
    created_at: datetime
    found_at: datetime | None
    done_at: datetime | None


@dataclass(frozen=True, slots=True)
class Place:
    kind: str
    place: str
    done_at: datetime | None = None
    how: str = ""


class ErasureStore:
    def __init__(self, db: Database) -> None:
        self._db = db

    @property
    def _pool(self) -> Any:
        return self._db.pool("worker")

    async def page(
        self, project_id: UUID, below: UUID | None, limit: int
    ) -> list[tuple[Erasure, list[Place]]]:
        async with self._db.project_driver(project_id) as connection:
            return await _with_places(connection, await connection.fetch(PAGE, below, limit))

    async def get(self, project_id: UUID, erasure_id: UUID) -> tuple[Erasure, list[Place]] | None:
        async with self._db.project_driver(project_id) as connection:
            found = await _with_places(connection, await connection.fetch(SELECT, erasure_id))
        return found[0] if found else None

    async def of_call(self, project_id: UUID, call_id: UUID) -> UUID | None:
        """An erasure that the call was part of."""
        async with self._db.project_driver(project_id) as connection:
            return await connection.fetchval(OF_CALL, call_id)  # type: ignore[no-any-return]

    # ----------------------------------------------------------------------------------------- whoever's they are

    async def seen(self, instance: UUID) -> None:
        await self._pool.execute(SEEN, instance)
        await self._pool.execute(GONE)

    async def leave(self, instance: UUID) -> None:
        await self._pool.execute(LEAVE, instance)

    async def open(self) -> list[Erasure]:
        return [Erasure(**row) for row in await self._pool.fetch(OPEN)]

    async def claim(self, only: UUID | None = None) -> Erasure | None:
        """One that nobody is at, for some seconds."""
        row = await self._pool.fetchrow(CLAIM, only)
        return Erasure(**row) if row is not None else None

    async def release(self, erasure_id: UUID, *, again_s: float) -> None:
        await self._pool.execute(RELEASE, erasure_id, again_s)

    async def calls_of(self, erasure_id: UUID) -> list[UUID]:
        return [row["call_id"] for row in await self._pool.fetch(CALLS_OF, erasure_id)]

    async def find(
        self,
        project_id: UUID,
        *,
        call: UUID | None,
        subject: bytes | None,
        number: str | None,
        metadata: str | None,
    ) -> list[tuple[UUID, bool]]:
        """Calls that are to be erased and are not, and whether they live; a few at a time."""
        if call is not None:
            rows = await self._pool.fetch(FIND_CALL, call, project_id)
        else:
            rows = await self._pool.fetch(FIND, project_id, subject, number, metadata)
        return [(row["call_id"], row["live"]) for row in rows]

    async def erase(self, erasure: Erasure, calls: list[UUID]) -> set[UUID]:
        """Those that are erased now; a call that still lives is not."""
        rows = await self._pool.fetch(ERASE, erasure.id, erasure.project_id, calls)
        return {row[0] for row in rows}

    async def all_found(self, erasure: Erasure, regions: list[str]) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(ALL_FOUND, erasure.id)
            await connection.execute(ADD_INSTANCES, erasure.id, erasure.project_id)
            await connection.execute(ADD_REGIONS, erasure.id, erasure.project_id, regions)

    async def done(self, erasure: Erasure, kind: str, place: str) -> None:
        await self._pool.execute(DONE_HERE, erasure.id, erasure.project_id, kind, place)

    async def undone(self, erasure_id: UUID) -> list[Place]:
        return [Place(row["kind"], row["place"]) for row in await self._pool.fetch(UNDONE, erasure_id)]

    async def give_up(self, erasure_id: UUID, place: Place, how: str) -> None:
        """Nothing is left there, though it has not said so."""
        await self._pool.execute(EXPIRE, erasure_id, place.kind, place.place, how)

    async def instance_lives(self, instance: UUID) -> bool:
        return bool(await self._pool.fetchval(INSTANCE_LIVES, instance))

    async def waiting_edges(self, calls: list[UUID], edges: list[UUID]) -> set[UUID]:
        """Those that have not carried out a command about one of these calls yet."""
        return {row["edge_id"] for row in await self._pool.fetch(NOT_CARRIED_OUT, calls, edges)}

    async def grants_expired(self, calls: list[UUID]) -> bool:
        return bool(await self._pool.fetchval(LAST_GRANT, calls))

    async def scrub(self, calls: list[UUID]) -> None:
        await self._pool.execute(SCRUB, calls)

    async def finish(self, erasure_id: UUID, calls: list[UUID]) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(SCRUB, calls)
            await connection.execute(FINISH, erasure_id)


async def _with_places(connection: Any, rows: list[Any]) -> list[tuple[Erasure, list[Place]]]:
    places: dict[UUID, list[Place]] = {row["id"]: [] for row in rows}
    for row in await connection.fetch(PLACES, list(places)):
        places[row["erasure_id"]].append(Place(row["kind"], row["place"], row["done_at"], row["how"]))
    return [(Erasure(**row), places[row["id"]]) for row in rows]
