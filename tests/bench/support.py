"""What benchmarks share: a deployment in a folder that vanishes, a receiver that costs little, order statistics."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from app.local.deployment import PLACES, Deployment, temporary_folder


@asynccontextmanager
async def deployed(*, regions: int, instances: int = 1, **more: Any) -> AsyncIterator[Deployment]:
    """Engines with fsync on, as `voxplane up` starts them."""
    folder = temporary_folder("voxplane-bench")
    try:
        async with Deployment(folder, places=PLACES[:regions], instances=instances, **more) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def receiver() -> AsyncIterator[str]:
    """The URL of a webhook endpoint that answers 204 to everything and looks at nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(content_length(head))
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


def content_length(head: bytes) -> int:
    at = head.lower().find(b"content-length:")
    return int(head[at + 15 : head.index(b"\r\n", at)]) if at >= 0 else 0


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
