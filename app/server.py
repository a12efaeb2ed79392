"""Serves one instance until it is told to stop. Decides what a stop does first: streams and uplinks are told, then the server
waits for what is under way."""

from __future__ import annotations

import asyncio
import socket
from types import FrameType

import uvicorn

from app.main import create_asgi
from app.protocols import Http, WebSocket
from app.settings import Settings

GRACE_S = 5


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._stopping = stopping
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        super().handle_exit(sig, frame)


def serve_until_told(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    config = uvicorn.Config(
        create_asgi(settings, stopping),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=Http,
        ws=WebSocket,
        ws_max_size=2 << 20,
        ws_ping_interval=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    _Server(config, stopping).run()
