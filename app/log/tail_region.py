"""One region's Valkey: tails on their way into it, and what stands in it.

Decides how tails are written (the newest of a call replaces one that waits; those that change no turn send the head alone;
a few at a time, so that a reader never waits long) and what happens while the region is away: they wait, bounded, the
oldest calls first to go. What is dropped, or lost by a Valkey that comes back empty, is mended from the log by `Tails`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
import redis.asyncio as redis
import structlog
from redis.exceptions import RedisError

from app.clock import Clock
from app.supervisor import wait_for_stop
from app.telemetry import (
    tail_lag_seconds,
    tail_oldest_waiting_seconds,
    tails_dropped_total,
    tails_waiting,
)
from regions.wire import ids
from regions.wire.keeping import Seal
from regions.wire.snapshot import (
    TAIL_BYTES_MAX,
    TURNS_MAX,
    Tail,
    TailHead,
    bounded,
    head_decoder,
    head_of,
    tail_key,
)

log = structlog.get_logger()

WAITING_MAX = 20_000
KEPT_S = 24 * 3600
KEPT_AFTER_END_S = 600
RETRY_S = 0.5
REFUSED_MAX = 20
ROUND_TAILS = 32
GROWN_TURNS_MAX = TURNS_MAX * 3 // 2
BUSY_TURN_S = 0.001
PAUSE_TURNS = 10
PAUSE_MAX_S = 0.05
ROUND_BYTES = 256 * 1024
LOOK_DEADLINE_S = 1.0
CLOSE_DEADLINE_S = 1.0

AWAY = (RedisError, OSError, TimeoutError)

STORED, OLDER, HEADLESS = 1, 0, -1
# Writes the tail unless one as new stands there. Without turns (ARGV[4] is empty) it replaces the head alone, and only where
# the turns that stand there are of the same said_seq; else it asks for all.
PUT_IF_NEWER = f"""
local there = redis.call('HMGET', KEYS[1], 'seq', 'said_seq')
if there[1] and tonumber(there[1]) >= tonumber(ARGV[1]) then return {OLDER} end
if ARGV[4] == '' then
  if there[2] ~= ARGV[2] then return {HEADLESS} end
  redis.call('HSET', KEYS[1], 'seq', ARGV[1], 'head', ARGV[3])
else
  redis.call('HSET', KEYS[1], 'seq', ARGV[1], 'said_seq', ARGV[2], 'head', ARGV[3], 'turns', ARGV[4])
end
redis.call('EXPIRE', KEYS[1], ARGV[5])
return {STORED}
"""


class Packed:
    """A tail as it is written: its turns cut, encoded and sealed once for all regions, and only when somebody wants them, for most
    tails are replaced before. `bytes_about`: how much memory it takes."""

    __slots__ = ("_seal", "_turns", "bytes_about", "final", "tail")

    def __init__(self, tail: Tail, turns: bytes | None, bytes_about: int, final: bool, seal: Seal) -> None:
        self.tail = tail
        self._seal = seal
        self._turns = turns
        self.bytes_about = bytes_about
        self.final = final

    @property
    def turns(self) -> bytes:
        return self._turns if self._turns is not None else self.cut()

    def cut(self) -> bytes:
        turns = bounded(self.tail.turns)
        self.tail = msgspec.structs.replace(self.tail, turns=turns)
        self._turns = self._seal(msgspec.json.encode(turns), tail_key(self.tail.call))
        self.bytes_about = len(self._turns)
        return self._turns

    @property
    def head(self) -> bytes:
        return msgspec.json.encode(head_of(self.tail))


def pack(
    tail: Tail, before: Packed | None, seal: Seal, *, final: bool = False, added_bytes: int = 0
) -> Packed:
    """`added_bytes`: about what came to `before`; what has grown well beyond what is kept is cut at once."""
    if before is not None and before.tail.turns is tail.turns:
        return Packed(tail, before._turns, before.bytes_about, final, seal)
    if before is None or not added_bytes:
        packed = Packed(tail, None, 0, final, seal)
    else:
        packed = Packed(tail, None, before.bytes_about + added_bytes, final, seal)
    if not packed.bytes_about or packed.bytes_about > 2 * TAIL_BYTES_MAX or len(tail.turns) > GROWN_TURNS_MAX:
        packed.cut()
    return packed


@dataclass(slots=True)
class _Waiting:
    """`since_s`: since when the region has lacked an event of this call. `refused`: how often the region said no to it alone."""

    packed: Packed
    since_s: float
    refused: int = 0


class TailRegion:
    def __init__(self, region: str, url: str, clock: Clock, on_loss: Callable[[], None]) -> None:
        self.region = region
        self._clock = clock
        self._client = redis.from_url(url, socket_timeout=LOOK_DEADLINE_S, socket_connect_timeout=1.0)
        self._due: OrderedDict[UUID, _Waiting] = OrderedDict()
        self._said: OrderedDict[UUID, int] = OrderedDict()
        self._wake = asyncio.Event()
        self._on_loss = on_loss
        self._lag = tail_lag_seconds.labels(region)
        self.away = False

    def put(self, call: UUID, packed: Packed, since_s: float) -> None:
        """Never blocks. A newer tail takes the place of one that waits."""
        waiting = self._due.get(call)
        if waiting is None:
            self._due[call] = _Waiting(packed, since_s)
            while len(self._due) > WAITING_MAX:
                self._due.popitem(last=False)
                tails_dropped_total.labels(self.region).inc()
        elif packed.tail.seq > waiting.packed.tail.seq:
            waiting.packed = packed
        self._wake.set()

    def forget(self, call: UUID) -> None:
        self._due.pop(call, None)
        self._said.pop(call, None)

    @property
    def waiting(self) -> int:
        return len(self._due)

    # ------------------------------------------------------------------------------------------------ what is there

    async def seqs(self, calls: Iterable[UUID]) -> list[int]:
        """Where each call's tail stands, 0 where there is none. Raises one of `AWAY`."""
        async with asyncio.timeout(LOOK_DEADLINE_S), self._client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.hget(tail_key(ids.encode(ids.CALL, call)), "seq")
            found: list[Any] = await pipe.execute()
        return [int(f) if f is not None else 0 for f in found]

    async def head(self, call: UUID) -> TailHead | None:
        """Raises one of `AWAY`."""
        async with asyncio.timeout(LOOK_DEADLINE_S):
            found = await self._client.hget(tail_key(ids.encode(ids.CALL, call)), "head")
        return head_decoder.decode(found) if found is not None else None

    # ------------------------------------------------------------------------------------------------------ writing

    async def worker(self, stop: asyncio.Event) -> None:
        try:
            while not stop.is_set():
                self._measure()
                if not self._due:
                    self._wake.clear()
                    await either(self._wake, stop)
                    continue
                if not await self._write_some():
                    await wait_for_stop(stop, RETRY_S)
                elif self._due:
                    await self._let_others_go_first()
        finally:
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                await self._client.aclose()

    async def _let_others_go_first(self) -> None:
        """Where this instance has its hands full (a turn of its loop takes long), tails wait, and newer ones replace them."""
        began_s = self._clock.monotonic_s()
        await asyncio.sleep(0)
        turn_s = self._clock.monotonic_s() - began_s
        if turn_s > BUSY_TURN_S:
            await asyncio.sleep(min(PAUSE_TURNS * turn_s, PAUSE_MAX_S))

    def _measure(self) -> None:
        tails_waiting.labels(self.region).set(len(self._due))
        oldest = next(iter(self._due.values()), None)
        behind_s = self._clock.monotonic_s() - oldest.since_s if oldest is not None else 0.0
        tail_oldest_waiting_seconds.labels(self.region).set(behind_s)

    async def _write_some(self) -> bool:
        """One round trip's worth; False where the region is away: it does not answer, or takes nothing (its memory is full, its disk,
        or it is somebody's replica). What it refuses then is no fault of the tail's, which waits."""
        batch = self._take()
        try:
            async with asyncio.timeout(LOOK_DEADLINE_S), self._client.pipeline(transaction=False) as pipe:
                for call, waiting in batch:
                    self._write(pipe, call, waiting.packed)
                answers: list[Any] = await pipe.execute(raise_on_error=False)
        except AWAY as error:
            answers = [error] * len(batch)
        failed = next((a for a in answers if isinstance(a, Exception)), None)
        takes = STORED in answers
        for (_, waiting), answer in zip(batch, answers, strict=True):
            waiting.refused += takes and isinstance(answer, Exception)
        for (call, waiting), answer in zip(batch, answers, strict=True):
            self._settle(call, waiting, answer)
        if takes or failed is None:
            if self.away:
                log.info("tails.back", region=self.region, waiting=len(self._due))
                self._on_loss()
            self.away = False
            return True
        if not self.away:
            log.warning("tails.away", region=self.region, waiting=len(self._due), error=type(failed).__name__)
        self.away = True
        self._said.clear()
        return False

    def _take(self) -> list[tuple[UUID, _Waiting]]:
        batch: list[tuple[UUID, _Waiting]] = []
        size = 0
        while self._due and len(batch) < ROUND_TAILS and size < ROUND_BYTES:
            call, waiting = self._due.popitem(last=False)
            batch.append((call, waiting))
            if not self._head_is_enough(call, waiting.packed):
                size += len(waiting.packed.turns)
        return batch

    def _head_is_enough(self, call: UUID, packed: Packed) -> bool:
        return self._said.get(call) == packed.tail.said_seq

    def _write(self, pipe: Any, call: UUID, packed: Packed) -> None:
        tail = packed.tail
        kept_s = KEPT_AFTER_END_S if packed.final else KEPT_S
        turns = b"" if self._head_is_enough(call, packed) else packed.turns
        pipe.eval(
            PUT_IF_NEWER,
            1,
            tail_key(tail.call),
            str(tail.seq),
            str(tail.said_seq),
            packed.head,
            turns,
            kept_s,
        )

    def _settle(self, call: UUID, waiting: _Waiting, answer: Any) -> None:
        if answer == STORED:
            self._lag.observe(self._clock.monotonic_s() - waiting.since_s)
            self._said[call] = waiting.packed.tail.said_seq
            self._said.move_to_end(call)
            while len(self._said) > WAITING_MAX:
                self._said.popitem(last=False)
            return
        self._said.pop(call, None)
        if answer == OLDER:
            return
        if waiting.refused >= REFUSED_MAX:
            tails_dropped_total.labels(self.region).inc()
            return
        newer = self._due.setdefault(call, waiting)
        newer.since_s = min(newer.since_s, waiting.since_s)
        if answer == HEADLESS:
            # what this instance had written is gone, or another one has written since
            self._on_loss()


async def either(wake: asyncio.Event, stop: asyncio.Event, timeout_s: float | None = None) -> None:
    """Until one of them is set, or `timeout_s` has passed."""
    waits = [asyncio.ensure_future(wake.wait()), asyncio.ensure_future(stop.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=timeout_s)
    finally:
        for wait in waits:
            wait.cancel()
