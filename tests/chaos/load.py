"""Load that remembers every answer it was given: an edge that appends, a backend that creates, a reader of the stream.

Each goes on as its real counterpart does: the same numbers, the same key, after the same cursor, until it is answered.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from app.ids import new_id
from app.local.deployment import Deployment
from regions.edge.identity import Identity
from regions.wire import ids
from voxplane import AsyncClient

REGION = "load"
ANSWER_WITHIN_S = 15.0
RUN_MAX = 5
PACE_S = 0.05
TURN_EVERY = 6
"""In how many batches a call has something new once: many calls with a few events each, as a backlog of webhooks has."""
AGAIN_S = 0.1
HEARTBEAT_S = 1.0


@dataclass
class Writer:
    """One edge with an uplink. `sent`: call → its events, n = place + 1. `durable`: call → the n that was acknowledged."""

    deployment: Deployment
    identity: Identity
    calls: list[str] = field(default_factory=list)
    sent: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    durable: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    acks: list[tuple[float, float]] = field(default_factory=list)
    """(sent, answered) of every batch in which something new became durable; monotonic seconds."""
    _batch: int = 0

    async def register(self) -> None:
        async with self.deployment.operator() as operator:
            await operator.post("/admin/v1/regions", json={"id": REGION, "jurisdiction": "us"})
            token = (await operator.post(f"/admin/v1/regions/{REGION}/enrol")).json()["token"]
            body = {
                "name": "writer",
                "region": REGION,
                "incarnation": self.identity.incarnation,
                "listeners": {"media_url": "ws://127.0.0.1:9", "http_url": "http://127.0.0.1:9"},
                "capacity_calls": 100_000,
                "public_key": self.identity.public_key,
            }
            answer = await operator.post(
                "/edge/v1/register", json=body, headers={"Authorization": f"Bearer {token}"}
            )
            self.identity.registered(answer.json()["edge_id"])

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, and then until everything that was sent is durable."""
        urls = [u.replace("http", "ws") + "/edge/v1/uplink" for u in self.deployment.api_urls]
        turn = 0
        while not (stop.is_set() and self._settled()):
            headers = {"Authorization": f"Bearer {self.identity.token(REGION)}"}
            turn += 1
            try:
                async with connect(
                    urls[turn % len(urls)], additional_headers=headers, ping_interval=None, max_size=4 << 20
                ) as socket:
                    await self._serve(socket, stop)
            except (OSError, TimeoutError, WebSocketException):
                await wait(AGAIN_S)

    async def _serve(self, socket: ClientConnection, stop: asyncio.Event) -> None:
        load = {"calls": len(self.calls), "capacity_calls": 100_000}
        hello = {
            "type": "hello",
            "incarnation": self.identity.incarnation,
            "desired_version": 0,
            "load": load,
        }
        await socket.send(json.dumps(hello))
        await self._receive(socket, "welcome")
        beat_s = 0.0
        while not (stop.is_set() and self._settled()):
            if time.monotonic() - beat_s > HEARTBEAT_S:
                beat_s = time.monotonic()
                await socket.send(
                    json.dumps({"type": "heartbeat", "at_ms": int(time.time() * 1000), "load": load})
                )
            if self.calls:
                await self._append(socket, new=not stop.is_set())
            await wait(PACE_S)

    async def _append(self, socket: ClientConnection, *, new: bool) -> None:
        self._batch += 1
        runs = []
        for place, call in enumerate(self.calls):
            events = self.sent.setdefault(call, [])
            behind = len(events) - self.durable.get(call, 0)
            if new and behind < RUN_MAX and (place + self._batch) % TURN_EVERY == 0:
                events.append(_event(len(events) + 1, call))
            first = self.durable.get(call, 0)
            if events[first:]:
                runs.append({"call": call, "epoch": 1, "events": events[first:]})
        if not runs:
            return
        sent_s = time.monotonic()
        await socket.send(json.dumps({"type": "events", "batch": self._batch, "calls": runs}))
        answer = await self._receive(socket, "ack")
        news = False
        for result in answer["results"]:
            self.answers[result["status"]] = self.answers.get(result["status"], 0) + 1
            if result["status"] == "durable":
                news |= result["durable_n"] > self.durable.get(result["call"], 0)
                self.durable[result["call"]] = max(result["durable_n"], self.durable.get(result["call"], 0))
        if news:
            self.acks.append((sent_s, time.monotonic()))

    async def _receive(self, socket: ClientConnection, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            while True:
                message: dict[str, Any] = json.loads(await socket.recv())
                if message["type"] == kind and message.get("batch", self._batch) == self._batch:
                    return message

    def _settled(self) -> bool:
        return all(self.durable.get(call, 0) == len(events) for call, events in self.sent.items())


@dataclass
class Creator:
    """Creates calls, one after the other, each under a key of its own. `made`: key → the id that was answered."""

    deployment: Deployment
    key: str
    made: dict[str, str] = field(default_factory=dict)
    created_s: list[float] = field(default_factory=list)
    refused: int = 0
    strange: list[str] = field(default_factory=list)
    contradicted: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        """The one that is under way when `stop` is set is carried to its end."""
        headers = {"Authorization": f"Bearer {self.key}"}
        turn = 0
        async with httpx.AsyncClient(timeout=ANSWER_WITHIN_S, trust_env=False, headers=headers) as client:
            while not stop.is_set():
                key = str(uuid4())
                body = {
                    "agent": {"url": "ws://127.0.0.1:9/"},
                    "regions": {"pin": REGION},
                    "metadata": {"load": "create"},
                }
                while key not in self.made:
                    turn += 1
                    url = self.deployment.api_urls[turn % len(self.deployment.api_urls)]
                    with suppress(httpx.TransportError):
                        answer = await client.post(
                            f"{url}/v1/calls", json=body, headers={"Idempotency-Key": key}
                        )
                        if answer.status_code == 201:
                            self.made[key] = answer.json()["id"]
                            self.created_s.append(time.monotonic())
                            again = await self._again(client, url, body, key)
                            self.contradicted += again is not None and again != self.made[key]
                            break
                        self.refused += 1
                        if answer.status_code not in (503, 429):
                            self.strange.append(f"{answer.status_code} {answer.text}")
                    await wait(AGAIN_S)
                await wait(PACE_S)

    async def _again(self, client: httpx.AsyncClient, url: str, body: Any, key: str) -> str | None:
        """What the same key gives now; None where nothing is given."""
        with suppress(httpx.TransportError):
            answer = await client.post(f"{url}/v1/calls", json=body, headers={"Idempotency-Key": key})
            return str(answer.json()["id"]) if answer.status_code == 201 else None
        return None


@dataclass
class Reader:
    """Everything that the stream of events gave, in the order in which it came."""

    client: AsyncClient
    got: list[dict[str, Any]] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        async for event in self.client.stream_events(opened=self.open.set):
            self.got.append(event)


def writer(deployment: Deployment, folder: Path) -> Writer:
    return Writer(deployment, Identity(folder / "writer"))


async def wait(seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()


def _event(n: int, call: str) -> dict[str, Any]:
    data = {"role": "caller", "text": f"{call} {n}"}
    return {
        "n": n,
        "id": ids.encode(ids.EVENT, new_id()),
        "type": "turn.ended",
        "at_ms": int(time.time() * 1000),
        "data": data,
    }
