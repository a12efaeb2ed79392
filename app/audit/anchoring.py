"""Anchors the log each minute, drops what is old, and remembers which anchors it has seen.

Decides when there is something to anchor: entries of a chain that no anchor binds yet. Any instance does it; of two that do it at
the same moment one comes first, and neither waits. What an instance has seen anchored it keeps in a file of its
own: a log that was set back (with its newest anchors) is not signed any further, and is told of.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from app.audit.chain import DROPPED, NOTHING, PLATFORM, Anchor, Heads, next_anchor
from app.audit.keys import AuditKeys
from app.audit.store import anchor_of
from app.clock import Clock
from app.connection import DATABASE_ERRORS
from app.db import Database
from app.supervisor import wait_for_stop
from app.telemetry import audit_anchored_total, audit_set_back_total

log = structlog.get_logger()

EVERY_S = 60.0
LOOK_BACK = timedelta(minutes=10)
"""A transaction that writes entries ends long before, and no entry says that it was written earlier than `store.CLOCK_OFF_MAX`
before: what is older was anchored by the round before, or in this one."""
DROP_AT_ONCE = 10_000

# A clock of the database that was ahead, and was set right, has left anchors that lie in the future.
NEWEST_AT = "select least(stored_at, clock_timestamp()) from vx.audit_anchors order by stored_at desc limit 1"
MOVED = """
select distinct on (project_id, writer) project_id, writer, n, hash from vx.audit_entries
 where $1::timestamptz is null or id > vx.first_uuid_at($1)
 order by project_id, writer, n desc
"""
RECENT = """
select project_id, n, body, hash, kid, signature from vx.audit_anchors
 where project_id = $1 and (stored_at > $2 or n = (select max(n) from vx.audit_anchors where project_id = $1)) order by n
"""
RECENT_PROJECTS = """
select distinct on (project_id) project_id, n, hash from vx.audit_anchors
 where project_id <> $1 and ($2::timestamptz is null or stored_at > $2) order by project_id, n desc
"""
SEEN = "select hash from vx.audit_anchors where project_id = $1 and n = $2"
INSERT = """
insert into vx.audit_anchors (project_id, n, body, hash, kid, signature) values ($1, $2, $3, $4, $5, $6) on conflict do nothing
"""
# Up to where each chain may be dropped: before the first entry that is young, and not too much at once.
OLD = f"""
select distinct on (e.writer) e.writer, e.n, e.hash from vx.audit_entries e
 where e.project_id = $1 and e.id < vx.first_uuid_at($2)
   and e.n < {DROP_AT_ONCE} + (select min(f.n) from vx.audit_entries f where f.project_id = $1 and f.writer = e.writer)
   and not exists (select from vx.audit_entries y
                    where y.project_id = $1 and y.writer = e.writer and y.n < e.n and y.id >= vx.first_uuid_at($2))
 order by e.writer, e.n desc
"""
TOMBSTONES = """
select project_id, n, body, hash, kid, signature from vx.audit_anchors
 where project_id = $1 and body::jsonb ->> 'kind' = 'dropped' order by n
"""
OLD_ANCHOR = (
    "select n, hash from vx.audit_anchors where project_id = $1 and stored_at < $2 order by n desc limit 1"
)
DROP = "select vx.audit_drop($1, $2, $3, $4, $5, $6, $7, $8, $9)"
WITH_ENTRIES = "select distinct project_id from vx.audit_entries where id < vx.first_uuid_at($1)"


class Anchoring:
    def __init__(self, db: Database, keys: AuditKeys, clock: Clock, data: Path, *, kept_d: int) -> None:
        self._db = db
        self._keys = keys
        self._clock = clock
        self._kept = timedelta(days=kept_d)
        self._file = data / f"audit-seen-{db.cell}.json"
        self._seen: Heads | None = None

    async def worker(self, stop: asyncio.Event) -> None:
        rounds = 0
        while not await wait_for_stop(stop, EVERY_S):
            try:
                await self.round()
                if rounds % 60 == 0:
                    await self.drop_old()
            except DATABASE_ERRORS as error:
                log.info("audit.anchoring_put_off", error=type(error).__name__)
            rounds += 1

    @property
    def seen(self) -> Heads:
        """By project: the newest anchor that this instance has written or met, also in a life before."""
        if self._seen is None:
            try:
                self._seen = {p: (int(n), str(h)) for p, (n, h) in json.loads(self._file.read_text()).items()}
            except (OSError, ValueError, TypeError):
                self._seen = {}
        return self._seen

    async def round(self) -> int:
        """How many anchors were written. Raises what the driver raises."""
        pool = self._db.pool("worker")
        newest = await pool.fetchval(NEWEST_AT)
        since = newest - LOOK_BACK if newest is not None else None
        moved: dict[UUID, Heads] = {}
        for row in await pool.fetch(MOVED, since):
            moved.setdefault(row["project_id"], {})[str(row["writer"])] = (row["n"], row["hash"].hex())
        own = moved.pop(PLATFORM, {})
        made = 0
        for project_id, heads in moved.items():
            made += await self._anchor(project_id, heads, since)
        anchored = {
            str(row["project_id"]): (row["n"], row["hash"].hex())
            for row in await pool.fetch(RECENT_PROJECTS, PLATFORM, since)
        }
        if own or anchored:
            made += await self._anchor(PLATFORM, own, since, anchored)
        if made:
            self._remember()
        return made

    async def _anchor(
        self,
        project_id: UUID,
        heads: Heads,
        since: Any,
        projects: Mapping[str, tuple[int, str]] | None = None,
    ) -> int:
        pool, now = self._db.pool("worker"), self._clock.now()
        recent = [anchor_of(row) for row in await pool.fetch(RECENT, project_id, since or now)]
        if not await self._stands(project_id):
            return 0
        heads = _beyond(heads, recent, "heads")
        projects = _beyond(projects or {}, recent, "projects")
        after = (recent[-1].n, recent[-1].hash) if recent else (0, NOTHING)
        if not heads and not projects:
            self.seen[str(project_id)] = (after[0], after[1].hex())
            return 0
        signer = await self._keys.signer()
        made = next_anchor(signer, project_id=project_id, after=after, at=now, heads=heads, projects=projects)
        put = await pool.execute(INSERT, project_id, made.n, made.body, made.hash, made.kid, made.signature)
        if not put.endswith("1"):
            return 0
        self.seen[str(project_id)] = (made.n, made.hash.hex())
        audit_anchored_total.inc()
        log.info("audit.anchored", project=str(project_id), n=made.n, hash=made.hash.hex())
        return 1

    async def _stands(self, project_id: UUID) -> bool:
        """Whether the newest anchor that was seen here is still there, or was dropped for its age."""
        if await self.witnessed(project_id):
            return True
        audit_set_back_total.inc()
        log.error("audit.set_back", project=str(project_id), anchor=self.seen[str(project_id)][0])
        return False

    async def witnessed(self, project_id: UUID) -> bool:
        seen = self.seen.get(str(project_id))
        if seen is None or seen[0] == 0:
            return True
        pool = self._db.pool("worker")
        found = await pool.fetchval(SEEN, project_id, seen[0])
        if found is not None:
            return bool(found.hex() == seen[1])
        return await self.was_dropped(project_id, seen[0])

    async def was_dropped(self, project_id: UUID, n: int) -> bool:
        """Whether a later anchor says that number `n` was dropped for its age."""
        rows = await self._db.pool("worker").fetch(TOMBSTONES, project_id)
        gone = [a.said.get("before") for a in map(anchor_of, rows)]
        return any(before and before[0] >= n for before in gone)

    def _remember(self) -> None:
        """Whole or not at all."""
        new = self._file.with_suffix(".new")
        try:
            new.write_text(json.dumps(self.seen))
            os.replace(new, self._file)
        except OSError as error:
            log.warning("audit.seen_not_kept", error=type(error).__name__)

    # ----------------------------------------------------------------------------------------------- retention

    async def drop_old(self) -> None:
        """What is older than the deployment keeps, of all projects and the platform."""
        before = await self._db.earlier(self._clock.now()) - self._kept
        for row in await self._db.pool("worker").fetch(WITH_ENTRIES, before):
            await self.drop(row["project_id"], before)

    async def drop(self, project_id: UUID, before: Any) -> int:
        """Drops a project's entries from before a time, whole beginnings of chains, and leaves a signed anchor that says so. How
        many chains were shortened. Raises what the driver raises."""
        pool = self._db.pool("worker")
        await self.round()  # what is dropped was anchored
        rows = await pool.fetch(OLD, project_id, before)
        if not rows or not await self._stands(project_id):
            return 0
        newest = anchor_of((await pool.fetch(RECENT, project_id, self._clock.now()))[-1])
        begun: Heads = {}  # of chains that were shortened before: the anchor that said so may go with this one
        for tombstone in map(anchor_of, await pool.fetch(TOMBSTONES, project_id)):
            begun |= tombstone.said["heads"]
        old = await pool.fetchrow(OLD_ANCHOR, project_id, before - LOOK_BACK)
        gone = (old["n"], old["hash"].hex()) if old is not None else None
        made = next_anchor(
            await self._keys.signer(),
            project_id=project_id,
            after=(newest.n, newest.hash),
            at=self._clock.now(),
            heads=begun | {str(row["writer"]): (row["n"], row["hash"].hex()) for row in rows},
            kind=DROPPED,
            before=gone,
        )
        dropped = await pool.fetchval(
            DROP, project_id, [row["writer"] for row in rows], [row["n"] for row in rows], gone[0] if gone else 0,
            made.n, made.body, made.hash, made.kid, made.signature,
        )  # fmt: skip
        if not dropped:
            return 0
        self.seen[str(project_id)] = (made.n, made.hash.hex())
        self._remember()
        log.info("audit.dropped", project=str(project_id), chains=len(rows))
        return len(rows)


def _beyond(heads: Mapping[str, tuple[int, str]], anchors: list[Anchor], name: str) -> Heads:
    """Those that no anchor binds yet."""
    bound: dict[str, int] = {}
    for anchor in anchors:
        for who, (n, _) in anchor.said.get(name, {}).items():
            bound[who] = max(n, bound.get(who, 0))
    return {who: at for who, at in heads.items() if at[0] > bound.get(who, 0)}
