"""A request that does not come to its end holds no connection; whoever reads, or asks again, is left alone."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app import protocols
from tests.support.api import Api
from tests.support.bare import bare

GET = b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\n"
HEAD_ALONE = b"POST /9 HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n"
TOO_SLOW = b"408 "


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "READ_WITHIN_S", 0.2)


async def reading(_scope: Any, receive: Any, send: Any) -> None:
    """Answers once it has the whole body."""
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    if message["type"] == "http.request":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"", []),
        (b"GET /1 HTTP/1.1\r\nho", [TOO_SLOW]),
        (HEAD_ALONE, [TOO_SLOW]),
        (HEAD_ALONE + b"ab", [TOO_SLOW]),
        (GET + HEAD_ALONE, [b"200 ", TOO_SLOW]),
        (GET + GET + b"GE", [b"200 ", b"200 ", TOO_SLOW]),
    ],
)
async def test_what_does_not_come_whole_is_not_waited_for(sent: bytes, answered: list[bytes]) -> None:
    async with bare(reading) as at, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(*at)
        writer.write(sent)
        got = await reader.read()
        writer.close()
    assert [each[:4] for each in got.split(b"HTTP/1.1 ")[1:]] == answered


async def test_an_empty_line_behind_an_answer_keeps_no_connection_open() -> None:
    async with bare(reading) as at, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(*at)
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_one_byte_at_a_time_is_too_slow() -> None:
    async with bare(reading) as at, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(*at)
        writer.write(HEAD_ALONE.replace(b"9\r\n", b"9999999\r\n"))
        got = asyncio.create_task(reader.read())
        while not got.done():
            writer.write(b"a")
            await asyncio.sleep(0.01)
        assert got.result().startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_a_stream_that_is_read_and_an_answer_that_takes_its_time_are_left_alone() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        started = {"type": "http.response.start", "status": 200, "headers": []}
        for i in range(5):
            if i == (2 if scope["path"] == "/1" else 0):
                await send(started)
            if i >= 2:
                await send({"type": "http.response.body", "body": b"%d" % i, "more_body": i < 4})
            await asyncio.sleep(0.2)

    async with bare(slow) as at, asyncio.timeout(20):
        for path in (b"/1", b"/2"):
            reader, writer = await asyncio.open_connection(*at)
            writer.write(GET.replace(b"/1 ", path + b" "))
            assert (await reader.readuntil(b"0\r\n\r\n")).endswith(b"1\r\n4\r\n0\r\n\r\n")
            writer.close()


async def test_the_api_says_what_was_too_slow_and_has_done_nothing(api: Api) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(
        b"POST /v1/calls HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{"
    )
    async with asyncio.timeout(20):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n") and b"application/problem+json" in head
    problem = json.loads(body)
    assert (problem["code"], problem["status"]) == ("request_timeout", 408) and "30 s" in problem["fix"]
