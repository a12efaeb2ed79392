"""Registers the edge: with the enrolment token the first time, with a token of its own later. Tries until it is let in."""

from __future__ import annotations

import asyncio
import random

import httpx
import msgspec
import structlog

from regions.edge.identity import Identity
from regions.edge.settings import EdgeSettings
from regions.wire.uplink import EdgeListeners, RegisterRequest, RegisterResponse

log = structlog.get_logger()

DEADLINE_S = 5.0
PAUSE_MAX_S = 5.0
VERSION = "0.1.0"


class Refused(Exception):
    """The control plane will not have this edge; the text says why and what to do. Trying again would not help."""


async def register(settings: EdgeSettings, identity: Identity, listeners: EdgeListeners) -> RegisterResponse:
    """Raises `Refused` for an answer that will not change; waits out everything else."""
    body = msgspec.json.encode(
        RegisterRequest(
            name=settings.name,
            region=settings.region,
            incarnation=identity.incarnation,
            listeners=listeners,
            capacity_calls=settings.capacity_calls,
            public_key=identity.public_key,
            version=VERSION,
        )
    )
    pause_s = 0.2
    async with httpx.AsyncClient(timeout=DEADLINE_S, trust_env=False) as client:
        while True:
            for url in settings.control_urls:
                answer = await _ask(client, url, body, _token(settings, identity))
                if answer is not None:
                    identity.registered(answer.edge_id)
                    log.info("edge.registered", edge=answer.edge_id, region=answer.region)
                    return answer
            await asyncio.sleep(pause_s * (0.5 + random.random()))
            pause_s = min(pause_s * 2, PAUSE_MAX_S)


def _token(settings: EdgeSettings, identity: Identity) -> str:
    if identity.edge_id:
        return identity.token(settings.region)
    if settings.enrol_token:
        return settings.enrol_token
    raise Refused(
        "this edge was never enrolled: set VOXPLANE_EDGE_TOKEN to a token from POST /admin/v1/regions/{id}/enrol"
    )


async def _ask(client: httpx.AsyncClient, url: str, body: bytes, token: str) -> RegisterResponse | None:
    try:
        response = await client.post(
            url + "/edge/v1/register",
            content=body,
            headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
        )
    except httpx.HTTPError as error:
        log.info("registration.unreachable", url=url, error=type(error).__name__)
        return None
    if response.status_code == 200:
        return msgspec.json.decode(response.content, type=RegisterResponse)
    if 400 <= response.status_code < 500 and response.status_code not in (408, 425, 429):
        try:
            problem = msgspec.json.decode(response.content, type=dict[str, object])
        except msgspec.MsgspecError:
            problem = {}
        raise Refused(f"{problem.get('detail', response.status_code)} {problem.get('fix', '')}".strip())
    log.info("registration.unavailable", url=url, status=response.status_code)
    return None
