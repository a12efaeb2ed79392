"""The only composition root of the control plane: settings in, an ASGI application out."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import msgspec
import structlog
from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.di import Provide
from litestar.enums import HttpMethod, ScopeType
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, Contact, SecurityScheme
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from app import system
from app.bodies import JsonRequest
from app.calls import conversation_routes as conversation
from app.calls import routes as calls
from app.calls.create_lane import CreateLane
from app.control import Control, open_control
from app.dependencies import ControlIn
from app.errors import BadRequest, Forbidden
from app.fleet import drain_routes as drains
from app.fleet import drill_routes as drills
from app.fleet import health_routes as fleet_health
from app.fleet import routes as fleet
from app.log import routes as log_routes
from app.placement import routes as placement
from app.problems import EXCEPTION_HANDLERS, send_problem
from app.projects import routes as projects
from app.projects.auth import Operator, Principal
from app.protocols import abort
from app.settings import Settings
from app.telemetry import feed_readers_cut_total, request_id, requests_total
from app.webhooks import routes as webhooks

log = structlog.get_logger()

GC_THRESHOLD = 20_000

BODY_BYTES_MAX = 256 * 1024
SLOW_MS = 1_000
READ_WITHIN_S = 20.0
"""A reader of a stream that has taken nothing for so long is cut off."""
Connection = ASGIConnection[Any, Any, Any, Any]


async def provide_control(state: State) -> Control:
    control: Control = state.control
    return control


async def provide_principal(request: Connection, control: ControlIn) -> Principal:
    return await control.auth.project(request.headers.get("authorization"))


async def provide_operator(request: Connection, control: ControlIn) -> Operator:
    who = await control.auth.authenticate(request.headers.get("authorization"))
    if isinstance(who, Principal):
        raise Forbidden("This is for the platform's operators.", fix="Use the operator key (vx_op_…).")
    return who


class RequestId:
    """Gives every request an id, counts its answer, and writes a line for those that failed or took long.

    HEAD is answered as GET is, and the server leaves the body out; not for a stream, which would have no end.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        given = next((v for k, v in scope["headers"] if k == b"request-id"), b"")
        plain = 0 < len(given) <= 64 and given.translate(None, b"-_.").isalnum()
        rid = given.decode("latin-1") if plain else uuid4().hex
        token = request_id.set(rid)
        began = time.perf_counter()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"request-id", rid.encode())]
                status = message["status"]
                requests_total.labels(f"{status // 100}xx").inc()
                took_ms = (time.perf_counter() - began) * 1000
                if status >= 500 or took_ms > SLOW_MS:
                    log.info(
                        "request.answered",
                        method=scope.get("method"),
                        path=scope["path"],
                        status=status,
                        ms=round(took_ms),
                    )
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
            await self._app(scope, receive, sending)
        finally:
            request_id.reset(token)


async def _within(message: Message, send: Send, scope: Scope) -> None:
    """Who does not read what is streamed to him is cut off: nothing more than is under way is kept for him."""
    try:
        async with asyncio.timeout(READ_WITHIN_S):
            await send(message)
    except TimeoutError:
        feed_readers_cut_total.labels("sse").inc()
        log.info("feed.cut", kind="sse", path=scope["path"])
        abort(scope)


def openapi_config() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Voxplane",
        version="1",
        description="Places calls on the nearest healthy region, carries them, and moves them when a region dies.",
        contact=Contact(name="Voxplane"),
        components=Components(
            security_schemes={
                "key": SecurityScheme(
                    type="http", scheme="bearer", description="`vx_live_…`, `vx_test_…` or `vx_op_…`"
                )
            }
        ),
        security=[{"key": []}],
        render_plugins=[JsonRenderPlugin(path="/json")],
        path="/openapi",
        use_handler_docstrings=True,
    )


def create_app(settings: Settings, stopping: asyncio.Event | None = None) -> Litestar:
    """`stopping`: set by the server when it is told to stop, so that streams and uplinks end before it waits for them."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with open_control(settings, stopping or asyncio.Event()) as control:
            app.state.control = control
            log.info("control.ready", port=settings.port, regions=len(control.fleet.now.regions))
            yield
        log.info("control.stopped")

    return Litestar(
        route_handlers=[
            *system.ROUTES,
            *projects.ROUTES,
            *calls.ROUTES,
            *conversation.ROUTES,
            *log_routes.ROUTES,
            *webhooks.ROUTES,
            *fleet.ROUTES,
            *placement.ROUTES,
            *drains.ROUTES,
            *drills.ROUTES,
            *fleet_health.ROUTES,
        ],
        dependencies={
            "control": Provide(provide_control),
            "principal": Provide(provide_principal),
            "operator": Provide(provide_operator),
        },
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=[lifespan],
        openapi_config=openapi_config(),
        request_class=JsonRequest,
        request_max_body_size=BODY_BYTES_MAX,
        logging_config=None,  # its own would write the lines of every library, with URLs and keys in them
        type_encoders={msgspec.Raw: bytes},
        debug=False,
    )


def around(app: Litestar) -> ASGIApp:
    """What a process serves: the application with a request id around everything, routing errors included."""
    return RequestId(CreateLane(app, body_bytes_max=BODY_BYTES_MAX))


def create_asgi(settings: Settings, stopping: asyncio.Event) -> ASGIApp:
    app = around(create_app(settings, stopping))
    # a full collection of what was imported stops every request for a tenth of a second: it is not looked at again
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    return app
