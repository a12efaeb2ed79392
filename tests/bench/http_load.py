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


async def client(port: int, key: str, stop_at: float, took_ms: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /v1/calls HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(BODY)}\r\nIdempotency-Key: "
    ).encode()
    while (began := time.perf_counter()) < stop_at:
        writer.write(head + uuid.uuid4().hex.encode() + b"\r\n\r\n" + BODY)
        answer = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(content_length(answer))
        if not answer.startswith(b"HTTP/1.1 201"):
            raise SystemExit(f"the API refused: {answer.decode()} {body.decode()}")
        took_ms.append((time.perf_counter() - began) * 1000)
    writer.close()


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
