"""One look at the log for all readers of a project on this instance: a follower reads, and hands each reader what it wants.

Decides who reads from the log and who is handed to. A reader that stands behind the follower catches up from the log by pages,
then takes what is handed out: the two meet at a position, so nothing is missed and nothing comes twice. What is handed out is
shared; a reader that lets too much of it lie is sent back to the log, so its memory is bounded, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

import msgspec
import structlog

from app.clock import Clock
from app.connection import is_away
from app.errors import QuotaExceeded
from app.log.feeds import Feeds, Found
from app.log.filters import EventFilter
from app.log.live import Live, LiveSeat
from app.log.positions import Position
from app.projects.watching import Watch
from regions.wire.events import PublicEvent, VolatileEvent

log = structlog.get_logger()

QUEUED_EVENTS_MAX = 1_000
QUEUED_BYTES_MAX = 1 << 20
"""Of what lies handed out and not taken by a reader. The bytes are shared by the readers of a project."""
CATCH_UP_PAGE = 50
READERS_MAX = 2_000
"""Of one project, on one instance."""
LOOK_EVERY_S = 1.0
AGAIN_S = 0.5
BEHIND_S = 0.02

T = TypeVar("T")


class Entry:
    """An event on its way to many readers: encoded once. `written`: its blocks, by what readers of one kind have in common."""

    __slots__ = ("at", "call_id", "event", "json", "written")

    def __init__(self, at: Position, event: PublicEvent) -> None:
        self.at = at
        self.call_id = at.call_id
        self.event = event
        self.json = msgspec.json.encode(event).decode()
        self.written: dict[tuple[str, bool, bool], str] = {}


@dataclass(frozen=True, slots=True)
class Batch:
    """What the follower found at once. `metadata`: of the calls, where a reader asked for it."""

    entries: list[Entry]
    reached: Position
    bytes: int
    metadata: dict[UUID, dict[str, str]] | None


@dataclass(frozen=True, slots=True)
class Step:
    """`reached`: behind it nothing more of what is wanted lies before `entries` that come later. `dropped`: volatile events that
    this reader was too slow for, so far."""

    reached: Position
    entries: list[Entry]
    live: list[VolatileEvent] = field(default_factory=list)
    dropped: int = 0


class Seat:
    """One reader's place. `complete_from`: all that lies behind this position is handed to it."""

    def __init__(self, wanted: EventFilter, complete_from: Position) -> None:
        self.wanted = wanted
        self.complete_from = complete_from
        self.woken = asyncio.Event()
        self._batches: deque[Batch] = deque()
        self._events = self._bytes = 0

    def hand(self, batch: Batch) -> None:
        unfit = bool(self.wanted.metadata) and batch.metadata is None
        events, size = self._events + len(batch.entries), self._bytes + batch.bytes
        if unfit or events > QUEUED_EVENTS_MAX or size > QUEUED_BYTES_MAX:
            self._batches.clear()
            self._events = self._bytes = 0
            self.complete_from = batch.reached
        else:
            self._batches.append(batch)
            self._events, self._bytes = events, size
        self.woken.set()

    def take(self, after: Position) -> tuple[list[Entry], Position]:
        """What of the oldest batch lies behind `after` and is wanted, and what is reached with it."""
        batch = self._batches.popleft()
        self._events -= len(batch.entries)
        self._bytes -= batch.bytes
        found = [
            e
            for e in batch.entries
            if e.at > after
            and self.wanted.takes(e.event.type, e.call_id, (batch.metadata or {}).get(e.call_id))
        ]
        return found, max(after, batch.reached)

    @property
    def waiting(self) -> bool:
        return bool(self._batches)


class Follower:
    """Follows one project while it has readers. `at`: up to where all was handed out. `start`: as far as can be read by now; None
    where that is to be asked."""

    def __init__(
        self, feeds: Feeds, project_id: UUID, stop: asyncio.Event, start: Position | None = None
    ) -> None:
        self._feeds = feeds
        self._project_id = project_id
        self._stop = stop
        self.at = start
        self.seats: set[Seat] = set()
        self.failed: Exception | None = None
        self.started = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name="follower")

    async def _run(self) -> None:
        try:
            if self.at is None:
                self.at = await self._patiently(self._feeds.newest)
            self.started.set()
            feed = self._feeds.follow(
                self._project_id, self.at, look_every_s=LOOK_EVERY_S, stop=self._stop, is_newest=True
            )
            async with aclosing(feed):
                async for reached, found in feed:
                    await self._hand_out(reached, found)
        except Exception as error:
            self.failed = error
            log.error("feed.failed", readers=len(self.seats), exc_info=error)
        finally:
            self.started.set()
            for seat in self.seats:
                seat.woken.set()

    async def _hand_out(self, reached: Position, found: Found) -> None:
        if found:
            entries = [Entry(at, event) for at, event in found]
            metadata = None
            if any(seat.wanted.metadata for seat in self.seats):
                calls = {e.call_id for e in entries}
                metadata = await self._patiently(lambda: self._feeds.metadata_of(self._project_id, calls))
            batch = Batch(entries, reached, sum(len(e.json) for e in entries), metadata)
            for seat in self.seats:
                seat.hand(batch)
        self.at = reached

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await ask()
            except Exception as error:
                if not is_away(error) or self._stop.is_set():
                    raise
            await asyncio.sleep(AGAIN_S)


class Fan:
    def __init__(self, feeds: Feeds, live: Live, clock: Clock, stop: asyncio.Event) -> None:
        self._feeds = feeds
        self._live = live
        self._clock = clock
        self._stop = stop
        self._followers: dict[UUID, Follower] = {}

    def check_room(self, project_id: UUID) -> None:
        """Raises `QuotaExceeded` where the project has as many readers here as it may have."""
        follower = self._followers.get(project_id)
        if follower is not None and len(follower.seats) >= READERS_MAX:
            raise QuotaExceeded(
                f"The project has {READERS_MAX} streams open on this instance.",
                fix="Close some, or ask another instance.",
                retry_after_s=5,
            )

    async def read(
        self,
        project_id: UUID,
        after: Position,
        wanted: EventFilter,
        *,
        look_every_s: float,
        watch: Watch | None = None,
    ) -> AsyncGenerator[Step, None]:
        """Every event behind `after` that is wanted, once and in order; without one at least every `look_every_s`. Ends soon
        after this instance is told to stop, and with `watch`. Raises what `Feeds.page` raises for `after`."""
        follower = self._follower(project_id, after)
        seat = Seat(wanted, after)
        live = self._live.subscribe(project_id, wanted, seat.woken) if wanted.live else None
        watch = watch or Watch()
        watch.wakes.append(seat.woken)
        follower.seats.add(seat)
        try:
            await follower.started.wait()
            seat.complete_from = max(seat.complete_from, follower.at or after)
            steps = self._steps(project_id, follower, seat, live, after, look_every_s, watch.ended)
            async with aclosing(steps):
                async for step in steps:
                    yield step
        finally:
            self._leave(project_id, follower, seat)
            if live is not None:
                live.close()

    async def _steps(
        self,
        project_id: UUID,
        follower: Follower,
        seat: Seat,
        live: LiveSeat | None,
        after: Position,
        look_every_s: float,
        ended: asyncio.Event,
    ) -> AsyncGenerator[Step, None]:
        said_s = self._clock.monotonic_s()
        while not (self._stop.is_set() or ended.is_set()):
            seat.woken.clear()
            now = live.take() if live is not None else []
            entries: list[Entry] = []
            if after < seat.complete_from:
                entries, after = await self._catch_up(project_id, after, seat)
            elif seat.waiting:
                entries, after = seat.take(after)
            elif follower.failed is not None:
                raise follower.failed
            elif follower.task.done():
                return
            else:
                # nothing lies between what this reader has and what has been looked through
                after = max(after, follower.at or after)
            waited_s = self._clock.monotonic_s() - said_s
            if entries or now or waited_s >= look_every_s:
                said_s = self._clock.monotonic_s()
                yield Step(after, entries, now, live.dropped if live is not None else 0)
            elif after >= seat.complete_from and not seat.waiting:
                await _wait(seat.woken, look_every_s - waited_s)

    async def _catch_up(self, project_id: UUID, after: Position, seat: Seat) -> tuple[list[Entry], Position]:
        try:
            found, reached = await self._feeds.page(
                project_id, after, wanted=seat.wanted, limit=CATCH_UP_PAGE
            )
        except Exception as error:
            if not is_away(error):
                raise
            await asyncio.sleep(AGAIN_S)
            return [], after
        if not found and reached < seat.complete_from:
            await asyncio.sleep(BEHIND_S)
        return [Entry(at, event) for at, event in found], reached

    def _follower(self, project_id: UUID, after: Position) -> Follower:
        follower = self._followers.get(project_id)
        if follower is None or follower.task.done():
            # a reader that wants only what comes has just asked how far that is
            start = after if self._feeds.is_newest(after) else None
            follower = self._followers[project_id] = Follower(self._feeds, project_id, self._stop, start)
        return follower

    def _leave(self, project_id: UUID, follower: Follower, seat: Seat) -> None:
        follower.seats.discard(seat)
        if not follower.seats:
            follower.task.cancel()
            if self._followers.get(project_id) is follower:
                del self._followers[project_id]


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
