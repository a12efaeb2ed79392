"""What machines ask an instance: is it alive, is it ready, its metrics, its public keys."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import Request, Response, get
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.connection import DATABASE_ERRORS, trouble_of
from app.dependencies import ControlIn
from app.openapi import completed
from app.telemetry import registry

READY_DEADLINE_S = 2.5


@get("/healthz", operation_id="health", tags=["system"], security=[{}])
async def healthz() -> dict[str, str]:
    """Alive: the process answers. It says nothing of what it depends on, so that an outage restarts no one."""
    return {"status": "ok"}


@get("/readyz", operation_id="readiness", tags=["system"], security=[{}])
async def readyz(control: ControlIn) -> Response[dict[str, Any]]:
    """Ready for requests: the database acknowledges a write, none has been refused lately, and no worker is failing.

    `reasons` name what is not so: `worker …`, or `database: ` with `no_primary`, `unreachable`, `read_only`, `disk_full`,
    `not_replicated` (a commit was not acknowledged by the standbys) or `slow`.
    """
    reasons = [f"worker {name}" for name in control.supervisor.unhealthy]
    try:
        async with asyncio.timeout(READY_DEADLINE_S):
            await control.horizon.prove()
    except DATABASE_ERRORS as error:
        reasons.append(f"database: {trouble_of(error) or type(error).__name__}")
    else:
        # the marker fits where nothing larger does
        if control.db.trouble == "disk_full":
            reasons.append("database: disk_full")
    return Response(
        {"status": "ready" if not reasons else "not_ready", "reasons": reasons},
        status_code=503 if reasons else 200,
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
