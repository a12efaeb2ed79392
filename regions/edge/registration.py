"""Registers the edge: with the enrolment token the first time, with a token of its own later. Tries until it is let in.

An edge that does not know whether the control plane has taken its next key asks with that one first: it may be the only one that
still holds. Where it is unknown there, the present one is.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from typing import Protocol

import httpx
import msgspec
import structlog

from regions.edge.identity import Identity, public_text
from regions.edge.settings import EdgeSettings
from regions.edge.software import software
from regions.wire.uplink import EDGE_REVOKED, EdgeListeners, RegisterRequest, RegisterResponse

log = structlog.get_logger()

DEADLINE_S = 5.0
PAUSE_MAX_S = 5.0


class Registrar(Protocol):
    async def __call__(self) -> list[str]:
        """Registers this incarnation again; the uplink URLs."""
        ...


class Refused(Exception):
    """The control plane will not have this edge; the text says why and what to do. Trying again would not help."""


class Revoked(Refused):
    """For good: an operator has cut this edge off."""


async def register(
    settings: EdgeSettings, identity: Identity, listeners: EdgeListeners, tls: ssl.SSLContext | None = None
) -> RegisterResponse:
    """`tls`: whom it trusts, where that is not what the library does.

    Raises `Refused` for an answer that will not change; waits out everything else."""
    ask = _Asking(settings, identity, listeners)
    pause_s = 0.2
    async with httpx.AsyncClient(timeout=DEADLINE_S, trust_env=False, verify=tls or True) as client:
        while True:
            for url in settings.control_urls:
                answer = await ask.at(client, url)
                if answer is not None:
                    identity.registered(answer.edge_id)
                    log.info("edge.registered", edge=answer.edge_id, region=answer.region)
                    return answer
            await asyncio.sleep(pause_s * (0.5 + random.random()))
            pause_s = min(pause_s * 2, PAUSE_MAX_S)


class _Asking:
    """Of one registration."""

    def __init__(self, settings: EdgeSettings, identity: Identity, listeners: EdgeListeners) -> None:
        self._settings = settings
        self._identity = identity
        self._body = RegisterRequest(
            name=settings.name,
            region=settings.region,
            incarnation=identity.incarnation,
            listeners=listeners,
            capacity_calls=settings.capacity_calls,
            public_key=identity.public_key,
            version=software(),
        )

    async def at(self, client: httpx.AsyncClient, url: str) -> RegisterResponse | None:
        """None where this one has no answer. Raises `Refused`."""
        identity = self._identity
        if identity.next_key is not None and identity.edge_id:
            body = msgspec.structs.replace(self._body, public_key=public_text(identity.next_key))
            token = identity.token(self._settings.region, identity.next_key)
            try:
                answer = await _ask(client, url, msgspec.json.encode(body), token)
            except Revoked:
                raise
            except Refused:
                log.info("registration.next_key_unknown")
            else:
                if answer is not None:
                    identity.settled()
                return answer
        body = msgspec.structs.replace(self._body, public_key=identity.public_key)
        return await _ask(client, url, msgspec.json.encode(body), _token(self._settings, identity))


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
        why = f"{problem.get('detail', response.status_code)} {problem.get('fix', '')}".strip()
        raise Revoked(why) if problem.get("code") == EDGE_REVOKED else Refused(why)
    log.info("registration.unavailable", url=url, status=response.status_code)
    return None
