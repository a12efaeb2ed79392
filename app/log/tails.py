"""Keeps the recent conversation of every live call in the memory of its region and its standbys.

Decides which calls' tails are folded here, which are read from the log, and which regions get them. Fed after the
acknowledgement, and never delays one. Three ways lead into a region:

1. An acknowledged write is folded into the tail in memory (`tail_fold`), without asking anyone, and sent.
2. Where that is not exact, where the tail is not in memory, and where a new ticket brings new standbys, the log is read.
3. A sweep (`tail_sweep`) finds what a region lacks, whoever was to write it, and has it sent again.

Only regions that may still serve the call get its tail: those of its owner's epoch and above.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import asyncpg
import structlog

from app.clock import Clock
from app.log.facts import CallFacts, FactsReader
from app.log.tail_fold import SaidEvent, Step, Write, empty_tail, fold_write, next_step
from app.log.tail_log import TailLog
from app.log.tail_region import AWAY, Packed, TailRegion, either, pack
from app.supervisor import Supervisor, until_stop, wait_for_stop
from app.telemetry import tail_steps_total, tails_dropped_total
from regions.wire import ids
from regions.wire.conversation import BY_PROJECT, FOLDED_TYPES
from regions.wire.events import EdgeEvent, Source
from regions.wire.keeping import Seal
from regions.wire.snapshot import Tail, TailHead
from regions.wire.uplink import AppendStatus

log = structlog.get_logger()

FED_MAX = 10_000
CALLS_MAX = 20_000
MEMORY_BYTES_MAX = 128 * 1024 * 1024
READERS = 2
READ_RETRY_S = 0.5
WANTED_MAX = 20_000
TOGETHER_MAX = 64
TURN_BYTES = 64
"""What an entry takes up beside what was said."""

STEPS = {step: tail_steps_total.labels(step.value) for step in Step}
FAILED = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


@dataclass(slots=True)
class _Kept:
    """A tail in this instance's memory, and where it goes: found anew when the call's facts or its owner change."""

    packed: Packed
    facts: CallFacts | None = None
    regions: tuple[TailRegion, ...] = ()
    counted_bytes: int = 0


@dataclass(slots=True)
class _Wanted:
    """A tail to be read from the log. `seq`: acknowledged; 0: whatever is durable, below `horizon` where it is known.
    `regions` None: all of the call's."""

    seq: int = 0
    epoch: int = 0
    n: int = 0
    since_s: float = 0.0
    final: bool = False
    regions: set[str] | None = None
    horizon: int | None = None


class Sealer(Protocol):
    @property
    def seal(self) -> Seal:
        """Under the fleet key that is the newest when it is called."""


class Tails:
    def __init__(
        self,
        tail_log: TailLog,
        facts: FactsReader,
        clock: Clock,
        redis_urls: dict[str, str],
        regions_of: Callable[[tuple[UUID, ...]], set[str]],
        keys: Sealer,
    ) -> None:
        self.log = tail_log
        self._seal = keys.seal
        self._facts = facts
        self._clock = clock
        self._regions_of = regions_of
        self._fed: asyncio.Queue[tuple[Write, CallFacts | None]] = asyncio.Queue(maxsize=FED_MAX)
        self._kept: OrderedDict[UUID, _Kept] = OrderedDict()
        self._kept_bytes = 0
        self._wanted: OrderedDict[UUID, _Wanted] = OrderedDict()
        self._reading: set[UUID] = set()
        self._read_now = asyncio.Event()
        self.lost = asyncio.Event()
        """Set when a region has come back, or has lost what it had: a sweep is due."""
        self.regions = {
            region: TailRegion(region, url, clock, self.lost.set) for region, url in redis_urls.items()
        }

    def add_to(self, supervisor: Supervisor) -> None:
        if not self.regions:
            return
        supervisor.add("tails.fold", self._fold_worker)
        for i in range(READERS):
            supervisor.add(f"tails.read.{i}", self._read_worker)
        for name, region in self.regions.items():
            supervisor.add(f"tails.{name}", region.worker)

    # ---------------------------------------------------------------------------------------------------- being fed

    def feed(self, call: UUID, facts: CallFacts, status: AppendStatus, events: list[EdgeEvent]) -> None:
        """Takes events that have just become durable; the call's newest sequence number stands in `status`."""
        write = Write(
            call=call,
            seq=status.seq,
            events=tuple(
                [SaidEvent(e.type, bytes(e.data) if e.type in FOLDED_TYPES else b"", e.at_ms) for e in events]
            ),
            stored=status.stored,
            epoch=status.epoch,
            n=status.durable_n,
            at_ms=self._clock.now_ms(),
            at_s=self._clock.monotonic_s(),
        )
        self._feed(write, facts)

    def feed_control(self, call: UUID, type_: str, data: bytes, at_ms: int, seq: int, source: Source) -> None:
        """The same for one event of the control plane or the project."""
        write = Write(
            call=call,
            seq=seq,
            events=(SaidEvent(type_, data, at_ms),),
            stored=1,
            by=BY_PROJECT if source is Source.PROJECT else "",
            at_ms=self._clock.now_ms(),
            at_s=self._clock.monotonic_s(),
        )
        self._feed(write, None)

    def _feed(self, write: Write, facts: CallFacts | None) -> None:
        if not self.regions:
            return
        try:
            self._fed.put_nowait((write, facts))
        except asyncio.QueueFull:
            # the sweep finds it
            self._forget(write.call)
            for region in self.regions:
                tails_dropped_total.labels(region).inc()

    def want(self, call: UUID) -> None:
        """The call has new standbys: they get its tail, from the log."""
        self._facts.forget(call)
        if self.regions:
            self._want(call, _Wanted(since_s=self._clock.monotonic_s()))

    def serving(self, edges: tuple[UUID, ...], epoch: int) -> list[str]:
        """The regions with a memory that may serve a call: its edges stand by epoch, and none below `epoch` can own it."""
        return sorted(self._regions_of(edges[max(epoch - 1, 0) :]) & set(self.regions))

    async def heads(
        self, call: UUID, edges: tuple[UUID, ...], epoch: int
    ) -> dict[str, TailHead | Exception | None]:
        """What stands in each of the call's regions; an exception where the region does not answer."""
        names = self.serving(edges, epoch)
        found = await asyncio.gather(*(self.regions[n].head(call) for n in names), return_exceptions=True)
        answers: dict[str, TailHead | Exception | None] = {}
        for name, answer in zip(names, found, strict=True):
            if isinstance(answer, BaseException) and not isinstance(answer, AWAY):
                raise answer
            answers[name] = answer
        return answers

    # ------------------------------------------------------------------------------------------------------ folding

    async def _fold_worker(self, stop: asyncio.Event) -> None:
        await until_stop(stop, self._fold())

    async def _fold(self) -> None:
        while True:
            write, facts = await self._fed.get()
            self._take(write, facts)
            for _ in range(TOGETHER_MAX):
                if self._fed.empty():
                    break
                self._take(*self._fed.get_nowait())
            await asyncio.sleep(0)

    def _take(self, write: Write, facts: CallFacts | None) -> None:
        kept = self._kept.get(write.call)
        tail = kept.packed.tail if kept is not None else empty_tail(ids.encode(ids.CALL, write.call))
        step = next_step(tail, write)
        STEPS[step].inc()
        if step is Step.KNOWN:
            return
        facts = facts or (kept.facts if kept is not None else None)
        stale = facts is None or write.epoch > len(facts.edges)
        if step is Step.READ or write.call in self._wanted or write.call in self._reading or stale:
            if stale:
                self._facts.forget(write.call)
            self._want(
                write.call,
                _Wanted(seq=write.seq, epoch=write.epoch, n=write.n, since_s=write.at_s, final=write.final),
            )
            return
        assert facts is not None
        before = kept.packed if kept is not None else None
        added = sum([TURN_BYTES + len(e.data) for e in write.events if e.type in FOLDED_TYPES])
        packed = pack(fold_write(tail, write), before, self._seal, final=write.final, added_bytes=added)
        self._send(write.call, packed, facts, write.at_s)

    def _send(
        self, call: UUID, packed: Packed, facts: CallFacts, since_s: float, only: set[str] | None = None
    ) -> None:
        kept = self._keep(call, packed, facts)
        for region in kept.regions if only is None else [self.regions[name] for name in only]:
            region.put(call, packed, since_s)
        if packed.final:
            self._forget(call)

    def _keep(self, call: UUID, packed: Packed, facts: CallFacts) -> _Kept:
        kept = self._kept.get(call)
        owner_before = kept.packed.tail.epoch if kept is not None else -1
        if kept is None:
            kept = self._kept[call] = _Kept(packed)
        else:
            self._kept_bytes -= kept.counted_bytes
            kept.packed = packed
        kept.counted_bytes = packed.bytes_about
        self._kept_bytes += kept.counted_bytes
        if kept.facts is not facts or owner_before != packed.tail.epoch:
            kept.facts = facts
            names = self.serving(facts.edges, packed.tail.epoch)
            kept.regions = tuple(self.regions[name] for name in names)
        self._kept.move_to_end(call)
        while len(self._kept) > CALLS_MAX or (self._kept_bytes > MEMORY_BYTES_MAX and len(self._kept) > 1):
            self._forget(next(iter(self._kept)))
        return kept

    def _forget(self, call: UUID) -> None:
        kept = self._kept.pop(call, None)
        if kept is not None:
            self._kept_bytes -= kept.counted_bytes

    # ------------------------------------------------------------------------------------------- reading from the log

    def _want(self, call: UUID, wanted: _Wanted) -> None:
        known = self._wanted.setdefault(call, wanted)
        if known is not wanted:
            known.seq = max(known.seq, wanted.seq)
            known.epoch, known.n = max((known.epoch, known.n), (wanted.epoch, wanted.n))
            known.since_s = min(known.since_s, wanted.since_s)
            known.final = known.final or wanted.final
            known.horizon = max(known.horizon, wanted.horizon) if known.horizon and wanted.horizon else None
            both = known.regions is not None and wanted.regions is not None
            known.regions = (known.regions or set()) | (wanted.regions or set()) if both else None
        while len(self._wanted) > WANTED_MAX:
            self._wanted.popitem(last=False)
        self._read_now.set()

    async def _read_worker(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            call = next((c for c in self._wanted if c not in self._reading), None)
            if call is None:
                self._read_now.clear()
                await either(self._read_now, stop, 5.0)
                continue
            wanted = self._wanted.pop(call)
            self._reading.add(call)
            try:
                await self._read(call, wanted)
            except FAILED as error:
                self._want(call, wanted)
                log.warning("tails.unread", calls=len(self._wanted), error=type(error).__name__)
                await wait_for_stop(stop, READ_RETRY_S)
            finally:
                self._reading.discard(call)

    async def _read(self, call: UUID, wanted: _Wanted) -> None:
        facts = (await self._facts.of([call])).get(call)
        if facts is None or facts.key is None:
            return
        kept = self._kept.get(call)
        before = kept.packed.tail if kept is not None else None
        known = before is not None and wanted.seq and before.seq >= wanted.seq
        if not known:
            horizon = None if wanted.seq else wanted.horizon or await self.log.horizon()
            found = await self.log.read(
                call, facts.key, before, up_to_seq=wanted.seq, horizon=horizon, now_ms=self._clock.now_ms()
            )
            if found is not None:
                newest = max((found.epoch, found.n), (wanted.epoch, wanted.n))
                tail = Tail(
                    call=found.call,
                    seq=found.seq,
                    epoch=newest[0],
                    n=newest[1],
                    turns=found.turns,
                    said_seq=found.said_seq,
                    at_ms=found.at_ms,
                )
                # what was folded here in the meantime is newer still
                now = self._kept.get(call)
                if now is None or now.packed.tail.seq < tail.seq:
                    newest_here = now.packed if now is not None else None
                    packed = pack(tail, newest_here, self._seal, final=wanted.final)
                    self._send(call, packed, facts, wanted.since_s, wanted.regions)
                    return
        now = self._kept.get(call)
        if now is not None:
            self._send(call, now.packed, facts, wanted.since_s, wanted.regions)

    def erase(self, calls: Iterable[UUID]) -> None:
        """Nothing of them stays in this instance's memory, or goes out from it."""
        for call in calls:
            self._forget(call)
            self._wanted.pop(call, None)
            self._facts.forget(call)
            for region in self.regions.values():
                region.forget(call)

    def erase_all(self) -> None:
        self.erase([*self._kept, *self._wanted])
        self._facts.forget_all()

    def mend(self, call: UUID, *, seq: int, regions: set[str], horizon: int | None) -> None:
        """These regions lack what the call's log had at `seq`: from memory where it is there, else from the log."""
        kept, now_s = self._kept.get(call), self._clock.monotonic_s()
        if kept is not None and kept.facts is not None and kept.packed.tail.seq >= seq:
            self._send(call, kept.packed, kept.facts, now_s, regions)
        else:
            self._facts.forget(call)
            self._want(call, _Wanted(since_s=now_s, regions=regions, horizon=horizon))

    @property
    def unread(self) -> int:
        """How many tails wait to be read from the log."""
        return len(self._wanted)
