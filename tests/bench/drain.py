"""What a planned move costs a caller, and how soon a region is empty.

``lost_frames``: 40 calls with real edges, in which every 20 ms frame says which one it is; a region is drained in the middle, and
what is missing afterwards is counted, in both directions. ``drain_1000``: 1,000 calls that have no media, on edges that are the
real uplink with nothing behind it, and callers that take up to 200 ms to prepare; from the command until the last has left.
What is measured there is the control plane: rounds, grants, tickets, commands, the events of the moves.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from app.local.deployment import Deployment
from regions.edge.identity import Identity
from regions.edge.keyring import Keyring
from regions.edge.main import new_event_id
from regions.edge.outbox import Outbox
from regions.edge.registration import register
from regions.edge.settings import EdgeSettings
from regions.edge.uplink import Uplink
from regions.wire.uplink import UPLINK_PATH, AppendStatus, EdgeListeners, Held, Load
from tests.bench.report import Figure
from tests.bench.support import deployed
from tests.support.numbered import NumberedBackend, NumberedCaller
from voxplane import AsyncCaller, AsyncClient

AUDIO_CALLS = 40
CALLS = 1_000
CREATES_AT_ONCE = 16
TALK_S = 3.0
WITHIN_S = 120.0
PREPARE_S = 0.2
CAPACITY = 2_000


async def measure_drains(*, full: bool) -> list[Figure]:
    lost = await lost_frames()
    figures = [
        Figure(family="failover", name="failover.drain_lost_frames_max", value=max(lost), unit="frames",
               how=f"{AUDIO_CALLS} audio calls, one region of two drained; {sum(n > 0 for n in lost)} calls lost any",
               target=1.0, at_most=True),
    ]  # fmt: skip
    if full:
        how = f"{CALLS} calls without media on scripted edges, two instances"
        figures.append(
            Figure(family="failover", name="failover.drain_1000_s", value=await drain_1000(), unit="s",
                   how=how, target=60.0, at_most=True)
        )  # fmt: skip
    return figures


# ------------------------------------------------------------------------------------------------------ 40 audio calls


async def lost_frames() -> list[int]:
    """Per call, the frames lost in the worse direction."""
    async with (
        deployed(regions=2, capacity_calls=2 * AUDIO_CALLS) as deployment,
        NumberedBackend().run() as backend,
    ):
        _, key = await deployment.create_project("bench")
        async with (
            AsyncClient(deployment.api_urls, key) as client,
            deployment.operator() as operator,
            AsyncExitStack() as stack,
        ):
            ends: list[NumberedCaller] = []
            for _ in range(AUDIO_CALLS):
                call = await client.create_call(backend.url, regions={"pin": "us-east"})
                caller = await stack.enter_async_context(
                    AsyncCaller(call["ticket"], encoding="mulaw", sample_rate=8_000, client=client)
                )
                ends.append(NumberedCaller(caller, backend.calls[call["id"]]))
                ends[-1].start()
                stack.push_async_callback(ends[-1].stop)
            await asyncio.sleep(TALK_S)
            (await operator.post("/admin/v1/regions/us-east/drain", json={"within_s": 60})).raise_for_status()
            await drained(operator, "us-east")
            await asyncio.sleep(TALK_S)
            return [max(len(e.lost_up), len(e.lost_down)) for e in ends]


async def drained(operator: Any, region: str) -> None:
    async with asyncio.timeout(WITHIN_S):
        while (await operator.get(f"/admin/v1/regions/{region}/drain")).json()["state"] != "drained":
            await asyncio.sleep(0.05)


# ---------------------------------------------------------------------------------------------- 1,000 calls, no media


class Call:
    """As much of a session as an uplink sees."""

    def __init__(self, call: str, epoch: int) -> None:
        self.call, self.epoch, self.outbox = call, epoch, Outbox(call, epoch)

    def write(self, type_: str, **data: object) -> None:
        self.outbox.add(
            id=new_event_id(), type=type_, at_ms=time.time_ns() // 1_000_000, data=json.dumps(data).encode()
        )

    def settled(self, status: AppendStatus) -> None:
        if status.status == "durable":
            self.outbox.acknowledge(status.durable_n)
        elif status.status in ("busy", "gap"):
            self.outbox.send_again()
        else:
            self.outbox.close()


class ScriptedEdge:
    """The real uplink; its calls have no media, and a caller that is asked to move does so a little later."""

    def __init__(self, region: str, fleet: dict[str, ScriptedEdge]) -> None:
        self.region, self.fleet = region, fleet
        self.owned: dict[tuple[str, int], Call] = {}
        self.uplink: Uplink
        self.moving: set[asyncio.Task[None]] = set()
        self.most = 0

    def own(self, call: str, epoch: int, type_: str, **data: object) -> None:
        session = self.owned[call, epoch] = Call(call, epoch)
        session.write(type_, **data)
        self.most = max(self.most, len(self.owned))
        self.uplink.notify(session)  # type: ignore[arg-type]

    def move(self, call: str, ticket: str, within_ms: int, *, forced: bool = True) -> None:
        payload = ticket.split(".")[1]
        grant = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["g"][0]
        task = asyncio.create_task(self._move(call, grant["e"], self.fleet[grant["region"]]))
        self.moving.add(task)
        task.add_done_callback(self.moving.discard)

    async def _move(self, call: str, epoch: int, target: ScriptedEdge) -> None:
        await asyncio.sleep(random.random() * PREPARE_S)
        old = next(k for k in self.owned if k[0] == call)
        del self.owned[old]
        target.own(
            call, epoch, "call.moved", from_epoch=old[1], to_epoch=epoch, reason="planned", history="tail"
        )

    # what the uplink asks of an edge's calls

    @property
    def sessions(self) -> list[Call]:
        return list(self.owned.values())

    def session(self, call: str, epoch: int) -> Call | None:
        return self.owned.get((call, epoch))

    def load(self) -> Load:
        return Load(calls=len(self.owned), capacity_calls=CAPACITY)

    def held(self) -> list[Held]:
        return [Held(call=c, epoch=e) for c, e in self.owned]

    def lapsed(self) -> list[Held]:
        return []

    def not_taken(self) -> list[Held]:
        return []

    def stay(self, call: str) -> None:
        return

    def drain(self, *, on: bool) -> None:
        return

    def end(self, call: str, reason: str) -> None:
        return


@asynccontextmanager
async def scripted_edges(
    deployment: Deployment, folder: Path, *names: str
) -> AsyncIterator[dict[str, ScriptedEdge]]:
    fleet: dict[str, ScriptedEdge] = {}
    running: list[asyncio.Task[None]] = []
    async with deployment.operator() as operator:
        for name in names:
            (
                await operator.post("/admin/v1/regions", json={"id": name, "jurisdiction": "us"})
            ).raise_for_status()
            token = (await operator.post(f"/admin/v1/regions/{name}/enrol")).json()["token"]
            settings = EdgeSettings(
                region=name, name="scripted", control_urls=tuple(deployment.api_urls), data=folder / name,
                enrol_token=token, capacity_calls=CAPACITY,
            )  # fmt: skip
            identity = Identity(settings.data)
            listeners = EdgeListeners(media_url="ws://127.0.0.1:9", http_url="http://127.0.0.1:9")

            async def again(
                settings: EdgeSettings = settings,
                identity: Identity = identity,
                at: EdgeListeners = listeners,
            ) -> list[str]:
                return [u + UPLINK_PATH for u in (await register(settings, identity, at)).uplink_urls]

            edge = fleet[name] = ScriptedEdge(name, fleet)
            urls = (await register(settings, identity, listeners)).uplink_urls
            edge.uplink = Uplink(urls, name, identity, Keyring(settings.data / "keys.json"), again)
            edge.uplink.calls = edge  # type: ignore[assignment]
            running.append(asyncio.create_task(edge.uplink.run()))
        async with asyncio.timeout(WITHIN_S):
            while not all(
                r["health"] == "healthy"
                for r in (await operator.get("/admin/v1/regions")).json()["data"]
                if r["id"] in names
            ):
                await asyncio.sleep(0.05)
    try:
        yield fleet
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def drain_1000() -> float:
    """Seconds from the command until the drain says that all have left."""
    names = ("drained", "stays-1", "stays-2")
    async with (
        deployed(regions=1, instances=2) as deployment,
        scripted_edges(deployment, deployment.folder / "scripted", *names) as fleet,
    ):
        _, key = await deployment.create_project("bench")
        full = fleet["drained"]
        async with AsyncClient(deployment.api_urls, key) as client, deployment.operator() as operator:
            queue = list(range(CALLS))

            async def create() -> None:
                while queue:
                    queue.pop()
                    regions = {"pin": "drained", "allow": list(names)}
                    call = await client.create_call("ws://127.0.0.1:9/", regions=regions)
                    full.own(call["id"], 1, "call.answered", encoding="pcm16", sample_rate=16_000)

            await asyncio.gather(*(create() for _ in range(CREATES_AT_ONCE)))
            async with asyncio.timeout(WITHIN_S):
                while not all(c.outbox.settled for c in full.sessions):
                    await asyncio.sleep(0.05)
            began = time.perf_counter()
            begun = await operator.post("/admin/v1/regions/drained/drain", json={"within_s": 600})
            begun.raise_for_status()
            assert begun.json()["total"] == CALLS
            await drained(operator, "drained")
            took_s = time.perf_counter() - began
            shown = (await operator.get("/admin/v1/regions/drained/drain")).json()
            assert (shown["moved"], shown["failed"]) == (CALLS, 0), shown
            assert all(e.most <= CAPACITY for e in fleet.values())
            assert sum(len(e.owned) for e in fleet.values()) == CALLS
        return took_s
