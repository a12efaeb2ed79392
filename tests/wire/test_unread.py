"""Sockets at an edge's media listener whose client does not read what it asks for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.support.lone_edge import lone_edge


async def ping_on(writer: asyncio.StreamWriter) -> None:
    ping = bytes([0x89, 0x80 | 125, 0, 0, 0, 0]) + b"p" * 125
    for _ in range(512):
        writer.write(ping * 1_024)
        await writer.drain()


@pytest.mark.parametrize("path", ["/v1/media", "/v1/twilio"])
async def test_whoever_pings_and_never_reads_is_cut_off(tmp_path: Path, path: str) -> None:
    """No ticket is needed to ask: what is answered and not read must not pile up in the edge."""
    async with lone_edge(tmp_path) as edge:
        host, port = edge.url.removeprefix("ws://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1)
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert (await reader.read(12)).endswith(b"101")
        with pytest.raises(ConnectionError):
            await ping_on(writer)


async def test_a_ping_is_answered_once(tmp_path: Path) -> None:
    async with lone_edge(tmp_path) as edge:
        for path in ("/v1/media", "/v1/twilio", "/probe"):
            async with connect(edge.url + path) as socket:
                for _ in range(3):
                    async with asyncio.timeout(5):
                        await (await socket.ping())
