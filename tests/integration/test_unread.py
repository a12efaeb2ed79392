"""Requests that the HTTP parser itself refuses are answered as any other that does not fit."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.api import Api


async def answer_to(api: Api, request: bytes) -> tuple[int, dict[str, str], dict[str, object]]:
    """(status, headers, body); the connection ends with it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    try:
        writer.write(request)
        async with asyncio.timeout(20):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    line, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
    return int(line.split()[1]), headers, json.loads(body)


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (b"BREW /v1/calls HTTP/1.1\r\nhost: x\r\n\r\n", 501, "unknown_method"),
        (b"get /v1/calls HTTP/1.1\r\nhost: x\r\n\r\n", 501, "unknown_method"),
        (b"GET /v1/calls HTTP/1.1\r\nhost : x\r\n\r\n", 400, "malformed_http"),
        (b"GET /v1/calls HTTP/1.1\r\n\r\n", 400, "malformed_http"),
        (b"POST /v1/calls HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}", 400, "malformed_http"),
        (b"GET /v1/calls HTTP/1.1\r\nhost: x\r\nHost: y\r\n\r\n", 400, "malformed_http"),
        (b"GET /v1/calls HTTP/1.0\r\n\r\n", 401, "unauthenticated"),
        (b"PROPFIND /v1/calls HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 405, "method_not_allowed"),
    ],
)
async def test_what_is_no_request_gets_a_problem(api: Api, request_: bytes, status: int, code: str) -> None:
    got, headers, body = await answer_to(api, request_)
    assert (got, body["status"], body["code"]) == (status, status, code)
    assert headers["content-type"] == "application/problem+json"
    assert headers["request-id"] == body["request_id"]
    assert body["fix"] and body["detail"]
