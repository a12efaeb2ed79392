"""Who has sent all it wants to send is answered, although nothing more can come: it has closed its own direction, or what it
sent last is no request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.api import Api
from tests.support.bare import bare

GET = b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n"
NONE = b"BREW / HTTP/1.1\r\nhost: x\r\n\r\n"
BROKEN_BODY = b"POST /9 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n"
WITHOUT_ITS_BODY = b"POST /9 HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nab"
WITHOUT_ITS_HEAD = b"GET /9 HTTP/1.1\r\nho"
LONG = 8 << 20


async def turns() -> None:
    """Of the event loop, in which what was sent on this machine comes in."""
    for _ in range(100):
        await asyncio.sleep(0)


async def answering(scope: Any, receive: Any, send: Any) -> None:
    """Not before its caller has had time to be gone."""
    message = await receive()
    await turns()
    if message["type"] == "http.disconnect":
        return
    path = scope["path"].encode()
    body = path + b" " * LONG if path == b"/8" else path
    length = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    for at in range(0, len(body), 1 << 20):
        await send({"type": "http.response.body", "body": body[at : at + (1 << 20)], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    ("sent", "closes", "answered"),
    [
        (GET % 1, True, [b"200 /1"]),
        (b"GET /1 HTTP/1.0\r\n\r\n", True, [b"200 /1"]),
        (GET % 1 + GET % 2 + GET % 3, True, [b"200 /1", b"200 /2", b"200 /3"]),
        (GET % 8, True, [b"200 /8"]),
        (GET % 1 + GET % 2 + WITHOUT_ITS_BODY, True, [b"200 /1", b"200 /2"]),
        (GET % 1 + GET % 2 + WITHOUT_ITS_HEAD, True, [b"200 /1", b"200 /2"]),
        (WITHOUT_ITS_BODY, True, []),
        (GET % 1 + GET % 2 + NONE, False, [b"200 /1", b"200 /2", b"501 "]),
        (GET % 1 + GET % 2 + NONE + GET % 3, True, [b"200 /1", b"200 /2", b"501 "]),
        (GET % 1 + GET % 2 + BROKEN_BODY, False, [b"200 /1", b"200 /2", b"400 "]),
        (BROKEN_BODY, False, [b"400 "]),
    ],
)
async def test_what_was_read_whole_is_answered_in_its_order_and_then_it_is_over(
    sent: bytes, closes: bool, answered: list[bytes]
) -> None:
    async with bare(answering) as at:
        reader, writer = await asyncio.open_connection(*at)
        writer.write(sent)
        if closes:
            writer.write_eof()
        async with asyncio.timeout(20):
            got = await reader.read()
        writer.close()
    answers = [each.partition(b"\r\n\r\n") for each in got.split(b"HTTP/1.1 ")[1:]]
    assert [head[:4] + body[:2].strip(b"{ ").replace(b'"', b"") for head, _, body in answers] == answered
    assert len(got) > LONG or b"/8" not in sent, "all of it, however long"


async def test_a_request_that_comes_in_pieces_before_the_end() -> None:
    async with bare(answering) as at:
        reader, writer = await asyncio.open_connection(*at)
        for i in range(0, len(GET), 5):
            writer.write((GET % 1)[i : i + 5])
            await writer.drain()
            await asyncio.sleep(0.002)
        writer.write_eof()
        async with asyncio.timeout(20):
            assert (await reader.read()).endswith(b"/1")
        writer.close()


@pytest.mark.parametrize("begun", [True, False])
async def test_the_reader_of_a_stream_that_goes_away_is_noticed(begun: bool) -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def stream(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        asked.set()
        await turns()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        leaving = asyncio.create_task(receive())
        while not leaving.done():
            await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
            await asyncio.sleep(0.02)
        assert leaving.result()["type"] == "http.disconnect"
        ended.set()

    async with bare(stream) as at, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(*at)
        writer.write(GET % 1)
        await asked.wait()
        if begun:
            await reader.readuntil(b":\n\n")
        writer.close()
        await ended.wait()


async def test_no_answer_is_written_into_a_stream() -> None:
    go_on = asyncio.Event()

    async def stream(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"last"})

    async with bare(stream) as at, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(*at)
        writer.write(GET % 1)
        got = await reader.readuntil(b"first\r\n")
        writer.write(NONE)
        await writer.drain()
        await turns()
        go_on.set()
        got += await reader.read()
        writer.close()
    body, _, rest = got.partition(b"\r\n\r\n")[2].partition(b"0\r\n\r\n")
    assert body == b"5\r\nfirst\r\n4\r\nlast\r\n"
    assert rest.startswith(b"HTTP/1.1 501 ")


async def test_a_client_of_the_api_that_half_closes_is_answered(api: Api) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(b"GET /v1/calls HTTP/1.0\r\n\r\n")
    writer.write_eof()
    async with asyncio.timeout(20):
        assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
    writer.close()
