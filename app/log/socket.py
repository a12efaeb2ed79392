"""The feed over a WebSocket: from the subscription to the last word.

Decides what a reader may say, how much may be under way to it, and how it is told that it ends: one `problem` with the cursor of
what it has acknowledged, then a close code, 4000 and the problem's status (1012: this instance stops, connect again). A
reader that does not acknowledge, or does not read, is cut off; nobody else waits for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from typing import Any, NoReturn, Protocol

import msgspec
import structlog
from litestar.connection import WebSocket
from litestar.exceptions import WebSocketDisconnect

from app.connection import DATABASE_ERRORS
from app.control import Control
from app.errors import BadRequest, TooLarge, Unauthenticated, Unavailable, VoxplaneError
from app.log import sse
from app.log.asking import asked_filter, start_of
from app.log.fan import Step
from app.log.messages import (
    WINDOW_MAX,
    Ack,
    EventMessage,
    Ping,
    Pong,
    ProblemMessage,
    Subscribe,
    Subscribed,
    ToReader,
    VolatileMessage,
    decode,
)
from app.log.noting import note_stream
from app.log.positions import Scope
from app.log.rendering import Rendering
from app.pointers import invalid_from
from app.problems import problem_body
from app.projects.auth import Principal
from app.projects.watching import Watch
from app.protocols import abort
from app.telemetry import feed_readers_cut_total

log = structlog.get_logger()

SUBSCRIBE_WITHIN_S = 10.0
ACK_WITHIN_S = 30.0
"""With a full window, and nothing acknowledged for so long, a reader is slow."""
WRITE_WITHIN_S = 10.0
SILENCE_MAX_S = 60.0
MESSAGE_CHARS_MAX = 16 * 1024
SERVICE_RESTART = 1012
FIX = "See docs/reference/webhooks-and-events.md#the-websocket."


class SlowReader(VoxplaneError):
    code, status, title = "slow_reader", 408, "The events are not read"
    fix = "Connect again with `cursor`, and acknowledge events as they come."


class Gone(Exception):
    """The other side has closed."""


class Socket(Protocol):
    """`receive` gives None for what is not text. Both raise `Gone`; `send` raises `TimeoutError` where it is not read."""

    async def receive(self) -> str | None: ...
    async def send(self, text: str) -> None: ...
    async def close(self, code: int, reason: str) -> None: ...
    def abort(self) -> None: ...


class LitestarSocket:
    def __init__(self, socket: WebSocket[Any, Any, Any]) -> None:
        self._socket = socket

    async def receive(self) -> str | None:
        try:
            event: Any = await self._socket.receive()
        except WebSocketDisconnect:
            raise Gone from None
        if event["type"] == "websocket.disconnect":
            raise Gone
        text: str | None = event.get("text")
        return text

    async def send(self, text: str) -> None:
        try:
            async with asyncio.timeout(WRITE_WITHIN_S):
                await self._socket.send_text(text)
        except (WebSocketDisconnect, RuntimeError, OSError):
            raise Gone from None

    async def close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(WRITE_WITHIN_S):
                await self._socket.close(code=code, reason=reason)
        except (WebSocketDisconnect, RuntimeError, OSError):
            raise Gone from None

    def abort(self) -> None:
        abort(self._socket.scope)


class FeedSocket:
    def __init__(self, socket: Socket, control: Control, principal: Principal, watch: Watch) -> None:
        self._socket = socket
        self._control = control
        self._principal = principal
        self._watch = watch
        self._window = 0
        self._under_way: deque[str] = deque()
        self._acked: str | None = None
        self._room = asyncio.Event()

    async def run(self) -> None:
        """Until either side has had enough. Never raises for what the reader sent."""
        try:
            await self._serve(await self._subscription())
            await self._socket.close(SERVICE_RESTART, "connect again")
        except Gone:
            return
        except TimeoutError:
            self._cut()
        except VoxplaneError as error:
            await self._last_word(error)
        except DATABASE_ERRORS:
            await self._last_word(
                Unavailable("The database cannot be reached at the moment.", retry_after_s=1)
            )

    async def _subscription(self) -> Subscribe:
        try:
            async with asyncio.timeout(SUBSCRIBE_WITHIN_S):
                message = _read(await self._socket.receive())
        except TimeoutError:
            raise BadRequest("No subscription came.", code="bad_message", fix=FIX) from None
        if not isinstance(message, Subscribe):
            raise BadRequest("The first message is a subscription.", code="bad_message", fix=FIX)
        return message

    async def _serve(self, asked: Subscribe) -> None:
        control, principal = self._control, self._principal
        wanted = await asked_filter(
            control, principal, asked.types, asked.call_id, asked.metadata, volatile=asked.volatile
        )
        after, scope = await start_of(control, principal, wanted, asked.cursor, asked.since)
        await note_stream(control, principal, wanted, asked.call_id)
        self._window = min(asked.window, WINDOW_MAX)
        self._acked = scope.cursor(after)
        await self._send(Subscribed(cursor=self._acked, window=self._window))
        rendering = Rendering(asked.format, principal)
        steps = control.fan.read(principal.project_id, after, wanted, look_every_s=sse.CHECK_EVERY_S)

        async def write() -> None:
            async with aclosing(steps):
                said_s = control.clock.monotonic_s()
                async for step in steps:
                    if step.entries or step.live:
                        said_s = control.clock.monotonic_s()
                        await self._write(step, scope, rendering)
                    elif control.clock.monotonic_s() - said_s >= sse.HEARTBEAT_S - sse.CHECK_EVERY_S:
                        said_s = control.clock.monotonic_s()
                        await self._send(Ping(cursor=scope.cursor(step.reached)))

        tasks = {asyncio.create_task(work) for work in (write(), self._listen(), self._end_with_key())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, step: Step, scope: Scope, rendering: Rendering) -> None:
        for event in step.live:
            raw = msgspec.Raw(rendering.live(event).encode())
            await self._send(VolatileMessage(event=raw, dropped=step.dropped))
        for entry in step.entries:
            await self._wait_for_room()
            cursor = scope.cursor(entry.at)
            self._under_way.append(cursor)
            await self._send(EventMessage(cursor=cursor, event=msgspec.Raw(rendering.event(entry).encode())))

    async def _wait_for_room(self) -> None:
        since_s = self._control.clock.monotonic_s()
        while len(self._under_way) >= self._window:
            self._room.clear()
            try:
                async with asyncio.timeout(ACK_WITHIN_S):
                    await self._room.wait()
            except TimeoutError:
                if self._control.clock.monotonic_s() - since_s >= ACK_WITHIN_S:
                    self._slow()

    def _slow(self) -> NoReturn:
        feed_readers_cut_total.labels("websocket").inc()
        log.info("feed.cut", kind="websocket", under_way=len(self._under_way))
        raise SlowReader(f"{len(self._under_way)} events were not acknowledged within {ACK_WITHIN_S:g} s.")

    async def _end_with_key(self) -> None:
        await self._watch.ended.wait()
        raise Unauthenticated("The key that opened this is not valid any more.")

    async def _listen(self) -> None:
        while True:
            try:
                async with asyncio.timeout(SILENCE_MAX_S):
                    text = await self._socket.receive()
            except TimeoutError:
                raise SlowReader(f"Nothing was heard for {SILENCE_MAX_S:g} s.") from None
            match _read(text):
                case Ack(cursor=cursor):
                    self._acknowledged(cursor)
                case Ping():
                    await self._send(Pong())
                case Subscribe():
                    raise BadRequest("One subscription is enough.", code="bad_message", fix=FIX)

    def _acknowledged(self, cursor: str) -> None:
        """All up to it. One that was acknowledged a moment ago may be said again."""
        if cursor in self._under_way:
            while self._under_way.popleft() != cursor:
                pass
            self._acked = cursor
            self._room.set()
        elif cursor != self._acked:
            raise BadRequest(
                "This cursor was not given out here, or was acknowledged before.", code="bad_ack", fix=FIX
            )

    async def _send(self, message: ToReader) -> None:
        await self._socket.send(msgspec.json.encode(message).decode())

    async def _last_word(self, error: VoxplaneError) -> None:
        try:
            await self._send(ProblemMessage(problem=problem_body(error), cursor=self._acked))
            await self._socket.close(4000 + error.status, error.stable_code)
        except Gone:
            return
        except TimeoutError:
            self._cut()

    def _cut(self) -> None:
        """It does not read what is sent: nor would it read a last word."""
        feed_readers_cut_total.labels("websocket").inc()
        log.info("feed.cut", kind="websocket", under_way=len(self._under_way))
        self._socket.abort()


def _read(text: str | None) -> Any:
    """Raises `BadRequest` or `TooLarge`."""
    if text is None:
        raise BadRequest("Messages are JSON text.", code="bad_message", fix=FIX)
    if len(text) > MESSAGE_CHARS_MAX:
        raise TooLarge(f"A message has at most {MESSAGE_CHARS_MAX} characters.", fix=FIX)
    try:
        return decode(text)
    except msgspec.ValidationError as error:
        raise BadRequest(
            "The message does not fit.", code="bad_message", fix=FIX, errors=invalid_from(str(error)).errors
        ) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise BadRequest("The message is not JSON.", code="bad_message", fix=FIX) from None
