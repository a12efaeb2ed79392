"""Writes down what was done, in the transaction in which it is done, and what is about to be read, before it is given out.

Decides in whose chain an entry goes: the project's that it is about, and the platform's where an operator acts. Concurrent reads of a
project are written down together. What an entry looks like is `app.audit.chain`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import structlog

from app.audit.asker import Asker, asker
from app.audit.chain import ERASED, PLATFORM
from app.audit.keys import AuditKeys
from app.audit.store import Chains, Noted, driver_of
from app.clock import Clock
from app.db import Database
from app.errors import Unavailable
from app.vault import KeyProvider

log = structlog.get_logger()

READS_WAITING_MAX = 1_000
"""Of one project, on one instance."""
READS_AT_ONCE = 200
ERASED_AT_ONCE = 400
ERASED_PER_REQUEST = 2_000
"""Of a person, in one cell: what is left is for the next request."""

SELECT_ABOUT = """
select writer, n from vx.audit_entries
 where project_id = $1 and details is not null and action <> $4
   and ($2::text is null or target = $2) and ($3::text is null or actor_id = $3)
 limit $5
"""
HAVE_PERSON = """
select p.id from (select id from vx.projects union all select $2::uuid) p
 where exists (select from vx.audit_entries e
                where e.project_id = p.id and e.actor_id = $1 and e.details is not null and e.action <> $3)
    or exists (select from vx.audit_entries e
                where e.project_id = p.id and e.target = $1 and e.details is not null and e.action <> $3)
 limit 50
"""
ERASE = "select vx.audit_erase($1, $2, $3)"


class Audit:
    """Of one cell, for one life of an instance."""

    def __init__(self, db: Database, provider: KeyProvider, clock: Clock) -> None:
        self._db = db
        self.clock = clock
        self._chains = Chains(db.cell)
        self.keys = AuditKeys(db, provider)
        self._waiting: dict[UUID, list[tuple[Noted, asyncio.Future[None]]]] = {}
        self._writing: set[asyncio.Task[None]] = set()

    async def record(
        self,
        connection: Any,
        action: str,
        target: str = "",
        *,
        project_id: UUID | None = None,
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        """An act, as the last statement of its transaction (a driver's connection or the toolkit's). `project_id`: whose it is
        about; None: the platform's. `summary`: a few words and numbers; no secret, no content, and no more than a line.

        Raises what the driver raises: then nothing was done either."""
        who = asker()
        signer, driver = await self.keys.signer(), await driver_of(connection)
        noted = [self._noted(who, action, target, summary or {})]
        if project_id is not None:
            await self._chains.put(driver, signer, project_id, noted)
        if project_id is None or who.platform:
            about = {"project": str(project_id)} if project_id is not None else {}
            noted = [self._noted(who, action, target, {**(summary or {}), **about})]
            await self._chains.put(driver, signer, PLATFORM, noted)
        who.noted.append(action)

    def unchanged(self, action: str) -> None:
        """It was as it is asked for already: nothing was done, and there is nothing to write down."""
        asker().noted.append(action)

    async def read(
        self, project_id: UUID, action: str, target: str = "", summary: Mapping[str, Any] | None = None
    ) -> None:
        """Returns once it is committed that who asks reads this, or asks for what is done in other transactions (`call.end_asked`).
        Where it raises, nothing may be given out or done."""
        who = asker()
        waiting = self._waiting.get(project_id)
        if waiting is None:
            waiting = self._waiting[project_id] = []
            writing = asyncio.create_task(self._write_reads(project_id))
            self._writing.add(writing)
            writing.add_done_callback(self._writing.discard)
        if len(waiting) >= READS_WAITING_MAX:
            raise Unavailable(
                "Too many reads of what was said wait to be written down.",
                retry_after_s=1,
            )
        done = asyncio.get_running_loop().create_future()
        waiting.append((self._noted(who, action, target, summary or {}), done))
        await done
        who.noted.append(action)

    async def _write_reads(self, project_id: UUID) -> None:
        waiting = self._waiting[project_id]
        await asyncio.sleep(0)
        while waiting:
            batch = waiting[:READS_AT_ONCE]
            del waiting[:READS_AT_ONCE]
            failed: Exception | None = None
            try:
                signer = await self.keys.signer()
                async with self._db.project_driver(project_id) as connection:
                    await self._chains.put(connection, signer, project_id, [noted for noted, _ in batch])
            except asyncio.CancelledError:
                for _, done in batch + waiting:
                    done.cancel()
                raise
            except Exception as error:  # noqa: BLE001 - whoever waits is told, whatever it was
                failed = error
                log.warning("audit.not_written", error=type(error).__name__, reads=len(batch))
            for _, done in batch:
                if done.done():
                    continue  # who asked has left
                if failed is None:
                    done.set_result(None)
                else:
                    done.set_exception(failed)
        del self._waiting[project_id]

    async def erase(
        self, connection: Any, project_id: UUID, *, target: str | None = None, actor: str | None = None
    ) -> int:
        """Takes addresses and summaries out of the entries about a target, or of an actor; the chain holds. How many it were.
        `connection`: an open transaction of the worker's or the admin's role; it may have to be done again until it is 0.
        The entry that says so has no address itself, for it is never erased."""
        if target is None and actor is None:
            raise ValueError("all of a project is not erased so")
        signer, driver, who = await self.keys.signer(), await driver_of(connection), asker()
        found = await driver.fetch(SELECT_ABOUT, project_id, target, actor, ERASED, ERASED_AT_ONCE)
        if not found:
            return 0
        named = [[str(row["writer"]), row["n"]] for row in found]
        erased: int = await driver.fetchval(
            ERASE, project_id, [row["writer"] for row in found], [row["n"] for row in found]
        )
        noted = self._noted(who, ERASED, target or actor or "", {"entries": named})._replace(address="")
        await self._chains.put(driver, signer, project_id, [noted])
        who.noted.append(ERASED)
        return erased

    async def erase_person(self, person: str) -> tuple[int, bool]:
        """Takes address and summary out of all entries of this cell that somebody (`person_…`) made, or that are about them; each
        project's log that had some says so. How many it were, and whether none is left. Raises what the driver raises: what was
        committed stays."""
        pool, entries = self._db.pool("admin"), 0
        while entries < ERASED_PER_REQUEST:
            found = await pool.fetch(HAVE_PERSON, person, PLATFORM, ERASED)
            if not found:
                if not entries:
                    self.unchanged(ERASED)
                return entries, True
            for row in found:
                async with pool.acquire() as connection, connection.transaction():
                    entries += await self.erase(connection, row["id"], actor=person)
                    entries += await self.erase(connection, row["id"], target=person)
        return entries, False

    def _noted(self, who: Asker, action: str, target: str, summary: Mapping[str, Any]) -> Noted:
        return Noted(self.clock.now(), who.actor, who.address, who.request_id, action, target, summary)
