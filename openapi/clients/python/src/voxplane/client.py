"""The REST API, sync and async: one description of every request (`requests`), two ways to send it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from types import TracebackType
from typing import Any

import httpx

from voxplane import requests as ask
from voxplane import trust
from voxplane.errors import Unavailable
from voxplane.feeds import AsyncFeeds, Feeds
from voxplane.fleet import AsyncFleet, Fleet
from voxplane.prober import AsyncProbes
from voxplane.requests import LOOPBACK, TIMEOUT_S, Answer, Attempts, Json, Request, authorization_of, url_list


class Client(Fleet, Feeds):
    """`base_urls`: one, or several instances to be tried in turn. Use it as a context manager, or `close` it."""

    def __init__(self, base_urls: str | list[str], api_key: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._urls = url_list(base_urls)
        self._url = 0
        """The one that answered last is asked first."""
        self._http = httpx.Client(
            headers=authorization_of(api_key),
            timeout=timeout_s,
            mounts=dict.fromkeys(LOOPBACK),
            verify=trust.context() or True,
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
        if_match: str | None = None,
    ) -> Any:
        """Any route. Raises `ApiError` or `Unavailable`."""
        return self._ask(Request(method, path, json, params or {}, idempotency_key, if_match=if_match))

    def _ask(self, wanted: Request) -> Any:
        attempts = Attempts(wanted, self._urls, self._url)
        while True:
            answer: Answer | None = None
            try:
                answer = Answer(self._http.request(wanted.method, attempts.url, **wanted.sent))
                following = attempts.answered(answer)
            except httpx.TransportError as error:
                following = attempts.broke(error)
            if following.url_index is None:
                self._url = attempts.url_index
                if answer is None:
                    raise Unavailable(attempts.causes)
                return answer.result()
            time.sleep(following.pause_s)

    def create_call(
        self,
        agent: Json | str,
        *,
        latencies: list[Any] | None = None,
        regions: Json | None = None,
        turns: Json | None = None,
        webhook_url: str | None = None,
        metadata: dict[str, str] | None = None,
        subject: str | None = None,
        max_duration_s: int = 3600,
        caller: Json | None = None,
        end_when: Json | None = None,
        latency_budget: Json | None = None,
        idempotency_key: str | None = None,
    ) -> Json:
        """The call with its `ticket` and `attach` URLs. Sent again with one and the same Idempotency-Key where it must be."""
        wanted = ask.create_call(
            agent,
            latencies=latencies,
            idempotency_key=idempotency_key,
            max_duration_s=max_duration_s,
            regions=regions,
            turns=turns,
            webhook_url=webhook_url,
            metadata=metadata,
            subject=subject,
            caller=caller,
            end_when=end_when,
            latency_budget=latency_budget,
        )
        created: Json = self._ask(wanted)
        return created

    def get_call(self, call_id: str) -> Json:
        found: Json = self._ask(ask.get_call(call_id))
        return found

    def list_calls(self, **filters: Any) -> Iterator[Json]:
        """All calls that match, newest first, page by page."""
        cursor: str | None = None
        while True:
            page = self._ask(ask.list_calls(filters, cursor))
            yield from page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def end_call(self, call_id: str) -> Json:
        ended: Json = self._ask(ask.end_call(call_id))
        return ended

    def new_ticket(self, call_id: str, old_ticket: str) -> Json:
        """Fresh epochs, with the old ticket as the credential."""
        found: Json = self._ask(ask.new_ticket(call_id, old_ticket))
        return found

    def conversation(
        self,
        call_id: str,
        *,
        turns: int | None = None,
        tokens: int | None = None,
        before_seq: int | None = None,
        min_seq: int | None = None,
        wait_ms: int | None = None,
    ) -> Json:
        """The newest turns, at most `turns` and about `tokens`; `before_seq` pages into the past. Raises `ApiError`
        ``not_yet`` where `min_seq` is not durable within `wait_ms`."""
        window = dict(turns=turns, tokens=tokens, before_seq=before_seq, min_seq=min_seq, wait_ms=wait_ms)
        found: Json = self._ask(ask.conversation(call_id, window))
        return found

    def write_conversation(self, call_id: str, entry: Json, *, key: str | None = None) -> Json:
        """Writes a `turn`, a `tool.called` or a `tool.result`, once per `key`; `seq` is in the answer."""
        written: Json = self._ask(ask.write_conversation(call_id, entry, key))
        return written

    def add_turn(self, call_id: str, role: str, text: str, *, key: str | None = None) -> Json:
        return self.write_conversation(call_id, ask.turn(role, text), key=key)

    def tool(self, call_id: str, key: str) -> Json:
        """What a tool answered under this key: `done` and `result`. Raises `ApiError` ``not_found`` where it was not called."""
        found: Json = self._ask(ask.tool(call_id, key))
        return found

    def regions(self) -> list[Json]:
        return list(self._ask(ask.regions())["data"])

    def create_webhook(self, url: str, types: list[str] | None = None) -> Json:
        created: Json = self._ask(ask.create_webhook(url, types))
        return created

    def try_webhook(self, webhook_id: str, type_: str = "call.ended") -> Json:
        """Has one signed example sent now; what the endpoint answered, within a minute."""
        tried: Json = self._ask(ask.try_webhook(webhook_id, type_))
        return tried


class AsyncClient(AsyncFleet, AsyncFeeds, AsyncProbes):
    """The same as `Client`, for asyncio."""

    def __init__(self, base_urls: str | list[str], api_key: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._urls = url_list(base_urls)
        self._url = 0
        self._http = httpx.AsyncClient(
            headers=authorization_of(api_key),
            timeout=timeout_s,
            mounts=dict.fromkeys(LOOPBACK),
            verify=trust.context() or True,
        )

    @property
    def base_urls(self) -> list[str]:
        return list(self._urls)

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
        if_match: str | None = None,
    ) -> Any:
        """Any route. Raises `ApiError` or `Unavailable`."""
        return await self._ask(Request(method, path, json, params or {}, idempotency_key, if_match=if_match))

    async def download(self, path: str, params: Json | None = None) -> AsyncGenerator[bytes, None]:
        """A file, piece by piece, from the first instance that answers. Raises `ApiError`, and `Unavailable` where it breaks off."""
        causes: list[str] = []
        wanted = Request("GET", path, params=params or {})
        for url in self._urls:
            begun = False
            try:
                async with self._http.stream("GET", url + path, params=wanted.sent["params"]) as response:
                    if not response.is_success:
                        await response.aread()
                        Answer(response).result()
                    async for piece in response.aiter_bytes():
                        begun = True
                        yield piece
                    return
            except httpx.TransportError as error:
                causes.append(f"{url}: {trust.why_broken(error)}")
                if begun:
                    break
        raise Unavailable(causes)

    async def _ask(self, wanted: Request) -> Any:
        attempts = Attempts(wanted, self._urls, self._url)
        while True:
            answer: Answer | None = None
            try:
                answer = Answer(await self._http.request(wanted.method, attempts.url, **wanted.sent))
                following = attempts.answered(answer)
            except httpx.TransportError as error:
                following = attempts.broke(error)
            if following.url_index is None:
                self._url = attempts.url_index
                if answer is None:
                    raise Unavailable(attempts.causes)
                return answer.result()
            await asyncio.sleep(following.pause_s)

    async def create_call(
        self,
        agent: Json | str,
        *,
        latencies: list[Any] | None = None,
        regions: Json | None = None,
        turns: Json | None = None,
        webhook_url: str | None = None,
        metadata: dict[str, str] | None = None,
        subject: str | None = None,
        max_duration_s: int = 3600,
        caller: Json | None = None,
        end_when: Json | None = None,
        latency_budget: Json | None = None,
        idempotency_key: str | None = None,
    ) -> Json:
        """See `Client.create_call`."""
        wanted = ask.create_call(
            agent,
            latencies=latencies,
            idempotency_key=idempotency_key,
            max_duration_s=max_duration_s,
            regions=regions,
            turns=turns,
            webhook_url=webhook_url,
            metadata=metadata,
            subject=subject,
            caller=caller,
            end_when=end_when,
            latency_budget=latency_budget,
        )
        created: Json = await self._ask(wanted)
        return created

    async def get_call(self, call_id: str) -> Json:
        found: Json = await self._ask(ask.get_call(call_id))
        return found

    async def list_calls(self, **filters: Any) -> AsyncIterator[Json]:
        """All calls that match, newest first, page by page."""
        cursor: str | None = None
        while True:
            page = await self._ask(ask.list_calls(filters, cursor))
            for call in page["data"]:
                yield call
            cursor = page["next_cursor"]
            if cursor is None:
                return

    async def end_call(self, call_id: str) -> Json:
        ended: Json = await self._ask(ask.end_call(call_id))
        return ended

    async def new_ticket(self, call_id: str, old_ticket: str) -> Json:
        """Fresh epochs, with the old ticket as the credential."""
        found: Json = await self._ask(ask.new_ticket(call_id, old_ticket))
        return found

    async def conversation(
        self,
        call_id: str,
        *,
        turns: int | None = None,
        tokens: int | None = None,
        before_seq: int | None = None,
        min_seq: int | None = None,
        wait_ms: int | None = None,
    ) -> Json:
        """See `Client.conversation`."""
        window = dict(turns=turns, tokens=tokens, before_seq=before_seq, min_seq=min_seq, wait_ms=wait_ms)
        found: Json = await self._ask(ask.conversation(call_id, window))
        return found

    async def write_conversation(self, call_id: str, entry: Json, *, key: str | None = None) -> Json:
        """See `Client.write_conversation`."""
        written: Json = await self._ask(ask.write_conversation(call_id, entry, key))
        return written

    async def add_turn(self, call_id: str, role: str, text: str, *, key: str | None = None) -> Json:
        return await self.write_conversation(call_id, ask.turn(role, text), key=key)

    async def tool(self, call_id: str, key: str) -> Json:
        """See `Client.tool`."""
        found: Json = await self._ask(ask.tool(call_id, key))
        return found

    async def regions(self) -> list[Json]:
        return list((await self._ask(ask.regions()))["data"])

    async def create_webhook(self, url: str, types: list[str] | None = None) -> Json:
        created: Json = await self._ask(ask.create_webhook(url, types))
        return created

    async def try_webhook(self, webhook_id: str, type_: str = "call.ended") -> Json:
        """Has one signed example sent now; what the endpoint answered, within a minute."""
        tried: Json = await self._ask(ask.try_webhook(webhook_id, type_))
        return tried
