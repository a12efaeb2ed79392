"""Keeps the recent conversation of every call in the memory of its home region and its standbys.

Decides what a tail holds and where it goes. It is fed after the acknowledgement and never delays one: what became durable
waits, one entry per call, for a worker that folds many calls at a time, and one worker per region writes them. A tail
whose predecessor is not in memory here (another instance wrote it) is folded anew from the log. A region whose Valkey is
away is caught up when it is back: its newest tails wait, bounded, the oldest calls first to go; a takeover that finds no
tail asks the API or uses the snapshot.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from uuid import UUID

import asyncpg
import msgspec
import redis.asyncio as redis
import structlog
from redis.exceptions import RedisError

from app.db import Database
from app.log.facts import CallFacts
from app.log.rows import event_data
from app.supervisor import Supervisor, wait_for_stop
from app.vault import Vault
from regions.wire import ids
from regions.wire.conversation import FOLDED_TYPES, fold
from regions.wire.events import EdgeEvent
from regions.wire.snapshot import Tail, bounded, tail_key
from regions.wire.uplink import AppendStatus

log = structlog.get_logger()

CALLS_MAX = 20_000
KEPT_S = 24 * 3600
RETRY_S = 0.5
WAITING_MAX = 10_000
FOLDS_PER_ROUND = 100
WRITES_PER_ROUND = 256
FOLD_EVENTS_MAX = 2_000
DATABASE_AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)

# Writes the tail unless a newer one stands there already.
PUT_IF_NEWER = """
local old = redis.call('GET', KEYS[1])
if old then
  local seq = tonumber(cjson.decode(old)['seq'])
  if seq >= tonumber(ARGV[1]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""

# The newest `limit` events of every call after what its tail in memory holds.
SELECT_TURNS = """
select g.call_id, e.*
  from unnest($1::uuid[], $2::integer[], $3::integer[]) as g(call_id, after_seq, seq)
  cross join lateral (
    select seq, id, type, at, data, content, content_key from vx.events
     where call_id = g.call_id and seq > g.after_seq and seq <= g.seq and type = any($4::text[]) order by seq desc limit $5) e
 order by g.call_id, e.seq
"""

Fed = tuple[CallFacts, AppendStatus]


class Tails:
    def __init__(
        self,
        db: Database,
        vault: Vault,
        redis_urls: dict[str, str],
        regions_of: Callable[[tuple[UUID, ...]], set[str]],
    ) -> None:
        self._db = db
        self._vault = vault
        self._redis_urls = redis_urls
        self._regions_of = regions_of
        self._fed: OrderedDict[UUID, Fed] = OrderedDict()
        self._fed_some = asyncio.Event()
        self._tails: OrderedDict[UUID, Tail] = OrderedDict()
        self._due: dict[str, OrderedDict[UUID, Tail]] = {region: OrderedDict() for region in redis_urls}
        self._wake: dict[str, asyncio.Event] = {region: asyncio.Event() for region in redis_urls}
        self.dropped = 0

    def add_to(self, supervisor: Supervisor) -> None:
        if not self._redis_urls:
            return
        supervisor.add("tails.fold", self._fold_worker)
        for region, url in self._redis_urls.items():
            supervisor.add(f"tails.{region}", self._writer(region, url))

    def feed(self, call: UUID, facts: CallFacts, status: AppendStatus, events: list[EdgeEvent]) -> None:
        """Takes events that have just become durable; the call's newest sequence number stands in `status`."""
        if not self._redis_urls or not any(e.type in FOLDED_TYPES for e in events):
            return
        waiting = self._fed.get(call)
        if waiting is not None and waiting[1].seq > status.seq:
            return
        if waiting is None and len(self._fed) >= WAITING_MAX:
            self.dropped += 1
            self._tails.pop(call, None)
            return
        self._fed[call] = facts, status
        self._fed_some.set()

    async def _fold_worker(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if not self._fed:
                self._fed_some.clear()
                await _either(self._fed_some, stop)
                continue
            fed = dict(self._fed.popitem(last=False) for _ in range(min(len(self._fed), FOLDS_PER_ROUND)))
            try:
                tails = await self._refold(fed)
            except DATABASE_AWAY:
                for call, entry in fed.items():
                    self._fed.setdefault(call, entry)
                raise
            for call, tail in tails.items():
                self._keep(call, tail, fed[call][0])

    def _keep(self, call: UUID, tail: Tail, facts: CallFacts) -> None:
        self._tails[call] = tail
        self._tails.move_to_end(call)
        while len(self._tails) > CALLS_MAX:
            self._tails.popitem(last=False)
        for region in self._regions_of(facts.edges):
            due = self._due.get(region)
            if due is not None:
                due[call] = tail
                while len(due) > CALLS_MAX:
                    due.popitem(last=False)
                    self.dropped += 1
                self._wake[region].set()

    async def _refold(self, fed: dict[UUID, Fed]) -> dict[UUID, Tail]:
        """From the tails in memory and the events since; a resend or an adoption makes no difference, for the log decides."""
        before = {call: self._tails.get(call) for call in fed}
        after_seq = {call: 0 if tail is None else tail.seq for call, tail in before.items()}
        turns = {call: [] if tail is None else list(tail.turns) for call, tail in before.items()}
        rows = await self._db.pool("worker").fetch(
            SELECT_TURNS, list(fed), list(after_seq.values()), [status.seq for _, status in fed.values()],
            list(FOLDED_TYPES), FOLD_EVENTS_MAX,
        )  # fmt: skip
        for row in rows:
            data = await event_data(self._vault, row)
            if isinstance(data, msgspec.Raw):
                fold(turns[row["call_id"]], row["type"], bytes(data), int(row["at"].timestamp() * 1000))
        return {
            call: Tail(
                call=ids.encode(ids.CALL, call),
                seq=max(status.seq, after_seq[call]),
                epoch=status.epoch,
                n=status.durable_n,
                turns=bounded(turns[call]),
            )
            for call, (_, status) in fed.items()
        }

    def _writer(self, region: str, url: str) -> Callable[[asyncio.Event], asyncio.Future[None]]:
        async def write(stop: asyncio.Event) -> None:
            client = redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0)
            put = client.register_script(PUT_IF_NEWER)
            due, wake = self._due[region], self._wake[region]
            away = False
            try:
                while not stop.is_set():
                    if not due:
                        wake.clear()
                        await _either(wake, stop)
                        continue
                    batch = [due.popitem(last=False) for _ in range(min(len(due), WRITES_PER_ROUND))]
                    try:
                        async with client.pipeline(transaction=False) as pipeline:
                            for _, tail in batch:
                                await put(
                                    keys=[tail_key(tail.call)],
                                    args=[tail.seq, msgspec.json.encode(tail), KEPT_S],
                                    client=pipeline,
                                )
                            await pipeline.execute()
                        if away:
                            log.info("tails.back", region=region)
                        away = False
                    except (RedisError, OSError, TimeoutError):
                        for call, tail in batch:
                            due.setdefault(call, tail)
                        if not away:
                            log.warning("tails.away", region=region, waiting=len(due))
                        away = True
                        await wait_for_stop(stop, RETRY_S)
            finally:
                await client.aclose()

        return write  # type: ignore[return-value]


async def _either(wake: asyncio.Event, stop: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(wake.wait()), asyncio.ensure_future(stop.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
