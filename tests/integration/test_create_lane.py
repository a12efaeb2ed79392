"""The lane of the create answers what the framework's route answers, to the header; and it is the lane that answers."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio

from app.calls import create_lane
from app.projects import auth
from tests.support.api import Api, Project
from tests.support.edges import until
from tests.support.fleet import three_regions

BODY = (
    b'{"agent":{"url":"ws://127.0.0.1:9/agent"},"metadata":{"a":"b"},'
    b'"latencies":[{"region":"us-east","rtt_ms":9},{"region":"eu-west","rtt_ms":90}]}'
)
OWN = ("id", "ticket", "created_at", "request_id", "retry_after_s")
"""What no two answers share."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def fleet(api: Api) -> None:
    await three_regions(api)


@pytest.fixture
def created(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bodies that the lane took for a create. A key that it knows stays known, however long a test takes."""
    monkeypatch.setattr(auth, "CACHE_S", 600.0)
    seen: list[bytes] = []
    plain = create_lane._fitting

    def fitting(content: bytes | None) -> Any:
        body = plain(content)
        if body is not None:
            seen.append(content or b"")
        return body

    monkeypatch.setattr(create_lane, "_fitting", fitting)
    return seen


async def both(client: httpx.AsyncClient, body: bytes, headers: dict[str, str]) -> list[httpx.Response]:
    """The same create as it is, and with a content type that says the same in more words, which the lane does not take."""
    await client.get("/v1/calls?limit=1")  # the key is known from now on
    answers = []
    for more in ("", "; charset=utf-8"):
        sent = {"Content-Type": f"application/json{more}"} | headers
        if "Idempotency-Key" in headers:
            sent["Idempotency-Key"] += more
        answers.append(await client.post("/v1/calls", content=body, headers=sent))
    return answers


def same(lane: httpx.Response, route: httpx.Response) -> None:
    def shown(answer: httpx.Response) -> dict[str, Any]:
        return {k: v for k, v in answer.json().items() if k not in OWN}

    assert lane.status_code == route.status_code
    assert shown(lane) == shown(route)
    assert {k for k in lane.headers if k != "date"} == {k for k in route.headers if k != "date"}
    assert lane.headers["content-type"] == route.headers["content-type"]


async def test_a_create_is_answered_as_by_the_route(project: Project, created: list[bytes]) -> None:
    lane, route = await both(project.client, BODY, {"Idempotency-Key": "k"})
    assert (lane.status_code, created) == (201, [BODY])
    same(lane, route)
    assert lane.headers["location"] == f"/v1/calls/{lane.json()['id']}"
    lane, route = await both(project.client, BODY, {"Idempotency-Key": "k"})
    assert lane.headers["idempotent-replayed"] == "true"
    same(lane, route)
    lane, route = await both(project.client, BODY.replace(b'"b"', b'"c"'), {"Idempotency-Key": "k"})
    assert (lane.status_code, lane.json()["code"]) == (422, "idempotency_key_reused")
    same(lane, route)


@pytest.mark.parametrize(
    ("body", "headers", "status", "taken"),
    [
        (BODY, {}, 400, True),
        (BODY, {"Idempotency-Key": "k" * 256}, 400, True),
        (BODY, {"Idempotency-Key": "k", "Content-Encoding": "gzip"}, 415, False),
        (BODY, {"Idempotency-Key": "k", "Content-Type": "text/plain"}, 415, False),
        (BODY, {"Idempotency-Key": "k", "Content-Type": "application/json; charset=utf-8"}, 201, False),
        (BODY, {"Idempotency-Key": "k", "Authorization": "Bearer vx_test_nonsense"}, 401, False),
        (b"", {"Idempotency-Key": "k"}, 422, False),
        (b"{", {"Idempotency-Key": "k"}, 400, False),
        (b"[]", {"Idempotency-Key": "k"}, 422, False),
        (b'{"agent":{"url":"ws://127.0.0.1:9/\\u0000"}}', {"Idempotency-Key": "k"}, 422, False),
        (
            b'{"agent":{"url":"ws://127.0.0.1:9/","url":"ws://127.0.0.1:8/"}}',
            {"Idempotency-Key": "k"},
            422,
            False,
        ),
        (b'{"agent":{"url":"ws://127.0.0.1:9/"},"nonsense":1}', {"Idempotency-Key": "k"}, 422, False),
        (b'{"agent":{"url":"ws://127.0.0.1:9/","sample_rate":16000}}', {"Idempotency-Key": "k"}, 422, True),
        (b'{"agent":{"url":"ws://10.0.0.1/"}}', {"Idempotency-Key": "k"}, 422, True),
        (
            b'{"agent":{"url":"ws://127.0.0.1:9/"},"regions":{"pin":"nowhere"}}',
            {"Idempotency-Key": "k"},
            422,
            True,
        ),
        (
            b'{"agent":{"url":"ws://127.0.0.1:9/"},"regions":{"jurisdictions":["zz"]}}',
            {"Idempotency-Key": "k"},
            422,
            True,
        ),
        (b"x" * 300_000, {"Idempotency-Key": "k"}, 413, False),
    ],
)
async def test_whatever_is_refused_is_refused_as_by_the_route(
    project: Project, created: list[bytes], body: bytes, headers: dict[str, str], status: int, taken: bool
) -> None:
    lane, route = await both(project.client, body, headers)
    assert (lane.status_code, bool(created)) == (status, taken)
    same(lane, route)


async def test_a_key_that_may_not_create_is_told_so(api: Api, project: Project, created: list[bytes]) -> None:
    lane, route = await both(await api.key(project, "viewer"), BODY, {"Idempotency-Key": "k"})
    assert (lane.status_code, created) == (403, [])
    same(lane, route)


async def test_a_body_in_many_pieces_is_one(project: Project, created: list[bytes]) -> None:
    await project.client.get("/v1/calls?limit=1")

    async def pieces() -> Any:
        for i in range(len(BODY)):
            yield BODY[i : i + 1]

    headers = {"Content-Type": "application/json", "Content-Length": str(len(BODY)), "Idempotency-Key": "k"}
    answer = await project.client.post("/v1/calls", content=pieces(), headers=headers)
    assert (answer.status_code, created) == (201, [BODY])


async def test_what_the_database_cannot_do_is_said_as_everywhere(
    project: Project, monkeypatch: pytest.MonkeyPatch, api: Api
) -> None:
    async def away(*_: Any) -> Any:
        raise ConnectionRefusedError

    monkeypatch.setattr(api.control.calls.coalescer, "create", away)
    lane, route = await both(project.client, BODY, {"Idempotency-Key": "k"})
    assert (lane.status_code, lane.headers["retry-after"]) == (503, "1")
    same(lane, route)


async def test_creates_on_one_connection_are_answered_in_their_order_and_the_last_closes_it(
    api: Api, project: Project, created: list[bytes]
) -> None:
    await project.client.get("/v1/calls?limit=1")
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    try:
        for i, more in enumerate(("", "", "Connection: close\r\n")):
            head = (
                f"POST /v1/calls HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {project.key}\r\nRequest-Id: r-{i}\r\n"
                f"Content-Type: application/json\r\nIdempotency-Key: k-{i}\r\nContent-Length: {len(BODY)}\r\n{more}\r\n"
            )
            writer.write(head.encode() + BODY)
        answers = (await asyncio.wait_for(reader.read(-1), 20)).split(b"HTTP/1.1 201 Created\r\n")[1:]
    finally:
        writer.close()
    assert len(created) == 3
    heads = [answer.partition(b"\r\n\r\n")[0].split(b"\r\n") for answer in answers]
    assert [f"request-id: r-{i}".encode() in head for i, head in enumerate(heads)] == [True] * 3
    assert [b"connection: close" in head for head in heads] == [False, False, True]


async def test_a_wish_for_another_protocol_is_not_heard_and_the_request_is_answered(
    api: Api, project: Project, created: list[bytes]
) -> None:
    """Java's client wishes for HTTP/2 with every request on a plain connection."""
    await project.client.get("/v1/calls?limit=1")
    wish = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
    head = (
        f"POST /v1/calls HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {project.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n{wish}Idempotency-Key: "
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    try:
        async with asyncio.timeout(20):
            for key in ("k-0", "k-1"):
                for piece in (head[:90], head[90:], key + "\r\n\r\n", BODY[:20].decode(), BODY[20:].decode()):
                    writer.write(piece.encode())
                    await writer.drain()
                    await asyncio.sleep(0)
                assert await reader.readline() == b"HTTP/1.1 201 Created\r\n"
                answered = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in answered.split(b"\r\n") if line.startswith(b"content-length"))
                await reader.readexactly(int(length.partition(b":")[2]))
            # as many as one read brings
            writer.write(f"GET /v1/regions HTTP/1.1\r\nHost: x\r\n{wish}\r\n".encode() * 1_500)
            writer.write(b"GET /v1/regions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert (await reader.read(-1)).count(b"HTTP/1.1 401 ") == 1_501
    finally:
        writer.close()
    assert created == [BODY, BODY]


async def test_a_reader_that_is_behind_gets_its_answers_whole_and_is_waited_for(
    api: Api, project: Project, created: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Creates between answers of 200 KB each, to one who does not read yet: what is to be sent must not pile up."""
    await project.client.get("/v1/calls?limit=1")
    behind: list[bool] = []
    whole = create_lane.writable

    def writable(scope: Any) -> Any:
        cycle = whole(scope)
        behind.append(cycle is None)
        return cycle

    monkeypatch.setattr(create_lane, "writable", writable)
    head = (
        f"POST /v1/calls HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {project.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\nIdempotency-Key: "
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=1 << 16)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    asked = 60
    try:
        for i in range(asked):
            writer.write(
                b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" + f"{head}k-{i}\r\n\r\n".encode() + BODY
            )
        await until(lambda: True in behind, "a create that finds its reader behind")
        for _ in range(500):
            await asyncio.sleep(0)
        assert behind.index(True) == len(behind) - 1 < asked - 1, "it and those after it wait for the reader"
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(60):
            for _ in range(asked):
                assert (await answer(reader))[0] == 200
                status, body = await answer(reader)
                assert (status, msgspec.json.decode(body)["state"]) == (201, "ringing")
    finally:
        writer.close()
    assert len(created) == asked


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """(status, body) of the next one."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if line)
    assert headers["request-id"]
    return int(first.split()[1]), await reader.readexactly(int(headers["content-length"]))
