"""A collector of traces, as far as it is heard: takes OTLP over HTTP, and reads it with OpenTelemetry's own classes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collected:
    """`spans`: (the service's name, the span). `status`: what every request is answered."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        self.url = ""
        self.status = 200
        self.requests: list[dict[str, str]] = []

    def named(self, name: str) -> list[Any]:
        return [span for _, span in self.spans if span.name == name]

    def take(self, headers: dict[str, str], body: bytes) -> None:
        self.requests.append(headers)
        if self.status != 200:
            return
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = {a.key: a.value.string_value for a in of_resource.resource.attributes}
            for of_scope in of_resource.scope_spans:
                self.spans += [(resource["service.name"], span) for span in of_scope.spans]


@asynccontextmanager
async def collector() -> AsyncIterator[Collected]:
    """Answers one request after the other on each connection."""
    found = Collected()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {
                    k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers["content-length"]))
                found.take({**headers, "": head[0]}, body)
                writer.write(f"HTTP/1.1 {found.status} x\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield found
