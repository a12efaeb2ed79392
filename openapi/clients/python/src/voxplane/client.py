"""The REST API, sync and async: one description of every request, two ways to send it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any
from uuid import uuid4

import httpx

from voxplane.attempts import NEXT_URL, Next, after
from voxplane.errors import ApiError, Unavailable
from voxplane.sse import Lines, SseReader

Json = dict[str, Any]
TIMEOUT_S = 10.0
STREAM_SILENCE_S = 45.0
SAFE_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})
STREAM_AGAIN = NEXT_URL | {429}
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
LOOPBACK = ("all://localhost", "all://127.0.0.1", "all://[::1]")
"""A proxy of the environment cannot reach these."""


def _urls(base_urls: str | list[str]) -> list[str]:
    urls = [base_urls] if isinstance(base_urls, str) else list(base_urls)
    if not urls:
        raise ValueError("give at least one base URL, such as https://api.example.com")
    return [u.rstrip("/") for u in urls]


def _create_body(
    agent: Json | str,
    latencies: list[Any] | None,
    regions: Json | None,
    webhook_url: str | None,
    metadata: dict[str, str] | None,
    max_duration_s: int,
    caller: Json | None,
) -> Json:
    body: Json = {
        "agent": {"url": agent} if isinstance(agent, str) else agent,
        "max_duration_s": max_duration_s,
    }
    if latencies:
        body["latencies"] = [entry if isinstance(entry, dict) else entry.to_json() for entry in latencies]
    for name, value in (
        ("regions", regions),
        ("webhook_url", webhook_url),
        ("metadata", metadata),
        ("caller", caller),
    ):
        if value:
            body[name] = value
    return body


class _Answer:
    """An HTTP response, read for what decides the next step."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.retry_after_s = None
        text = response.headers.get("retry-after", "")
        if text.isascii() and text.isdigit():
            self.retry_after_s = float(text)
        self.json: Any = None
        if response.content:
            try:
                self.json = response.json()
            except ValueError:
                self.json = {"detail": response.text[:200]}
        self.code = str(self.json.get("code", "")) if isinstance(self.json, dict) else ""

    def result(self) -> Any:
        if not 200 <= self.status < 300:
            raise ApiError(self.status, self.json if isinstance(self.json, dict) else {})
        return self.json


class _Request:
    """One logical request: the same headers, and so the same Idempotency-Key, in every attempt."""

    def __init__(
        self, method: str, path: str, json: Any, params: Json | None, idempotency_key: str | None
    ) -> None:
        self.method, self.path, self.json = method, path, json
        self.params = {k: v for k, v in (params or {}).items() if v is not None}
        self.headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        self.safe = (
            method in SAFE_METHODS or idempotency_key is not None or path.endswith(("/end", "/ticket"))
        )


class Client:
    """`base_urls`: one, or several instances to be tried in turn. Use it as a context manager, or `close` it."""

    def __init__(self, base_urls: str | list[str], api_key: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._urls = _urls(base_urls)
        self._url = 0
        """The one that answered last is asked first."""
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=timeout_s,
            mounts=dict.fromkeys(LOOPBACK),
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        params: Json | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Any route. Raises `ApiError` or `Unavailable`."""
        wanted = _Request(method, path, json, params, idempotency_key)
        attempt, url, causes = 0, self._url, []
        while True:
            answer: _Answer | None = None
            arrived = True
            try:
                response = self._http.request(
                    wanted.method,
                    self._urls[url] + wanted.path,
                    json=wanted.json,
                    params=wanted.params,
                    headers=wanted.headers,
                )
                answer = _Answer(response)
            except httpx.TransportError as error:
                causes.append(f"{self._urls[url]}: {type(error).__name__}")
                arrived = not isinstance(error, NOT_SENT)
            following = _following(attempt, url, len(self._urls), answer, wanted, arrived=arrived)
            if following.url_index is None:
                self._url = url
                if answer is None:
                    raise Unavailable(causes)
                return answer.result()
            time.sleep(following.pause_s)
            attempt, url = attempt + 1, following.url_index

    def create_call(
        self,
        agent: Json | str,
        *,
        latencies: list[Any] | None = None,
        regions: Json | None = None,
        webhook_url: str | None = None,
        metadata: dict[str, str] | None = None,
        max_duration_s: int = 3600,
        caller: Json | None = None,
        idempotency_key: str | None = None,
    ) -> Json:
        """The call with its `ticket` and `attach` URLs. Sent again with one and the same Idempotency-Key where it must be."""
        body = _create_body(agent, latencies, regions, webhook_url, metadata, max_duration_s, caller)
        created: Json = self.request(
            "POST", "/v1/calls", body, idempotency_key=idempotency_key or str(uuid4())
        )
        return created

    def get_call(self, call_id: str) -> Json:
        found: Json = self.request("GET", f"/v1/calls/{call_id}")
        return found

    def list_calls(self, **filters: Any) -> Iterator[Json]:
        """All calls that match, newest first, page by page."""
        cursor: str | None = None
        while True:
            page = self.request("GET", "/v1/calls", params=filters | {"cursor": cursor})
            yield from page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def end_call(self, call_id: str) -> Json:
        ended: Json = self.request("POST", f"/v1/calls/{call_id}/end")
        return ended

    def new_ticket(self, call_id: str, old_ticket: str) -> Json:
        """Fresh epochs, with the old ticket as the credential."""
        found: Json = self.request("POST", f"/v1/calls/{call_id}/ticket", {"ticket": old_ticket})
        return found

    def events_of(self, call_id: str, after_seq: int = 0) -> list[Json]:
        """All events of a call after `after_seq` that are durable by now."""
        events: list[Json] = []
        path = f"/v1/calls/{call_id}/events"
        while found := (self.request("GET", path, params={"after": after_seq}))["data"]:
            events += found
            after_seq = found[-1]["seq"]
        return events

    def conversation(self, call_id: str, *, min_seq: int | None = None) -> Json:
        found: Json = self.request("GET", f"/v1/calls/{call_id}/conversation", params={"min_seq": min_seq})
        return found

    def regions(self) -> list[Json]:
        found: list[Json] = self.request("GET", "/v1/regions")["data"]
        return found

    def create_webhook(self, url: str, types: list[str] | None = None) -> Json:
        created: Json = self.request(
            "POST", "/v1/webhooks", {"url": url} | ({"types": types} if types else {})
        )
        return created

    def stream_events(self, cursor: str | None = None) -> Iterator[Json]:
        """Events as they become durable, each once; reconnects by itself, to the next base URL."""
        url = self._url
        while True:
            headers = {"Last-Event-ID": cursor} if cursor else {}
            lines, reader = Lines(), SseReader()
            try:
                with self._http.stream(
                    "GET",
                    self._urls[url] + "/v1/events/stream",
                    headers=headers,
                    timeout=httpx.Timeout(TIMEOUT_S, read=STREAM_SILENCE_S),
                ) as response:
                    if response.status_code != 200 and response.status_code not in STREAM_AGAIN:
                        response.read()
                        _Answer(response).result()
                    for chunk in response.iter_bytes():
                        for line in lines.feed(chunk):
                            for cursor_now, event in reader.feed(line):
                                cursor = cursor_now
                                if event is not None:
                                    yield event
            except httpx.TransportError:
                pass
            url = (url + 1) % len(self._urls)
            time.sleep(0.5)


def _following(
    attempt: int, url: int, urls: int, answer: _Answer | None, wanted: _Request, *, arrived: bool
) -> Next:
    return after(
        attempt,
        url,
        urls,
        status=answer.status if answer else None,
        safe=wanted.safe or not arrived,
        retry_after_s=answer.retry_after_s if answer else None,
        code=answer.code if answer else "",
    )


class AsyncClient:
    """The same as `Client`, for asyncio."""

    def __init__(self, base_urls: str | list[str], api_key: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._urls = _urls(base_urls)
        self._url = 0
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=timeout_s,
            mounts=dict.fromkeys(LOOPBACK),
        )

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def request(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        params: Json | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Any route. Raises `ApiError` or `Unavailable`."""
        wanted = _Request(method, path, json, params, idempotency_key)
        attempt, url, causes = 0, self._url, []
        while True:
            answer: _Answer | None = None
            arrived = True
            try:
                response = await self._http.request(
                    wanted.method,
                    self._urls[url] + wanted.path,
                    json=wanted.json,
                    params=wanted.params,
                    headers=wanted.headers,
                )
                answer = _Answer(response)
            except httpx.TransportError as error:
                causes.append(f"{self._urls[url]}: {type(error).__name__}")
                arrived = not isinstance(error, NOT_SENT)
            following = _following(attempt, url, len(self._urls), answer, wanted, arrived=arrived)
            if following.url_index is None:
                self._url = url
                if answer is None:
                    raise Unavailable(causes)
                return answer.result()
            await asyncio.sleep(following.pause_s)
            attempt, url = attempt + 1, following.url_index

    async def create_call(
        self,
        agent: Json | str,
        *,
        latencies: list[Any] | None = None,
        regions: Json | None = None,
        webhook_url: str | None = None,
        metadata: dict[str, str] | None = None,
        max_duration_s: int = 3600,
        caller: Json | None = None,
        idempotency_key: str | None = None,
    ) -> Json:
        """See `Client.create_call`."""
        body = _create_body(agent, latencies, regions, webhook_url, metadata, max_duration_s, caller)
        created: Json = await self.request(
            "POST", "/v1/calls", body, idempotency_key=idempotency_key or str(uuid4())
        )
        return created

    async def get_call(self, call_id: str) -> Json:
        found: Json = await self.request("GET", f"/v1/calls/{call_id}")
        return found

    async def list_calls(self, **filters: Any) -> AsyncIterator[Json]:
        """All calls that match, newest first, page by page."""
        cursor: str | None = None
        while True:
            page = await self.request("GET", "/v1/calls", params=filters | {"cursor": cursor})
            for call in page["data"]:
                yield call
            cursor = page["next_cursor"]
            if cursor is None:
                return

    async def end_call(self, call_id: str) -> Json:
        ended: Json = await self.request("POST", f"/v1/calls/{call_id}/end")
        return ended

    async def new_ticket(self, call_id: str, old_ticket: str) -> Json:
        """Fresh epochs, with the old ticket as the credential."""
        found: Json = await self.request("POST", f"/v1/calls/{call_id}/ticket", {"ticket": old_ticket})
        return found

    async def events_of(self, call_id: str, after_seq: int = 0) -> list[Json]:
        """All events of a call after `after_seq` that are durable by now."""
        events: list[Json] = []
        path = f"/v1/calls/{call_id}/events"
        while found := (await self.request("GET", path, params={"after": after_seq}))["data"]:
            events += found
            after_seq = found[-1]["seq"]
        return events

    async def conversation(self, call_id: str, *, min_seq: int | None = None) -> Json:
        found: Json = await self.request(
            "GET", f"/v1/calls/{call_id}/conversation", params={"min_seq": min_seq}
        )
        return found

    async def regions(self) -> list[Json]:
        found: list[Json] = (await self.request("GET", "/v1/regions"))["data"]
        return found

    async def create_webhook(self, url: str, types: list[str] | None = None) -> Json:
        created: Json = await self.request(
            "POST", "/v1/webhooks", {"url": url} | ({"types": types} if types else {})
        )
        return created

    async def stream_events(self, cursor: str | None = None) -> AsyncIterator[Json]:
        """Events as they become durable, each once; reconnects by itself, to the next base URL."""
        url = self._url
        while True:
            headers = {"Last-Event-ID": cursor} if cursor else {}
            lines, reader = Lines(), SseReader()
            try:
                async with self._http.stream(
                    "GET",
                    self._urls[url] + "/v1/events/stream",
                    headers=headers,
                    timeout=httpx.Timeout(TIMEOUT_S, read=STREAM_SILENCE_S),
                ) as response:
                    if response.status_code != 200 and response.status_code not in STREAM_AGAIN:
                        await response.aread()
                        _Answer(response).result()
                    async for chunk in response.aiter_bytes():
                        for line in lines.feed(chunk):
                            for cursor_now, event in reader.feed(line):
                                cursor = cursor_now
                                if event is not None:
                                    yield event
            except httpx.TransportError:
                pass
            url = (url + 1) % len(self._urls)
            await asyncio.sleep(0.5)
