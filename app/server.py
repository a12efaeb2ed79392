"""Serves one instance until it is told to stop. Decides what a stop does first: streams and uplinks are told, then the server
waits for what is under way. One that is cut off says so in a line."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from types import FrameType
from typing import Any

import structlog
import uvicorn

from app.main import create_asgi
from app.protocols import Http, WebSocket
from app.settings import Settings, SettingsError
from app.tls import ServedTls
from regions.wire.certificate import CertificateError

log = structlog.get_logger()

GRACE_S = 5
FAILED = "lifespan.shutdown.failed"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event, tls: ServedTls | None) -> None:
        super().__init__(config)
        self._tls = tls
        self._renewing: asyncio.Task[None] | None = None
        self._stopping = stopping
        self._loop: asyncio.AbstractEventLoop | None = None
        self._parent = os.getppid()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        if self._tls is not None:
            self._renewing = self._loop.create_task(self._tls.keep_renewed())
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and os.getppid() != self._parent:
            return  # Linux tells of a parent's death once for each thread of it: nobody insists
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        if self.started and not self.should_exit:
            # and no more: the server would die of the signal after having ended in order
            self.should_exit = True
        else:
            super().handle_exit(sig, frame)


def cut_off_in_a_line(app: Any) -> Any:
    """Who insists on a stop (Ctrl-C twice) cuts it off, which is no fault to show a traceback of."""

    async def served(scope: Any, receive: Any, send: Any) -> None:
        async def telling(message: Any) -> None:
            if message["type"] == FAILED and isinstance(sys.exception(), asyncio.CancelledError):
                log.warning("control.cut_off")
                message["message"] = ""
            await send(message)

        await app(scope, receive, telling if scope["type"] == "lifespan" else send)

    return served


def serve_until_told(settings: Settings) -> None:
    """Until SIGTERM or SIGINT; dies of one that comes before it is ready, or insists. Raises `SettingsError` where its certificate
    is no good."""
    try:
        tls = ServedTls(*settings.tls) if settings.tls is not None else None
    except CertificateError as error:
        raise SettingsError(f"VOXPLANE_TLS_CERT, VOXPLANE_TLS_KEY: {error}") from None
    stopping = asyncio.Event()
    config = uvicorn.Config(
        cut_off_in_a_line(create_asgi(settings, stopping)),
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
        proxy_headers=False,  # whose word is taken is decided by app.peer, and not by the environment
        timeout_graceful_shutdown=GRACE_S,
        ssl_context_factory=None if tls is None else lambda _config, _default: tls.context,
    )
    _Server(config, stopping, tls).run()
