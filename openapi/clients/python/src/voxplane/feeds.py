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


class Pages:
    """Where a reader of lists stands: what to ask for next, and when it is through. Does no I/O."""

    def __init__(self, params: dict[str, Any]) -> None:
        self._params = params
        self._cursor: str | None = None
        self.over = False

    @property
    def next(self) -> Request:
        return ask.list_events(self._params, self._cursor)

    def take(self, page: Json) -> list[Json]:
        self._cursor = page["next_cursor"]
        self.over = not page["data"] or self._cursor is None
        events: list[Json] = page["data"]
        return events


class Streaming:
    """Where a reader of a stream stands: which server to ask next, with what, and what its answer means. Does no I/O."""

    def __init__(
        self,
        urls: list[str],
        url: int,
        path: str,
        cursor: str | None,
        params: dict[str, Any],
        opened: Callable[[], None] | None,
    ) -> None:
        self._urls, self._url, self._path = urls, url, path
        self._params = params
        self._opened = opened
        self._events = EventStream(cursor)
        self.feed = self._events.feed

    def asked(self) -> dict[str, Any]:
        """Of the next connection, as `httpx.Client.stream` takes it."""
        return {
            "method": "GET",
            "url": self._urls[self._url] + self._path,
            "headers": self._events.again(),
            "params": self._params,
            "timeout": STREAM_TIMEOUT,
        }

    def began(self, response: httpx.Response) -> bool:
        """False where it is refused for good: then the answer is to be read and raised."""
        if response.status_code == 200 and self._opened is not None:
            self._opened()
        return response.status_code == 200 or response.status_code in STREAM_AGAIN

    def move_on(self) -> None:
        self._url = (self._url + 1) % len(self._urls)


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
        pages = Pages(params)
        while not pages.over:
            yield from pages.take(self._ask(pages.next))

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
        params = ask.stream_params(types, call_id, metadata, volatile=volatile, since=since)
        stream = Streaming(self._urls, self._url, path, cursor, params, opened)
        while True:
            try:
                with self._http.stream(**stream.asked()) as response:
                    if not stream.began(response):
                        response.read()
                        Answer(response).result()
                    for chunk in response.iter_bytes():
                        yield from stream.feed(chunk)
            except httpx.TransportError:
                pass
            stream.move_on()
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
        pages = Pages(params)
        while not pages.over:
            for event in pages.take(await self._ask(pages.next)):
                yield event

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
        params = ask.stream_params(types, call_id, metadata, volatile=volatile, since=since)
        stream = Streaming(self._urls, self._url, path, cursor, params, opened)
        while True:
            try:
                async with self._http.stream(**stream.asked()) as response:
                    if not stream.began(response):
                        await response.aread()
                        Answer(response).result()
                    async for chunk in response.aiter_bytes():
                        for event in stream.feed(chunk):
                            yield event
            except httpx.TransportError:
                pass
            stream.move_on()
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
