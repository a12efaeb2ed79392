"""Webhook endpoints for tests: made, named by their ids, and waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg

from app.local.receiver import WebhookReceiver
from tests.support.api import Api, Project


async def make_hook(project: Project, receiver: WebhookReceiver, **more: Any) -> dict[str, Any]:
    """Its id and the rest of the view; the receiver verifies with its secret."""
    made = await project.client.post("/v1/webhooks", json={"url": receiver.url} | more)
    assert made.status_code == 201, made.text
    hook: dict[str, Any] = made.json()
    receiver.secret = hook["secret"]
    return hook


async def make_call(project: Project, **more: Any) -> str:
    body = {"agent": {"url": "ws://127.0.0.1:9/"}} | more
    made = await project.client.post("/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 15.0) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.02)


async def patiently(connection: asyncpg.Connection[Any], statement: str, *values: Any) -> None:
    """Again where it and a worker of the instance have each locked a partition that the other wants."""
    while True:
        try:
            await connection.execute(statement, *values)
            return
        except asyncpg.DeadlockDetectedError:
            continue


@asynccontextmanager
async def superuser(api: Api) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(api.settings.database_url)
    try:
        yield connection
    finally:
        await connection.close()
