"""Forwards the project's events to a URL on this machine, signed like webhooks: for developing a receiver without a public address.

Decides the order (first in, first out per call, calls side by side) and what is printed of each. One that fails is printed and not
tried again: what the endpoint would have got anyway is in the log, and goes to real endpoints with retries.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import msgspec

from app.webhooks.signature import SECRET_BYTES, headers, read_secret, sign, write_secret
from voxplane import AsyncClient

SIDE_BY_SIDE = 16
DEADLINE_S = 15.0
EXCERPT_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarded:
    """What came of one event. `status` None: there was no answer, and `error` says why."""

    event: dict[str, Any]
    status: int | None
    duration_ms: int
    error: str = ""
    excerpt: str = ""


def new_secret() -> str:
    return write_secret(os.urandom(SECRET_BYTES))


def wants(types: list[str], name: str) -> bool:
    """No `types`: all. `call.*` stands for all that begin so."""
    return not types or any(t in ("*", name) or (t.endswith(".*") and name.startswith(t[:-1])) for t in types)


class Forwarder:
    def __init__(self, url: str, secret: str, told: Callable[[Forwarded], None]) -> None:
        self._url = url
        self._secret = read_secret(secret) or b""
        self._told = told
        self._room = asyncio.Semaphore(SIDE_BY_SIDE)
        self._last: dict[str, asyncio.Task[None]] = {}

    async def follow(self, api: AsyncClient, types: list[str], opened: Callable[[], None]) -> None:
        """Until it is canceled. Raises what the stream raises, and `OSError` where nobody reads what is told."""
        try:
            await self._follow(api, types, opened)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _follow(self, api: AsyncClient, types: list[str], opened: Callable[[], None]) -> None:
        async with (
            httpx.AsyncClient(timeout=DEADLINE_S, trust_env=False) as http,
            asyncio.TaskGroup() as tasks,
        ):
            async for event in api.stream_events(opened=opened):
                if not wants(types, event["type"]):
                    continue
                await self._room.acquire()
                call_id = event["call_id"]
                before = self._last.get(call_id)
                task = self._last[call_id] = tasks.create_task(self._one(http, event, before))
                task.add_done_callback(partial(self._forget, call_id))

    async def send(self, http: httpx.AsyncClient, event: dict[str, Any]) -> Forwarded:
        body, at_s = msgspec.json.encode(event), int(time.time())
        signed = headers(event["id"], at_s, sign(event["id"], at_s, body, [self._secret]))
        began = time.perf_counter()
        try:
            answer = await http.post(self._url, content=body, headers=signed)
        except httpx.HTTPError as error:
            return Forwarded(
                event=event, status=None, duration_ms=_ms(began), error=str(error) or type(error).__name__
            )
        return Forwarded(
            event=event,
            status=answer.status_code,
            duration_ms=_ms(began),
            excerpt="" if answer.is_success else answer.text[:EXCERPT_CHARS],
        )

    async def _one(
        self, http: httpx.AsyncClient, event: dict[str, Any], before: asyncio.Task[None] | None
    ) -> None:
        try:
            if before is not None:
                await asyncio.wait([before])
            self._told(await self.send(http, event))
        finally:
            self._room.release()

    def _forget(self, call_id: str, done: asyncio.Task[None]) -> None:
        if self._last.get(call_id) is done:
            del self._last[call_id]


def _ms(began: float) -> int:
    return round((time.perf_counter() - began) * 1000)
