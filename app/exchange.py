"""A request and its answer: its id, who asks, how it ended. Around everything that is served, routing errors included.

Decides what every answer carries, what is counted of it, and which are worth a line: those that failed or took long. What an
answer says is the routes', how a refusal reads `app.problems`', what becomes of a connection `app.protocols`'.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import uuid4

import structlog
from litestar.enums import HttpMethod, ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from app.audit.asker import Asker, address_of, asking, check_noted
from app.errors import BadRequest, NotFound
from app.problems import refuse_socket, send_problem
from app.projects.auth import Principal
from app.projects.request_log import RequestLog
from app.protocols import abort
from app.red import counted
from app.telemetry import feed_readers_cut_total, request_id

log = structlog.get_logger()

EXCHANGE = "voxplane.exchange"
"""Where it stands in the scope of its request."""
SLOW_MS = 1_000
READ_WITHIN_S = 20.0
"""A reader of a stream that has taken nothing for so long is cut off."""
NO_SOCKET = "The feed's WebSocket is /v1/events/ws; other routes are for HTTP, without an Upgrade header."


class Exchange:
    """`id`: as its sender named it, or a fresh one. `who`: is asking."""

    __slots__ = ("_began_s", "_log", "_method", "_principal", "_scope", "id", "who")

    def __init__(self, scope: HTTPScope) -> None:
        given = next((v for k, v in scope["headers"] if k == b"request-id"), b"")
        plain = 0 < len(given) <= 64 and given.translate(None, b"-_.").isalnum()
        self.id = given.decode("latin-1") if plain else uuid4().hex
        self.who = Asker(address=address_of(scope), request_id=self.id)
        self._scope: Any = scope
        self._method = scope["method"]
        self._began_s = time.perf_counter()
        self._principal: Principal | None = None
        self._log: RequestLog | None = None

    def by(self, principal: Principal, to: RequestLog) -> None:
        """Whose request it is. One that is nobody's is in no project's log."""
        self._principal, self._log = principal, to

    def served_as(self, scope: Scope) -> None:
        """Another scope than the one that came is handed on: what is found out about the request stands there."""
        self._scope = scope

    def answered(self, status: int) -> tuple[bytes, bytes]:
        """The head of its answer goes out: said once. The header that it carries."""
        scope = self._scope
        took_ms = (time.perf_counter() - self._began_s) * 1000
        counted(scope, status, took_ms / 1000)
        if self._principal is not None and self._log is not None:
            route = scope.get("path_template") or scope["path"]
            self._log.note(self._principal, self.id, self._method, route, status, took_ms)
        check_noted(scope, self.who, status)
        if status >= 500 or took_ms > SLOW_MS:
            log.info(
                "request.answered",
                method=scope["method"],
                path=scope["path"],
                status=status,
                ms=round(took_ms),
            )
        return b"request-id", self.id.encode()


def exchange_of(scope: Any) -> Exchange | None:
    """None where something else than `Exchanges` serves it."""
    found: Exchange | None = scope.get(EXCHANGE)
    return found


class Exchanges:
    """HEAD is answered as GET is, and the server leaves the body out; not for a stream, which would have no end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(
                scope, receive, _or_no_socket(send) if scope["type"] == ScopeType.WEBSOCKET else send
            )
            return
        exchange = Exchange(scope)
        scope[EXCHANGE] = exchange  # type: ignore[literal-required]
        token, asked = request_id.set(exchange.id), asking.set(exchange.who)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], exchange.answered(message["status"])]
            if message["type"] == "http.response.body" and message["more_body"]:
                await _within(message, send, scope)
            else:
                await send(message)

        try:
            if b"%00" in scope["query_string"]:
                await send_problem(BadRequest("The query contains the character U+0000."), sending)
                return
            if scope["method"] == "HEAD" and not scope["path"].endswith("/stream"):
                scope = scope.copy()  # the server looks at its own
                scope["method"] = HttpMethod.GET
                exchange.served_as(scope)
            await self._app(scope, receive, sending)
        finally:
            request_id.reset(token)
            asking.reset(asked)


def _or_no_socket(send: Send) -> Send:
    """Those that serve one refuse it in words: what is closed without any has no route."""
    begun = False

    async def sending(message: Message) -> None:
        nonlocal begun
        unheard, begun = not begun and message["type"] == "websocket.close", True
        if unheard:
            await refuse_socket(NotFound("There is no WebSocket at this path.", fix=NO_SOCKET), send)
        else:
            await send(message)

    return sending


async def _within(message: Message, send: Send, scope: Scope) -> None:
    """Who does not read what is streamed to him is cut off: nothing more than is under way is kept for him."""
    try:
        async with asyncio.timeout(READ_WITHIN_S):
            await send(message)
    except TimeoutError:
        feed_readers_cut_total.labels("sse").inc()
        log.info("feed.cut", kind="sse", path=scope["path"])
        abort(scope)
