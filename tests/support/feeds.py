"""Readers of events as tests have them: over server-sent events and over the WebSocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from tests.support.api import Api

WITHIN_S = 20.0


class Sse:
    """Blocks of an open stream, one at a time: (id or None, event or None)."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.cursor = ""

    async def block(self) -> tuple[str | None, dict[str, Any] | None]:
        cursor, event = None, None
        async with asyncio.timeout(WITHIN_S):
            while True:
                line = await anext(self._lines)
                if line.startswith("id: "):
                    cursor = self.cursor = line[4:]
                elif line.startswith("data: "):
                    event = json.loads(line[6:])
                elif not line and (cursor is not None or event is not None):
                    return cursor, event

    async def event(self) -> dict[str, Any]:
        while (event := (await self.block())[1]) is None:
            pass
        return event

    async def events(self, count: int) -> list[dict[str, Any]]:
        return [await self.event() for _ in range(count)]


@asynccontextmanager
async def streaming(
    client: httpx.AsyncClient, path: str = "/v1/events/stream", last: str | None = None, **params: Any
) -> AsyncIterator[Sse]:
    """Open, and begun."""
    headers = {"Last-Event-ID": last} if last else {}
    async with client.stream("GET", path, params=params, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        stream = Sse(response)
        await stream.block()
        yield stream


class Ws:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def say(self, type_: str, **more: Any) -> None:
        await self._socket.send(json.dumps({"type": type_, **more}))

    async def raw(self, message: str | bytes) -> None:
        await self._socket.send(message)

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(WITHIN_S):
            found: dict[str, Any] = json.loads(await self._socket.recv())
        return found

    async def subscribe(self, **more: Any) -> dict[str, Any]:
        await self.say("subscribe", **more)
        return await self.hear()

    async def event(self, *, ack: bool = True) -> dict[str, Any]:
        while (message := await self.hear())["type"] != "event":
            assert message["type"] in ("ping", "volatile"), message
        if ack:
            await self.say("ack", cursor=message["cursor"])
        return message

    async def closed(self) -> tuple[int | None, str | None]:
        async with asyncio.timeout(WITHIN_S):
            await self._socket.wait_closed()
        return self._socket.close_code, self._socket.close_reason


@asynccontextmanager
async def feed_socket(api: Api, key: str, **options: Any) -> AsyncIterator[Ws]:
    headers = {"Authorization": f"Bearer {key}"}
    url = f"ws://127.0.0.1:{api.port}/v1/events/ws"
    async with connect(url, additional_headers=headers, proxy=None, **options) as socket:
        yield Ws(socket)
