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
from app.assembly import open_control
from app.audit import asker
from app.audit import routes as audit
from app.audit.asker import Asker, address_of, asking, check_noted
from app.bodies import JsonRequest
from app.calls import conversation_routes as conversation
from app.calls import routes as calls
from app.calls import twilio_routes as twilio
from app.calls.create_lane import CreateLane
from app.console import routes as console
from app.control import Control
from app.dependencies import ControlIn
from app.erasure import routes as erasures
from app.errors import BadRequest, Forbidden
from app.fleet import drain_routes as drains
from app.fleet import drill_routes as drills
from app.fleet import health_routes as fleet_health
from app.fleet import key_routes as fleet_keys
from app.fleet import revoke_routes as revocations
from app.fleet import routes as fleet
from app.log import routes as log_routes
from app.options import options
from app.peer import Peers, Proxied, read_network
from app.people import routes as people
from app.placement import routes as placement
from app.problems import EXCEPTION_HANDLERS, send_problem
from app.projects import quotas_routes as quotas
from app.projects import routes as projects
from app.projects.auth import Operator, Principal
from app.projects.credentials import authorization_of
from app.projects.request_log import ABOUT, About
from app.protocols import abort
from app.queries import check_names, learn_names, provide_paging
from app.red import counted
from app.settings import Settings
from app.telemetry import feed_readers_cut_total, request_id
from app.usage import routes as usage
from app.webhooks import routes as webhooks

log = structlog.get_logger()

GC_THRESHOLD = 20_000

BODY_BYTES_MAX = 256 * 1024
SLOW_MS = 1_000
READ_WITHIN_S = 20.0
"""A reader of a stream that has taken nothing for so long is cut off."""
Connection = ASGIConnection[Any, Any, Any, Any]


async def provide_control(state: State, scope: Scope) -> Control:
    """Of the cell that the key in the request names: nothing else of the request is looked at."""
    home: Control = state.control
    given = next((v for k, v in scope["headers"] if k == b"authorization"), b"")
    return home.cells.asked_by(given.decode("latin-1"))


async def provide_principal(request: Connection, control: ControlIn) -> Principal:
    principal = await control.auth.project(authorization_of(request), request.scope)
    about: About | None = request.scope.get(ABOUT)  # type: ignore[assignment]
    if about is not None:
        about.by(principal, control.request_log)
    asker.is_(principal.actor)
    check_names(request)
    return principal


async def provide_operator(request: Connection, control: ControlIn) -> Operator:
    who = await control.auth.authenticate(authorization_of(request), request.scope)
    if isinstance(who, Principal):
        raise Forbidden("This is for the platform's operators.", fix="Use the operator key (vx_op_…).")
    asker.is_(who.actor, platform=True)
    check_names(request)
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
        who = Asker(address=address_of(scope), request_id=rid)
        asked = asking.set(who)
        began = time.perf_counter()
        about = About()
        method = scope["method"]
        scope[ABOUT] = about  # type: ignore[literal-required]

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"request-id", rid.encode())]
                status = message["status"]
                took_ms = (time.perf_counter() - began) * 1000
                counted(scope, status, took_ms / 1000)
                route = scope.get("path_template") or scope["path"]
                about.answered(rid, method, route, status, took_ms)
                check_noted(scope, who, status)
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
            asking.reset(asked)


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
                ),
                "basic": SecurityScheme(
                    type="http",
                    scheme="basic",
                    description="Twilio's: an account sid, and a key as its token",
                ),
            }
        ),
        security=[{"key": []}],
        render_plugins=[JsonRenderPlugin(path="/json")],
        path="/openapi",
        use_handler_docstrings=True,
    )


ROUTES: list[Any] = [
    *system.ROUTES,
    *projects.ROUTES,
    *quotas.ROUTES,
    *usage.ROUTES,
    *calls.ROUTES,
    *conversation.ROUTES,
    *twilio.ROUTES,
    *log_routes.ROUTES,
    *webhooks.ROUTES,
    *fleet.ROUTES,
    *placement.ROUTES,
    *drains.ROUTES,
    *drills.ROUTES,
    *revocations.ROUTES,
    *fleet_health.ROUTES,
    *people.ROUTES,
    *console.ROUTES,
    *audit.ROUTES,
    *fleet_keys.ROUTES,
    *erasures.ROUTES,
]


@asynccontextmanager
async def _lifespan(app: Litestar) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    async with open_control(settings, app.state.stopping) as control:
        app.state.control = control
        log.info("control.ready", port=settings.port, regions=len(control.fleet.now.regions))
        yield
    log.info("control.stopped")


def create_app(settings: Settings, stopping: asyncio.Event | None = None) -> Litestar:
    """`stopping`: set by the server when it is told to stop, so that streams and uplinks end before it waits for them."""
    return set_up(routed(), settings, stopping)


def routed() -> Litestar:
    """Every route, and nothing yet behind them."""
    app = Litestar(
        route_handlers=[*options(ROUTES), *ROUTES],
        dependencies={
            "control": Provide(provide_control),
            "principal": Provide(provide_principal),
            "operator": Provide(provide_operator),
            "paging": Provide(provide_paging),
        },
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=[_lifespan],
        openapi_config=openapi_config(),
        request_class=JsonRequest,
        request_max_body_size=BODY_BYTES_MAX,
        logging_config=None,  # its own would write the lines of every library, with URLs and keys in them
        type_encoders={msgspec.Raw: bytes},
        debug=False,
    )
    learn_names(app)
    return app


def set_up(app: Litestar, settings: Settings, stopping: asyncio.Event | None = None) -> Litestar:
    """What `app` is to stand for when it is started next."""
    app.state.settings, app.state.stopping = settings, stopping or asyncio.Event()
    app.state.peers = Peers([read_network(proxy) for proxy in settings.trusted_proxies])
    return app


def around(app: Litestar) -> ASGIApp:
    """What a process serves: the application with a request id around everything, routing errors included."""
    inner = RequestId(CreateLane(app, body_bytes_max=BODY_BYTES_MAX))
    peers: Peers = app.state.peers
    return Proxied(inner, peers) if peers else inner


def create_asgi(settings: Settings, stopping: asyncio.Event) -> ASGIApp:
    app = around(create_app(settings, stopping))
    # a full collection of what was imported stops every request for a tenth of a second: it is not looked at again
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    return app
