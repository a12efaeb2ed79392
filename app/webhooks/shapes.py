"""Webhook endpoints on the wire of the REST API."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

EventName = Annotated[str, Meta(min_length=1, max_length=64)]
Url = Annotated[str, Meta(min_length=1, max_length=2048)]
Types = Annotated[list[EventName], Meta(min_length=1, max_length=64)]
Match = Annotated[dict[str, Annotated[str, Meta(max_length=512)]], Meta(max_length=16)]
Headers = Annotated[dict[str, Annotated[str, Meta(max_length=1024)]], Meta(max_length=16)]
Format = Literal["voxplane", "cloudevents"]
Signatures = Annotated[list[Literal["v1", "v1a"]], Meta(min_length=1, max_length=2)]
Rate = Annotated[int, Meta(ge=1, le=1_000)]
Concurrency = Annotated[int, Meta(ge=1, le=64)]
Description = Annotated[str, Meta(max_length=256)]


class CreateWebhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`types`: the event types wanted, `call.*` for all that begin so; left out, all of them. `metadata`: only of calls whose
    metadata contain this. `secret`: one of your own. `signatures`: `v1` (HMAC), `v1a` (Ed25519) or both. `rate_per_s` and
    `concurrency`: at most, over all instances. `headers`: sent with every request, never shown again.
    `format`: the body, as the feeds have it or as a CloudEvent 1.0."""

    url: Url
    description: Description = ""
    types: Types | None = None
    metadata: Match | None = None
    secret: Annotated[str, Meta(max_length=128)] | None = None
    signatures: Signatures = msgspec.field(default_factory=lambda: ["v1"])
    headers: Headers | None = None
    format: Format = "voxplane"
    rate_per_s: Rate | None = None
    concurrency: Concurrency | None = None


class ChangeWebhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays. Another `url` is asked by a handshake again. `enabled`: true also forgets why it was disabled."""

    url: Url | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    types: Types | UnsetType | None = UNSET
    metadata: Match | UnsetType | None = UNSET
    signatures: Signatures | UnsetType = UNSET
    headers: Headers | UnsetType | None = UNSET
    rate_per_s: Rate | UnsetType | None = UNSET
    concurrency: Concurrency | UnsetType | None = UNSET
    format: Format | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class RotateSecret(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`overlap_s`: so long the present secret signs too."""

    overlap_s: Annotated[int, Meta(ge=0, le=604_800)] = 86_400
    secret: Annotated[str, Meta(max_length=128)] | None = None


class SecretView(msgspec.Struct, frozen=True, kw_only=True):
    created_at: str
    expires_at: str | None


class WebhookView(msgspec.Struct, frozen=True, kw_only=True):
    """`scope`: ``project``, or ``call`` for an endpoint that calls named by `webhook_url`. `verified_at`: when it answered the
    handshake. `failing_since`: it has done nothing but fail since then. `full_since`: too many deliveries wait; what comes
    meanwhile is made up for from the log. `public_keys` (``whpk_…``): of `v1a`, the newest first."""

    id: str
    url: str
    scope: str
    description: str
    types: list[str] | None
    metadata: dict[str, str] | None
    signatures: list[str]
    header_names: list[str]
    format: str
    rate_per_s: int | None
    concurrency: int | None
    enabled: bool
    disabled_reason: str | None
    verified_at: str | None
    failing_since: str | None
    full_since: str | None
    secrets: list[SecretView]
    public_keys: list[str]
    created_at: str


class CreatedWebhook(WebhookView, frozen=True, kw_only=True):
    """`secret` (``whsec_…``) is shown this once."""

    secret: str


class WebhookPage(msgspec.Struct, frozen=True, kw_only=True):
    data: list[WebhookView]
    next_cursor: str | None = None


class SigningSecret(msgspec.Struct, frozen=True, kw_only=True):
    """The project's own secret: signs what goes to the `webhook_url` of a call."""

    secret: str


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """`event_id`: also its `webhook-id`. `url`: that was asked. `next_at`: when it was to be tried again; null: it was the last try.
    `overtook`: an earlier event of the call was parked, and this one did not wait for it. `excerpt`: of the answer's body."""

    event_id: str
    type: str
    event_seq: int
    call_id: str
    attempt: int
    url: str | None
    at: str
    duration_ms: int
    status: int | None
    error: str | None
    excerpt: str | None
    next_at: str | None
    overtook: bool


class AttemptPage(msgspec.Struct, frozen=True, kw_only=True):
    data: list[AttemptView]
    next_cursor: str | None = None


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: ``waiting`` (for the one before it, or for its next attempt, `next_at`), ``in_flight``, ``parked``, ``delivered``
    or ``failed``. `attempts`: over all rounds. `jurisdictions`: that the call allows; it is sent from there alone, and waits where
    nobody there sends."""

    call_id: str
    event_seq: int
    state: str
    attempts: int
    next_at: str | None
    last_status: int | None
    last_error: str | None
    jurisdictions: list[str]
    replay: bool
    done_at: str | None


class DeliveryPage(msgspec.Struct, frozen=True, kw_only=True):
    data: list[DeliveryView]
    next_cursor: str | None = None


class TestWebhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: EventName = "call.ended"


class TestResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the endpoint answered to one signed event that never happened. `ok`: with 2xx."""

    ok: bool
    event_id: str
    type: str
    status: int | None
    error: str | None
    duration_ms: int
    excerpt: str | None
    fix: str | None


class HealthView(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: ``ok``, ``unverified``, ``failing``, ``full`` or ``disabled``. Rates and times are over the attempts of the last hour,
    the newest 10,000 of them; `waiting` is counted every few seconds. `disables_at`: when it is disabled if it goes on so."""

    state: str
    attempts: int
    succeeded: int
    p50_ms: int | None
    p99_ms: int | None
    waiting: int
    oldest_waiting_s: float | None
    failing_since: str | None
    disables_at: str | None
    last_error: str | None


class Resend(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One event, by the call and `seq` that it carries."""

    call_id: Annotated[str, Meta(max_length=64)]
    seq: Annotated[int, Meta(ge=1, le=2_147_483_646)]


class Recover(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`what`: ``failed`` for good, ``missing`` (never queued: it was disabled, full, or did not exist), ``undelivered`` for both, or
    ``all``, delivered ones too. `since`, `until`: RFC 3339; when the events were stored."""

    since: Annotated[str, Meta(max_length=40)]
    until: Annotated[str, Meta(max_length=40)] | None = None
    what: Literal["failed", "missing", "undelivered", "all"] = "undelivered"


class ReplayView(msgspec.Struct, frozen=True, kw_only=True):
    """`queued`: deliveries made so far; `waiting`: those among them that are not through yet. `state`: ``running``, ``done`` (all are
    queued) or ``canceled``."""

    id: str
    webhook_id: str
    what: str
    since: str
    until: str
    state: str
    queued: int
    waiting: int
    created_at: str
    done_at: str | None


class ReplayPage(msgspec.Struct, frozen=True, kw_only=True):
    data: list[ReplayView]
    next_cursor: str | None = None
