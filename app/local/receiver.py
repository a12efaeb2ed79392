"""The customer's side of webhooks, for the demo: verifies every signature and keeps what came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Any

import uvicorn

from app.webhooks.handshake import HANDSHAKE
from voxplane import WebhookError, verify


class _Server(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        return


class WebhookReceiver:
    def __init__(self) -> None:
        self.secret = ""
        self.url = ""
        self.received: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.faults: list[str] = []
        self.handshakes = 0
        self.seen: Callable[[bytes, dict[str, str]], None] = lambda *_: None
        """Told of every request, whether it verifies or not."""
        self.status = 204
        """What is answered to a webhook that verifies."""
        self.echoes = False
        """Whether it answers with what it was sent, as many an endpoint does that is being built."""
        self.latencies_ms: list[float] = []
        self._server: _Server
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> WebhookReceiver:
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            host="127.0.0.1",
            port=0,
            log_level="critical",
            lifespan="off",
            access_log=False,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            await asyncio.sleep(0.01)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}/hook"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        await self._task

    async def until(self, count: int, within_s: float) -> None:
        """Returns when `count` have come, or when it has taken too long."""
        deadline = time.monotonic() + within_s
        while len(self.received) < count and time.monotonic() < deadline:
            await asyncio.sleep(0.02)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        self.seen(body, headers)
        status = self.status
        try:
            event = verify(body, headers, self.secret)
            if event["type"] == HANDSHAKE:
                self.handshakes += 1
                await _answer(send, 204)
                return
            self.received.append(event)
            self.headers.append(headers)
            happened = datetime.fromisoformat(event.get("timestamp") or event["time"]).timestamp()
            self.latencies_ms.append(round((time.time() - happened) * 1000, 1))
        except WebhookError as error:
            self.faults.append(error.code)
            status = 400
        await _answer(send, status, body if self.echoes else b"")


async def _answer(send: Any, status: int, body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})
