"""The REST client against real servers that refuse, fail, hang, redirect and cut off: one call is created, no event is lost."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from voxplane import ApiError, AsyncClient, Client, Unavailable

AGENT = "wss://bot.example/ws"
CALL = {"id": "call_1", "state": "ringing", "ticket": "t", "attach": []}


@dataclass(slots=True)
class Asked:
    method: str
    target: str
    headers: dict[str, str]
    body: Any


@dataclass(slots=True)
class Server:
    """Answers with `reply`, and keeps what it was asked."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)


Reply = Callable[[int, Asked, asyncio.StreamWriter], Awaitable[None]]


def answer(status: int, body: Any = None, **headers: str) -> bytes:
    content = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(content)}", "connection: close"]
    lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@asynccontextmanager
async def serving(*replies: bytes | Reply | None) -> AsyncIterator[Server]:
    """One reply per request, the last one from then on; None: says nothing."""
    server = Server()
    released = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, target, _ = head[0].split(" ")
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
            raw = await reader.readexactly(int(headers.get("content-length", "0")))
            number = len(server.asked)
            asked = Asked(method, target, headers, json.loads(raw) if raw else None)
            server.asked.append(asked)
            reply = replies[min(number, len(replies) - 1)]
            if reply is None:
                await released.wait()
            elif callable(reply):
                await reply(number, asked, writer)
            else:
                writer.write(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        released.set()
        listening.close()
        await listening.wait_closed()


@pytest.fixture
def refusing() -> str:
    """A URL that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def both(work: Callable[[Client], Any]) -> Callable[[list[str], float], Awaitable[Any]]:
    """The sync client in a thread, since the servers live in this loop."""

    def run(urls: list[str], timeout_s: float) -> Any:
        with Client(urls, "vx_test_key", timeout_s=timeout_s) as client:
            return work(client)

    return lambda urls, timeout_s: asyncio.to_thread(run, urls, timeout_s)


async def create_async(urls: list[str], timeout_s: float) -> Any:
    async with AsyncClient(urls, "vx_test_key", timeout_s=timeout_s) as client:
        return await client.create_call(AGENT, metadata={"order": "7"})


create_sync = both(lambda client: client.create_call(AGENT, metadata={"order": "7"}))


@pytest.mark.parametrize("create", [create_async, create_sync], ids=["async", "sync"])
async def test_a_create_goes_past_what_refuses_fails_and_hangs_with_one_key(
    create: Any, refusing: str
) -> None:
    async with (
        serving(answer(503, {"code": "unavailable"})) as failing,
        serving(None) as hanging,
        serving(answer(201, CALL)) as good,
    ):
        made = await create([refusing, failing.url, hanging.url, good.url], 0.3)
        assert made == CALL
        attempts = [failing.asked[0], hanging.asked[0], good.asked[0]]
        assert len({a.headers["idempotency-key"] for a in attempts}) == 1
        assert all(a.body == {"agent": {"url": AGENT}, "max_duration_s": 3600, "metadata": {"order": "7"}}
                   for a in attempts)  # fmt: skip
        assert attempts[0].headers["authorization"] == "Bearer vx_test_key"


async def test_two_creates_carry_two_keys() -> None:
    async with serving(answer(201, CALL)) as good, AsyncClient(good.url, "k") as client:
        await client.create_call(AGENT)
        await client.create_call(AGENT)
        await client.create_call(AGENT, idempotency_key="mine")
        keys = [a.headers["idempotency-key"] for a in good.asked]
        assert len(set(keys)) == 3 and keys[2] == "mine"


async def test_nobody_there_is_unavailable_with_a_cause_per_attempt(refusing: str) -> None:
    async with AsyncClient([refusing, refusing], "k") as client:
        with pytest.raises(Unavailable) as raised:
            await client.get_call("call_1")
    assert raised.value.causes and all(refusing in cause for cause in raised.value.causes)


async def test_a_refusal_is_raised_at_once_with_all_it_says() -> None:
    problem = {
        "status": 422, "code": "invalid", "detail": "wrong", "fix": "correct it", "request_id": "req_1",
        "errors": [{"pointer": "/agent/url", "detail": "not a URL"}],
    }  # fmt: skip
    async with serving(answer(422, problem)) as server, AsyncClient([server.url] * 2, "k") as client:
        with pytest.raises(ApiError) as raised:
            await client.create_call("nonsense")
        assert len(server.asked) == 1
    error = raised.value
    assert (error.status, error.code, error.detail, error.fix) == (422, "invalid", "wrong", "correct it")
    assert (error.errors, error.request_id) == (problem["errors"], "req_1")


@pytest.mark.parametrize(("status", "code"), [(429, "quota_exceeded"), (409, "in_flight")])
async def test_what_asks_to_wait_is_asked_again_there(status: int, code: str) -> None:
    wait = answer(status, {"code": code}, retry_after="0")
    async with serving(wait, answer(201, CALL)) as first, serving(answer(201, CALL)) as second:
        async with AsyncClient([first.url, second.url], "k") as client:
            assert await client.create_call(AGENT) == CALL
        assert (len(first.asked), len(second.asked)) == (2, 0)


async def test_a_wait_longer_than_a_request_may_take_is_the_answer() -> None:
    async with serving(answer(429, {"code": "quota_exceeded"}, retry_after="60")) as server:
        async with AsyncClient([server.url] * 2, "k") as client:
            with pytest.raises(ApiError) as raised:
                await client.create_call(AGENT)
        assert (len(server.asked), raised.value.retry_after_s) == (1, 60.0)


async def test_after_a_wait_a_failure_moves_on_to_the_next_url() -> None:
    wait, fail = answer(429, {}, retry_after="0"), answer(503, {})
    async with serving(wait, fail) as first, serving(answer(201, CALL)) as second:
        async with AsyncClient([first.url, second.url], "k") as client:
            assert await client.create_call(AGENT) == CALL
        assert (len(first.asked), len(second.asked)) == (2, 1)


async def test_what_is_not_safe_is_sent_again_only_where_it_cannot_have_arrived(refusing: str) -> None:
    made = {"id": "whk_1", "secret": "whsec_x"}
    async with serving(answer(201, made)) as good, serving(answer(503, {"code": "unavailable"})) as failing:
        async with AsyncClient([refusing, good.url], "k") as client:
            assert await client.create_webhook("https://a.example/hook") == made
        async with AsyncClient([failing.url, good.url], "k") as client:
            with pytest.raises(ApiError):
                await client.create_webhook("https://a.example/hook")
        assert (len(good.asked), len(failing.asked)) == (1, 1)


async def test_a_url_that_hangs_is_not_asked_first_again() -> None:
    async with serving(None) as hanging, serving(answer(200, CALL)) as good:
        async with AsyncClient([hanging.url, good.url], "k", timeout_s=0.3) as client:
            for _ in range(3):
                await client.get_call("call_1")
        assert (len(hanging.asked), len(good.asked)) == (1, 3)


async def test_a_redirect_is_not_taken_for_an_answer() -> None:
    async with (
        serving(answer(301, location="https://elsewhere.example/")) as server,
        AsyncClient(server.url, "k") as client,
    ):
        with pytest.raises(ApiError) as raised:
            await client.get_call("call_1")
    assert raised.value.status == 301


async def test_an_own_machine_is_not_asked_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch, refusing: str
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, refusing)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with serving(answer(200, CALL)) as good:
        async with AsyncClient(good.url, "k") as client:
            assert await client.get_call("call_1") == CALL
        assert await both(lambda c: c.get_call("call_1"))([good.url], 5) == CALL


async def test_lists_are_followed_to_their_end_through_pages_that_hold_nothing() -> None:
    async def pages(_: int, asked: Asked, writer: asyncio.StreamWriter) -> None:
        number = int(asked.target.partition("cursor=c")[2] or 0)
        data = [{"id": f"call_{number}"}] if number != 1 else []
        writer.write(answer(200, {"data": data, "next_cursor": f"c{number + 1}" if number < 2 else None}))

    async with serving(pages) as server:
        async with AsyncClient(server.url, "k") as client:
            assert [c["id"] async for c in client.list_calls(state="ringing")] == ["call_0", "call_2"]
        assert await both(lambda c: [x["id"] for x in c.list_calls()])([server.url], 5) == [
            "call_0",
            "call_2",
        ]


async def test_the_events_of_a_long_call_are_all_there() -> None:
    async def pages(_: int, asked: Asked, writer: asyncio.StreamWriter) -> None:
        after = int(asked.target.partition("after=")[2].partition("&")[0])
        found = [{"seq": seq} for seq in range(after + 1, min(after + 200, 450) + 1)]
        writer.write(answer(200, {"data": found, "next_cursor": str(found[-1]["seq"]) if found else None}))

    async with serving(pages) as server:
        async with AsyncClient(server.url, "k") as client:
            assert [e["seq"] for e in await client.events_of("call_1")] == list(range(1, 451))
            assert [e["seq"] for e in await client.events_of("call_1", 440)] == list(range(441, 451))
        assert len(await both(lambda c: c.events_of("call_1"))([server.url], 5)) == 450


EVENTS = [
    {"id": f"evt_{n}", "seq": n, "type": "turn.ended", "data": {"text": text}}
    for n, text in enumerate(("hello", "a\u2028b\x85c\x0bd", "grüß dich", "last"), 1)
]


def block(event: dict[str, Any]) -> bytes:
    return f"id: c{event['seq']}\nevent: x\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


async def cut_off(number: int, asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Sends from the cursor on, dribbling, and breaks off in the middle of an event; a heartbeat between all."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nretry: 1000\nid: c0\n\n")
    done = int(asked.headers.get("last-event-id", "c0")[1:])
    for i, event in enumerate(EVENTS[done:]):
        if i == 2:
            writer.write(block(event)[:-9])
            await writer.drain()
            return
        text = b": still here\n\n" + block(event)
        for at in range(0, len(text), 7):
            writer.write(text[at : at + 7])
            await writer.drain()
    await asyncio.sleep(0)


async def take(number: int, events: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    async with asyncio.timeout(10):
        async for event in events:
            found.append(event)
            if len(found) == number:
                break
    return found


async def test_a_stream_that_breaks_goes_on_where_it_was_and_yields_nothing_twice(refusing: str) -> None:
    async with serving(cut_off, answer(503, {}), cut_off) as server:
        async with AsyncClient([server.url, refusing], "k") as client:
            assert await take(4, client.stream_events()) == EVENTS
        cursors = [a.headers.get("last-event-id") for a in server.asked]
        assert cursors == [None, "c2", "c2"]


async def test_a_stream_asks_for_what_is_wanted_and_gives_volatile_events_without_moving_on() -> None:
    async def live(number: int, asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + block(EVENTS[0]))
        writer.write(b'event: transcript.partial\ndata: {"type": "transcript.partial"}\n\n')
        await writer.drain()

    wanted: dict[str, Any] = {"types": ["call.*", "turn.ended"], "call_id": "call_1", "volatile": True}
    async with serving(live) as server, AsyncClient(server.url, "k") as client:
        found = await take(3, client.stream_events(metadata={"team": "a"}, **wanted))
        assert [e["type"] for e in found] == ["turn.ended", "transcript.partial", "turn.ended"]
        assert [a.headers.get("last-event-id") for a in server.asked] == [None, "c1"]
        query = parse_qs(urlsplit(server.asked[0].target).query)
        assert query == {
            "types": ["call.*", "turn.ended"], "call_id": ["call_1"], "volatile": ["true"], "metadata.team": ["a"],
        }  # fmt: skip


async def test_the_sync_stream_does_the_same() -> None:
    def four(client: Client) -> list[dict[str, Any]]:
        events = client.stream_events()
        return [next(events) for _ in range(4)]

    async with serving(cut_off) as server:
        assert await both(four)([server.url], 5) == EVENTS
        assert [a.headers.get("last-event-id") for a in server.asked] == [None, "c2"]


async def test_a_stream_that_is_refused_says_so() -> None:
    async with serving(answer(400, {"code": "bad_cursor"})) as server, AsyncClient(server.url, "k") as client:
        with pytest.raises(ApiError) as raised:
            await take(1, client.stream_events("nonsense"))
    assert raised.value.code == "bad_cursor"
