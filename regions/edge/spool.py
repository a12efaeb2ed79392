"""A second copy, in the region's Valkey, of what the log has been slow to acknowledge: should this edge die too, the control
plane flushes it from there.

Decides what is copied and when it is removed (`SpoolBook`, pure); `Spool` carries it out. The edge's own memory stays the
first copy: nothing is freed because it was spooled, and an edge whose Valkey is away goes on without a spool.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import msgspec
import structlog
from redis.exceptions import RedisError

from regions.edge.outbox import Outbox
from regions.edge.valkey import RegionValkey
from regions.wire import spool as names
from regions.wire.events import EdgeEvent
from regions.wire.keeping import Seal

log = structlog.get_logger()

AFTER_MS = 500
"""The log answers in a few milliseconds; an event that waits for longer is copied."""
EVERY_S = 0.25
EVENTS_PER_SWEEP_MAX = 2_000
DEADLINE_S = 1.0

Run = tuple[str, int]
"""Call and epoch."""
Field: TypeAlias = bytes | bytearray | memoryview | str | int | float
"""What the driver takes."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one look at the outboxes asks for. `forget`: the whole run goes."""

    put: list[tuple[Run, EdgeEvent]] = field(default_factory=list)
    remove: list[tuple[Run, list[int]]] = field(default_factory=list)
    forget: list[Run] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.put or self.remove or self.forget)


class SpoolBook:
    """What stands in the spool, by run: the numbers copied and not removed yet. Pure."""

    def __init__(self) -> None:
        self._kept: dict[Run, dict[int, None]] = {}

    @property
    def keeping(self) -> bool:
        return bool(self._kept)

    def sweep(self, outboxes: Iterable[Outbox], now_ms: int, after_ms: int = AFTER_MS) -> Sweep:
        """Changes nothing: tell `done` once it is carried out.

        1. an event that has waited for `after_ms`    → copied; one of a time to come, too: a clock was set
        2. a number that is acknowledged              → removed
        3. a run with nothing left to acknowledge, or whose call is not held any more  → forgotten
        """
        found = Sweep()
        live: set[Run] = set()
        for outbox in outboxes:
            run = (outbox.call, outbox.epoch)
            live.add(run)
            kept = self._kept.get(run, {})
            if kept and outbox.settled:
                found.forget.append(run)
                continue
            acked = [n for n in kept if n <= outbox.acked_n]
            if acked:
                found.remove.append((run, acked))
            for event in () if outbox.settled else outbox.unacked:
                if len(found.put) >= EVENTS_PER_SWEEP_MAX:
                    break
                if event.n not in kept and not 0 <= now_ms - event.at_ms < after_ms:
                    found.put.append((run, event))
        found.forget.extend(run for run in self._kept if run not in live)
        return found

    def done(self, sweep: Sweep) -> None:
        for run, event in sweep.put:
            self._kept.setdefault(run, {})[event.n] = None
        for run, numbers in sweep.remove:
            kept = self._kept.get(run, {})
            for n in numbers:
                kept.pop(n, None)
            if not kept:
                self._kept.pop(run, None)
        for run in sweep.forget:
            self._kept.pop(run, None)

    def leave(self, outbox: Outbox) -> None:
        """A call is released that the log never took in full: what was copied stays for whoever flushes it."""
        self._kept.pop((outbox.call, outbox.epoch), None)


class HeldCalls(Protocol):
    @property
    def outboxes(self) -> Sequence[Outbox]: ...


class Spool:
    def __init__(self, valkey: RegionValkey, calls: HeldCalls, wall_ms: Clock, seal: Seal) -> None:
        self._seal = seal
        self._valkey = valkey
        self._calls = calls
        self._wall_ms = wall_ms
        self._book = SpoolBook()
        self._away = False
        self.identity: tuple[str, str] = ("", "")
        """Edge and incarnation, once they are known."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.sweep()

    def leave(self, outbox: Outbox) -> None:
        self._book.leave(outbox)

    async def sweep(self, after_ms: int = AFTER_MS) -> None:
        """One look. Never raises: what could not be copied is tried again with the next."""
        edge, incarnation = self.identity
        client = self._valkey.client
        if client is None or not edge:
            return
        wanted = self._book.sweep(self._calls.outboxes, self._wall_ms(), after_ms)
        if wanted.empty:
            return
        try:
            async with asyncio.timeout(DEADLINE_S), client.pipeline(transaction=False) as pipe:
                for key, fields in self._hashes(edge, incarnation, wanted).items():
                    pipe.hset(key, mapping=fields)
                    pipe.expire(key, names.KEPT_S)
                if wanted.put:
                    runs = {names.run_name(*run) for run, _ in wanted.put}
                    for key, members in (
                        (names.calls_key(edge, incarnation), sorted(runs)),
                        (names.incarnations_key(edge), [incarnation]),
                    ):
                        pipe.sadd(key, *members)
                        pipe.expire(key, names.KEPT_S)
                for run, numbers in wanted.remove:
                    pipe.hdel(names.events_key(edge, incarnation, names.run_name(*run)), *map(str, numbers))
                for run in wanted.forget:
                    pipe.delete(names.events_key(edge, incarnation, names.run_name(*run)))
                    pipe.srem(names.calls_key(edge, incarnation), names.run_name(*run))
                await pipe.execute()
        except (RedisError, OSError, TimeoutError, LookupError) as error:
            # without a key there is no call either: a key set that came empty is mended by the next one
            if not self._away:
                log.warning("spool.away", error=type(error).__name__, events=len(wanted.put))
            self._away = True
            return
        if wanted.put and not self._book.keeping:
            log.warning("spool.keeping", events=len(wanted.put), calls=len({run for run, _ in wanted.put}))
        self._away = False
        self._book.done(wanted)

    def _hashes(self, edge: str, incarnation: str, wanted: Sweep) -> dict[str, dict[Field, Field]]:
        hashes: dict[str, dict[Field, Field]] = {}
        for run, event in wanted.put:
            key = names.events_key(edge, incarnation, names.run_name(*run))
            sealed = self._seal(msgspec.json.encode(event), names.entry_place(key, str(event.n)))
            hashes.setdefault(key, {})[str(event.n)] = sealed
        return hashes


class Clock(Protocol):
    def __call__(self) -> int:
        """Unix milliseconds."""
        ...
