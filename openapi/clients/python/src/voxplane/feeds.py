"""Events read from the service: lists, one call's, and streams that reconnect by themselves. For both clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import httpx

from voxplane import requests as ask
from voxplane.attempts import NEXT_URL
from voxplane.feed_socket import Ended, Place, feed_socket
from voxplane.requests import STREAM_PATH, TIMEOUT_S, Answer, Json, Request
from voxplane.sse import EventStream

STREAM_SILENCE_S = 45.0
STREAM_PAUSE_S = 0.5
STREAM_AGAIN = NEXT_URL | {429}
STREAM_TIMEOUT = httpx.Timeout(TIMEOUT_S, read=STREAM_SILENCE_S)


class Feeds:
    _urls: list[str]
    _url: int
    _http: httpx.Client

    if TYPE_CHECKING:

        def _ask(self, wanted: Request) -> Any: ...

    def events(
        self,
        *,
        since: str | None = None,
        until: str | None = None,
        types: list[str] | None = None,
        call_id: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> Iterator[Json]:
        """The project's events that are durable by now, oldest first, page by page. `since`, `until`: RFC 3339; stored from then on,
        and before then."""
        params = ask.stream_params(types, call_id, metadata, volatile=False, since=since, until=until)
        cursor: str | None = None
        while True:
            page = self._ask(ask.list_events(params, cursor))
            yield from page["data"]
            cursor = page["next_cursor"]
            if not page["data"] or cursor is None:
                return

    def events_of(self, call_id: str, after_seq: int = 0) -> list[Json]:
        """All events of a call after `after_seq` that are durable by now."""
        events: list[Json] = []
        while found := (self._ask(ask.events_of(call_id, after_seq)))["data"]:
            events += found
            after_seq = found[-1]["seq"]
        return events

    def stream_events(
        self,
        cursor: str | None = None,
        *,
        since: str | None = None,
        types: list[str] | None = None,
        call_id: str | None = None,
        volatile: bool = False,
        metadata: dict[str, str] | None = None,
        opened: Callable[[], None] | None = None,
        path: str = STREAM_PATH,
    ) -> Iterator[Json]:
        """Events as they become durable, each once; reconnects by itself, to the next base URL.

        Without a cursor the first is the one stored at `since` (RFC 3339), or the one after `opened` was called, which happens
        whenever a server begins to stream.
        `types` as ``call.ended`` or ``call.*``. With `volatile` also those that have no place in the log: they have no `id`, and
        what is missed of them does not come again. A cursor belongs to its filter; one that is too old raises `ApiError`
        ``cursor_expired``, whose `problem` has the `oldest_cursor`. `path`: another stream, such as `fleet.FLEET_STREAM_PATH`.
        """
        url, events = self._url, EventStream(cursor)
        params = ask.stream_params(types, call_id, metadata, volatile=volatile, since=since)
        while True:
            headers = events.again()
            try:
                with self._http.stream(
                    "GET",
                    self._urls[url] + path,
                    headers=headers,
                    params=params,
                    timeout=STREAM_TIMEOUT,
                ) as response:
                    if response.status_code != 200 and response.status_code not in STREAM_AGAIN:
                        response.read()
                        Answer(response).result()
                    if opened is not None and response.status_code == 200:
                        opened()
                    for chunk in response.iter_bytes():
                        yield from events.feed(chunk)
            except httpx.TransportError:
                pass
            url = (url + 1) % len(self._urls)
            time.sleep(STREAM_PAUSE_S)


class AsyncFeeds:
    _urls: list[str]
    _url: int
    _http: httpx.AsyncClient

    if TYPE_CHECKING:

        async def _ask(self, wanted: Request) -> Any: ...

    async def events(
        self,
        *,
        since: str | None = None,
        until: str | None = None,
        types: list[str] | None = None,
        call_id: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> AsyncIterator[Json]:
        """See `Feeds.events`."""
        params = ask.stream_params(types, call_id, metadata, volatile=False, since=since, until=until)
        cursor: str | None = None
        while True:
            page = await self._ask(ask.list_events(params, cursor))
            for event in page["data"]:
                yield event
            cursor = page["next_cursor"]
            if not page["data"] or cursor is None:
                return

    async def events_of(self, call_id: str, after_seq: int = 0) -> list[Json]:
        """All events of a call after `after_seq` that are durable by now."""
        events: list[Json] = []
        while found := (await self._ask(ask.events_of(call_id, after_seq)))["data"]:
            events += found
            after_seq = found[-1]["seq"]
        return events

    async def stream_events(
        self,
        cursor: str | None = None,
        *,
        since: str | None = None,
        types: list[str] | None = None,
        call_id: str | None = None,
        volatile: bool = False,
        metadata: dict[str, str] | None = None,
        opened: Callable[[], None] | None = None,
        path: str = STREAM_PATH,
    ) -> AsyncIterator[Json]:
        """See `Feeds.stream_events`."""
        url, events = self._url, EventStream(cursor)
        params = ask.stream_params(types, call_id, metadata, volatile=volatile, since=since)
        while True:
            headers = events.again()
            try:
                async with self._http.stream(
                    "GET",
                    self._urls[url] + path,
                    headers=headers,
                    params=params,
                    timeout=STREAM_TIMEOUT,
                ) as response:
                    if response.status_code != 200 and response.status_code not in STREAM_AGAIN:
                        await response.aread()
                        Answer(response).result()
                    if opened is not None and response.status_code == 200:
                        opened()
                    async for chunk in response.aiter_bytes():
                        for event in events.feed(chunk):
                            yield event
            except httpx.TransportError:
                pass
            url = (url + 1) % len(self._urls)
            await asyncio.sleep(STREAM_PAUSE_S)

    async def follow_events(
        self,
        cursor: str | None = None,
        *,
        since: str | None = None,
        types: list[str] | None = None,
        call_id: str | None = None,
        volatile: bool = False,
        metadata: dict[str, str] | None = None,
        window: int = 256,
        opened: Callable[[], None] | None = None,
    ) -> AsyncGenerator[Json, None]:
        """As `stream_events`, over the WebSocket, with acknowledgements: at most `window` events are under way, and one counts as
        dealt with once the next is asked for. What was under way when a connection broke comes again; what was dealt with does not.
        """
        url, place = self._url, Place(cursor, since)
        asked: Json = {
            "types": types,
            "call_id": call_id,
            "metadata": metadata,
            "volatile": volatile,
            "window": window,
        }
        while True:
            try:
                async with (
                    feed_socket(
                        self._urls[url], self._http.headers["Authorization"], place, asked, opened
                    ) as socket,
                    aclosing(socket.events()) as events,
                ):
                    async for event in events:
                        yield event
            except Ended:
                pass
            url = (url + 1) % len(self._urls)
            await asyncio.sleep(STREAM_PAUSE_S)
