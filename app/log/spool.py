"""Flushes what edges left in their region's Valkey, through the same append as an uplink's events.

Decides which runs are flushed (`due`), in which pieces and what is given up as lost (`pieces`); both pure. An edge that lives
flushes its own memory, so its spool is left alone unless it has been abandoned; a silent edge's is flushed, and holes in it
are left to the edge; once its incarnation has ended nobody can fill them, and `events.lost` does. Who writes is known from
the key, which only that edge may write; the project from the call. Any instance may do this, and two at once do no harm: the
log knows every number. An entry that is not an event is set aside and counted, and becomes a hole like any other; so is a
key under which an edge has put a value of another kind, lest it stop the round for its neighbours. An entry under a fleet key
that is not known here waits until the keys have been read again.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar
from uuid import UUID

import msgspec
import redis.asyncio as redis
import structlog
from redis.exceptions import RedisError, ResponseError

from app.clock import Clock
from app.connection import DATABASE_ERRORS
from app.fleet.edge_access import EdgeAccess
from app.fleet.frames import BadFrame, check_event
from app.fleet.ports import Appends
from app.fleet.view import EdgeState, Fleet
from app.log.append import EdgeIdentity
from app.supervisor import Supervisor, wait_for_stop
from app.telemetry import spool_events_total
from regions.wire import ids
from regions.wire import spool as names
from regions.wire.events import LOST_TYPE, EdgeEvent, Lost, first_n
from regions.wire.keeping import Unopened, key_of, opening
from regions.wire.uplink import AppendStatus, CallEvents

log = structlog.get_logger()

Client: TypeAlias = Any
"""`redis.asyncio.Redis` that gives bytes; its types leave open whether it gives bytes or text."""

T = TypeVar("T")

EVERY_S = 1.0
ABANDONED_AFTER_MS = 15 * 60 * 1000
INCARNATIONS_PER_ROUND_MAX = 20
RUNS_PER_ROUND_MAX = 200
EVENTS_PER_RUN_MAX = 5_000
EVENTS_PER_APPEND_MAX = 200
APPENDS_PER_RUN_MAX = 100
POISON_KEPT_MAX = 100


def is_due(incarnation: str, edge: EdgeState) -> bool:
    """1. An ended incarnation: yes. 2. A silent edge: yes. 3. One that lives flushes what it has by itself: no."""
    return incarnation != str(edge.incarnation) or edge.health == "down"


def pieces(
    events: Iterable[EdgeEvent],
    epoch: int,
    durable_n: int,
    *,
    ended: bool,
    most: int = EVENTS_PER_APPEND_MAX,
) -> list[EdgeEvent] | None:
    """The next run to append behind `durable_n`, of so many events; None where there is nothing that could be.

    1. what the log has already        → not sent again
    2. the first number follows        → it and all that follow without a hole
    3. a hole, and its owner has ended → `events.lost` for the hole, then as 2
    4. a hole, and its owner may live  → nothing: the owner fills it
    """
    left = sorted((e for e in events if e.n > durable_n), key=lambda e: e.n)
    if not left:
        return None
    run: list[EdgeEvent] = []
    follows = durable_n + 1
    if first_n(left[0], epoch) > follows:
        if not ended:
            return None
        run.append(lost_event(left[0], epoch, follows))
        follows = first_n(left[0], epoch)
    for event in left:
        if first_n(event, epoch) != follows or len(run) >= most:
            break
        run.append(event)
        follows = event.n + 1
    return run


def lost_event(before: EdgeEvent, epoch: int, from_n: int) -> EdgeEvent:
    """What takes the place of the numbers up to `before`. The same for whoever makes it, so that making it twice does no harm."""
    to_n = first_n(before, epoch) - 1
    data = msgspec.json.encode(Lost(epoch=epoch, from_n=from_n, to_n=to_n, reason="spool"))
    digest = hashlib.sha256(before.id.encode() + data).digest()
    event_id = ids.uuid7(before.at_ms, int.from_bytes(digest[:8], "big"))
    return EdgeEvent(
        n=to_n,
        id=ids.encode(ids.EVENT, event_id),
        type=LOST_TYPE,
        at_ms=before.at_ms,
        data=msgspec.Raw(data),
    )


@dataclass(frozen=True, slots=True)
class SpooledRun:
    """One run as it was found. `poison`: fields that hold no event of this run."""

    name: str
    call: str
    epoch: int
    events: list[EdgeEvent]
    poison: list[bytes]


_event = msgspec.json.Decoder(EdgeEvent)


def read_run(name: str, entries: dict[bytes, bytes]) -> SpooledRun:
    """Raises `ValueError` where the name is none."""
    call, epoch = names.read_run_name(name)
    ids.decode(ids.CALL, call)
    events: list[EdgeEvent] = []
    poison: list[bytes] = []
    for field, entry in entries.items():
        try:
            event = _event.decode(entry)
            check_event(event, epoch)
            if field != str(event.n).encode() or not 1 <= first_n(event, epoch) <= event.n < 1 << 30:
                raise ValueError
            events.append(event)
        except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError, BadFrame):
            poison.append(field)
    return SpooledRun(name, call, epoch, events, poison)


class Keys(Protocol):
    """The fleet keys of this instance."""

    @property
    def fleet_secrets(self) -> Mapping[str, bytes]: ...

    async def open(self) -> None:
        """Reads them anew. Raises what the driver raises."""
        ...


class SpoolFlusher:
    def __init__(
        self,
        redis_urls: dict[str, str],
        access: EdgeAccess,
        fleet: Callable[[], Fleet],
        appender: Appends,
        clock: Clock,
        keys: Keys,
    ) -> None:
        self._keys = keys
        self._opened = opening(lambda: keys.fleet_secrets)
        self._redis_urls = redis_urls
        self._access = access
        self._fleet = fleet
        self._appender = appender
        self._clock = clock

    def add_to(self, supervisor: Supervisor) -> None:
        for region, url in self._redis_urls.items():
            supervisor.add(f"spool.{region}", self._worker(region, url))

    def _worker(self, region: str, url: str) -> Callable[[asyncio.Event], Any]:
        async def worker(stop: asyncio.Event) -> None:
            client = redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0)
            away = False
            try:
                while not await wait_for_stop(stop, EVERY_S * (0.5 + random.random())):
                    try:
                        await self.round(region, client)
                        away = False
                    except (RedisError, OSError, TimeoutError) as error:
                        if not away:
                            log.warning("spool.unreadable", region=region, error=type(error).__name__)
                        away = True
            finally:
                await client.aclose()

        return worker

    async def round(self, region: str, client: Client) -> None:
        """Looks once at every edge of the region."""
        edges = [e for e in self._fleet().edges if e.region == region]
        trusted, revoked = [e.id for e in edges if not e.revoked_at], [e.id for e in edges if e.revoked_at]
        await self._access.ensure(region, client, trusted, revoked)
        for edge in edges:
            name = ids.encode(ids.EDGE, edge.id)
            key = names.incarnations_key(name)
            drawn = client.srandmember(key, INCARNATIONS_PER_ROUND_MAX)
            for raw in await self._told(client, name, key, b"set", drawn) or ():
                incarnation = raw.decode(errors="replace")
                await self._flush(client, edge, name, incarnation)

    async def _flush(self, client: Client, edge: EdgeState, name: str, incarnation: str) -> None:
        key = names.calls_key(name, incarnation)
        runs = await self._told(client, name, key, b"set", client.srandmember(key, RUNS_PER_ROUND_MAX))
        ended = incarnation != str(edge.incarnation)
        if not runs:
            if ended:
                await client.srem(names.incarnations_key(name), incarnation)
            return
        due = is_due(incarnation, edge)
        for raw in runs:
            run_name = raw.decode(errors="replace")
            events_key = names.events_key(name, incarnation, run_name)
            try:
                owner = EdgeIdentity(edge.id, UUID(incarnation), edge.region)
                run = read_run(run_name, await self._entries(client, name, events_key))
            except DATABASE_ERRORS:
                continue
            except ValueError:
                await self._set_aside(client, name, key, run_name)
                continue
            oldest_ms = min((e.at_ms for e in run.events), default=0)
            if not due and self._clock.now_ms() - oldest_ms < ABANDONED_AFTER_MS:
                continue
            if run.poison:
                await self._drop(client, events_key, run.poison, "poisoned", run)
            if await self._append(client, owner, run, events_key, ended=ended):
                await client.srem(key, run_name)

    async def _told(self, client: Client, edge: str, key: str, kind: bytes, answer: Awaitable[T]) -> T | None:
        """The answer; None where the edge has put a value of another kind under the key, which is out of the way then."""
        try:
            return await answer
        except ResponseError:
            if await client.type(key) in (kind, b"none"):
                raise
        # one such value is kept; the newest
        await client.rename(key, f"{names.spool_prefix(edge)}aside.value")
        await self._note_aside(client, edge, key)
        return None

    async def _entries(self, client: Client, edge: str, key: str) -> dict[bytes, bytes]:
        """All of a run, as far as an honest edge fills it; nothing of what is no run."""
        count = await self._told(client, edge, key, b"hash", client.hlen(key))
        if count is None:
            return {}
        if count > EVENTS_PER_RUN_MAX:
            raise ValueError("too long for a run")
        found: dict[bytes, bytes] = await client.hgetall(key)
        if any(
            (key_id := key_of(entry)) and key_id not in self._keys.fleet_secrets for entry in found.values()
        ):
            await self._keys.open()
        return {field: self._open(entry, key, field) for field, entry in found.items()}

    def _open(self, entry: bytes, key: str, field: bytes) -> bytes:
        """Nothing where it cannot be opened: that is no event, and set aside as such."""
        try:
            return self._opened(entry, names.entry_place(key, field.decode(errors="replace")))
        except Unopened:
            return b""

    async def _append(
        self, client: Client, owner: EdgeIdentity, run: SpooledRun, key: str, *, ended: bool
    ) -> bool:
        """True once nothing of the run is left. Begins with what stands first, and learns from the log where to go on. Where the
        log has another event under one of the numbers, that one alone is given up: it is looked for by halves."""
        left = {e.n: e for e in run.events}
        durable_n = min((first_n(e, run.epoch) for e in run.events), default=1) - 1
        most = EVENTS_PER_APPEND_MAX
        for _ in range(APPENDS_PER_RUN_MAX):
            piece = pieces(left.values(), run.epoch, durable_n, ended=ended, most=most)
            if piece is None:
                break
            sent = CallEvents(call=run.call, epoch=run.epoch, events=piece)
            status = (await self._appender.append(owner, [sent]))[0]
            if status.status == "gap" and status.durable_n != durable_n:
                durable_n = status.durable_n
                continue
            if status.status == "conflict" and len(piece) > 1:
                most = len(piece) // 2
                continue
            if status.status == "conflict":
                durable_n, most = piece[0].n, EVENTS_PER_APPEND_MAX
            gone = settled_by(status, [e.n for e in piece if e.n in left], set(left))
            if gone is None:
                break
            await self._drop(client, key, [str(n).encode() for n in gone], status.status, run)
            for n in gone:
                del left[n]
            durable_n = max(durable_n, status.durable_n)
        return not left

    async def _drop(
        self, client: Client, key: str, fields: list[bytes], outcome: str, run: SpooledRun
    ) -> None:
        if fields:
            await client.hdel(key, *fields)
            spool_events_total.labels(outcome).inc(len(fields))
            log.info("spool.flushed", call=run.call, epoch=run.epoch, events=len(fields), outcome=outcome)

    async def _set_aside(self, client: Client, edge: str, key: str, run_name: str) -> None:
        """A name that is none, or a run that no edge would write: kept where an operator can look, and counted."""
        await self._note_aside(client, edge, run_name)
        await client.srem(key, run_name)

    async def _note_aside(self, client: Client, edge: str, what: str) -> None:
        aside = f"{names.spool_prefix(edge)}aside"
        if await self._told(client, edge, aside, b"list", client.lpush(aside, what)):
            await client.ltrim(aside, 0, POISON_KEPT_MAX - 1)
        spool_events_total.labels("poisoned").inc()
        log.warning("spool.poisoned", edge=edge)


def settled_by(status: AppendStatus, sent: list[int], all_numbers: set[int]) -> list[int] | None:
    """The numbers that need not be kept after this answer; None: ask again another time.

    `fenced` keeps what was sent as late. `conflict`, of one event, and `refused` will say the same for ever.
    """
    match status.status:
        case "durable":
            return sorted({n for n in all_numbers if n <= status.durable_n} | set(sent))
        case "fenced" | "conflict" | "refused":
            return sent
        case _:
            return None
