"""Who goes away in the middle of a request has not met a failure of ours: no error is logged, and no 500 is counted."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from structlog.testing import capture_logs

from app.telemetry import requests_total
from tests.support.api import Api, Project
from tests.support.bare import bare
from tests.support.edges import until


async def test_of_several_requests_sent_at_once_the_one_that_is_served_is_told() -> None:
    """Else its answer is written to what is closed, and a stream that nobody reads has no end."""
    served, told = asyncio.Event(), asyncio.Event()

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        served.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        told.set()

    async with bare(app) as at:
        _, writer = await asyncio.open_connection(*at)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 3)
        async with asyncio.timeout(5):
            await served.wait()
            # a reset: who only closes its own direction may still read, see test_half_closed.py
            its_own = writer.get_extra_info("socket")
            its_own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            await told.wait()


def creates(first_digit: str) -> float:
    """How many were answered so."""
    return sum(
        sample.value
        for metric in requests_total.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
        and sample.labels["operation"] == "createCall"
        and sample.labels["status"].startswith(first_digit)
    )


async def test_a_body_that_is_broken_off(api: Api, project: Project) -> None:
    first = await project.client.get("/v1/regions")  # the key is known from now on
    assert first.status_code == 200
    refused, failed = creates("4"), creates("5")
    _, writer = await asyncio.open_connection("127.0.0.1", api.port)
    with capture_logs() as lines:
        writer.write(
            b"POST /v1/calls HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b'authorization: Bearer %b\r\nidempotency-key: a\r\ncontent-length: 100\r\n\r\n{"agent":'
            % project.key.encode()
        )
        writer.close()
        await until(lambda: creates("4") + creates("5") > refused + failed, "that it is counted")
    assert not [line for line in lines if line["log_level"] == "error"]
    assert (creates("4"), creates("5")) == (refused + 1, failed)
