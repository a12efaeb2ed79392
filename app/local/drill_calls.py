"""Synthetic calls for a drill: this process is their caller and their backend, at their two ends.

They live in a test project of the platform's own, which has no webhooks. The caller sends silence and listens; the backend
plays a tone without end, so that a gap is a gap. Decides how many this process carries (`CALLS_MAX`). What a drill does to them
is not its business.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from app.fleet.drill_shapes import MARK
from app.local.process import EngineError
from voxplane import AsyncCaller, AsyncClient

PROJECT = "voxplane drills"
CALLS_MAX = 50
TRIES = 4
"""A call is placed so often until it stands on the edge that was asked for."""
RATE_HZ = 8_000
SILENCE = b"\xff" * (RATE_HZ // 10)
SEND_EVERY_S = 0.1
TONE_S = 1.0
HEARD_WITHIN_S = 20.0


@dataclass(slots=True)
class Synthetic:
    """`callers`: by call id."""

    label: str
    callers: dict[str, AsyncCaller] = field(default_factory=dict)
    heard: set[str] = field(default_factory=set)

    def gap_ms(self, call_id: str) -> float | None:
        """What the caller heard of the first failover: from the last frame of the old edge to the first of the new."""
        caller = self.callers.get(call_id)
        gap_s = caller.gaps[0].audio_gap_s if caller is not None and caller.gaps else None
        return round(gap_s * 1000, 1) if gap_s is not None else None


@asynccontextmanager
async def synthetic_calls(
    operator: AsyncClient, urls: list[str], *, label: str, count: int, region: str, edge: str | None, backend: str
) -> AsyncIterator[Synthetic]:  # fmt: skip
    """`count` calls that all hear their tone, on the edge or anywhere in the region; hung up in the end. `backend`: the tone's URL,
    as edges reach it. Raises `EngineError` where they cannot be had."""
    made = Synthetic(label)
    async with AsyncExitStack() as stack:
        key = await _project_key(operator, label)
        client = await stack.enter_async_context(AsyncClient(urls, key["secret"]))
        stack.push_async_callback(_forget_key, client, key["id"])
        for _ in range(count):
            call = await _place(client, backend, label, region, edge)
            caller = await stack.enter_async_context(
                AsyncCaller(call["ticket"], encoding="mulaw", sample_rate=RATE_HZ, client=client)
            )
            made.callers[call["id"]] = caller
            for work in (_speak(caller), _listen(made, call["id"], caller)):
                stack.push_async_callback(_cancel, asyncio.create_task(work))
        stack.push_async_callback(_hang_up, made)
        await _until_heard(made)
        yield made


@asynccontextmanager
async def tone_backend(host: str, port: int) -> AsyncIterator[int]:
    """A backend that plays a tone on every call, in the Twilio dialect; its port."""

    async def call(socket: ServerConnection) -> None:
        playing: asyncio.Task[None] | None = None
        try:
            async for text in socket:
                if json.loads(text).get("event") == "start":
                    playing = asyncio.create_task(_play(socket))
        except ConnectionClosed:
            pass
        finally:
            if playing is not None:
                playing.cancel()

    try:
        server = await serve(call, host, port, ping_interval=None, compression=None)
    except OSError as error:
        raise EngineError(
            "no_port", f"The tone backend cannot listen on {host}:{port}: {error.strerror}.", "Choose another --listen."
        ) from None  # fmt: skip
    async with server:
        yield next(iter(server.sockets)).getsockname()[1]


async def _play(socket: ServerConnection) -> None:
    """A second at a time; the edge plays it out in real time."""
    loop = asyncio.get_running_loop()
    payload = base64.b64encode(_tone()).decode()
    message = json.dumps({"event": "media", "media": {"payload": payload}})
    due = loop.time()
    with suppress(ConnectionClosed):
        while True:
            await socket.send(message)
            due += TONE_S
            await asyncio.sleep(max(0.0, due - loop.time()))


def _tone() -> bytes:
    """A quiet 400 Hz in mu-law: sixteen levels are enough."""
    levels = [0x9F - round(15 * abs(math.sin(2 * math.pi * 400 * i / RATE_HZ))) for i in range(RATE_HZ)]
    return bytes(level if (i // 10) % 2 else level & 0x7F for i, level in enumerate(levels))


async def _project_key(operator: AsyncClient, label: str) -> dict[str, Any]:
    projects = (await operator.request("GET", "/admin/v1/projects"))["data"]
    found = next((p for p in projects if (p["name"], p["mode"]) == (PROJECT, "test")), None)
    if found is None:
        found = await operator.request("POST", "/admin/v1/projects", {"name": PROJECT, "mode": "test"})
    body = {"name": label, "role": "admin"}
    made: dict[str, Any] = await operator.request("POST", f"/admin/v1/projects/{found['id']}/keys", body)
    return made


async def _forget_key(client: AsyncClient, key_id: str) -> None:
    await client.request("DELETE", f"/v1/keys/{key_id}")


async def _place(
    client: AsyncClient, backend: str, label: str, region: str, edge: str | None
) -> dict[str, Any]:
    for _ in range(TRIES):
        call = await client.create_call(
            backend, metadata={MARK: label}, regions={"pin": region}, max_duration_s=3_600
        )
        if edge in (None, call["edge"]):
            return call
        await client.end_call(call["id"])
    raise EngineError(
        "not_placed", f"No call came to stand on {edge}.", "Drill its region, or cordon the region's other edges."
    )  # fmt: skip


async def _speak(caller: AsyncCaller) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time()
    while not caller.over:
        await caller.send(SILENCE)
        due += SEND_EVERY_S
        await asyncio.sleep(max(0.0, due - loop.time()))


async def _listen(made: Synthetic, call_id: str, caller: AsyncCaller) -> None:
    async for _ in caller.frames():
        made.heard.add(call_id)


async def _until_heard(made: Synthetic) -> None:
    try:
        async with asyncio.timeout(HEARD_WITHIN_S):
            while len(made.heard) < len(made.callers):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise EngineError(
            "no_tone", f"{len(made.callers) - len(made.heard)} calls hear nothing of their backend.",
            "Can the edges reach --backend-url?",
        ) from None  # fmt: skip


async def _hang_up(made: Synthetic) -> None:
    for caller in made.callers.values():
        if not caller.over:
            await caller.hangup()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
