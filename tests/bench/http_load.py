"""A process of its own that creates calls as fast as the API answers: ``python -m tests.bench.http_load PORTS KEY CLIENTS SECONDS``.

The clients share the instances on PORTS, which are separated by commas.

Plain sockets and no parsing beyond the status and the length, because it shares the machine with what it measures.
Prints one JSON object: creates, seconds, and the latencies' quantiles in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from typing import cast

import uvloop

from tests.bench.support import content_length, quantile

BODY = json.dumps(
    {
        "agent": {"url": "ws://127.0.0.1:9/agent"},
        "latencies": [
            {"region": "us-east", "rtt_ms": 12},
            {"region": "eu-west", "rtt_ms": 80},
            {"region": "ap-south", "rtt_ms": 190},
        ],
        "metadata": {"customer": "c-1042", "campaign": "spring"},
    }
).encode()


class Client(asyncio.Protocol):
    """Creates one call after the other on a connection of its own, until the time is up."""

    def __init__(self, key: str, stop_at: float, took_ms: list[float]) -> None:
        self._head = (
            f"POST /v1/calls HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\nIdempotency-Key: "
        ).encode()
        self._stop_at = stop_at
        self._took_ms = took_ms
        self._came = b""
        self._until = 0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._create()

    def _create(self) -> None:
        self._came, self._until, self._began = b"", 0, time.perf_counter()
        self._transport.write(self._head + uuid.uuid4().hex.encode() + b"\r\n\r\n" + BODY)

    def data_received(self, data: bytes) -> None:
        self._came += data
        if not self._until and (end := self._came.find(b"\r\n\r\n")) >= 0:
            self._until = end + 4 + content_length(self._came)
        if not self._until or len(self._came) < self._until:
            return
        if not self._came.startswith(b"HTTP/1.1 201"):
            self.over.set_exception(SystemExit(f"the API refused: {self._came.decode()}"))
            return
        now = time.perf_counter()
        self._took_ms.append((now - self._began) * 1000)
        if now < self._stop_at:
            self._create()
        else:
            self.over.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(SystemExit(f"the connection was lost: {error}"))


async def client(port: int, key: str, stop_at: float, took_ms: list[float]) -> None:
    transport, protocol = await asyncio.get_running_loop().create_connection(
        lambda: Client(key, stop_at, took_ms), "127.0.0.1", port
    )
    try:
        await protocol.over
    finally:
        transport.close()


async def main(ports: list[int], key: str, clients: int, seconds: float) -> None:
    took_ms: list[float] = []
    began = time.perf_counter()
    await asyncio.gather(
        *(client(ports[i % len(ports)], key, began + seconds, took_ms) for i in range(clients))
    )
    elapsed = time.perf_counter() - began
    print(
        json.dumps(
            {
                "creates": len(took_ms),
                "per_s": len(took_ms) / elapsed,
                "p50_ms": quantile(took_ms, 0.5),
                "p99_ms": quantile(took_ms, 0.99),
            }
        )
    )


if __name__ == "__main__":
    uvloop.run(
        main([int(p) for p in sys.argv[1].split(",")], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    )
