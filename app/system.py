"""What machines ask an instance: is it alive, is it ready, its metrics, its public keys."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec
from litestar import Request, Response, get
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.connection import DATABASE_ERRORS, trouble_of
from app.control import Control
from app.dependencies import ControlIn
from app.openapi import completed
from app.telemetry import registry

READY_DEADLINE_S = 2.5


@get("/healthz", operation_id="health", tags=["system"], security=[{}])
async def healthz() -> dict[str, str]:
    """Alive: the process answers. It says nothing of what it depends on, so that an outage restarts no one."""
    return {"status": "ok"}


class CellReadiness(msgspec.Struct, frozen=True, kw_only=True):
    """`jurisdiction`: null where the deployment names none. `delivers`: whether this instance sends the cell's webhooks."""

    cell: int
    jurisdiction: str | None
    ready: bool
    reasons: list[str]
    delivers: bool


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["ready", "degraded", "not_ready"]
    reasons: list[str]
    cells: list[CellReadiness]


@get("/readyz", operation_id="readiness", tags=["system"], security=[{}])
async def readyz(control: ControlIn) -> Response[Readiness]:
    """Ready for requests: a database acknowledges a write, none has been refused lately, and no worker is failing.

    `reasons` name what is not so: `worker …`, or `database: ` with `no_primary`, `unreachable`, `read_only`, `disk_full`,
    `no_connections`, `not_replicated` (a commit was not acknowledged by the standbys), `slow` or `wrong_cell`; with several
    cells, of which one.
    `degraded`, with 200: a cell is away, and this instance serves the others as well as any could; 503 once none can be served.
    """
    cells = await asyncio.gather(*(_ready(c) for c in control.cells))
    workers = [f"worker {name}" for c in control.cells for name in c.supervisor.unhealthy]
    several = len(cells) > 1
    away = [f"cell {c.cell}: {reason}" if several else reason for c in cells for reason in c.reasons]
    able = not workers and any(c.ready for c in cells)
    status = "ready" if able and not away else "degraded" if able else "not_ready"
    shown = Readiness(status=status, reasons=[*workers, *away], cells=cells)  # type: ignore[arg-type]
    return Response(shown, status_code=200 if able else 503)


async def _ready(control: Control) -> CellReadiness:
    reasons = []
    try:
        async with asyncio.timeout(READY_DEADLINE_S):
            await control.horizon.prove()
    except DATABASE_ERRORS as error:
        reasons.append(f"database: {trouble_of(error) or type(error).__name__}")
    else:
        # the marker fits where nothing larger does
        if control.db.trouble == "disk_full":
            reasons.append("database: disk_full")
    return CellReadiness(
        cell=control.cell.number,
        jurisdiction=control.cell.jurisdiction or None,
        ready=not reasons,
        reasons=reasons,
        delivers=control.delivers,
    )


@get("/metrics", operation_id="metrics", tags=["system"], security=[{}], media_type="text/plain")
async def metrics() -> Response[bytes]:
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


@get("/.well-known/jwks.json", operation_id="jwks", tags=["system"], security=[{}])
async def jwks(control: ControlIn) -> Response[dict[str, Any]]:
    """The keys that tickets are signed with (RFC 7517)."""
    return Response(control.keyring.jwks(), headers={"Cache-Control": "public, max-age=300"})


@get("/openapi.json", operation_id="openapi", tags=["system"], security=[{}], include_in_schema=False)
async def openapi(request: Request[Any, Any, Any]) -> dict[str, Any]:
    state = request.app.state
    if "openapi" not in state:
        state.openapi = completed(request.app.openapi_schema.to_schema())
    found: dict[str, Any] = state.openapi
    return found


ROUTES: list[Any] = [healthz, readyz, metrics, jwks, openapi]
