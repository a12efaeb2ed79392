"""``python -m tests.chaos.feed_cuts``: readers of feeds are cut at random, and each must have had every event once, in order.

Writers keep transactions open for random times, so that events commit late and out of order, and roll some back. Instances are
killed. Every reader comes back with the last cursor it has, to any instance, over server-sent events or the WebSocket. At the end
what each was given is compared with the log itself, in the order of the feed. ``READERS`` (1000), ``SECONDS`` (60), ``KILLS``
(4), ``SEED``. Exit code 1 where a reader missed an event, or had one twice or out of order.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import secrets
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import httpx
import uvloop
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from app.ids import new_id
from app.local.deployment import PLACES, Deployment
from app.local.folder import temporary_folder
from regions.wire import ids
from voxplane import AsyncClient

WRITE = "select status from vx.append_control($1, $2, 'control', $3, $4, 'speech.started', $5, $6, null, '')"
SELECT_CALLS = "select id from vx.calls where project_id = $1"
SELECT_TRUTH = "select id, feed_xid from vx.events where project_id = $1 order by feed_xid, call_id, seq"
WRITERS = 8
CALLS_EACH = 4
ROLLED_BACK = 0.1
SLOW = 0.1
"""Share of the transactions that stay open for up to `SLOW_S`; the others for up to 20 ms."""
SLOW_S = 0.8
WEBSOCKETS = 0.2
AGAIN_S = 0.2
SETTLE_WITHIN_S = 90.0
AWAY = (OSError, TimeoutError, WebSocketException, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


class Cut(Exception):
    """The reader's own doing."""


@dataclass(slots=True)
class Reader:
    """`seen`: ids of events, in the order in which they came."""

    project: UUID
    key: str
    cursor: str
    over_socket: bool
    seen: list[str] = field(default_factory=list)
    cuts: int = 0
    refused: str = ""

    async def run(self, urls: list[str], chance: random.Random, mean_s: float, stop: asyncio.Event) -> None:
        """Until told: connects, reads, is cut."""
        while not self.refused:
            url = urlsplit(chance.choice(urls))
            for_s = None if stop.is_set() else chance.expovariate(1 / mean_s)
            try:
                async with asyncio.timeout(for_s):
                    await (self._socket(url.port or 0) if self.over_socket else self._stream(url.port or 0))
            except AWAY:
                pass
            self.cuts += 1
            await asyncio.sleep(AGAIN_S * chance.random())

    async def _stream(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 18)
        try:
            head = (
                "GET /v1/events/stream HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Bearer {self.key}\r\nLast-Event-ID: {self.cursor}\r\n\r\n"
            )
            writer.write(head.encode())
            status = await reader.readline()
            if status and not status.startswith(b"HTTP/1.1 200"):
                self._look_at(int(status.split()[1]), await reader.read(2_000))
                return
            cursor, event = "", ""
            while line := await reader.readline():
                if line.startswith(b"id: "):
                    cursor = line[4:].strip().decode()
                elif line.startswith(b"data: "):
                    event = json.loads(line[6:])["id"]
                elif line == b"\n" and cursor:
                    # a block counts when it is complete
                    if event:
                        self.seen.append(event)
                    self.cursor, cursor, event = cursor, "", ""
        finally:
            writer.transport.abort()

    def _look_at(self, status: int, body: bytes) -> None:
        if status < 500 and status != 429:
            self.refused = f"{status} {body[-400:]!r}"

    async def _socket(self, port: int) -> None:
        headers = {"Authorization": f"Bearer {self.key}"}
        url = f"ws://127.0.0.1:{port}/v1/events/ws"
        async with connect(url, additional_headers=headers, proxy=None, compression=None) as socket:
            try:
                await socket.send(json.dumps({"type": "subscribe", "cursor": self.cursor, "window": 16}))
                async for text in socket:
                    message = json.loads(text)
                    if message["type"] == "event":
                        self.seen.append(message["event"]["id"])
                        self.cursor = message["cursor"]
                        await socket.send(json.dumps({"type": "ack", "cursor": self.cursor}))
                    elif message["type"] == "problem":
                        self._look_at(message["problem"]["status"], text[:400])
            finally:
                socket.transport.abort()


@dataclass(slots=True)
class Verdict:
    readers: int
    events: int
    heard: int
    cuts: int
    kills: int
    faults: list[str]

    def line(self) -> str:
        return (
            f"{self.readers} readers, {self.events} events in the log, {self.heard} heard, {self.cuts} connections, "
            f"{self.kills} instances killed: {len(self.faults)} faults"
        )


async def prove(
    deployment: Deployment,
    *,
    readers: int,
    projects: int,
    seconds: float,
    kills: int,
    mean_s: float,
    seed: int,
) -> Verdict:
    chance = random.Random(seed)
    pool = await asyncpg.create_pool(deployment.database_url, min_size=1, max_size=WRITERS + 1)
    stop, written = asyncio.Event(), asyncio.Event()
    try:
        made = [await _project(deployment, pool, n) for n in range(projects)]
        calls = {project: await pool.fetch(SELECT_CALLS, project) for project, _, _ in made}
        everyone = [
            Reader(*made[n % projects], over_socket=chance.random() < WEBSOCKETS) for n in range(readers)
        ]
        reading = [
            asyncio.create_task(r.run(deployment.api_urls, random.Random(chance.random()), mean_s, stop))
            for r in everyone
        ]
        writing = [
            asyncio.create_task(_write(pool, calls, random.Random(chance.random()), written)) for _ in range(WRITERS)
        ]  # fmt: skip
        for n in range(kills + 1):
            await asyncio.sleep(seconds / (kills + 1))
            if n == kills:
                break
            victim = chance.choice(deployment.apis)
            os.kill(victim.pid, signal.SIGKILL)
            victim.wait()
            await deployment.mend()
        written.set()
        await asyncio.gather(*writing)
        stop.set()
        truth = {
            project: [ids.encode(ids.EVENT, r["id"]) for r in await pool.fetch(SELECT_TRUTH, project)]
            for project in calls
        }
        await _settle(everyone, truth)
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
    finally:
        pool.terminate()
    faults = [fault for r in everyone for fault in _faults(r, truth[r.project])]
    heard, events = sum(len(r.seen) for r in everyone), sum(map(len, truth.values()))
    return Verdict(readers, events, heard, sum(r.cuts for r in everyone), kills, faults)


async def _project(deployment: Deployment, pool: asyncpg.Pool, n: int) -> tuple[UUID, str, str]:
    """Its id, a key, and the cursor of the beginning, which is asked for while it has no event."""
    name, key = await deployment.create_project(f"feed {n}")
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=deployment.api_urls[0], headers=headers, trust_env=False) as http:
        cursor = (await http.get("/v1/events")).json()["next_cursor"]
    async with AsyncClient(deployment.api_urls, key) as client:
        for _ in range(CALLS_EACH):
            await client.create_call("ws://127.0.0.1:9/")
    return ids.decode(ids.PROJECT, name), key, cursor


async def _write(
    pool: asyncpg.Pool, calls: dict[UUID, list[asyncpg.Record]], chance: random.Random, stop: asyncio.Event
) -> None:
    """Transactions of one to three calls of a project, that commit after a while, or not at all."""
    while not stop.is_set():
        project = chance.choice(list(calls))
        chosen = sorted(row["id"] for row in chance.sample(calls[project], chance.randint(1, 3)))
        async with pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            for call in chosen:
                await connection.execute(
                    WRITE, project, call, f"proof:{uuid4()}", new_id(), datetime.now(UTC), '{"offset_ms": 1, "barge_in": false}'
                )  # fmt: skip
                await asyncio.sleep(0.02 * chance.random())
            if chance.random() < SLOW:
                await asyncio.sleep(SLOW_S * chance.random())
            await (transaction.rollback() if chance.random() < ROLLED_BACK else transaction.commit())
        await asyncio.sleep(0.03 * chance.random())


async def _settle(readers: list[Reader], truth: dict[UUID, list[str]]) -> None:
    deadline_s = time.monotonic() + SETTLE_WITHIN_S
    while time.monotonic() < deadline_s:
        if all(r.refused or (r.seen and r.seen[-1] == truth[r.project][-1]) for r in readers):
            return
        await asyncio.sleep(0.1)


def _faults(reader: Reader, truth: list[str]) -> list[str]:
    if reader.refused:
        return [f"refused: {reader.refused}"]
    if reader.seen == truth:
        return []
    missed, twice = len(set(truth) - set(reader.seen)), len(reader.seen) - len(set(reader.seen))
    way = "WebSocket" if reader.over_socket else "stream"
    return [f"a {way} of {len(truth)} events missed {missed}, had {twice} twice, or had them out of order"]


async def main() -> int:
    readers, seconds = int(os.environ.get("READERS") or 1_000), float(os.environ.get("SECONDS") or 60)
    kills, seed = (
        int(os.environ.get("KILLS") or 4),
        int(os.environ.get("SEED") or secrets.randbelow(1_000_000)),
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 3 * readers)), hard))
    print(f"seed {seed}", flush=True)
    folder = temporary_folder("voxplane-feed-cuts")
    try:
        async with Deployment(folder, places=PLACES[:1], instances=2, fsync=False) as deployment:
            verdict = await prove(
                deployment, readers=readers, projects=20, seconds=seconds, kills=kills, mean_s=10.0, seed=seed
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(verdict.line())
    for fault in verdict.faults[:20]:
        print(" ", fault)
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
