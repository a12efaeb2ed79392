"""A process of its own that creates calls at a steady rate: ``python -m tests.bench.paced_load PORT KEY CLIENTS``.

A line ``{"per_s": n, "seconds": s, "urls": [[url, count], …]}`` makes so many, each with the next `webhook_url`: `url` followed by a
number below `count`, the kinds in turn by their share. Says how many it made, and how late the latest of them was begun.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from typing import Any

import uvloop

from tests.bench.support import content_length, say, stdin


class Client:
    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._head = (
            f"POST /v1/calls HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        ).encode()
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def create(self, url: str | None) -> None:
        if self._stream is None:
            self._stream = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._stream
        asked: dict[str, Any] = {"agent": {"url": "ws://127.0.0.1:9/agent"}}
        body = json.dumps(asked | ({"webhook_url": url} if url else {})).encode()
        length = f"Content-Length: {len(body)}\r\nIdempotency-Key: {uuid.uuid4().hex}\r\n\r\n".encode()
        writer.write(self._head + length + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        said = await reader.readexactly(content_length(answer))
        if not answer.startswith(b"HTTP/1.1 201"):
            raise SystemExit(f"the API refused: {answer.decode()} {said.decode()}")


def urls_of(kinds: list[tuple[str, int]], total: int) -> list[str | None]:
    """Every URL in turn; kinds take turns by their count."""
    if not kinds:
        return [None] * total
    every = [(i / count, f"{url}/{i}") for url, count in kinds for i in range(count)]
    ordered = [url for _, url in sorted(every)]
    return [ordered[i % len(ordered)] for i in range(total)]


async def pace(free: asyncio.Queue[Client], per_s: float, urls: list[str | None]) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    latest_s = 0.0

    async def one(client: Client, url: str | None) -> None:
        await client.create(url)
        free.put_nowait(client)

    async with asyncio.TaskGroup() as tasks:
        for i, url in enumerate(urls):
            due_s = began + i / per_s
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            client = await free.get()
            latest_s = max(latest_s, loop.time() - due_s)
            tasks.create_task(one(client, url))
    return latest_s


async def main(port: int, key: str, clients: int) -> None:
    commands = await stdin()
    free: asyncio.Queue[Client] = asyncio.Queue()
    for _ in range(clients):
        free.put_nowait(Client(port, key))
    while line := await commands.readline():
        order = json.loads(line)
        urls = urls_of(order.get("urls", []), round(order["per_s"] * order["seconds"]))
        latest_s = await pace(free, order["per_s"], urls)
        say({"made": len(urls), "late_ms": latest_s * 1000})


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
