"""Carries erasures out, and goes on until every place has done its part.

Decides the order. In the database first: a call that lives is ended, then its key is destroyed and what names somebody is taken
out, with the commands to its edges in the same transaction; from then on nobody opens what was said. Then every instance forgets
what it has in memory, and every region's Valkey loses the tails and spools. A place that is away is told again until it has done
it; every instance looks each second, and any of them carries on what another has begun. An instance that cannot reach the
database for as long as others wait for it forgets the keys of all calls.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol
from uuid import UUID

import msgspec
import structlog
from redis.exceptions import RedisError

from app.connection import DATABASE_ERRORS, is_away
from app.erasure.region import purge
from app.erasure.store import ALIVE_S, CALLS_MAX, Erasure, ErasureStore, Place
from app.fleet.desired import topic
from app.hints import Hints
from app.ids import new_id
from app.log.append import Appender
from app.vault import Vault
from regions.wire import ids
from regions.wire.events import FINAL_TYPE, EndReason, Source

log = structlog.get_logger()

TOPIC = "erasures"
EVERY_S = 1.0
SEEN_EVERY_S = 5.0
FORGET_ALL_AFTER_S = ALIVE_S * 2 / 3
UNDER_WAY_S = 3.0
"""An attempt at a delivery that had not read of the erasure is written by then."""
AWAY = (RedisError, OSError, TimeoutError)


class Selector(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whom an erasure is about; one of them."""

    call: str | None = None
    subject: bytes | None = None
    number: str | None = None
    metadata: dict[str, str] | None = None


class Memory(Protocol):
    """What this instance has in memory of calls."""

    def erase(self, calls: Iterable[UUID]) -> None: ...
    def erase_all(self) -> None: ...


_selector = msgspec.json.Decoder(Selector)


class Erasing:
    """Of one cell, on one instance. `home`: the store of the cell whose uplinks carry the commands. `drives`: whether this instance
    does more than forget. `edges_in`: the edges of a region."""

    def __init__(
        self,
        store: ErasureStore,
        home: ErasureStore,
        vault: Vault,
        memory: Memory,
        appender: Appender,
        hints: Hints,
        redis_urls: dict[str, str],
        edges_in: Callable[[str], list[UUID]],
        *,
        cell: int,
        drives: bool,
    ) -> None:
        self.id = new_id(cell)
        self._store = store
        self._home = home
        self._vault = vault
        self._memory = memory
        self._appender = appender
        self._hints = hints
        self._redis_urls = redis_urls
        self._edges_in = edges_in
        self._drives = drives
        self._seen_s = 0.0
        self._forgotten: set[UUID] = set()
        self._told_s: dict[UUID, float] = {}
        """Until what was under way is looked through."""

    async def worker(self, stop: asyncio.Event) -> None:
        woken = self._hints.subscribe(TOPIC)
        reached_s = time.monotonic()
        try:
            while not stop.is_set():
                try:
                    await self.round()
                    reached_s = time.monotonic()
                except DATABASE_ERRORS as error:
                    if not is_away(error):
                        raise
                    log.warning("erasure.put_off", error=type(error).__name__)
                    if time.monotonic() - reached_s > FORGET_ALL_AFTER_S:
                        self._memory.erase_all()
                        self._vault.forget_calls()
                await woken.wait(EVERY_S * (0.5 + random.random() / 2))
        finally:
            woken.close()
            with suppress(*DATABASE_ERRORS):  # else it is waited for a while, as for one that was killed
                await asyncio.shield(self._store.leave(self.id))

    async def round(self) -> None:
        """Raises what the driver raises."""
        if time.monotonic() - self._seen_s > SEEN_EVERY_S or not self._seen_s:
            await self._store.seen(self.id)
            self._seen_s = time.monotonic()
        running = await self._store.open()
        for erasure in running:
            await self.forget(erasure)
        self._forgotten &= {erasure.id for erasure in running}
        for gone in self._told_s.keys() - {erasure.id for erasure in running}:
            del self._told_s[gone]
        if running and self._drives:
            await self.drive()

    async def forget(self, erasure: Erasure) -> None:
        """What this instance has in memory. It is said once all calls are known, and done before, too."""
        if erasure.id in self._forgotten:
            return
        calls = await self._store.calls_of(erasure.id)
        if len(calls) > CALLS_MAX:
            self._memory.erase_all()
            self._vault.forget_calls()
        else:
            self._memory.erase(calls)
            self._vault.forget(calls)
        if erasure.state == "telling":
            await self._store.done(erasure, "instance", str(self.id))
            self._forgotten.add(erasure.id)

    async def drive(self, only: UUID | None = None) -> None:
        """One that nobody is at, as far as it goes now. Raises what the driver raises."""
        erasure = await self._store.claim(only)
        if erasure is None:
            return
        try:
            if erasure.state == "finding":
                await self._destroy(erasure)
            else:
                await self._tell(erasure)
        finally:
            await self._store.release(erasure.id, again_s=0.0 if erasure.state == "finding" else EVERY_S / 2)
            self._hints.wake(TOPIC)

    async def _destroy(self, erasure: Erasure) -> None:
        key = await self._vault.for_project(erasure.project_id)
        wanted = _selector.decode(key.open(erasure.selector or b"", erasure.id.bytes))
        while True:
            found = await self._store.find(
                erasure.project_id,
                call=UUID(wanted.call) if wanted.call else None,
                subject=wanted.subject,
                number=wanted.number,
                metadata=msgspec.json.encode(wanted.metadata).decode() if wanted.metadata else None,
            )
            if not found:
                await self._store.all_found(erasure, list(self._redis_urls))
                log.info("erasure.destroyed", erasure=ids.encode(ids.ERASURE, erasure.id), kind=erasure.kind)
                return
            for call, live in found:
                if live:
                    await self._end(erasure, call)
            erased = await self._store.erase(erasure, [call for call, _ in found])
            self._memory.erase(erased)
            self._vault.forget(erased)
            if not erased:
                return  # none could be ended just now: another time

    async def _end(self, erasure: Erasure, call: UUID) -> None:
        await self._appender.control(
            erasure.project_id,
            call,
            type=FINAL_TYPE,
            data={"end_reason": EndReason.ERASED.value},
            source=Source.CONTROL,
            source_key="end",
        )

    async def _tell(self, erasure: Erasure) -> None:
        calls = await self._store.calls_of(erasure.id)
        # a place that is away may keep it open for days
        since_s = time.monotonic() - self._told_s.setdefault(erasure.id, time.monotonic())
        if UNDER_WAY_S < since_s < float("inf"):
            await self._store.scrub(calls)
            self._told_s[erasure.id] = float("-inf")
        undone = await self._store.undone(erasure.id)
        edges = [UUID(p.place) for p in undone if p.kind == "edge"]
        waiting = await self._store.waiting_edges(calls, edges) | await self._home.waiting_edges(calls, edges)
        for edge in waiting:
            self._hints.wake(topic(edge))
        expired = bool(waiting) and await self._store.grants_expired(calls)
        left = 0
        for place in undone:
            if place.kind == "valkey":
                done = await self._purge(place.place, calls)
                how = ""
            elif place.kind == "instance":
                done, how = not await self._store.instance_lives(UUID(place.place)), "gone"
            else:
                done = UUID(place.place) not in waiting or expired
                how = "expired" if expired and UUID(place.place) in waiting else ""
            left += not done
            if done:
                await self._note(erasure, place, how)
        if not left:
            await self._store.finish(erasure.id, calls)
            log.info("erasure.done", erasure=ids.encode(ids.ERASURE, erasure.id), calls=len(calls))

    async def _note(self, erasure: Erasure, place: Place, how: str) -> None:
        if how:
            await self._store.give_up(erasure.id, place, how)
        else:
            await self._store.done(erasure, place.kind, place.place)

    async def _purge(self, region: str, calls: list[UUID]) -> bool:
        url = self._redis_urls.get(region)
        if url is None:
            return False  # an instance that knows this region does it
        try:
            await purge(url, calls, self._edges_in(region))
        except AWAY as error:
            log.info("erasure.region_away", region=region, error=type(error).__name__)
            return False
        return True
