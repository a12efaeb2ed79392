"""Volatile events on their way: from an edge's uplink to the streams that want them, on any instance, and nowhere else.

Decides who is given one, and what is dropped: everything has a bound, and what does not fit is counted and forgotten. Nothing
durable waits for any of it. Between instances they go through one region's Valkey (publish/subscribe), sealed, on a channel of
the project; an instance listens to the projects that it has readers for, in every region.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID, uuid4

import msgspec
import redis.asyncio as redis
import structlog
from redis.exceptions import RedisError

from app.clock import rfc3339, time_of
from app.connection import is_away
from app.log.append import EdgeIdentity
from app.log.facts import CallFacts, FactsReader
from app.log.filters import EventFilter
from app.supervisor import Supervisor, until_stop, wait_for_stop
from app.telemetry import volatile_dropped_total, volatile_events_total
from regions.wire import ids
from regions.wire.events import EVENT_TYPES, VolatileEvent
from regions.wire.keeping import Open, Seal, Unopened
from regions.wire.uplink import Volatile

log = structlog.get_logger()

HEARD_MAX = 2_000
SENT_MAX = 2_000
SEAT_MAX = 256
"""Of one reader: it takes them all at once, so this is what comes while it is being written to."""
DATA_BYTES_MAX = 8 * 1024
AT_MS_MAX = 1 << 43
RETRY_S = 0.5
LISTEN_S = 0.1
PUBLISH_MAX = 200
CHANNEL = "vx:live:"

_decode = msgspec.json.Decoder(VolatileEvent)


class LiveSeat:
    def __init__(self, wanted: EventFilter, woken: asyncio.Event, leave: Callable[[LiveSeat], None]) -> None:
        self._wanted = wanted
        self._woken = woken
        self._leave = leave
        self._events: deque[VolatileEvent] = deque()
        self.dropped = 0

    def hand(self, event: VolatileEvent) -> None:
        """The newest push out the oldest: of partial words the last ones are worth most."""
        if event.type not in self._wanted.live:
            return
        if self._wanted.call_id is not None and ids.encode(ids.CALL, self._wanted.call_id) != event.call_id:
            return
        if len(self._events) >= SEAT_MAX:
            self._events.popleft()
            self.dropped += 1
            volatile_dropped_total.labels("reader").inc()
        self._events.append(event)
        self._woken.set()

    def take(self) -> list[VolatileEvent]:
        taken = list(self._events)
        self._events.clear()
        return taken

    def close(self) -> None:
        self._leave(self)


class Live:
    """`seal` and `open_`: nobody who can listen to a Valkey reads what people say. `may_carry`: whether what is said may pass through
    a region's Valkey, for it may have to stay in a jurisdiction."""

    def __init__(
        self,
        facts: FactsReader,
        redis_urls: dict[str, str],
        seal: Seal,
        open_: Open,
        may_carry: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._may_carry = may_carry
        self._facts = facts
        self._redis_urls = redis_urls
        self._seal = seal
        self._open = open_
        self._me = uuid4().bytes
        self._seats: dict[UUID, set[LiveSeat]] = defaultdict(set)
        self._heard: deque[tuple[EdgeIdentity, Volatile]] = deque()
        self._came = asyncio.Event()
        self._out: dict[str, deque[tuple[UUID, bytes]]] = {region: deque() for region in redis_urls}
        self._due = {region: asyncio.Event() for region in redis_urls}
        self._away: set[str] = set()

    def add_to(self, supervisor: Supervisor) -> None:
        supervisor.add("live.sort", self._sort)
        for region, url in self._redis_urls.items():
            supervisor.add(f"live.send.{region}", self._sender(region, url))
            supervisor.add(f"live.hear.{region}", self._hearer(region, url))

    def heard(self, edge: EdgeIdentity, message: Volatile) -> None:
        """From an uplink. Never blocks, never raises."""
        if len(self._heard) >= HEARD_MAX or not _sound(message):
            volatile_dropped_total.labels("uplink").inc()
            return
        self._heard.append((edge, message))
        self._came.set()

    def subscribe(self, project_id: UUID, wanted: EventFilter, woken: asyncio.Event) -> LiveSeat:
        def leave(seat: LiveSeat) -> None:
            self._seats[project_id].discard(seat)
            if not self._seats[project_id]:
                del self._seats[project_id]

        seat = LiveSeat(wanted, woken, leave)
        self._seats[project_id].add(seat)
        return seat

    def _hand(self, project_id: UUID, event: VolatileEvent) -> None:
        for seat in tuple(self._seats.get(project_id, ())):
            seat.hand(event)

    # ------------------------------------------------------------------------------------------------- from edges

    async def _sort(self, stop: asyncio.Event) -> None:
        await until_stop(stop, self._sort_what_comes())

    async def _sort_what_comes(self) -> None:
        while True:
            await self._came.wait()
            self._came.clear()
            heard = list(self._heard)
            self._heard.clear()
            try:
                await self._sort_out(heard)
            except Exception as error:
                if not is_away(error):
                    raise
                volatile_dropped_total.labels("unknown_call").inc(len(heard))

    async def _sort_out(self, heard: list[tuple[EdgeIdentity, Volatile]]) -> None:
        """Each to the project of its call; what an edge says of a call that it was never granted is dropped."""
        calls = {m.call: ids.decode(ids.CALL, m.call) for _, m in heard}
        facts = await self._facts.of(calls.values())
        for edge, message in heard:
            known = facts.get(calls[message.call])
            if known is None or edge.edge_id not in known.edges:
                volatile_dropped_total.labels("unknown_call").inc()
                continue
            event = VolatileEvent(
                type=message.type,
                call_id=message.call,
                epoch=message.epoch,
                region=edge.region,
                timestamp=rfc3339(time_of(message.at_ms)),
                data=_shown(known, message),
            )
            volatile_events_total.inc()
            self._hand(known.project_id, event)
            self._publish(known.project_id, event)

    # ------------------------------------------------------------------------------------------ between instances

    def _publish(self, project_id: UUID, event: VolatileEvent) -> None:
        """Through the first region whose Valkey is there and may have it: all listen to all."""
        region = next((r for r in self._out if r not in self._away and self._may_carry(r)), None)
        if region is None:
            return
        if len(self._out[region]) >= SENT_MAX:
            volatile_dropped_total.labels("valkey").inc()
            return
        sealed = self._seal(msgspec.json.encode(event), f"live:{project_id}")
        self._out[region].append((project_id, self._me + sealed))
        self._due[region].set()

    def _received(self, project_id: UUID, message: bytes) -> None:
        if message[:16] == self._me:
            return
        try:
            event = _decode.decode(self._open(message[16:], f"live:{project_id}"))
        except (Unopened, msgspec.MsgspecError):
            volatile_dropped_total.labels("unopened").inc()
            return
        self._hand(project_id, event)

    def _sender(self, region: str, url: str) -> Callable[[asyncio.Event], Coroutine[Any, Any, None]]:
        async def send() -> None:
            client: Any = redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0)
            due, out = self._due[region], self._out[region]
            try:
                while True:
                    try:
                        async with asyncio.timeout(0.5):
                            await due.wait()
                    except TimeoutError:
                        if region not in self._away:
                            continue
                    due.clear()
                    try:
                        if region in self._away:
                            await client.ping()
                            self._away.discard(region)
                        await _publish_all(client, out)
                    except (RedisError, OSError, TimeoutError):
                        self._away.add(region)
                        volatile_dropped_total.labels("valkey").inc(len(out))
                        out.clear()
                        await asyncio.sleep(RETRY_S)
            finally:
                await client.aclose()

        return lambda stop: until_stop(stop, send())

    def _hearer(self, region: str, url: str) -> Callable[[asyncio.Event], Coroutine[Any, Any, None]]:
        async def hear(stop: asyncio.Event) -> None:
            while not stop.is_set():
                if not self._seats:
                    await wait_for_stop(stop, LISTEN_S)
                    continue
                client: Any = redis.from_url(url, socket_timeout=3.0, socket_connect_timeout=1.0)
                try:
                    async with client.pubsub(ignore_subscribe_messages=True) as channel:
                        await self._listen(channel, stop)
                except (RedisError, OSError, TimeoutError):
                    await wait_for_stop(stop, RETRY_S)
                finally:
                    await client.aclose()

        return hear

    async def _listen(self, channel: Any, stop: asyncio.Event) -> None:
        """To the projects that have readers here, until none has."""
        subscribed: set[UUID] = set()
        while not stop.is_set() and (self._seats or subscribed):
            wanted = set(self._seats)
            if more := wanted - subscribed:
                await channel.subscribe(*(CHANNEL + p.hex for p in more))
            if less := subscribed - wanted:
                await channel.unsubscribe(*(CHANNEL + p.hex for p in less))
            subscribed = wanted
            if not subscribed:
                return
            message = await channel.get_message(timeout=LISTEN_S)
            if message is not None and message["type"] == "message":
                project_id = UUID(message["channel"].decode().removeprefix(CHANNEL))
                self._received(project_id, message["data"])


def _shown(facts: CallFacts, message: Volatile) -> msgspec.Raw:
    if facts.redactor is None or not EVENT_TYPES[message.type].content:
        return message.data
    return msgspec.Raw(facts.redactor.content(message.type, bytes(message.data)))


def _sound(message: Volatile) -> bool:
    data = bytes(message.data)
    try:
        ids.decode(ids.CALL, message.call)
    except ids.IdError:
        return False
    return (
        len(data) <= DATA_BYTES_MAX
        and data[:1] == b"{"
        and 0 <= message.at_ms < AT_MS_MAX
        and 1 <= message.epoch < 1 << 30
    )


async def _publish_all(client: Any, out: deque[tuple[UUID, bytes]]) -> None:
    while out:
        async with client.pipeline(transaction=False) as pipe:
            for _ in range(min(len(out), PUBLISH_MAX)):
                project_id, message = out.popleft()
                pipe.publish(CHANNEL + project_id.hex, message)
            await pipe.execute()
