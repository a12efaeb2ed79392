"""The only composition root of the control plane: settings in, an ASGI application out."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import structlog
from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, Contact, SecurityScheme
from litestar.types import ASGIApp, Scope

from app import system
from app.assembly import open_control
from app.audit import asker
from app.audit import routes as audit
from app.bodies import JsonRequest
from app.calls import conversation_routes as conversation
from app.calls import routes as calls
from app.calls import twilio_routes as twilio
from app.calls.create_lane import CreateLane
from app.console import routes as console
from app.control import Control
from app.dependencies import ControlIn
from app.erasure import routes as erasures
from app.errors import Forbidden
from app.exchange import Exchanges, exchange_of
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
from app.problems import EXCEPTION_HANDLERS
from app.projects import quotas_routes as quotas
from app.projects import routes as projects
from app.projects.auth import Operator, Principal
from app.projects.credentials import authorization_of
from app.queries import check_names, learn_names, provide_paging
from app.settings import Settings
from app.usage import routes as usage
from app.webhooks import routes as webhooks

log = structlog.get_logger()

GC_THRESHOLD = 20_000

BODY_BYTES_MAX = 256 * 1024
Connection = ASGIConnection[Any, Any, Any, Any]


async def provide_control(state: State, scope: Scope) -> Control:
    """Of the cell that the key in the request names: nothing else of the request is looked at."""
    home: Control = state.control
    given = next((v for k, v in scope["headers"] if k == b"authorization"), b"")
    return home.cells.asked_by(given.decode("latin-1"))


async def provide_principal(request: Connection, control: ControlIn) -> Principal:
    principal = await control.auth.project(authorization_of(request), request.scope)
    exchange = exchange_of(request.scope)
    if exchange is not None:
        exchange.by(principal, control.request_log)
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
    inner = Exchanges(CreateLane(app, body_bytes_max=BODY_BYTES_MAX))
    peers: Peers = app.state.peers
    return Proxied(inner, peers) if peers else inner


def create_asgi(settings: Settings, stopping: asyncio.Event) -> ASGIApp:
    app = around(create_app(settings, stopping))
    # a full collection of what was imported stops every request for a tenth of a second: it is not looked at again
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    return app
