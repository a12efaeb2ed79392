"""Makes tickets. Decides what they grant and until when; the form and the sealing stand in `regions.wire.ticket`.

None is stored: a replayed create signs the same claims again. The snapshot key is derived from the call's own,
so that every ticket of a call carries the same one and a snapshot outlives the ticket it came with.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.calls.shapes import (
    DEFAULT_TURNS,
    AgentRequest,
    CallerRequest,
    EndWhenRequest,
    LatencyBudgetRequest,
    TurnsRequest,
)
from app.vault import CallKey
from regions.wire import ids
from regions.wire.ticket import (
    TICKET_AUDIENCE,
    TICKET_ISSUER,
    Agent,
    AgentSecret,
    Claims,
    EndWhen,
    Grant,
    MovedFor,
    Reconnect,
    Sealed,
    Turns,
    b64,
    seal,
    sign,
)

_encode = msgspec.json.Encoder().encode
RESUME_GRACE = timedelta(seconds=60)
AS_DEFAULT: Turns = next(f.default for f in msgspec.structs.fields(Sealed) if f.name == "turns")


class TicketKeys(Protocol):
    @property
    def signer(self) -> tuple[str, Ed25519PrivateKey]: ...
    @property
    def fleet_key(self) -> tuple[str, bytes]: ...


class TicketFor(msgspec.Struct, frozen=True, kw_only=True):
    """What a ticket is made from. `grants` in order of epoch; `secrets`: the newest first."""

    call_id: UUID
    project_id: UUID
    issued_at: datetime
    attach_by: datetime
    expire_at: datetime
    max_duration_s: int
    caller: CallerRequest
    agent: AgentRequest
    end_when: EndWhenRequest
    latency_budget: LatencyBudgetRequest
    turns: TurnsRequest
    grants: tuple[Grant, ...]
    local_targets: bool
    secrets: list[AgentSecret]
    trace: str = ""


def expiry(attach_by: datetime, max_duration_s: int) -> datetime:
    """Until when a ticket resumes: the latest end the call can have, and a little."""
    return attach_by + timedelta(seconds=max_duration_s) + RESUME_GRACE


def budget_of(wanted: LatencyBudgetRequest) -> dict[str, float]:
    """By stage, and ``total``."""
    total = {"total": wanted.total_ms} if wanted.total_ms else {}
    return total | {str(stage): ms for stage, ms in wanted.stages.items()}


def make_ticket(
    wanted: TicketFor, keys: TicketKeys, content: CallKey, moved_for: MovedFor | None = None
) -> str:
    call = ids.encode(ids.CALL, wanted.call_id)
    private = Sealed(
        agent=Agent(
            url=wanted.agent.url,
            dialect=wanted.agent.dialect,
            sample_rate=0 if wanted.agent.sample_rate is msgspec.UNSET else wanted.agent.sample_rate,
            parameters=dict(wanted.agent.parameters),
            fallback_url=wanted.agent.fallback_url,
            reconnect=Reconnect(
                sound=wanted.agent.reconnect.sound,
                deadline_s=wanted.agent.reconnect.deadline_s,
                silent_s=wanted.agent.reconnect.silent_s,
            ),
        ),
        snapshot_key=b64(content.snapshot_key),
        local_targets=wanted.local_targets,
        from_number=wanted.caller.from_ or "",
        to_number=wanted.caller.to or "",
        moved_for=moved_for,
        end_when=EndWhen(
            idle_s=wanted.end_when.idle_s,
            silence_s=wanted.end_when.silence_s,
            monologue_s=wanted.end_when.monologue_s,
        ),
        latency_budget=budget_of(wanted.latency_budget),
        turns=_turns(wanted.turns),
        secrets=wanted.secrets,
        trace=wanted.trace,
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
            _encode(private),
            key_id=fleet_key_id,
            key=fleet_key,
            nonce=os.urandom(12),
            bound_to=call,
        ),
        kind=wanted.caller.kind,
    )
    kid, signer = keys.signer
    return sign(claims, kid=kid, key=signer)


def _turns(wanted: TurnsRequest) -> Turns:
    """What is by default is left out of the ticket: it is the very object of its default."""
    if wanted is DEFAULT_TURNS:
        return AS_DEFAULT
    chosen = {
        name: value
        for name, value in msgspec.structs.asdict(wanted).items()
        if value != getattr(DEFAULT_TURNS, name)
    }
    return Turns(**chosen) if chosen else AS_DEFAULT
