"""A process of its own that is an edge as far as its uplink goes: ``python -m tests.bench.uplink_load API_URL REGION FOLDER``.

The first line of its input, ``{"token": …}``, enrols it. It registers, says hello, prints its edge id, and from then on sends a
heartbeat a second. A line ``{"calls": […]}`` names its calls, a line ``{"exchanges": k}`` has every call write `k`
exchanges; it prints how many events were acknowledged as durable and in how many seconds. Frames are encoded beforehand.
A line ``{"per_s": r, "seconds": s}`` has events happen at that rate, one by one and round the calls; what has happened goes out
as soon as a batch may (`regions.edge.pacing`), and each event bears the time at which it happened.

It keeps the limits of the real client: four batches under way, at most 1,000 events in one, a call in one at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import uvloop
from websockets.asyncio.client import ClientConnection, connect

from regions.edge.identity import Identity
from regions.edge.pacing import Pace
from regions.wire import ids
from regions.wire.events import EdgeEvent
from regions.wire.uplink import (
    BATCHES_IN_FLIGHT_MAX,
    CALLS_PER_BATCH_MAX,
    EVENTS_PER_BATCH_MAX,
    FRAME_BYTES_MAX,
    Ack,
    CallEvents,
    EdgeListeners,
    Events,
    Heartbeat,
    Hello,
    Load,
    RegisterRequest,
    Welcome,
    to_edge_decoder,
)
from tests.bench.support import say, stdin
from tests.bench.talk import exchange, written

CAPACITY = 100_000
DEADLINE_S = 30.0
TICK_S = 0.004


def new_event_id() -> str:
    return ids.encode(ids.EVENT, ids.uuid7(time.time_ns() // 1_000_000, int.from_bytes(os.urandom(8), "big")))


def happening(n: int, said: tuple[str, dict[str, object]]) -> EdgeEvent:
    data = msgspec.Raw(msgspec.json.encode(said[1]))
    return EdgeEvent(n=n, id=new_event_id(), type=said[0], at_ms=time.time_ns() // 1_000_000, data=data)


@dataclass(slots=True)
class Writer:
    """The calls in lanes: those of one lane are always in the same batch. `exchanges`: so far; `single`: events of each call that
    happened one by one since."""

    socket: ClientConnection
    lanes: list[list[str]] = field(default_factory=list)
    exchanges: int = 0
    single: int = 0
    batch: int = 0
    acks: asyncio.Queue[Ack] = field(default_factory=asyncio.Queue)

    def take(self, calls: list[str]) -> None:
        per_lane = EVENTS_PER_BATCH_MAX // len(exchange(0))
        self.exchanges = self.single = 0
        self.lanes = [calls[i : i + per_lane] for i in range(0, len(calls), per_lane)]

    async def write(self, exchanges: int) -> tuple[int, float]:
        """(events that are durable, seconds)."""
        due = [deque(self._frames(lane, exchanges)) for lane in self.lanes]
        self.exchanges += exchanges
        lane_of: dict[int, deque[tuple[int, str]]] = {}
        idle = deque(due)
        durable = 0
        began = time.perf_counter()
        while idle or lane_of:
            while idle and len(lane_of) < BATCHES_IN_FLIGHT_MAX:
                lane = idle.popleft()
                number, text = lane.popleft()
                lane_of[number] = lane
                await self.socket.send(text)
            ack = await self.acks.get()
            lane = lane_of.pop(ack.batch)
            if any(r.status != "durable" for r in ack.results):
                raise SystemExit(f"not durable: {next(r for r in ack.results if r.status != 'durable')}")
            durable += len(ack.results) * len(exchange(0))
            if lane:
                idle.append(lane)
        return durable, time.perf_counter() - began

    async def write_paced(self, per_s: int, seconds: float) -> tuple[int, float]:
        """(events that are durable, seconds until the last of them was): as many of each call. No exchanges may follow."""
        calls = [call for lane in self.lanes for call in lane]
        said = exchange(self.exchanges)
        first_n = self.exchanges * len(said) + self.single + 1
        waiting: dict[str, list[EdgeEvent]] = {}
        under_way: dict[int, tuple[list[str], float]] = {}
        pace = Pace()
        happened = durable = 0
        began = time.perf_counter()
        while durable < int(per_s * seconds):
            due = int(per_s * min(time.perf_counter() - began, seconds)) - happened
            for _ in range(due):
                call = calls[happened % len(calls)]
                n, happened = first_n + happened // len(calls), happened + 1
                waiting.setdefault(call, []).append(happening(n, said[(n - 1) % len(said)]))
            away = {call for batch, _ in under_way.values() for call in batch}
            ready = [call for call in waiting if call not in away][:CALLS_PER_BATCH_MAX]
            now_s = time.perf_counter()
            may_go = len(under_way) < BATCHES_IN_FLIGHT_MAX and not pace.wait_s(now_s, len(under_way))
            if ready and may_go:
                pace.sent(now_s, full=len(ready) == CALLS_PER_BATCH_MAX)
                self.batch += 1
                under_way[self.batch] = ready, now_s
                runs = [CallEvents(call=call, epoch=1, events=waiting.pop(call)) for call in ready]
                await self.socket.send(msgspec.json.encode(Events(batch=self.batch, calls=runs)).decode())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    ack = await self.acks.get()
                durable += sum(r.stored for r in ack.results)
                if any(r.status != "durable" for r in ack.results):
                    raise SystemExit(f"not durable: {ack.results}")
                _, sent_s = under_way.pop(ack.batch)
                pace.answered(time.perf_counter() - sent_s)
        self.single += happened // len(calls)
        return durable, time.perf_counter() - began

    def _frames(self, lane: list[str], exchanges: int) -> list[tuple[int, str]]:
        frames = []
        for number in range(self.exchanges, self.exchanges + exchanges):
            self.batch += 1
            at_ms = time.time_ns() // 1_000_000
            runs = [
                CallEvents(call=call, epoch=1, events=written(number, at_ms=at_ms, new_event_id=new_event_id))
                for call in lane
            ]
            text = msgspec.json.encode(Events(batch=self.batch, calls=runs)).decode()
            assert len(text) <= FRAME_BYTES_MAX
            frames.append((self.batch, text))
        return frames


async def main(api_url: str, region: str, folder: Path) -> None:
    identity = Identity(folder)
    commands = await stdin()
    await register(api_url, region, identity, json.loads(await commands.readline())["token"])
    url = api_url.replace("http", "ws", 1) + "/edge/v1/uplink"
    headers = {"Authorization": f"Bearer {identity.token(region)}"}
    async with connect(
        url, additional_headers=headers, ping_interval=None, compression=None, proxy=None, max_size=4 << 20
    ) as socket:
        writer = Writer(socket)
        load = Load(calls=0, capacity_calls=CAPACITY)
        hello = Hello(incarnation=identity.incarnation, desired_version=0, load=load)
        await socket.send(msgspec.json.encode(hello).decode())
        if not isinstance(to_edge_decoder.decode(await socket.recv()), Welcome):
            raise SystemExit("the control plane does not welcome this edge")
        tasks = [asyncio.create_task(beat(socket, load)), asyncio.create_task(hear(socket, writer))]
        say({"edge": identity.edge_id})
        while line := await commands.readline():
            command = json.loads(line)
            if "calls" in command:
                writer.take(command["calls"])
                continue
            async with asyncio.timeout(DEADLINE_S):
                if "per_s" in command:
                    events, seconds = await writer.write_paced(command["per_s"], command["seconds"])
                else:
                    events, seconds = await writer.write(command["exchanges"])
            say({"events": events, "seconds": seconds})
        for task in tasks:
            task.cancel()


async def register(api_url: str, region: str, identity: Identity, token: str) -> None:
    body = RegisterRequest(
        name="scripted",
        region=region,
        incarnation=identity.incarnation,
        listeners=EdgeListeners(media_url="ws://127.0.0.1:9", http_url="http://127.0.0.1:9"),
        capacity_calls=CAPACITY,
        public_key=identity.public_key,
    )
    async with httpx.AsyncClient(base_url=api_url, trust_env=False) as client:
        answer = await client.post(
            "/edge/v1/register",
            content=msgspec.json.encode(body),
            headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
        )
    answer.raise_for_status()
    identity.registered(answer.json()["edge_id"])


async def beat(socket: ClientConnection, load: Load) -> None:
    while True:
        await asyncio.sleep(1.0)
        await socket.send(
            msgspec.json.encode(Heartbeat(at_ms=time.time_ns() // 1_000_000, load=load)).decode()
        )


async def hear(socket: ClientConnection, writer: Writer) -> None:
    async for text in socket:
        message = to_edge_decoder.decode(text)
        if isinstance(message, Ack):
            writer.acks.put_nowait(message)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
