"""The server's own HTTP before an application of a test's, without an instance behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from app.protocols import Http, WebSocket


@asynccontextmanager
async def bare(app: Any) -> AsyncIterator[tuple[str, int]]:
    """Where it listens, until the end of the block."""
    config = uvicorn.Config(app, http=Http, ws=WebSocket, lifespan="off", log_config=None)
    config.load()
    state = uvicorn.server.ServerState()
    listener = await asyncio.get_running_loop().create_server(
        lambda: Http(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    async with listener:
        host, port = listener.sockets[0].getsockname()
        yield host, port
