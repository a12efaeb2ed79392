"""The load: many short calls at once, begun again until time is up, each with its caller's own view of it.

Decides how calls begin, what their callers do and how they end. A line of calls hands over: the next call stands before the
one before it is ended, so that there are as many calls at all times as there are lines, whatever happens meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from tests.chaos.history import Call
from voxplane import ApiError, AsyncCaller, AsyncClient, CallLost, CallRefused, Unavailable

RATE_HZ = 8_000
LASTS_S = (5.0, 25.0)
ACTS_EVERY_S = (1.0, 4.0)
DIGITS = "0123456789*#ABCD"
BURST_MAX = 4
TONE = bytes([0x10, 0x90]) * 80
"""20 ms of mu-law that an edge takes for speech."""
AGAIN_S = 0.3
LONGEST_KEPT = 4
REGIONS = ("us-east", "eu-west", "ap-south")
ENDS = ("hangup", "hangup", "hangup", "hangup", "hangup", "hangup", "hangup", "api", "vanish", "agent")
NEVER_ATTACHED = 0.03


class Listening(AsyncCaller):
    """A caller that keeps every acknowledgement it is told."""

    def __init__(self, ticket: str, *, kept: Call, client: AsyncClient) -> None:
        super().__init__(ticket, encoding="mulaw", sample_rate=RATE_HZ, client=client)
        self._kept = kept
        self.api = client

    def _received(self, link: Any, raw: str | bytes) -> None:
        if isinstance(raw, str) and raw.startswith('{"type":"acked"'):
            acked = json.loads(raw)
            self._kept.acked.append((acked["epoch"], acked["n"]))
        super()._received(link, raw)


@dataclass(slots=True)
class Counts:
    """`gaps_s`: from the last sign of the old owner to the first of the new one, per failover that succeeded."""

    calls: int = 0
    failovers: int = 0
    gaps_s: list[float] = field(default_factory=list)
    longest: list[tuple[float, str]] = field(default_factory=list)
    """The longest gaps, and what they were."""
    refused: int = 0
    lost: int = 0
    creates_repeated: int = 0
    at_once: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Standing:
    """A call with its caller."""

    kept: Call
    caller: Listening
    until_s: float
    end: str


class Load:
    """`agents`: the backend's URLs; each call is given one."""

    def __init__(self, urls: list[str], key: str, agents: list[str], seed: int, lines: int) -> None:
        self._urls, self._key, self._agents = urls, key, agents
        self._seed, self._lines = seed, lines
        self._number = 0
        self._attached: dict[str, Listening] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None
        """The first fault of the load itself: what it was to see was not seen."""
        self._stop = asyncio.Event()
        self._began_s = time.monotonic()
        self.calls: dict[str, Call] = {}
        """By id: every call that a create has answered."""
        self.counts = Counts()

    @property
    def live(self) -> list[str]:
        """The ids of the calls that stand."""
        return [call for call, caller in self._attached.items() if not caller.over]

    async def run(self) -> None:
        """Until `stop`; returns once the last call has been ended by its caller."""
        lines = [asyncio.create_task(self._line(i)) for i in range(self._lines)]
        watching = asyncio.create_task(self._count())
        try:
            await asyncio.gather(*lines)
            while self._ending:
                await asyncio.wait(set(self._ending))
            if self._broken is not None:
                raise self._broken
        finally:
            for task in (watching, *lines, *self._ending):
                task.cancel()
            await asyncio.gather(watching, *lines, *self._ending, return_exceptions=True)

    def stop(self) -> None:
        self._stop.set()

    async def _count(self) -> None:
        """From the moment on that all lines stand."""
        full = False
        while True:
            await asyncio.sleep(0.5)
            at_once = len(self.live)
            full = full or at_once >= self._lines
            if full and not self._stop.is_set():
                self.counts.at_once.append(at_once)

    async def _line(self, number: int) -> None:
        chance = random.Random(f"{self._seed}:{number}")
        current: Standing | None = None
        async with AsyncClient(_turned(self._urls, number), self._key) as client:
            try:
                while not self._stop.is_set():
                    following = await self._begin(client, chance)
                    if following is None:
                        await asyncio.sleep(AGAIN_S)
                        continue
                    if current is not None:
                        self._leave(current)
                    current = following
                    await self._carry(current, chance)
                if current is not None:
                    self._leave(current)
                while self._ending:
                    # they use this client
                    await asyncio.wait(set(self._ending))
            except asyncio.CancelledError:
                if current is not None:
                    await current.caller.close()
                raise

    async def _begin(self, client: AsyncClient, chance: random.Random) -> Standing | None:
        """A call that stands, or None where it came to nothing."""
        self._number += 1
        name, end = f"c{self._number}", chance.choice(ENDS)
        parameters = {"load": name}
        if end == "agent":
            parameters["hang_up_after_s"] = str(round(chance.uniform(*LASTS_S)))
        created = await self._create(client, chance, name, parameters)
        if created is None:
            return None
        kept = self.calls[created["id"]] = Call(created["id"], name)
        self.counts.calls += 1
        if chance.random() < NEVER_ATTACHED:
            return None
        caller = Listening(created["ticket"], kept=kept, client=client)
        try:
            await caller.__aenter__()
        except (CallRefused, CallLost):
            self.counts.refused += 1
            return None
        self._attached[kept.id] = caller
        lasts_s = 3600.0 if end == "agent" else chance.uniform(*LASTS_S)
        return Standing(kept, caller, time.monotonic() + lasts_s, end)

    async def _create(
        self, client: AsyncClient, chance: random.Random, name: str, parameters: dict[str, str]
    ) -> dict[str, Any] | None:
        """Sent under one key until there is an answer; None once time is up."""
        key = str(uuid4())
        latencies = [{"region": r, "rtt_ms": chance.choice((10, 40, 150))} for r in REGIONS]
        agent = {"url": chance.choice(self._agents), "parameters": parameters}
        while True:
            try:
                return await client.create_call(
                    agent,
                    latencies=latencies,
                    metadata={"name": name},
                    max_duration_s=120,
                    idempotency_key=key,
                )
            except (ApiError, Unavailable):
                self.counts.creates_repeated += 1
                if self._stop.is_set():
                    return None
                await asyncio.sleep(AGAIN_S)

    async def _carry(self, standing: Standing, chance: random.Random) -> None:
        """The caller's part of the call, until its time is up or it is over."""
        caller, kept = standing.caller, standing.kept
        hearing = asyncio.create_task(_hear(caller))
        try:
            while time.monotonic() < standing.until_s and not caller.over and not self._stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), chance.uniform(*ACTS_EVERY_S))
                if chance.random() < 0.7:
                    for _ in range(chance.randint(1, BURST_MAX)):
                        digit = DIGITS[len(kept.pressed) % len(DIGITS)]
                        kept.pressed += digit
                        await caller.dtmf(digit)
                else:
                    for _ in range(chance.randint(2, 8)):
                        await caller.send(TONE)
        finally:
            hearing.cancel()

    def _leave(self, standing: Standing) -> None:
        task = asyncio.create_task(self._finish(standing))
        self._ending.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        error = None if task.cancelled() else task.exception()
        self._broken = self._broken or error

    async def _finish(self, standing: Standing) -> None:
        caller, kept = standing.caller, standing.kept
        try:
            if not caller.over:
                await self._end(standing)
        finally:
            await caller.close()
            self._attached.pop(kept.id, None)
            self._count_gaps(caller)

    async def _end(self, standing: Standing) -> None:
        caller, kept = standing.caller, standing.kept
        match standing.end:
            case "api":
                with contextlib.suppress(ApiError, Unavailable):
                    kept.ends_seen.append((await caller.api.end_call(kept.id))["end_reason"])
            case "vanish":
                return
            case _:
                await caller.hangup()

    def _count_gaps(self, caller: Listening) -> None:
        self.counts.lost += caller.lost
        for gap in caller.gaps:
            self.counts.failovers += 1
            if gap.attached_at_s is not None:
                silent_s = 0.5 if gap.reason == "silent" else 0.0
                gap_s = gap.attached_at_s - gap.lost_at_s + silent_s
                self.counts.gaps_s.append(gap_s)
                at_s = gap.lost_at_s - self._began_s
                what = f"{caller.call_id} {gap.reason}, epoch {gap.from_epoch} to {gap.to_epoch}"
                self.counts.longest = sorted(
                    [*self.counts.longest, (gap_s, f"at {at_s:.1f} s, {what}")], reverse=True
                )[:LONGEST_KEPT]


async def _hear(caller: Listening) -> None:
    async for _ in caller.frames():
        continue


def _turned(urls: list[str], number: int) -> list[str]:
    """Each line asks another instance first."""
    turn = number % len(urls)
    return urls[turn:] + urls[:turn]
