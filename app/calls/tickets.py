"""Makes tickets. Decides what they grant and until when; the form and the sealing stand in `regions.wire.ticket`.

None is stored: a replayed create signs the same claims again. The snapshot key is derived from the project's content key
and the call's id, so that every ticket of a call carries the same one and a snapshot outlives the ticket it came with.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.calls.shapes import AgentRequest, CallerRequest
from app.vault import ContentKey
from regions.wire import ids
from regions.wire.ticket import (
    TICKET_AUDIENCE,
    TICKET_ISSUER,
    Agent,
    Claims,
    Grant,
    MovedFor,
    Reconnect,
    Sealed,
    b64,
    seal,
    sign,
)

RESUME_GRACE = timedelta(seconds=60)


class TicketKeys(Protocol):
    @property
    def signer(self) -> tuple[str, Ed25519PrivateKey]: ...
    @property
    def fleet_key(self) -> tuple[str, bytes]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketFor:
    """What a ticket is made from. `grants` in order of epoch."""

    call_id: UUID
    project_id: UUID
    issued_at: datetime
    attach_by: datetime
    expire_at: datetime
    max_duration_s: int
    caller: CallerRequest
    agent: AgentRequest
    grants: tuple[Grant, ...]
    local_targets: bool


def expiry(attach_by: datetime, max_duration_s: int) -> datetime:
    """Until when a ticket resumes: the latest end the call can have, and a little."""
    return attach_by + timedelta(seconds=max_duration_s) + RESUME_GRACE


def make_ticket(
    wanted: TicketFor, keys: TicketKeys, content_key: ContentKey, moved_for: MovedFor | None = None
) -> str:
    call = ids.encode(ids.CALL, wanted.call_id)
    snapshot_key = hmac.digest(content_key.secret, b"snapshot:" + wanted.call_id.bytes, "sha256")
    private = Sealed(
        agent=Agent(
            url=wanted.agent.url,
            dialect=wanted.agent.dialect,
            parameters=dict(wanted.agent.parameters),
            fallback_url=wanted.agent.fallback_url,
            reconnect=Reconnect(
                sound=wanted.agent.reconnect.sound,
                deadline_s=wanted.agent.reconnect.deadline_s,
                silent_s=wanted.agent.reconnect.silent_s,
            ),
        ),
        snapshot_key=b64(snapshot_key),
        local_targets=wanted.local_targets,
        from_number=wanted.caller.from_ or "",
        to_number=wanted.caller.to or "",
        moved_for=moved_for,
    )
    fleet_key_id, fleet_key = keys.fleet_key
    claims = Claims(
        iss=TICKET_ISSUER,
        aud=TICKET_AUDIENCE,
        call=call,
        project=ids.encode(ids.PROJECT, wanted.project_id),
        jti=b64(os.urandom(12)),
        iat=int(wanted.issued_at.timestamp()),
        exp=int(wanted.expire_at.timestamp()),
        attach_by=int(wanted.attach_by.timestamp()),
        max_s=wanted.max_duration_s,
        grants=list(wanted.grants),
        sealed=seal(
            msgspec.json.encode(private),
            key_id=fleet_key_id,
            key=fleet_key,
            nonce=os.urandom(12),
            bound_to=call,
        ),
        kind=wanted.caller.kind,
    )
    kid, signer = keys.signer
    return sign(claims, kid=kid, key=signer)
