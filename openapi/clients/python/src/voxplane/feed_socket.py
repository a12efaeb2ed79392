"""Events over the WebSocket, one connection of it: what is heard, in order, and the acknowledgement of what was dealt with.

Decides when to acknowledge, and whether an end is worth another try. Which URL is asked next is the client's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from voxplane import trust
from voxplane.errors import ApiError

SOCKET_PATH = "/v1/events/ws"
OPEN_WITHIN_S = 10.0
SILENCE_S = 45.0
"""The service says something every 15 s."""
MESSAGE_BYTES_MAX = 1 << 20
AGAIN = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses of problems after which the same may be asked again. 408: this reader was too slow, and has lost nothing."""
BROKEN = (WebSocketException, OSError, TimeoutError)
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})

Json = dict[str, Any]


class Ended(Exception):
    """The connection is over; go on behind the cursor, somewhere."""


class Place:
    """Up to where a reader has dealt with things: behind it the next connection goes on."""

    def __init__(self, cursor: str | None, since: str | None) -> None:
        self.cursor = cursor
        self._since = since

    def subscription(self, asked: Json) -> str:
        at = {"cursor": self.cursor} if self.cursor else {"since": self._since}
        message = {"type": "subscribe"} | {k: v for k, v in (asked | at).items() if v}
        return json.dumps(message)


class FeedSocket:
    """`events` gives what is heard. An event is dealt with once the next one is asked for: then it is acknowledged, at the latest
    when nothing more is at hand or a quarter of the window is waiting for it."""

    def __init__(self, socket: ClientConnection, place: Place, window: int) -> None:
        self._socket = socket
        self._place = place
        self._ack_at = max(1, window // 4)
        self._heard: asyncio.Queue[Json | None] = asyncio.Queue()  # at most the window: more is not sent

    async def events(self) -> AsyncGenerator[Json, None]:
        """Until the connection ends: raises `Ended`, or `ApiError` where asking again is of no use."""
        pump = asyncio.create_task(self._pump())
        owed = 0
        try:
            while True:
                message = await self._next()
                match message["type"]:
                    case "event":
                        yield message["event"]
                        self._place.cursor = message["cursor"]
                        owed += 1
                    case "volatile":
                        yield message["event"]
                    case "ping":
                        self._place.cursor = message.get("cursor") or self._place.cursor
                    case "problem":
                        raise refusal(message["problem"])
                if owed >= self._ack_at or (owed and self._heard.empty()):
                    owed = 0
                    await self._say("ack", cursor=self._place.cursor)
        finally:
            pump.cancel()

    async def _next(self) -> Json:
        try:
            async with asyncio.timeout(SILENCE_S):
                message = await self._heard.get()
        except TimeoutError:
            message = None
        if message is None:
            raise Ended
        return message

    async def _pump(self) -> None:
        """By itself, so that the service hears from a reader that takes its time."""
        try:
            async for text in self._socket:
                message = json.loads(text)
                if message["type"] == "ping":
                    await self._say("pong")
                self._heard.put_nowait(message)
        except (*BROKEN, Ended):
            pass
        finally:
            self._heard.put_nowait(None)

    async def _say(self, type_: str, **more: Any) -> None:
        try:
            await self._socket.send(json.dumps({"type": type_, **more}))
        except BROKEN:
            raise Ended from None


@asynccontextmanager
async def feed_socket(
    base_url: str, authorization: str, place: Place, asked: Json, opened: Callable[[], None] | None
) -> AsyncIterator[FeedSocket]:
    """Open, and subscribed. Raises `Ended` or `ApiError`."""
    url = "ws" + base_url.removeprefix("http") + SOCKET_PATH
    try:
        socket = await connect(
            url,
            additional_headers={"Authorization": authorization},
            open_timeout=OPEN_WITHIN_S,
            max_size=MESSAGE_BYTES_MAX,
            proxy=None if urlsplit(url).hostname in LOCAL else True,
            **trust.secured(url),
        )
    except InvalidStatus as error:
        status = error.response.status_code
        if status in AGAIN:
            raise Ended from None
        raise ApiError(status, _told(error.response.body)) from None
    except BROKEN:
        raise Ended from None
    async with socket:
        try:
            await socket.send(place.subscription(asked))
            async with asyncio.timeout(OPEN_WITHIN_S):
                first = json.loads(await socket.recv())
        except BROKEN:
            raise Ended from None
        if first["type"] == "problem":
            raise refusal(first["problem"])
        place.cursor = first["cursor"]
        if opened is not None:
            opened()
        yield FeedSocket(socket, place, first["window"])


def _told(body: bytes | bytearray) -> Json:
    """The problem in a refused handshake. Whoever stands before the service, or a release before this one, may have sent none."""
    try:
        found = json.loads(body or b"")
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"detail": "The WebSocket was refused: check the key."}


def refusal(problem: Json) -> Ended | ApiError:
    status = int(problem.get("status", 500))
    return Ended() if status in AGAIN else ApiError(status, problem)
