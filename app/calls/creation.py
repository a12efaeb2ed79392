"""A create as it is stored: the call, its first event, the right to own it. Pure: time, ids and the hash are parameters."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from app.calls.policy import normalised
from app.calls.shapes import DEFAULT_TURNS, CallerRequest, CreateCall, PlacementView, TurnsRequest
from app.calls.store import CreateLimit, NewCall, StoredRequest
from app.calls.tickets import expiry
from app.errors import BadRequest
from app.placement.choice import Placement
from app.projects.agent_secret import Version
from app.vault import CallKey, ProjectKey

KEY_CHARS_MAX = 255
_ordered = msgspec.json.Encoder(order="deterministic").encode
_encode = msgspec.json.Encoder().encode


def checked_key(key: str | None) -> str:
    """The Idempotency-Key; raises `BadRequest`."""
    if not key:
        raise BadRequest(
            "A create needs an Idempotency-Key.",
            code="idempotency_key_required",
            fix="Send `Idempotency-Key: <a fresh UUID>`, and the same one when you send the same create again.",
        )
    if len(key) > KEY_CHARS_MAX or not key.isprintable():
        raise BadRequest(
            "The Idempotency-Key is too long, or has characters that cannot be printed.",
            code="bad_idempotency_key",
            fix="Use at most 255 printable characters.",
        )
    return key


def caller_of(body: CreateCall) -> CallerRequest:
    """The caller with its numbers in one form, so that the same number reads the same everywhere, and without its address."""
    caller = body.caller
    if caller.address is not msgspec.UNSET:
        caller = msgspec.structs.replace(caller, address=msgspec.UNSET)
    if not (caller.from_ or caller.to):
        return caller
    return msgspec.structs.replace(
        caller,
        from_=normalised(caller.from_) if caller.from_ else None,
        to=normalised(caller.to) if caller.to else None,
    )


def turns_of(body: CreateCall) -> TurnsRequest:
    """The one default object where all is by default: it is left out of what is stored, and of the hash."""
    turns = body.turns
    return DEFAULT_TURNS if turns is DEFAULT_TURNS or turns == DEFAULT_TURNS else turns


def body_hash(body: CreateCall) -> bytes:
    """What tells a repeated create from another one under the same key; the order of fields and what was left out do not, nor
    does the caller's address: whoever had the hash could find it by trying all there are."""
    turns = turns_of(body)
    if turns is not body.turns:
        body = msgspec.structs.replace(body, turns=turns)
    if body.caller.address is not msgspec.UNSET:
        body = msgspec.structs.replace(
            body, caller=msgspec.structs.replace(body.caller, address=msgspec.UNSET)
        )
    return hashlib.sha256(_ordered(body)).digest()


def subject_of(key: ProjectKey, body: CreateCall) -> bytes | None:
    """Whom the call is about, as it is stored."""
    return None if body.subject is msgspec.UNSET else key.subject(body.subject)


def new_call(
    body: CreateCall,
    placed: Placement,
    placement: PlacementView,
    *,
    network: str | None,
    secret: Version,
    key: str,
    call_id: UUID,
    event_id: UUID,
    webhook_id: UUID | None,
    trace: str,
    now: datetime,
    attach_within_s: int,
    content: CallKey,
    subject: bytes | None,
    hashed: bytes,
    key_id: UUID,
    limits: tuple[CreateLimit, ...],
) -> NewCall:
    """`hashed`: of the body as sent. `network`: the caller's, where it is kept with the call; `secret`, `trace`: see `StoredRequest`.
    `content`: the call's own key, whose hash tells the log a duplicate from a conflict without reading either. `subject`: hashed."""
    caller = caller_of(body)
    attach_by = now + timedelta(seconds=attach_within_s)
    request = _stored(body, caller, network, secret, trace)
    event_data = _created_data(caller, placement, body.metadata, trace)
    return NewCall(
        key=key,
        body_hash=hashed,
        call_id=call_id,
        event_id=event_id,
        request=_encode(request),
        placement=_encode(placement),
        metadata=_encode(body.metadata),
        region=placed.region,
        edges=tuple((e.id, e.incarnation) for e in placed.edges),
        webhook_id=webhook_id,
        trace=trace,
        max_duration_s=body.max_duration_s,
        attach_by=attach_by,
        expire_at=expiry(attach_by, body.max_duration_s),
        event_data=event_data,
        event_hash=content.hash(b"call.created", event_data),
        created_at=now,
        key_id=key_id,
        limits=limits,
        wrapped=content.wrapped,
        subject=subject,
    )


def _stored(
    body: CreateCall, caller: CallerRequest, network: str | None, secret: Version, trace: str
) -> StoredRequest:
    return StoredRequest(
        agent=body.agent,
        caller=caller,
        webhook_url=body.webhook_url,
        latencies=body.latencies,
        regions=body.regions,
        turns=turns_of(body),
        network=network,
        end_when=body.end_when,
        latency_budget=body.latency_budget,
        secret=secret,
        trace=trace,
    )


def _created_data(
    caller: CallerRequest, placement: PlacementView, metadata: dict[str, str], trace: str
) -> bytes:
    data = {
        "caller": {"kind": caller.kind},
        "region": placement.region,
        "standbys": [s.region for s in placement.standbys],
        "metadata": metadata,
    }
    return _encode(data | {"traceparent": trace} if trace else data)
